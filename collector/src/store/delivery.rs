//! State of message delivery: recipients and their failures, pages that reached nobody, queues in figures,
//! and the names and alerts that a message about a ticket shows.

use sqlx::{query, query_as};
use uuid::Uuid;
use watchkeep_core::{
    ids::{ContractId, SiteId, TicketId, UserId},
    tickets::Ticket,
};
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    outbox::Message,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};

/// Pages read in one pass.
const PASS_ROWS: i64 = 500;
/// Copies of one message that are read: more than all recipients that can be configured.
const COPIES: i64 = 256;
/// Alerts of a ticket that a message shows.
const ALERTS_SHOWN: i64 = 5;

const RECIPIENT_SENT: &str = "INSERT INTO recipient (channel, address, last_sent_at, failures) \
    VALUES ($1, $2, $3, 0) ON CONFLICT (channel, address) DO UPDATE SET \
    last_sent_at = excluded.last_sent_at, failures = 0, failing_since = NULL, last_error = NULL";
const RECIPIENT_FAILED: &str = "INSERT INTO recipient (channel, address, failing_since, \
    last_failed_at, failures, last_error) VALUES ($1, $2, $3, $3, 1, $4) \
    ON CONFLICT (channel, address) DO UPDATE SET \
    failing_since = COALESCE(recipient.failing_since, excluded.failing_since), \
    last_failed_at = excluded.last_failed_at, failures = recipient.failures + 1, \
    last_error = excluded.last_error";
const RECIPIENTS: &str = "SELECT channel, address, last_sent_at, failing_since, last_failed_at, \
    failures, last_error, reported_at FROM recipient ORDER BY channel, address";
const RECIPIENT_REPORTED: &str =
    "UPDATE recipient SET reported_at = $3 WHERE channel = $1 AND address = $2";
const RECIPIENT_NOT_REPORTED: &str = "UPDATE recipient SET reported_at = NULL \
    WHERE channel = $1 AND address = $2 AND failing_since IS NULL";
const REMOVE_RECIPIENT: &str = "DELETE FROM recipient WHERE channel = $1 AND address = $2";
const QUEUED_FOR: &str = "SELECT DISTINCT channel, recipient FROM outbox WHERE state = 'pending'";
const GIVE_UP: &str = "UPDATE outbox SET state = 'dead', done_at = $3, last_error = $4 \
    WHERE state = 'pending' AND channel = $1 AND recipient = $2";

macro_rules! undelivered {
    ($rest:literal) => {
        concat!(
            "SELECT id, message_id, ticket_id, channel, recipient, tier, state, payload, \
             created_at, last_error FROM outbox WHERE ",
            $rest
        )
    };
}
const TO_HAND_OVER: &str = undelivered!(
    "kind = 'page' AND state IN ('pending', 'dead') AND handed_over_at IS NULL \
     AND (state = 'dead' OR created_at <= $1) ORDER BY created_at, id LIMIT $2"
);
const TO_REPORT: &str = undelivered!(
    "kind = 'page' AND state IN ('pending', 'dead') AND reported_at IS NULL \
     AND (state = 'dead' OR created_at <= $1) ORDER BY created_at, id LIMIT $2"
);
const COPIES_OF: &str = undelivered!("message_id = $1 ORDER BY id LIMIT $2");
const HANDED_OVER: &str =
    "UPDATE outbox SET handed_over_at = $2 WHERE message_id = $1 AND handed_over_at IS NULL";
const REPORTED: &str = "UPDATE outbox SET reported_at = $2 WHERE id = $1";

const QUEUES: &str = "SELECT channel, kind, COUNT(*) AS pending, MIN(created_at) AS oldest_at \
    FROM outbox WHERE state = 'pending' GROUP BY channel, kind";
const DEAD_COUNTS: &str = "SELECT channel, COUNT(*) AS dead FROM outbox \
    WHERE state = 'dead' AND done_at >= $1 GROUP BY channel";
