//! Reads for pages: joined, bounded, ordered for people. Nothing here writes or decides.

use sqlx::{query_as, query_scalar};
use uuid::Uuid;
use watchkeep_core::ids::{ContractId, TicketId};
use watchkeep_shared::{HostId, UnixMillis};

use super::{Store, StoreError, row::row, tx::on_read};

/// Rows that one page of a list shows at most.
pub const PAGE_ROWS: usize = 50;

const ANSWERS: &str = "SELECT COUNT(*) FROM counter";
const CLIENTS: &str = "SELECT id, name FROM client ORDER BY name";
const OPEN_BY_HOST: &str = "SELECT host_id AS id, COUNT(*) AS count FROM ticket \
    WHERE state NOT IN ('resolved', 'closed') AND host_id IS NOT NULL GROUP BY host_id";
const OPEN_TICKETS: &str = "SELECT COUNT(*) FROM ticket WHERE state NOT IN ('resolved', 'closed')";

macro_rules! hosts {
    ($rest:literal) => {
        concat!(
            "SELECT h.id, h.name, h.agent_version, h.enrolled_at, h.retired_at, h.client_id, \
             c.name AS client, h.site_id, s.name AS site, h.contract_id, k.name AS contract \
             FROM host h JOIN client c ON c.id = h.client_id JOIN site s ON s.id = h.site_id \
             LEFT JOIN contract k ON k.id = h.contract_id ",
            $rest
        )
    };
}
const HOSTS: &str = hosts!("WHERE h.retired_at IS NULL ORDER BY h.name, h.id");
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
const FIRING: &str = alerts!(
    "WHERE a.cleared_at IS NULL ORDER BY CASE a.severity WHEN 'critical' THEN 0 \
     WHEN 'warning' THEN 1 ELSE 2 END, a.raised_at DESC LIMIT $1"
);
const ALERTS_OF_HOST: &str =
    alerts!("WHERE a.host_id = $1 AND a.cleared_at IS NULL ORDER BY a.raised_at DESC LIMIT $2");
const ALERTS_OF_TICKET: &str = alerts!("WHERE a.ticket_id = $1 ORDER BY a.raised_at DESC LIMIT $2");

macro_rules! tickets {
    ($rest:literal) => {
        concat!(
            "SELECT t.id, t.number, t.title, t.priority, t.severity, t.state, t.tier, t.opened_at, t.episode_at, \
             t.acknowledged_at, t.first_response_at, t.resolved_at, t.escalate_at, \
             t.touched_by_human, t.check_key, t.previous_id, t.client_id, c.name AS client, \
             t.contract_id, k.name AS contract, t.host_id, h.name AS host, t.assignee, \
             u.name AS assignee_name FROM ticket t JOIN client c ON c.id = t.client_id \
             LEFT JOIN contract k ON k.id = t.contract_id LEFT JOIN host h ON h.id = t.host_id \
             LEFT JOIN app_user u ON u.id = t.assignee ",
            $rest
        )
    };
}
// The queue is worked from the most urgent and oldest; the archive is read from the newest.
const QUEUE: &str = tickets!(
    "WHERE t.state IN ($1, $2, $3, $4, $5, $6, $7) AND ($8 = '' OR t.priority = $8) \
     AND ($9 = 0 OR t.client_id = $10) AND ($11 = 0 OR t.assignee = $12) \
     AND ($13 = '' OR LOWER(t.title) LIKE $14 ESCAPE '!' OR LOWER(h.name) LIKE $14 ESCAPE '!' \
         OR CAST(t.number AS TEXT) = $13) \
     AND (t.priority > $15 OR (t.priority = $15 AND t.number > $16)) \
     ORDER BY t.priority, t.number LIMIT $17"
);
const ARCHIVE: &str = tickets!(
    "WHERE t.state IN ($1, $2, $3, $4, $5, $6, $7) AND ($8 = '' OR t.priority = $8) \
     AND ($9 = 0 OR t.client_id = $10) AND ($11 = 0 OR t.assignee = $12) \
     AND ($13 = '' OR LOWER(t.title) LIKE $14 ESCAPE '!' OR LOWER(h.name) LIKE $14 ESCAPE '!' \
         OR CAST(t.number AS TEXT) = $13) \
     AND t.number < $15 ORDER BY t.number DESC LIMIT $16"
);
const TICKETS_OF_HOST: &str = tickets!("WHERE t.host_id = $1 ORDER BY t.opened_at DESC LIMIT $2");
const TICKET: &str = tickets!("WHERE t.id = $1 OR t.number = $2");
const NUMBER_OF: &str = "SELECT number FROM ticket WHERE id = $1";
const TICKET_EVENTS: &str = "SELECT id, at, actor, kind, detail FROM ticket_event \
    WHERE ticket_id = $1 ORDER BY id LIMIT $2";
