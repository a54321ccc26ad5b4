//! Reads for pages: joined, bounded, ordered for people. Nothing here writes or decides.

mod tickets;

use sqlx::{query_as, query_scalar};
use uuid::Uuid;
use watchkeep_core::{
    ids::{AlertId, ContractId, TicketId},
    search::name_order,
};
use watchkeep_shared::{HostId, UnixMillis};

use super::{Store, StoreError, row::row, statements::statements, tx::on_read};
use crate::health::Recorded;

pub use tickets::{
    Alerts, Archive, Assignee, DeliveryView, OPEN_STATES, OutageTicket, TicketEventView,
    TicketFilter, TicketView, archive, deliveries, open_tickets, outage_tickets, queue,
    queue_count, ticket, ticket_events, ticket_evidence, ticket_number, ticket_of, tickets_of_host,
};
pub(in crate::store) use tickets::{list_statements, statements as ticket_statements};

/// Alerts that [`ALERTS`] reads.
const ALERTS_AT_ONCE: usize = 12;

/// Rows that one page of a list shows at most.
pub const PAGE_ROWS: usize = 50;

const ANSWERS: &str = "SELECT COUNT(*) FROM counter";
const CLIENTS: &str = "SELECT id, name FROM client";
const FIRING_BY_HOST: &str = "SELECT host_id AS id, COUNT(*) AS count FROM alert \
    WHERE cleared_at IS NULL GROUP BY host_id";
const OPEN_BY_HOST: &str = "SELECT host_id AS id, COUNT(*) AS count FROM ticket \
    WHERE state NOT IN ('resolved', 'closed') AND host_id IS NOT NULL GROUP BY host_id";

macro_rules! hosts {
    ($rest:literal) => {
        concat!(
            "SELECT h.id, h.name, h.agent_version, h.enrolled_at, h.retired_at, h.quarantined_at, \
             h.revoked_at, h.client_id, c.name AS client, h.site_id, s.name AS site, h.contract_id, k.name AS contract, \
             h.name || ' ' || h.reported_name || ' ' || c.name || ' ' || s.name || ' ' || \
             COALESCE(k.name, '') || ' ' || h.address || ' ' || h.addresses || ' ' || h.system \
             || ' ' || h.notes AS words \
             FROM host h JOIN client c ON c.id = h.client_id JOIN site s ON s.id = h.site_id \
             LEFT JOIN contract k ON k.id = h.contract_id ",
            $rest
        )
    };
}
const HOSTS: &str = hosts!("WHERE h.retired_at IS NULL");
const HOST: &str = hosts!("WHERE h.id = $1");

macro_rules! alerts {
    ($rest:literal) => {
        concat!(
            "SELECT a.id, a.host_id, h.name AS host, a.rule_id, a.check_key, a.severity, a.summary, \
             a.evidence, a.raised_at, a.cleared_at, a.clear_reason, a.ticket_id, t.number \
             FROM alert a LEFT JOIN host h ON h.id = a.host_id \
             LEFT JOIN ticket t ON t.id = a.ticket_id ",
            $rest
        )
    };
}
const ALERTS: &str = alerts!("WHERE a.id IN ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)");
const ALERTS_OF_HOST: &str = alerts!(
    "WHERE a.host_id = $1 AND a.cleared_at IS NULL ORDER BY CASE a.severity \
     WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END, a.raised_at DESC LIMIT $2"
);
const ALERTS_OF_TICKET: &str = alerts!("WHERE a.ticket_id = $1 ORDER BY a.raised_at DESC LIMIT $2");
const OPENER: &str = alerts!("WHERE a.ticket_id = $1 ORDER BY a.raised_at LIMIT 1");

// One range of the index a kind; sorting both kinds at once would read all of their rows.
const HOST_EVENTS: &str = "SELECT id, kind, detail, at FROM ( \
      SELECT * FROM (SELECT id, kind, detail, at FROM host_event WHERE host_id = $1 \
        AND kind = $3 AND at >= $2 ORDER BY at DESC LIMIT $5) AS a \
      UNION ALL \
      SELECT * FROM (SELECT id, kind, detail, at FROM host_event WHERE host_id = $1 \
        AND kind = $4 AND kind <> $3 AND at >= $2 ORDER BY at DESC LIMIT $5) AS b \
    ) AS events ORDER BY at DESC, id DESC LIMIT $5";