const DEAD: &str = "SELECT o.id, o.channel, o.recipient, o.kind, o.attempts, o.created_at, \
    o.done_at, o.last_error, t.number, t.title FROM outbox o \
    LEFT JOIN ticket t ON t.id = o.ticket_id \
    WHERE o.state = 'dead' ORDER BY o.done_at DESC LIMIT $1";
const SEND_AGAIN: &str = "UPDATE outbox SET state = 'pending', next_at = $2, lease_until = 0, \
    done_at = NULL, first_failed_at = NULL WHERE id = $1 AND state = 'dead' \
    AND (kind <> 'page' OR ticket_id IS NULL OR EXISTS (SELECT 1 FROM ticket \
        WHERE ticket.id = outbox.ticket_id AND ticket.acknowledged_at IS NULL \
        AND ticket.state NOT IN ('resolved', 'closed')))";

const NAMES: &str = "SELECT c.name AS client, \
    (SELECT s.name FROM site s WHERE s.id = $4 \
        OR s.id = (SELECT h.site_id FROM host h WHERE h.id = $2)) AS site, \
    (SELECT k.name FROM contract k WHERE k.id = $3) AS contract, \
    (SELECT h.name FROM host h WHERE h.id = $2) AS host, \
    (SELECT u.name FROM app_user u WHERE u.id = $5) AS assignee \
    FROM client c WHERE c.id = $1";
const FIRING: &str = "SELECT rule_id, check_key, summary, evidence FROM alert \
    WHERE ticket_id = $1 AND cleared_at IS NULL ORDER BY raised_at LIMIT $2";

statements! {
    RECIPIENT_SENT, RECIPIENT_FAILED, RECIPIENTS, RECIPIENT_REPORTED, RECIPIENT_NOT_REPORTED,
    REMOVE_RECIPIENT, QUEUED_FOR, GIVE_UP, TO_HAND_OVER, TO_REPORT, COPIES_OF, HANDED_OVER,
    REPORTED, QUEUES, DEAD_COUNTS, DEAD, SEND_AGAIN, NAMES, FIRING
}

row! {
    /// State of one recipient.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Recipient {
        /// `mail` or `webhook`.
        pub channel: String,
        /// As in the outbox.
        pub address: String,
        /// When something was last delivered.
        pub last_sent_at: Option<i64>,
        /// The first failure since then.
        pub failing_since: Option<i64>,
        /// The last failure.
        pub last_failed_at: Option<i64>,
        /// Failures since the last delivery.
        pub failures: i64,
        /// Why the last one failed.
        pub last_error: Option<String>,
        /// When its failures got into a ticket; stays until its recovery got there too.
        pub reported_at: Option<i64>,
    }
}

row! {
    /// A copy of a message, for decisions about undelivered pages.
    #[derive(Clone, Debug)]
    pub struct Copy {
        pub id: i64,
        /// The row of the message's first copy.
        pub message_id: Option<i64>,
        /// What it is about.
        pub ticket_id: Option<Uuid>,
        /// `mail` or `webhook`.
        pub channel: String,
        /// The recipient.
        pub recipient: String,
        /// The line of support it is for.
        pub tier: i32,
        /// A word of `watchkeep_core::delivery::CopyState`.
        pub state: String,
        /// JSON.
        pub payload: String,
        /// When it was queued.
        pub created_at: i64,
        /// Why the last attempt failed.
        pub last_error: Option<String>,
    }
}

row! {
    /// What waits on one channel.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Queue {
        /// `mail` or `webhook`.
        pub channel: String,
        /// `page` or `notice`.
        pub kind: String,
        /// Copies waiting or being tried again.
        pub pending: i64,
        /// When the oldest was queued.
        pub oldest_at: i64,
    }
}

row! {
    /// What was given up on one channel.
    #[derive(Clone, Debug)]
    pub struct DeadCount {
        /// `mail` or `webhook`.
        pub channel: String,
        /// Copies.
        pub dead: i64,
    }
}

