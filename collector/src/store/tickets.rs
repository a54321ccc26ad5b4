//! Tickets and their timelines. Decisions are made elsewhere; a ticket is read, decided upon and
//! written within one transaction.

use uuid::Uuid;
use watchkeep_core::{
    ids::{ClientId, ContractId, TicketId, UserId},
    rules::CheckKey,
    tickets::{Ticket, TicketEvent, escalation_due_at, open_key},
};
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    row::row,
    tx::{on_read, on_tx},
};

macro_rules! ticket_columns {
    () => {
        "id, number, client_id, contract_id, host_id, check_key, title, priority, severity, \
         state, opened_at, episode_at, acknowledged_at, first_response_at, resolved_at, \
         touched_by_human, assignee, tier, previous_id"
    };
}

const BY_ID: &str = concat!("SELECT ", ticket_columns!(), " FROM ticket WHERE id = $1");
/// On PostgreSQL two writers could read the same ticket; on SQLite the transaction is the lock.
const BY_ID_LOCKED: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE id = $1 FOR UPDATE"
);
/// The open ticket of a key, else the one resolved last.
const BY_KEY: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE dedup_key = $1 ORDER BY \
     CASE WHEN state IN ('resolved', 'closed') THEN 1 ELSE 0 END, opened_at DESC LIMIT 1"
);
const BY_KEY_LOCKED: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE dedup_key = $1 ORDER BY \
     CASE WHEN state IN ('resolved', 'closed') THEN 1 ELSE 0 END, opened_at DESC LIMIT 1 FOR UPDATE"
);
const DUE: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE escalate_at IS NOT NULL AND escalate_at <= $1 ORDER BY escalate_at LIMIT 100"
);
const OPEN: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE state NOT IN ('resolved', 'closed') ORDER BY opened_at"
);
const WITHOUT_EVIDENCE: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE host_id IS NOT NULL AND check_key IS NOT NULL AND opened_at >= $1 \
     AND NOT EXISTS (SELECT 1 FROM ticket_evidence WHERE ticket_evidence.ticket_id = ticket.id) \
     ORDER BY opened_at LIMIT 100"
);
const NEXT_NUMBER: &str =
    "UPDATE counter SET value = value + 1 WHERE name = 'ticket' RETURNING value";
const PUT: &str = "INSERT INTO ticket (id, number, client_id, contract_id, host_id, check_key, \
    title, priority, severity, state, opened_at, episode_at, acknowledged_at, first_response_at, \
    resolved_at, touched_by_human, assignee, tier, previous_id, dedup_key, escalate_at, updated_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, \
    $20, $21, $22) ON CONFLICT (id) DO UPDATE SET title = excluded.title, \
    priority = excluded.priority, severity = excluded.severity, state = excluded.state, \
    episode_at = excluded.episode_at, acknowledged_at = excluded.acknowledged_at, \
    first_response_at = excluded.first_response_at, resolved_at = excluded.resolved_at, \
    touched_by_human = excluded.touched_by_human, assignee = excluded.assignee, \
    tier = excluded.tier, escalate_at = excluded.escalate_at, updated_at = excluded.updated_at";
const INSERT_EVENT: &str = "INSERT INTO ticket_event (id, ticket_id, at, actor, kind, detail) \
    VALUES ($1, $2, $3, $4, $5, $6)";
const PUT_EVIDENCE: &str = "INSERT INTO ticket_evidence (ticket_id, body) VALUES ($1, $2) \
    ON CONFLICT (ticket_id) DO NOTHING";

row! {
    struct TicketRow {
        id: Uuid,
        number: i64,
        client_id: Uuid,
        contract_id: Option<Uuid>,
        host_id: Option<Uuid>,
        check_key: Option<String>,
        title: String,
        priority: String,
        severity: String,
        state: String,
        opened_at: i64,
        episode_at: i64,
        acknowledged_at: Option<i64>,
        first_response_at: Option<i64>,
        resolved_at: Option<i64>,
        touched_by_human: bool,
        assignee: Option<Uuid>,
        tier: i32,
        previous_id: Option<Uuid>,
    }
}

impl TryFrom<TicketRow> for Ticket {
    type Error = StoreError;

    fn try_from(row: TicketRow) -> Result<Self, StoreError> {
        let word = |column: &'static str, error: &dyn std::fmt::Display| {
            StoreError::corrupt("ticket", column, row.id, error)
        };
        Ok(Self {
            priority: row.priority.parse().map_err(|e| word("priority", &e))?,
            severity: row.severity.parse().map_err(|e| word("severity", &e))?,
            state: row.state.parse().map_err(|e| word("state", &e))?,
            tier: u8::try_from(row.tier).map_err(|e| word("tier", &e))?,
            id: TicketId(row.id),
            number: row.number,
            client: ClientId(row.client_id),
            contract: row.contract_id.map(ContractId),
            host: row.host_id.map(HostId),
            check: row.check_key.map(CheckKey),
            title: row.title,
            opened_at: UnixMillis(row.opened_at),
            episode_at: UnixMillis(row.episode_at),
            acknowledged_at: row.acknowledged_at.map(UnixMillis),
            first_response_at: row.first_response_at.map(UnixMillis),
            resolved_at: row.resolved_at.map(UnixMillis),
            touched_by_human: row.touched_by_human,
            assignee: row.assignee.map(UserId),
            previous: row.previous_id.map(TicketId),
        })
    }
}