const TICKET_EVIDENCE: &str = "SELECT body FROM ticket_evidence WHERE ticket_id = $1";
const DELIVERIES: &str = "SELECT id, channel, kind, state, attempts, created_at, done_at, \
    last_error FROM outbox WHERE ticket_id = $1 ORDER BY id LIMIT $2";
const HOST_EVENTS: &str = "SELECT id, kind, detail, at FROM host_event WHERE host_id = $1 \
    AND at >= $2 AND kind IN ($3, $4) ORDER BY at DESC, id DESC LIMIT $5";

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
const CONTRACTS: &str = contracts!("ORDER BY c.name, k.name");
const CONTRACT: &str = contracts!("WHERE k.id = $1");

row! {
    /// A host with the names of what it belongs to.
    #[derive(Clone, Debug)]
    pub struct HostView {
        /// Identifier.
        pub id: Uuid,
        /// Host name.
        pub name: String,
        /// Version of its agent.
        pub agent_version: String,
        /// When its record began.
        pub enrolled_at: i64,
        /// When its record ended.
        pub retired_at: Option<i64>,
        /// Its client.
        pub client_id: Uuid,
        /// Its client's name.
        pub client: String,
        /// Its site.
        pub site_id: Uuid,
        /// Its site's name.
        pub site: String,
        /// What covers it.
        pub contract_id: Option<Uuid>,
        /// Name of what covers it.
        pub contract: Option<String>,
    }
}

row! {
    /// Something with a name.
    #[derive(Clone, Debug)]
    pub struct Named {
        /// Identifier.
        pub id: Uuid,
        /// Name.
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
        /// Identifier.
        pub id: Uuid,
        /// Its host.
        pub host_id: Uuid,
        /// Its host's name.
        pub host: Option<String>,
        /// Its rule.
        pub rule_id: String,
        /// Its check.
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
        /// Its ticket.
        pub ticket_id: Option<Uuid>,
        /// Its ticket's number.
        pub number: Option<i64>,
    }
}

row! {
    /// A ticket with the names of what it belongs to.
    #[derive(Clone, Debug)]
    pub struct TicketView {
        /// Identifier.
        pub id: Uuid,
        /// Number, for people.
        pub number: i64,
        /// One line.
        pub title: String,
        /// `P1` to `P4`.
        pub priority: String,
        /// `info`, `warning` or `critical`.
        pub severity: String,
        /// A word of `watchkeep_core::tickets::TicketState`.
        pub state: String,
        /// 1 to 3.
        pub tier: i32,
        /// When it was opened.
        pub opened_at: i64,
        /// When this episode began: the opening, or the last reopening by an alert.
        pub episode_at: i64,
        /// When a person took it on.
        pub acknowledged_at: Option<i64>,
        /// When a person first answered it.
        pub first_response_at: Option<i64>,
        /// When it was resolved.
        pub resolved_at: Option<i64>,
        /// When it escalates.
        pub escalate_at: Option<i64>,
        /// A person has acted on it.
        pub touched_by_human: bool,
        /// What it is about.
        pub check_key: Option<String>,
        /// The ticket before it about the same.
        pub previous_id: Option<Uuid>,
        /// Its client.
        pub client_id: Uuid,
        /// Its client's name.
        pub client: String,
        /// Its contract.
        pub contract_id: Option<Uuid>,
        /// Its contract's name.
        pub contract: Option<String>,
        /// Its host.
        pub host_id: Option<Uuid>,
        /// Its host's name.
        pub host: Option<String>,
        /// Who works on it.
        pub assignee: Option<Uuid>,
        /// The name of who works on it.
        pub assignee_name: Option<String>,
    }
}

row! {
    /// One line of a ticket's timeline, as stored.
    #[derive(Clone, Debug)]
    pub struct TicketEventView {
        /// Identifier.
        pub id: i64,
        /// When.
        pub at: i64,
        /// Who, JSON.
        pub actor: String,
        /// What, as a word.
        pub kind: String,
        /// What, JSON.
        pub detail: String,
    }
}

