//! The outbox: what is to be delivered, written in the transaction of its cause. One row a copy of
//! a message: one channel, one recipient. Rows are claimed under a lease; the outcome of an attempt
//! is written together with the state of its recipient (see [`super::delivery`]).

use uuid::Uuid;
use watchkeep_core::{delivery::MessageKind, ids::TicketId};
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    Store, StoreError, Tx, delivery,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};

const INSERT: &str = "INSERT INTO outbox (id, message_id, ticket_id, channel, recipient, tier, \
    kind, payload, state, attempts, next_at, lease_until, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'pending', 0, $9, 0, $9)";
/// Claims due rows in one statement; the lease condition is in both queries, so that of two
/// claimers one wins on PostgreSQL too. One kind at a time: the index then leads to the rows.
const CLAIM: &str = "UPDATE outbox SET lease_token = $1, lease_until = $2 \
    WHERE id IN (SELECT id FROM outbox WHERE state = 'pending' AND channel = $4 AND kind = $5 \
        AND next_at <= $3 AND lease_until <= $3 ORDER BY next_at, id LIMIT $6) \
    AND state = 'pending' AND lease_until <= $3 \
    RETURNING id, message_id, ticket_id, channel, recipient, kind, payload, attempts, \
    first_failed_at, next_at";
const IS_DUE: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM outbox WHERE state = 'pending' \
    AND channel = $1 AND kind IN ('page', 'notice') AND next_at <= $2 AND lease_until <= $2 \
    LIMIT 1) AS due";
const SENT: &str = "UPDATE outbox SET state = 'sent', attempts = attempts + 1, done_at = $3, \
    lease_until = 0, last_error = NULL WHERE id = $1 AND lease_token = $2";
const RETRY: &str = "UPDATE outbox SET attempts = attempts + 1, next_at = $3, lease_until = 0, \
    last_error = $4, first_failed_at = COALESCE(first_failed_at, $5) \
    WHERE id = $1 AND lease_token = $2 AND state = 'pending'";
const DEAD: &str = "UPDATE outbox SET attempts = attempts + 1, state = 'dead', done_at = $3, \
    lease_until = 0, last_error = $4, first_failed_at = COALESCE(first_failed_at, $3) \
    WHERE id = $1 AND lease_token = $2 AND state = 'pending'";
const CANCEL: &str = "UPDATE outbox SET state = 'cancelled', done_at = $2 \
    WHERE ticket_id = $1 AND kind = 'page' AND state = 'pending'";
const STILL_WANTED: &str =
    "SELECT COUNT(*) FROM outbox WHERE id = $1 AND state = 'pending' AND lease_token = $2";
const ATTEMPT: &str =
    "INSERT INTO outbox_attempt (id, outbox_id, at, error) VALUES ($1, $2, $3, $4)";
const RELEASE: &str = "UPDATE outbox SET lease_until = 0 WHERE state = 'pending' \
    AND lease_until > 0";

statements! {
    INSERT, CLAIM, IS_DUE, SENT, RETRY, DEAD, CANCEL, STILL_WANTED, ATTEMPT, RELEASE
}

/// A copy of a message, about to be stored.
#[derive(Debug)]
pub struct NewMessage {
    pub id: i64,
    /// The row of the message's first copy.
    pub message: i64,
    /// What it is about.
    pub ticket: Option<TicketId>,
    /// `mail` or `webhook`.
    pub channel: &'static str,
    /// The channel's name of the recipient: a mail address; `tier1` or `tier2` of the webhook.
    pub recipient: String,
    /// The line of support it is for.
    pub tier: u8,
    /// Whether it wakes people.
    pub kind: MessageKind,
    /// JSON.
    pub payload: String,
}

row! {
    /// A claimed copy.
    #[derive(Clone, Debug)]
    pub struct Message {
        pub id: i64,
        /// The row of the message's first copy.
        pub message_id: i64,
        /// What it is about.
        pub ticket_id: Option<Uuid>,
        /// `mail` or `webhook`.
        pub channel: String,
        /// See [`NewMessage::recipient`].
        pub recipient: String,
        /// A word of [`MessageKind`].
        pub kind: String,
        /// JSON.
        pub payload: String,
        /// Failed attempts so far.
        pub attempts: i32,
        /// When the first attempt failed.
        pub first_failed_at: Option<i64>,
        /// When it was due.
        pub next_at: i64,
    }
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Attempt {
    /// Delivered.
    Sent,
    /// Failed, to be tried again at that time.
    Retry(UnixMillis, String),
    /// Failed for good.
    Dead(String),
}

/// The outcome of one attempt, for [`finish`].
#[derive(Clone, Debug)]
pub struct Finished {
    /// The row of the attempt.
    pub row: i64,
    /// The token under which the copy was claimed.
    pub token: Uuid,
    /// When it ended.
    pub at: UnixMillis,
    /// How it ended.
    pub attempt: Attempt,
}

/// Which copies a worker wants to claim.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub channel: &'a str,
    /// Names the claimer.
    pub token: Uuid,
    /// How long they are the claimer's.
    pub lease: DurationMs,
    /// So many at most.
    pub limit: usize,
}