row! {
    /// A message that was given up.
    #[derive(Clone, Debug)]
    pub struct DeadMessage {
        pub id: i64,
        /// `mail` or `webhook`.
        pub channel: String,
        /// The recipient.
        pub recipient: String,
        /// `page` or `notice`.
        pub kind: String,
        /// Failed attempts.
        pub attempts: i32,
        /// When it was queued.
        pub created_at: i64,
        /// When it was given up.
        pub done_at: Option<i64>,
        pub last_error: Option<String>,
        /// The ticket it is about.
        pub number: Option<i64>,
        /// That ticket's title.
        pub title: Option<String>,
    }
}

row! {
    struct QueuedFor {
        channel: String,
        recipient: String,
    }
}

row! {
    /// The names that a message about a ticket shows.
    #[derive(Clone, Debug, Default)]
    pub struct Names {
        pub client: Option<String>,
        /// The site of the host, or of the incident.
        pub site: Option<String>,
        pub contract: Option<String>,
        pub host: Option<String>,
        /// Who works on it.
        pub assignee: Option<String>,
    }
}

row! {
    /// An alert that fires, as a message shows it.
    #[derive(Clone, Debug)]
    pub struct FiringAlert {
        pub rule_id: String,
        pub check_key: String,
        /// One line for people.
        pub summary: String,
        /// JSON.
        pub evidence: String,
    }
}

/// Notes an attempt at its recipient; `error` is `None` if it was delivered.
pub(super) async fn note_attempt(
    tx: &mut Tx,
    message: &Message,
    error: Option<&str>,
    at: UnixMillis,
) -> Result<(), StoreError> {
    let (channel, address) = (&message.channel, &message.recipient);
    match error {
        None => on_tx!(tx, c => query(RECIPIENT_SENT).bind(channel).bind(address).bind(at.0)
            .execute(c).await.map(drop))?,
        Some(error) => {
            on_tx!(tx, c => query(RECIPIENT_FAILED).bind(channel).bind(address)
            .bind(at.0).bind(error).execute(c).await.map(drop))?;
        }
    }
    Ok(())
}

/// How all recipients fare that anything was ever sent to.
pub async fn recipients(store: &Store) -> Result<Vec<Recipient>, StoreError> {
    Ok(on_read!(store, c => query_as(RECIPIENTS).fetch_all(c).await)?)
}

/// The same, within a transaction.
pub async fn recipients_in(tx: &mut Tx) -> Result<Vec<Recipient>, StoreError> {
    Ok(on_tx!(tx, c => query_as(RECIPIENTS).fetch_all(c).await)?)
}

