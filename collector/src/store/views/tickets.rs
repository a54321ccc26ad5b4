//! Tickets for pages: the queue, the archive, one ticket with all that belongs to it.

use sqlx::{query_as, query_scalar};
use uuid::Uuid;
use watchkeep_core::{
    ids::{ContractId, TicketId},
    ledger::Interval,
};
use watchkeep_shared::HostId;

use super::super::{Store, StoreError, row::row, tx::on_read};

const OPEN_TICKETS: &str = "SELECT COUNT(*) FROM ticket WHERE state NOT IN ('resolved', 'closed')";

macro_rules! tickets {
    ($rest:literal) => {
        concat!(
            "SELECT t.id, t.number, t.title, t.priority, t.severity, t.state, t.tier, t.opened_at, t.episode_at, \
             t.acknowledged_at, t.over_at, t.recheck_at, t.first_response_at, t.resolved_at, \
             t.escalate_at, t.firing, \
             t.touched_by_human, t.check_key, t.previous_id, t.client_id, c.name AS client, \
             t.contract_id, k.name AS contract, t.host_id, h.name AS host, h.site_id, \
             s.name AS site, t.assignee, u.name AS assignee_name FROM ticket t JOIN client c ON c.id = t.client_id \
             LEFT JOIN contract k ON k.id = t.contract_id LEFT JOIN host h ON h.id = t.host_id \
             LEFT JOIN site s ON s.id = h.site_id LEFT JOIN app_user u ON u.id = t.assignee ",
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
const OUTAGE_TICKETS: &str = "SELECT number, host_id, opened_at FROM ticket \
    WHERE contract_id = $1 AND opened_at >= $2 AND opened_at < $3 AND check_key = 'host' \
    ORDER BY opened_at LIMIT $4";
const NUMBER_OF: &str = "SELECT number FROM ticket WHERE id = $1";
const TICKET_EVENTS: &str = "SELECT id, at, actor, kind, detail FROM ticket_event \
    WHERE ticket_id = $1 ORDER BY id LIMIT $2";
const TICKET_EVIDENCE: &str = "SELECT body FROM ticket_evidence WHERE ticket_id = $1";
const DELIVERIES: &str = "SELECT id, channel, recipient, kind, state, attempts, created_at, \
    done_at, last_error FROM outbox WHERE ticket_id = $1 ORDER BY id LIMIT $2";

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
        /// When everything recovered, or a person resolved it.
        pub over_at: Option<i64>,
        /// When it is checked again, having been resolved while it fired.
        pub recheck_at: Option<i64>,
        /// When a person first answered it.
        pub first_response_at: Option<i64>,
        /// When it was resolved.
        pub resolved_at: Option<i64>,
        /// When it escalates.
        pub escalate_at: Option<i64>,
        /// How many of its alerts fire.
        pub firing: i32,
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
        /// Its host's site.
        pub site_id: Option<Uuid>,
        /// Its host's site's name.
        pub site: Option<String>,
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
        /// The channel's name of the recipient.
        pub recipient: String,
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
    /// A ticket about a host that was silent or rebooted.
    #[derive(Clone, Debug)]
    pub struct OutageTicket {
        /// Its number.
        pub number: i64,
        /// The host; none for an incident of several.
        pub host_id: Option<Uuid>,
        /// When it was opened.
        pub opened_at: i64,
    }
}

impl TicketView {
    /// Whether work is left.
    pub fn is_open(&self) -> bool {
        !matches!(self.state.as_str(), "resolved" | "closed")
    }

    /// Whether it is open and all its alerts have recovered.
    pub fn is_recovered(&self) -> bool {
        self.is_open() && self.over_at.is_some()
    }

    /// Whether it is resolved or closed and something still fires.
    pub fn is_resolved_while_firing(&self) -> bool {
        !self.is_open() && self.firing > 0
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

/// How many tickets are open.
pub async fn open_tickets(store: &Store) -> Result<i64, StoreError> {
    Ok(on_read!(store, c => query_scalar(OPEN_TICKETS).fetch_one(c).await)?)
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
            .await
    })?)
}

/// Tickets with a number below `before`, newest first.
pub async fn archive(
    store: &Store,
    filter: &TicketFilter,
    before: i64,
    limit: usize,
) -> Result<Vec<TicketView>, StoreError> {
    Ok(on_read!(store, c => {
        filtered!(query_as(ARCHIVE), filter).bind(before).bind(limit as i64).fetch_all(c).await
    })?)
}

/// A host's tickets, newest first.
pub async fn tickets_of_host(
    store: &Store,
    host: HostId,
    limit: usize,
) -> Result<Vec<TicketView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(TICKETS_OF_HOST).bind(host.uuid()).bind(limit as i64).fetch_all(c).await
    })?)
}

/// Tickets of a contract about hosts that were silent or rebooted, opened within a window, oldest
/// first.
pub async fn outage_tickets(
    store: &Store,
    contract: ContractId,
    window: Interval,
    limit: usize,
) -> Result<Vec<OutageTicket>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(OUTAGE_TICKETS)
            .bind(contract.uuid())
            .bind(window.from.0)
            .bind(window.to.0)
            .bind(limit as i64)
            .fetch_all(c)
            .await
    })?)
}

/// A ticket by its identifier or its number.
pub async fn ticket(store: &Store, key: &str) -> Result<Option<TicketView>, StoreError> {
    let id = key.parse::<Uuid>().unwrap_or_default();
    let number = key.parse::<i64>().unwrap_or(-1);
    Ok(on_read!(store, c => query_as(TICKET).bind(id).bind(number).fetch_optional(c).await)?)
}

/// A ticket's number.
pub async fn ticket_number(store: &Store, ticket: TicketId) -> Result<Option<i64>, StoreError> {
    Ok(on_read!(store, c => query_scalar(NUMBER_OF).bind(ticket.uuid()).fetch_optional(c).await)?)
}

/// A ticket's timeline, oldest first.
pub async fn ticket_events(
    store: &Store,
    ticket: TicketId,
    limit: usize,
) -> Result<Vec<TicketEventView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(TICKET_EVENTS).bind(ticket.uuid()).bind(limit as i64).fetch_all(c).await
    })?)
}

/// The metric around a ticket's breach, JSON.
pub async fn ticket_evidence(
    store: &Store,
    ticket: TicketId,
) -> Result<Option<String>, StoreError> {
    Ok(on_read!(store, c => {
        query_scalar(TICKET_EVIDENCE).bind(ticket.uuid()).fetch_optional(c).await
    })?)
}

/// What was or will be sent about a ticket, oldest first.
pub async fn deliveries(
    store: &Store,
    ticket: TicketId,
    limit: usize,
) -> Result<Vec<DeliveryView>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(DELIVERIES).bind(ticket.uuid()).bind(limit as i64).fetch_all(c).await
    })?)
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