/// Stores a copy of a message, due at once.
pub async fn insert(tx: &mut Tx, message: &NewMessage, now: UnixMillis) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(INSERT)
        .bind(message.id)
        .bind(message.message)
        .bind(message.ticket.map(TicketId::uuid))
        .bind(message.channel)
        .bind(&message.recipient)
        .bind(i32::from(message.tier))
        .bind(message.kind.as_str())
        .bind(&message.payload)
        .bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Claims copies that are due: pages first, then notices, each the longest due first.
pub async fn claim(
    store: &Store,
    claim: Claim<'_>,
    now: UnixMillis,
) -> Result<Vec<Message>, StoreError> {
    // Looked for by a reader first: an empty outbox costs no write transaction.
    if claim.limit == 0 || !is_due(store, claim.channel, now).await? {
        return Ok(Vec::new());
    }
    let mut claimed = Vec::new();
    let mut tx = store.begin().await?;
    for kind in [MessageKind::Page, MessageKind::Notice] {
        let free = claim.limit.saturating_sub(claimed.len());
        if free == 0 {
            break;
        }
        let mut rows: Vec<Message> = on_tx!(&mut tx, c => sqlx::query_as(CLAIM)
            .bind(claim.token).bind((now + claim.lease).0).bind(now.0).bind(claim.channel)
            .bind(kind.as_str()).bind(free as i64)
            .fetch_all(c).await)?;
        // The order of RETURNING is not that of the inner select.
        rows.sort_by_key(|row| (row.next_at, row.id));
        claimed.append(&mut rows);
    }
    tx.commit().await?;
    Ok(claimed)
}

async fn is_due(store: &Store, channel: &str, now: UnixMillis) -> Result<bool, StoreError> {
    let (count,): (i64,) = on_read!(store, c => sqlx::query_as(IS_DUE)
        .bind(channel).bind(now.0).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Whether a claimed copy still is to be sent: an acknowledgement may have cancelled it since.
pub async fn still_wanted(store: &Store, id: i64, token: Uuid) -> Result<bool, StoreError> {
    let (count,): (i64,) = on_read!(store, c => sqlx::query_as(STILL_WANTED)
        .bind(id).bind(token).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Records how an attempt ended: on the copy, as an attempt, and at its recipient.
pub async fn finish(
    store: &Store,
    message: &Message,
    finished: &Finished,
) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let (id, token, at) = (message.id, finished.token, finished.at.0);
    let error = match &finished.attempt {
        Attempt::Sent => {
            on_tx!(&mut tx, c => sqlx::query(SENT).bind(id).bind(token).bind(at)
                .execute(c).await.map(drop))?;
            None
        }
        Attempt::Retry(next, error) => {
            on_tx!(&mut tx, c => sqlx::query(RETRY).bind(id).bind(token).bind(next.0).bind(error)
                .bind(at).execute(c).await.map(drop))?;
            Some(error.as_str())
        }
        Attempt::Dead(error) => {
            on_tx!(&mut tx, c => sqlx::query(DEAD).bind(id).bind(token).bind(at).bind(error)
                .execute(c).await.map(drop))?;
            Some(error.as_str())
        }
    };
    on_tx!(&mut tx, c => sqlx::query(ATTEMPT).bind(finished.row).bind(id).bind(at).bind(error)
        .execute(c).await.map(drop))?;
    delivery::note_attempt(&mut tx, message, error, finished.at).await?;
    tx.commit().await
}

/// Cancels a ticket's pages that have not gone out.
pub async fn cancel_pages(
    tx: &mut Tx,
    ticket: TicketId,
    now: UnixMillis,
) -> Result<u64, StoreError> {
    Ok(
        on_tx!(tx, c => sqlx::query(CANCEL).bind(ticket.uuid()).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?,
    )
}

/// Ends all leases: the collector that held them has ended, and one collector serves a store.
/// Without it a page that was being sent when the collector stopped would wait for its lease.
pub async fn release(store: &Store) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let count = on_tx!(&mut tx, c => sqlx::query(RELEASE).execute(c).await
        .map(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(count)
}
