//! Incidents and the hosts that belong to them.

use uuid::Uuid;
use watchkeep_core::ids::{AlertId, ClientId, ContractId, SiteId, TicketId};
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};

const OPEN: &str = "SELECT ticket_id, scope, opened_at, total, last_return_at, reported_at \
    FROM incident WHERE ended_at IS NULL ORDER BY scope";
const MEMBERS: &str = "SELECT a.id, a.host_id, a.ticket_id FROM alert a \
    JOIN incident i ON i.ticket_id = a.ticket_id \
    WHERE i.ended_at IS NULL AND a.cleared_at IS NULL";
const PUT: &str = "INSERT INTO incident \
    (ticket_id, scope, opened_at, total, last_return_at, reported_at, ended_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (ticket_id) DO UPDATE SET \
    opened_at = excluded.opened_at, total = excluded.total, \
    last_return_at = excluded.last_return_at, reported_at = excluded.reported_at, \
    ended_at = excluded.ended_at";
const MOVE_ALERTS: &str =
    "UPDATE alert SET ticket_id = $2 WHERE ticket_id = $1 AND cleared_at IS NULL";
const END: &str = "UPDATE incident SET ended_at = $2 WHERE ticket_id = $1";
const SITE: &str = "SELECT client_id, contract_id, name FROM site WHERE id = $1";
const MISSING: &str = "SELECT h.name FROM alert a JOIN host h ON h.id = a.host_id \
    WHERE a.ticket_id = $1 AND a.cleared_at IS NULL ORDER BY h.name, h.id LIMIT $2";
const LINKED: &str = "SELECT h.name, t.number FROM alert a JOIN host h ON h.id = a.host_id \
    JOIN ticket t ON t.id = a.ticket_id WHERE a.cleared_at IS NULL AND a.rule_id = $1 \
    AND h.site_id = $2 AND t.host_id = h.id AND t.state NOT IN ('resolved', 'closed') \
    ORDER BY t.number LIMIT $3";

statements! {
    OPEN, MEMBERS, PUT, MOVE_ALERTS, END, SITE, MISSING, LINKED
}

row! {
    /// An open incident as stored.
    #[derive(Clone, Debug)]
    pub struct IncidentRow {
        pub ticket_id: Uuid,
        /// As [`watchkeep_core::incidents::IncidentScope`] writes it.
        pub scope: String,
        /// When this episode began.
        pub opened_at: i64,
        /// Hosts that are or were part of it.
        pub total: i64,
        /// When a host last came back.
        pub last_return_at: Option<i64>,
        /// When those that did not come back were reported.
        pub reported_at: Option<i64>,
    }
}

row! {
    struct SiteRow {
        client_id: Uuid,
        contract_id: Option<Uuid>,
        name: String,
    }
}

/// A host whose silence belongs to an open incident.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The alert about its silence.
    pub alert: AlertId,
    pub host: HostId,
    /// The incident's ticket.
    pub ticket: TicketId,
}

/// Whose site it is.
#[derive(Clone, Debug)]
pub struct Site {
    pub client: ClientId,
    /// What covers its hosts.
    pub contract: Option<ContractId>,
    pub name: String,
}

/// All open incidents.
pub async fn open(store: &Store) -> Result<Vec<IncidentRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(OPEN).fetch_all(c).await)?)
}

/// The silent hosts of all open incidents.
pub async fn members(store: &Store) -> Result<Vec<Member>, StoreError> {
    let rows: Vec<(Uuid, Uuid, Uuid)> =
        on_read!(store, c => sqlx::query_as(MEMBERS).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .map(|(alert, host, ticket)| Member {
            alert: AlertId(alert),
            host: HostId(host),
            ticket: TicketId(ticket),
        })
        .collect())
}

/// Writes an incident.
pub async fn put(
    tx: &mut Tx,
    row: &IncidentRow,
    ended_at: Option<UnixMillis>,
) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(PUT)
        .bind(row.ticket_id)
        .bind(&row.scope)
        .bind(row.opened_at)
        .bind(row.total)
        .bind(row.last_return_at)
        .bind(row.reported_at)
        .bind(ended_at.map(|at| at.0))
        .execute(c).await.map(drop))?;
    Ok(())
}

/// An incident continues with another ticket: its firing alerts go there, and its row ends.
pub async fn move_to(
    tx: &mut Tx,
    from: TicketId,
    to: TicketId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(MOVE_ALERTS).bind(from.uuid()).bind(to.uuid())
        .execute(c).await.map(drop))?;
    on_tx!(tx, c => sqlx::query(END).bind(from.uuid()).bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// A site, as a transaction sees it.
pub async fn site(tx: &mut Tx, id: SiteId) -> Result<Option<Site>, StoreError> {
    let row: Option<SiteRow> =
        on_tx!(tx, c => sqlx::query_as(SITE).bind(id.uuid()).fetch_optional(c).await)?;
    Ok(row.map(|row| Site {
        client: ClientId(row.client_id),
        contract: row.contract_id.map(ContractId),
        name: row.name,
    }))
}

/// Names of hosts whose alerts on a ticket still fire, by name.
pub async fn missing(
    tx: &mut Tx,
    ticket: TicketId,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String,)> = on_tx!(tx, c => sqlx::query_as(MISSING)
        .bind(ticket.uuid()).bind(limit as i64).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(name,)| name).collect())
}

/// Hosts of a site that have open tickets of their own about an alert of this rule, with their
/// numbers.
pub async fn linked(
    tx: &mut Tx,
    rule: &str,
    site: SiteId,
    limit: usize,
) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(on_tx!(tx, c => sqlx::query_as(LINKED)
        .bind(rule).bind(site.uuid()).bind(limit as i64).fetch_all(c).await)?)
}