/// A ticket, locked against other writers where the database can.
pub async fn by_id(tx: &mut Tx, id: TicketId) -> Result<Option<Ticket>, StoreError> {
    let sql = match tx {
        Tx::Sqlite(_) => BY_ID,
        Tx::Postgres(_) => BY_ID_LOCKED,
    };
    let row: Option<TicketRow> =
        on_tx!(tx, c => sqlx::query_as(sql).bind(id.uuid()).fetch_optional(c).await)?;
    row.map(Ticket::try_from).transpose()
}

/// A ticket, for reading.
pub async fn read(store: &Store, id: TicketId) -> Result<Option<Ticket>, StoreError> {
    let row: Option<TicketRow> =
        on_read!(store, c => sqlx::query_as(BY_ID).bind(id.uuid()).fetch_optional(c).await)?;
    row.map(Ticket::try_from).transpose()
}

/// The open ticket of a key, else the one opened last.
pub async fn by_key(tx: &mut Tx, key: &str) -> Result<Option<Ticket>, StoreError> {
    let sql = match tx {
        Tx::Sqlite(_) => BY_KEY,
        Tx::Postgres(_) => BY_KEY_LOCKED,
    };
    let row: Option<TicketRow> =
        on_tx!(tx, c => sqlx::query_as(sql).bind(key).fetch_optional(c).await)?;
    row.map(Ticket::try_from).transpose()
}

/// Tickets whose escalation is due.
pub async fn due(store: &Store, now: UnixMillis) -> Result<Vec<Ticket>, StoreError> {
    let rows: Vec<TicketRow> =
        on_read!(store, c => sqlx::query_as(DUE).bind(now.0).fetch_all(c).await)?;
    rows.into_iter().map(Ticket::try_from).collect()
}

/// All open tickets, oldest first.
pub async fn open(store: &Store) -> Result<Vec<Ticket>, StoreError> {
    let rows: Vec<TicketRow> = on_read!(store, c => sqlx::query_as(OPEN).fetch_all(c).await)?;
    rows.into_iter().map(Ticket::try_from).collect()
}

/// Tickets opened since then whose evidence has not been kept yet.
pub async fn without_evidence(store: &Store, since: UnixMillis) -> Result<Vec<Ticket>, StoreError> {
    let rows: Vec<TicketRow> =
        on_read!(store, c => sqlx::query_as(WITHOUT_EVIDENCE).bind(since.0).fetch_all(c).await)?;
    rows.into_iter().map(Ticket::try_from).collect()
}

/// The number of the next ticket.
pub async fn next_number(tx: &mut Tx) -> Result<i64, StoreError> {
    let (number,): (i64,) = on_tx!(tx, c => sqlx::query_as(NEXT_NUMBER).fetch_one(c).await)?;
    Ok(number)
}

/// Writes a ticket. A second open automatic ticket of one key is refused by the database.
pub async fn put(tx: &mut Tx, ticket: &Ticket, now: UnixMillis) -> Result<(), StoreError> {
    let key = ticket
        .check
        .as_ref()
        .map(|check| open_key(ticket.contract, ticket.host, check));
    on_tx!(tx, c => sqlx::query(PUT)
        .bind(ticket.id.uuid())
        .bind(ticket.number)
        .bind(ticket.client.uuid())
        .bind(ticket.contract.map(ContractId::uuid))
        .bind(ticket.host.map(HostId::uuid))
        .bind(ticket.check.as_ref().map(CheckKey::as_str))
        .bind(&ticket.title)
        .bind(ticket.priority.as_str())
        .bind(ticket.severity.as_str())
        .bind(ticket.state.as_str())
        .bind(ticket.opened_at.0)
        .bind(ticket.episode_at.0)
        .bind(ticket.acknowledged_at.map(|at| at.0))
        .bind(ticket.first_response_at.map(|at| at.0))
        .bind(ticket.resolved_at.map(|at| at.0))
        .bind(ticket.touched_by_human)
        .bind(ticket.assignee.map(UserId::uuid))
        .bind(i32::from(ticket.tier))
        .bind(ticket.previous.map(TicketId::uuid))
        .bind(key)
        .bind(escalation_due_at(ticket).map(|at| at.0))
        .bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Adds to a ticket's timeline.
pub async fn insert_event(
    tx: &mut Tx,
    id: i64,
    ticket: TicketId,
    event: &TicketEvent,
) -> Result<(), StoreError> {
    let corrupt = |error| StoreError::corrupt("ticket_event", "detail", id, error);
    let actor = serde_json::to_string(&event.actor).map_err(corrupt)?;
    let detail = serde_json::to_value(&event.kind).map_err(corrupt)?;
    let kind = detail
        .get("kind")
        .and_then(|kind| kind.as_str())
        .unwrap_or_default()
        .to_owned();
    on_tx!(tx, c => sqlx::query(INSERT_EVENT)
        .bind(id)
        .bind(ticket.uuid())
        .bind(event.at.0)
        .bind(&actor)
        .bind(&kind)
        .bind(detail.to_string())
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Keeps the metric around a breach, once.
pub async fn put_evidence(tx: &mut Tx, ticket: TicketId, body: &str) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(PUT_EVIDENCE).bind(ticket.uuid()).bind(body)
        .execute(c).await.map(drop))?;
    Ok(())
}