/// Notes that a recipient's failures got into a ticket.
pub async fn set_reported(
    tx: &mut Tx,
    channel: &str,
    address: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    on_tx!(tx, c => query(RECIPIENT_REPORTED).bind(channel).bind(address).bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Notes that the recovery of a recipient got into its ticket. `false` if it fails again.
pub async fn set_recovered(tx: &mut Tx, channel: &str, address: &str) -> Result<bool, StoreError> {
    let count = on_tx!(tx, c => query(RECIPIENT_NOT_REPORTED).bind(channel).bind(address)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(count > 0)
}

/// Forgets a recipient that is no longer configured.
pub async fn remove_recipient(tx: &mut Tx, channel: &str, address: &str) -> Result<(), StoreError> {
    on_tx!(tx, c => query(REMOVE_RECIPIENT).bind(channel).bind(address)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Channels and recipients for which something is queued.
pub async fn queued_for(store: &Store) -> Result<Vec<(String, String)>, StoreError> {
    let rows: Vec<QueuedFor> = on_read!(store, c => query_as(QUEUED_FOR).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .map(|row| (row.channel, row.recipient))
        .collect())
}

/// Gives up what is queued for a recipient. Returns how many copies.
pub async fn give_up(
    tx: &mut Tx,
    channel: &str,
    recipient: &str,
    error: &str,
    now: UnixMillis,
) -> Result<u64, StoreError> {
    Ok(
        on_tx!(tx, c => query(GIVE_UP).bind(channel).bind(recipient).bind(now.0).bind(error)
        .execute(c).await.map(|done| done.rows_affected()))?,
    )
}

/// Pages for which it is not decided yet whether they are handed over: those given up, and those
/// queued before `queued_before` and not delivered.
pub async fn to_hand_over(
    store: &Store,
    queued_before: UnixMillis,
) -> Result<Vec<Copy>, StoreError> {
    Ok(
        on_read!(store, c => query_as(TO_HAND_OVER).bind(queued_before.0).bind(PASS_ROWS)
        .fetch_all(c).await)?,
    )
}

/// Pages whose failure is not reported yet: those given up, and those queued before
/// `queued_before` and not delivered.
pub async fn to_report(store: &Store, queued_before: UnixMillis) -> Result<Vec<Copy>, StoreError> {
    Ok(
        on_read!(store, c => query_as(TO_REPORT).bind(queued_before.0).bind(PASS_ROWS)
        .fetch_all(c).await)?,
    )
}

/// All copies of a message.
pub async fn copies(tx: &mut Tx, message: i64) -> Result<Vec<Copy>, StoreError> {
    Ok(on_tx!(tx, c => query_as(COPIES_OF).bind(message).bind(COPIES).fetch_all(c).await)?)
}

/// Notes that the hand-over of a message is decided.
pub async fn set_handed_over(tx: &mut Tx, message: i64, now: UnixMillis) -> Result<(), StoreError> {
    on_tx!(tx, c => query(HANDED_OVER).bind(message).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Notes that the failure of a copy is reported.
pub async fn set_copy_reported(tx: &mut Tx, id: i64, now: UnixMillis) -> Result<(), StoreError> {
    on_tx!(tx, c => query(REPORTED).bind(id).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// What waits on each channel.
pub async fn queues(store: &Store) -> Result<Vec<Queue>, StoreError> {
    Ok(on_read!(store, c => query_as(QUEUES).fetch_all(c).await)?)
}

/// What was given up on each channel since then.
pub async fn dead_counts(store: &Store, since: UnixMillis) -> Result<Vec<DeadCount>, StoreError> {
    Ok(on_read!(store, c => query_as(DEAD_COUNTS).bind(since.0).fetch_all(c).await)?)
}

/// Messages that were given up, newest first.
pub async fn dead(store: &Store, limit: usize) -> Result<Vec<DeadMessage>, StoreError> {
    Ok(on_read!(store, c => query_as(DEAD).bind(limit as i64).fetch_all(c).await)?)
}

/// Queues a message again that was given up. `false` if that is of no use: it is not dead, or is a
/// page about a ticket that was acknowledged or is over.
pub async fn send_again(tx: &mut Tx, id: i64, now: UnixMillis) -> Result<bool, StoreError> {
    let count = on_tx!(tx, c => query(SEND_AGAIN).bind(id).bind(now.0).execute(c).await
        .map(|done| done.rows_affected()))?;
    Ok(count > 0)
}

/// The names that a message about a ticket shows; `site` is that of an incident, whose ticket has no
/// host.
pub async fn names(
    tx: &mut Tx,
    ticket: &Ticket,
    site: Option<SiteId>,
) -> Result<Names, StoreError> {
    let names: Option<Names> = on_tx!(tx, c => query_as(NAMES)
        .bind(ticket.client.uuid())
        .bind(ticket.host.map(HostId::uuid))
        .bind(ticket.contract.map(ContractId::uuid))
        .bind(site.map(SiteId::uuid))
        .bind(ticket.assignee.map(UserId::uuid))
        .fetch_optional(c).await)?;
    Ok(names.unwrap_or_default())
}

/// Alerts of a ticket that fire, the oldest first.
pub async fn firing(tx: &mut Tx, ticket: TicketId) -> Result<Vec<FiringAlert>, StoreError> {
    Ok(
        on_tx!(tx, c => query_as(FIRING).bind(ticket.uuid()).bind(ALERTS_SHOWN)
        .fetch_all(c).await)?,
    )
}