row! {
    /// Something sent, or to be sent, about a ticket.
    #[derive(Clone, Debug)]
    pub struct DeliveryView {
        /// Identifier.
        pub id: i64,
        /// `mail` or `webhook`.
        pub channel: String,
        /// `page` or `notice`.
        pub kind: String,
        /// `pending`, `sent`, `cancelled` or `dead`.
        pub state: String,
        /// Tries so far.
        pub attempts: i32,
        /// When it was queued.
        pub created_at: i64,
        /// When it was sent, cancelled or given up.
        pub done_at: Option<i64>,
        /// Why the last try failed.
        pub last_error: Option<String>,
    }
}

row! {
    /// Something that happened on a host, as stored.
    #[derive(Clone, Debug)]
    pub struct HostEventView {
        /// Identifier.
        pub id: i64,
        /// What, as a word.
        pub kind: String,
        /// JSON.
        pub detail: String,
        /// When.
        pub at: i64,
    }
}

row! {
    /// A contract with its client.
    #[derive(Clone, Debug)]
    pub struct ContractView {
        /// Identifier.
        pub id: Uuid,
        /// Name.
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
        /// Its client.
        pub client_id: Uuid,
        /// Its client's name.
        pub client: String,
        /// Covered hosts.
        pub hosts: i64,
    }
}

/// Binds a [`TicketFilter`] to the first fourteen placeholders.
macro_rules! filtered {
    ($query:expr, $filter:expr) => {{
        let mut query = $query;
        for word in padded(&$filter.states) {
            query = query.bind(word);
        }
        query
            .bind($filter.priority.clone())
            .bind(i32::from($filter.client.is_some()))
            .bind($filter.client.unwrap_or_default())
            .bind(i32::from($filter.assignee.is_some()))
            .bind($filter.assignee.unwrap_or_default())
            .bind($filter.search.clone())
            .bind(like(&$filter.search))
    }};
}

/// Which tickets a list shows.
#[derive(Clone, Debug, Default)]
pub struct TicketFilter {
    /// Words of states, one to seven; empty finds nothing.
    pub states: Vec<&'static str>,
    /// `P1` to `P4`, or empty for all.
    pub priority: String,
    /// Tickets of one client.
    pub client: Option<Uuid>,
    /// Tickets of one person.
    pub assignee: Option<Uuid>,
    /// A number, or part of a title or host name; empty for all.
    pub search: String,
}

/// Fails if the store does not answer.
pub async fn answers(store: &Store) -> Result<(), StoreError> {
    let count: i64 = on_read!(store, c => query_scalar(ANSWERS).fetch_one(c).await?);
    let _ = count;
    Ok(())
}

/// All hosts that are not retired, by name.
pub async fn hosts(store: &Store) -> Result<Vec<HostView>, StoreError> {
    Ok(on_read!(store, c => query_as(HOSTS).fetch_all(c).await?))
}

/// One host, retired or not.
pub async fn host(store: &Store, id: HostId) -> Result<Option<HostView>, StoreError> {
    Ok(on_read!(store, c => query_as(HOST).bind(id.uuid()).fetch_optional(c).await?))
}

/// All clients, by name.
pub async fn clients(store: &Store) -> Result<Vec<Named>, StoreError> {
    Ok(on_read!(store, c => query_as(CLIENTS).fetch_all(c).await?))
}

/// How many open tickets each host has; hosts without any are left out.
pub async fn open_tickets_by_host(store: &Store) -> Result<Vec<(HostId, i64)>, StoreError> {
    let rows: Vec<Counted> = on_read!(store, c => query_as(OPEN_BY_HOST).fetch_all(c).await?);
    Ok(rows
        .into_iter()
        .map(|row| (HostId(row.id), row.count))
        .collect())
}

/// How many tickets are open.
pub async fn open_tickets(store: &Store) -> Result<i64, StoreError> {
    Ok(on_read!(store, c => query_scalar(OPEN_TICKETS).fetch_one(c).await?))
}

/// Alerts that fire, the worst first.
pub async fn firing(store: &Store, limit: usize) -> Result<Vec<AlertView>, StoreError> {
    Ok(on_read!(store, c => query_as(FIRING).bind(limit as i64).fetch_all(c).await?))
}

