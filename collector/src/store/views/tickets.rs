//! Tickets for pages: one ticket with all that belongs to it, those of a host and of a contract. Lists
//! with filters are in [`list`].

use sqlx::{query_as, query_scalar};
use uuid::Uuid;
use watchkeep_core::{
    ids::{ContractId, TicketId},
    ledger::Interval,
};
use watchkeep_shared::HostId;

use super::super::{Store, StoreError, row::row, statements::statements, tx::on_read};

macro_rules! joined {
    ($columns:literal, $rest:expr) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM ticket t JOIN client c ON c.id = t.client_id \
             LEFT JOIN contract k ON k.id = t.contract_id LEFT JOIN host h ON h.id = t.host_id \
             LEFT JOIN site s ON s.id = h.site_id LEFT JOIN app_user u ON u.id = t.assignee ",
            $rest
        )
    };
}
macro_rules! tickets {
    ($rest:expr) => {
        joined!(
            "t.id, t.number, t.title, t.priority, t.severity, t.state, t.tier, t.opened_at, t.episode_at, \
             t.acknowledged_at, t.over_at, t.recheck_at, t.first_response_at, t.resolved_at, \
             t.escalate_at, t.hold_until, t.firing, \
             t.touched_by_human, t.check_key, t.previous_id, t.client_id, c.name AS client, \
             t.contract_id, k.name AS contract, t.host_id, h.name AS host, h.site_id, \
             s.name AS site, t.assignee, u.name AS assignee_name",
            $rest
        )
    };
}

mod list;

pub(in crate::store) use list::statements as list_statements;
pub use list::{Alerts, Archive, Assignee, OPEN_STATES, TicketFilter, archive, queue, queue_count};

// That the priority is not empty leads SQLite to the small index of open tickets.
const OPEN_TICKETS: &str = "SELECT COUNT(*) FROM ticket \
    WHERE state NOT IN ('resolved', 'closed') AND priority > ''";

const TICKETS_OF_HOST: &str = tickets!("WHERE t.host_id = $1 ORDER BY t.number DESC LIMIT $2");
const TICKET: &str = tickets!("WHERE t.id = $1");
const TICKET_OF_NUMBER: &str = tickets!("WHERE t.number = $1");
// By the alerts: the ticket of an incident has neither the host nor the contract.
const OUTAGE_TICKETS: &str = "SELECT t.number, a.host_id, a.raised_at FROM host h \
    JOIN alert a ON a.host_id = h.id JOIN ticket t ON t.id = a.ticket_id \
    WHERE h.contract_id = $1 AND a.raised_at >= $2 AND a.raised_at < $3 AND a.check_key = 'host' \
    ORDER BY a.raised_at, t.number LIMIT $4";
const NUMBER_OF: &str = "SELECT number FROM ticket WHERE id = $1";
const TICKET_EVENTS: &str = "SELECT id, at, actor, kind, detail FROM ticket_event \
    WHERE ticket_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
const TICKET_EVIDENCE: &str = "SELECT body FROM ticket_evidence WHERE ticket_id = $1";
const DELIVERIES: &str = "SELECT id, channel, recipient, kind, state, attempts, created_at, \
    done_at, last_error FROM outbox WHERE ticket_id = $1 ORDER BY id DESC LIMIT $2";

statements! {
    OPEN_TICKETS, TICKETS_OF_HOST, TICKET, TICKET_OF_NUMBER, OUTAGE_TICKETS, NUMBER_OF,
    TICKET_EVENTS, TICKET_EVIDENCE, DELIVERIES
}

row! {
    /// A ticket with the names of what it belongs to.
    #[derive(Clone, Debug)]
    pub struct TicketView {
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
        pub resolved_at: Option<i64>,
        pub escalate_at: Option<i64>,
        /// When it opens again, if it waits for a date.
        pub hold_until: Option<i64>,
        /// How many of its alerts fire.
        pub firing: i32,
        /// A person has acted on it.
        pub touched_by_human: bool,
        /// What it is about.
        pub check_key: Option<String>,
        /// The ticket before it about the same.
        pub previous_id: Option<Uuid>,
        pub client_id: Uuid,
        /// Its client's name.
        pub client: String,
        pub contract_id: Option<Uuid>,
        /// Its contract's name.
        pub contract: Option<String>,
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
        pub id: i64,
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
    /// An alert that a host was silent or rebooted, with its ticket.
    #[derive(Clone, Debug)]
    pub struct OutageTicket {
        pub number: i64,
        pub host_id: Uuid,
        /// When the alert began to fire.
        pub raised_at: i64,
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

/// How many tickets are open.
pub async fn open_tickets(store: &Store) -> Result<i64, StoreError> {
    Ok(on_read!(store, c => query_scalar(OPEN_TICKETS).fetch_one(c).await)?)
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
    if let Ok(number) = key.parse::<i64>() {
        return Ok(on_read!(store, c => {
            query_as(TICKET_OF_NUMBER).bind(number).fetch_optional(c).await
        })?);
    }
    let Ok(id) = key.parse::<Uuid>() else {
        return Ok(None);
    };
    ticket_of(store, TicketId(id)).await
}

/// A ticket.
pub async fn ticket_of(store: &Store, id: TicketId) -> Result<Option<TicketView>, StoreError> {
    Ok(on_read!(store, c => query_as(TICKET).bind(id.uuid()).fetch_optional(c).await)?)
}

/// A ticket's number.
pub async fn ticket_number(store: &Store, ticket: TicketId) -> Result<Option<i64>, StoreError> {
    Ok(on_read!(store, c => query_scalar(NUMBER_OF).bind(ticket.uuid()).fetch_optional(c).await)?)
}

/// The newest lines of a ticket's timeline before one of them, oldest first.
pub async fn ticket_events(
    store: &Store,
    ticket: TicketId,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<TicketEventView>, StoreError> {
    let mut events: Vec<TicketEventView> = on_read!(store, c => {
        query_as(TICKET_EVENTS)
            .bind(ticket.uuid())
            .bind(before.unwrap_or(i64::MAX))
            .bind(limit as i64)
            .fetch_all(c)
            .await
    })?;
    events.reverse();
    Ok(events)
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

/// The newest of what was or will be sent about a ticket, oldest first.
pub async fn deliveries(
    store: &Store,
    ticket: TicketId,
    limit: usize,
) -> Result<Vec<DeliveryView>, StoreError> {
    let mut deliveries: Vec<DeliveryView> = on_read!(store, c => {
        query_as(DELIVERIES).bind(ticket.uuid()).bind(limit as i64).fetch_all(c).await
    })?;
    deliveries.reverse();
    Ok(deliveries)
}