macro_rules! contracts {
    ($rest:literal) => {
        concat!(
            "SELECT k.id, k.name, k.kind, k.zone, k.service_hours, k.unknown_rule, k.target_pct, \
             k.client_id, c.name AS client, (SELECT COUNT(*) FROM host h \
             WHERE h.contract_id = k.id AND h.retired_at IS NULL) AS hosts \
             FROM contract k JOIN client c ON c.id = k.client_id ",
            $rest
        )
    };
}
const CONTRACTS: &str = contracts!("");
const CONTRACT: &str = contracts!("WHERE k.id = $1");

statements! {
    ANSWERS, CLIENTS, FIRING_BY_HOST, OPEN_BY_HOST, HOSTS, HOST, ALERTS, ALERTS_OF_HOST,
    ALERTS_OF_TICKET, OPENER, HOST_EVENTS, CONTRACTS, CONTRACT
}

row! {
    /// A host with the names of what it belongs to.
    #[derive(Clone, Debug)]
    pub struct HostView {
        pub id: Uuid,
        /// Host name.
        pub name: String,
        pub agent_version: String,
        /// When its record began.
        pub enrolled_at: i64,
        /// When its record ended.
        pub retired_at: Option<i64>,
        /// Since when two machines use its identity.
        pub quarantined_at: Option<i64>,
        /// Since when all its certificates are revoked.
        pub revoked_at: Option<i64>,
        pub client_id: Uuid,
        /// Its client's name.
        pub client: String,
        pub site_id: Uuid,
        /// Its site's name.
        pub site: String,
        /// What covers it.
        pub contract_id: Option<Uuid>,
        /// Name of what covers it.
        pub contract: Option<String>,
        /// What a search looks at: names, addresses, system, notes.
        pub words: String,
    }
}

impl HostView {
    /// What of it decides how the host is.
    pub const fn recorded(&self) -> Recorded {
        Recorded {
            retired: self.retired_at.is_some(),
            quarantined: self.quarantined_at.is_some(),
            revoked: self.revoked_at.is_some(),
        }
    }
}

row! {
    /// Something with a name.
    #[derive(Clone, Debug)]
    pub struct Named {
        pub id: Uuid,
        pub name: String,
    }
}

row! {
    #[derive(Clone, Debug)]
    struct Counted {
        id: Uuid,
        count: i64,
    }
}

row! {
    /// An alert with the names of what it belongs to.
    #[derive(Clone, Debug)]
    pub struct AlertView {
        pub id: Uuid,
        pub host_id: Uuid,
        /// Its host's name.
        pub host: Option<String>,
        pub rule_id: String,
        pub check_key: String,
        /// `info`, `warning` or `critical`.
        pub severity: String,
        /// One line for people.
        pub summary: String,
        /// JSON.
        pub evidence: String,
        /// When it began to fire.
        pub raised_at: i64,
        /// When it stopped.
        pub cleared_at: Option<i64>,
        /// Why it stopped.
        pub clear_reason: Option<String>,
        pub ticket_id: Option<Uuid>,
        /// Its ticket's number.
        pub number: Option<i64>,
    }
}

row! {
    /// Something that happened on a host, as stored.
    #[derive(Clone, Debug)]
    pub struct HostEventView {
        pub id: i64,
        /// What, as a word.
        pub kind: String,
        /// JSON.
        pub detail: String,
        pub at: i64,
    }
}

row! {
    /// A contract with its client.
    #[derive(Clone, Debug)]
    pub struct ContractView {
        pub id: Uuid,
        pub name: String,
        /// `managed`, `block_hours` or `time_and_material`.
        pub kind: String,
        /// IANA time zone.
        pub zone: String,
        /// `24x7`.
        pub service_hours: String,
        /// `count_as_up`, `count_as_down` or `exclude`.
        pub unknown_rule: String,
        /// Promised availability, 0 to 100.
        pub target_pct: f64,
        pub client_id: Uuid,
        /// Its client's name.
        pub client: String,
        /// Covered hosts.
        pub hosts: i64,
    }
}