/// Alerts that fire on a host, newest first.
pub async fn firing_of_host(store: &Store, host: HostId) -> Result<Vec<AlertView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(ALERTS_OF_HOST).bind(host.uuid()).bind(PAGE_ROWS as i64).fetch_all(c).await?
    }))
}

/// Alerts attached to a ticket, newest first.
pub async fn alerts_of_ticket(
    store: &Store,
    ticket: TicketId,
) -> Result<Vec<AlertView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(ALERTS_OF_TICKET).bind(ticket.uuid()).bind(PAGE_ROWS as i64).fetch_all(c).await?
    }))
}

/// The work queue: tickets after `(priority, number)`, most urgent and oldest first.
pub async fn queue(
    store: &Store,
    filter: &TicketFilter,
    after: (&str, i64),
    limit: usize,
) -> Result<Vec<TicketView>, StoreError> {
    Ok(on_read!(store, c => {
        filtered!(query_as(QUEUE), filter)
            .bind(after.0)
            .bind(after.1)
            .bind(limit as i64)
            .fetch_all(c)
            .await?
    }))
}

/// Tickets with a number below `before`, newest first.
pub async fn archive(
    store: &Store,
    filter: &TicketFilter,
    before: i64,
    limit: usize,
) -> Result<Vec<TicketView>, StoreError> {
    Ok(on_read!(store, c => {
        filtered!(query_as(ARCHIVE), filter).bind(before).bind(limit as i64).fetch_all(c).await?
    }))
}

/// A host's tickets, newest first.
pub async fn tickets_of_host(
    store: &Store,
    host: HostId,
    limit: usize,
) -> Result<Vec<TicketView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(TICKETS_OF_HOST).bind(host.uuid()).bind(limit as i64).fetch_all(c).await?
    }))
}

/// A ticket by its identifier or its number.
pub async fn ticket(store: &Store, key: &str) -> Result<Option<TicketView>, StoreError> {
    let id = key.parse::<Uuid>().unwrap_or_default();
    let number = key.parse::<i64>().unwrap_or(-1);
    Ok(on_read!(store, c => query_as(TICKET).bind(id).bind(number).fetch_optional(c).await?))
}

/// A ticket's number.
pub async fn ticket_number(store: &Store, ticket: TicketId) -> Result<Option<i64>, StoreError> {
    Ok(on_read!(store, c => query_scalar(NUMBER_OF).bind(ticket.uuid()).fetch_optional(c).await?))
}

/// A ticket's timeline, oldest first.
pub async fn ticket_events(
    store: &Store,
    ticket: TicketId,
    limit: usize,
) -> Result<Vec<TicketEventView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(TICKET_EVENTS).bind(ticket.uuid()).bind(limit as i64).fetch_all(c).await?
    }))
}

/// The metric around a ticket's breach, JSON.
pub async fn ticket_evidence(
    store: &Store,
    ticket: TicketId,
) -> Result<Option<String>, StoreError> {
    Ok(on_read!(store, c => {
        query_scalar(TICKET_EVIDENCE).bind(ticket.uuid()).fetch_optional(c).await?
    }))
}

/// What was or will be sent about a ticket, oldest first.
pub async fn deliveries(
    store: &Store,
    ticket: TicketId,
    limit: usize,
) -> Result<Vec<DeliveryView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(DELIVERIES).bind(ticket.uuid()).bind(limit as i64).fetch_all(c).await?
    }))
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
            .await?
    }))
}

/// All contracts, by client and name.
pub async fn contracts(store: &Store) -> Result<Vec<ContractView>, StoreError> {
    Ok(on_read!(store, c => query_as(CONTRACTS).fetch_all(c).await?))
}

/// One contract.
pub async fn contract(store: &Store, id: ContractId) -> Result<Option<ContractView>, StoreError> {
    Ok(on_read!(store, c => query_as(CONTRACT).bind(id.uuid()).fetch_optional(c).await?))
}

/// Seven states: those asked for, the last repeated.
fn padded(asked: &[&'static str]) -> [&'static str; 7] {
    let last = asked.last().copied().unwrap_or_default();
    std::array::from_fn(|i| asked.get(i).copied().unwrap_or(last))
}

/// A pattern that finds the text anywhere, its own wildcards taken as letters.
fn like(search: &str) -> String {
    let text = search.to_lowercase();
    let text = text
        .replace('!', "!!")
        .replace('%', "!%")
        .replace('_', "!_");
    format!("%{text}%")
}
