//! The outbox: what is to be delivered, written in the transaction of its cause.

use uuid::Uuid;
use watchkeep_core::ids::TicketId;
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    Store, StoreError, Tx,
    row::row,
    tx::{on_read, on_tx},
};

const INSERT: &str = "INSERT INTO outbox (id, ticket_id, channel, kind, payload, state, \
    attempts, next_at, lease_until, created_at) VALUES ($1, $2, $3, $4, $5, 'pending', 0, $6, 0, $6)";
/// Claims due rows in one statement; the lease condition stands inside and outside, so that of two
/// claimers one wins on PostgreSQL too.
const CLAIM: &str = "UPDATE outbox SET lease_token = $1, lease_until = $2 \
    WHERE id IN (SELECT id FROM outbox WHERE state = 'pending' AND next_at <= $3 \
        AND lease_until <= $3 ORDER BY next_at, id LIMIT $4) \
    AND state = 'pending' AND lease_until <= $3 \
    RETURNING id, ticket_id, channel, kind, payload, attempts";
const DONE: &str = "UPDATE outbox SET state = $3, attempts = attempts + 1, done_at = $4, \
    lease_until = 0, last_error = NULL WHERE id = $1 AND lease_token = $2";
const RETRY: &str = "UPDATE outbox SET attempts = attempts + 1, next_at = $3, lease_until = 0, \
    last_error = $4 WHERE id = $1 AND lease_token = $2 AND state = 'pending'";
const DEAD: &str = "UPDATE outbox SET attempts = attempts + 1, state = 'dead', done_at = $3, \
    lease_until = 0, last_error = $4 WHERE id = $1 AND lease_token = $2 AND state = 'pending'";
const CANCEL: &str = "UPDATE outbox SET state = 'cancelled', done_at = $2 \
    WHERE ticket_id = $1 AND kind = 'page' AND state = 'pending'";
const STILL_WANTED: &str =
    "SELECT COUNT(*) FROM outbox WHERE id = $1 AND state = 'pending' AND lease_token = $2";
const ATTEMPT: &str =
    "INSERT INTO outbox_attempt (id, outbox_id, at, error) VALUES ($1, $2, $3, $4)";
const NEXT_DUE: &str = "SELECT MIN(next_at) FROM outbox WHERE state = 'pending'";

/// Rows claimed at a time.
const CLAIM_ROWS: i64 = 16;

/// Something to deliver, about to be stored.
#[derive(Debug)]
pub struct NewMessage {
    /// Its row.
    pub id: i64,
    /// What it is about.
    pub ticket: Option<TicketId>,
    /// `mail` or `webhook`.
    pub channel: &'static str,
    /// `page` (wakes people; cancelled by an acknowledgement) or `notice`.
    pub kind: &'static str,
    /// JSON.
    pub payload: String,
}

row! {
    /// A claimed message.
    #[derive(Clone, Debug)]
    pub struct Message {
        /// Its row.
        pub id: i64,
        /// What it is about.
        pub ticket_id: Option<Uuid>,
        /// How it goes.
        pub channel: String,
        /// `page` or `notice`.
        pub kind: String,
        /// JSON.
        pub payload: String,
        /// Attempts so far.
        pub attempts: i32,
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Attempt<'a> {
    /// Delivered.
    Sent,
    /// Failed; again at that time.
    Retry(UnixMillis, &'a str),
    /// Failed for good.
    Dead(&'a str),
}

/// Stores a message, due at once.
pub async fn insert(tx: &mut Tx, message: &NewMessage, now: UnixMillis) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(INSERT)
        .bind(message.id)
        .bind(message.ticket.map(TicketId::uuid))
        .bind(message.channel)
        .bind(message.kind)
        .bind(&message.payload)
        .bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Claims messages that are due.
pub async fn claim(
    store: &Store,
    token: Uuid,
    now: UnixMillis,
    lease: DurationMs,
) -> Result<Vec<Message>, StoreError> {
    let mut tx = store.begin().await?;
    let rows = on_tx!(&mut tx, c => sqlx::query_as(CLAIM)
        .bind(token).bind((now + lease).0).bind(now.0).bind(CLAIM_ROWS)
        .fetch_all(c).await)?;
    tx.commit().await?;
    Ok(rows)
}

/// Whether a claimed message still is to be sent: an acknowledgement may have cancelled it since.
pub async fn still_wanted(store: &Store, id: i64, token: Uuid) -> Result<bool, StoreError> {
    let (count,): (i64,) = on_read!(store, c => sqlx::query_as(STILL_WANTED)
        .bind(id).bind(token).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Records how an attempt ended, and the attempt itself.
pub async fn finish(
    store: &Store,
    message: &Message,
    token: Uuid,
    attempt: Attempt<'_>,
    (row, now): (i64, UnixMillis),
) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let error = match attempt {
        Attempt::Sent => {
            on_tx!(&mut tx, c => sqlx::query(DONE).bind(message.id).bind(token).bind("sent")
                .bind(now.0).execute(c).await.map(drop))?;
            None
        }
        Attempt::Retry(next, error) => {
            on_tx!(&mut tx, c => sqlx::query(RETRY).bind(message.id).bind(token).bind(next.0)
                .bind(error).execute(c).await.map(drop))?;
            Some(error)
        }
        Attempt::Dead(error) => {
            on_tx!(&mut tx, c => sqlx::query(DEAD).bind(message.id).bind(token).bind(now.0)
                .bind(error).execute(c).await.map(drop))?;
            Some(error)
        }
    };
    on_tx!(&mut tx, c => sqlx::query(ATTEMPT).bind(row).bind(message.id).bind(now.0).bind(error)
        .execute(c).await.map(drop))?;
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

/// When the next message is due.
pub async fn next_due(store: &Store) -> Result<Option<UnixMillis>, StoreError> {
    let (at,): (Option<i64>,) = on_read!(store, c => sqlx::query_as(NEXT_DUE).fetch_one(c).await)?;
    Ok(at.map(UnixMillis))
}