/// Fails if the store does not answer.
pub async fn answers(store: &Store) -> Result<(), StoreError> {
    let count: i64 = on_read!(store, c => query_scalar(ANSWERS).fetch_one(c).await)?;
    let _ = count;
    Ok(())
}

/// All hosts that are not retired, in any order.
pub async fn hosts(store: &Store) -> Result<Vec<HostView>, StoreError> {
    Ok(on_read!(store, c => query_as(HOSTS).fetch_all(c).await)?)
}

/// One host, retired or not.
pub async fn host(store: &Store, id: HostId) -> Result<Option<HostView>, StoreError> {
    Ok(on_read!(store, c => query_as(HOST).bind(id.uuid()).fetch_optional(c).await)?)
}

/// All clients, by name.
pub async fn clients(store: &Store) -> Result<Vec<Named>, StoreError> {
    let mut rows: Vec<Named> = on_read!(store, c => query_as(CLIENTS).fetch_all(c).await)?;
    rows.sort_by_cached_key(|row| name_order(&row.name));
    Ok(rows)
}

/// How many open tickets each host has; hosts without any are left out.
pub async fn open_tickets_by_host(store: &Store) -> Result<Vec<(HostId, i64)>, StoreError> {
    let rows: Vec<Counted> = on_read!(store, c => query_as(OPEN_BY_HOST).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .map(|row| (HostId(row.id), row.count))
        .collect())
}

/// How many alerts fire on each host; hosts without any are left out.
pub async fn firing_by_host(store: &Store) -> Result<Vec<(HostId, i64)>, StoreError> {
    let rows: Vec<Counted> = on_read!(store, c => query_as(FIRING_BY_HOST).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .map(|row| (HostId(row.id), row.count))
        .collect())
}

/// These alerts, in any order; those that are not stored are left out.
pub async fn alerts(store: &Store, ids: &[AlertId]) -> Result<Vec<AlertView>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    for piece in ids.chunks(ALERTS_AT_ONCE) {
        let rows: Vec<AlertView> = on_read!(store, c => {
            let mut query = query_as(ALERTS);
            for i in 0..ALERTS_AT_ONCE {
                // What is left over repeats the last one.
                query = query.bind(piece[i.min(piece.len() - 1)].uuid());
            }
            query.fetch_all(c).await
        })?;
        found.extend(rows);
    }
    Ok(found)
}

/// The alert that opened a ticket.
pub async fn opener(store: &Store, ticket: TicketId) -> Result<Option<AlertView>, StoreError> {
    Ok(on_read!(store, c => query_as(OPENER).bind(ticket.uuid()).fetch_optional(c).await)?)
}

/// Alerts that fire on a host, worst first.
pub async fn firing_of_host(store: &Store, host: HostId) -> Result<Vec<AlertView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(ALERTS_OF_HOST).bind(host.uuid()).bind(PAGE_ROWS as i64).fetch_all(c).await
    })?)
}

/// Alerts attached to a ticket, newest first.
pub async fn alerts_of_ticket(
    store: &Store,
    ticket: TicketId,
) -> Result<Vec<AlertView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(ALERTS_OF_TICKET).bind(ticket.uuid()).bind(PAGE_ROWS as i64).fetch_all(c).await
    })?)
}

/// A host's events of up to two kinds since an instant, newest first.
pub async fn host_events(
    store: &Store,
    host: HostId,
    since: UnixMillis,
    kinds: [&str; 2],
    limit: usize,
) -> Result<Vec<HostEventView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(HOST_EVENTS)
            .bind(host.uuid())
            .bind(since.0)
            .bind(kinds[0])
            .bind(kinds[1])
            .bind(limit as i64)
            .fetch_all(c)
            .await
    })?)
}

/// All contracts, by client and name.
pub async fn contracts(store: &Store) -> Result<Vec<ContractView>, StoreError> {
    let mut rows: Vec<ContractView> = on_read!(store, c => query_as(CONTRACTS).fetch_all(c).await)?;
    rows.sort_by_cached_key(|row| (name_order(&row.client), name_order(&row.name)));
    Ok(rows)
}

/// One contract.
pub async fn contract(store: &Store, id: ContractId) -> Result<Option<ContractView>, StoreError> {
    Ok(on_read!(store, c => query_as(CONTRACT).bind(id.uuid()).fetch_optional(c).await)?)
}
