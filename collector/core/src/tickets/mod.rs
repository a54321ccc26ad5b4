//! Tickets: the work for people that alerts open, and what people do with it. Every function takes
//! a ticket and gives back the next one with the events of its timeline and what should be sent
//! ([`Intent`]); the caller stores and sends all of it in one transaction.
//!
//! An *episode* of a ticket runs from its opening, or from a reopening by an alert, until it is
//! resolved. An acknowledgement ends all paging for the episode; the first response, which the SLA
//! counts, happens once in a ticket's life. A ticket that a human touched is never resolved by
//! itself: it is handed back.
//!
//! Not here yet: SLA clocks, impact and urgency, links beyond the ticket before, merging, time
//! entries; escalation knows one step (tier 1 to 2). What a ticket's state does not allow is
//! refused ([`InvalidTransition`]) and changes nothing.

mod action;
mod automatic;
mod escalation;
mod event;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::{
    ids::{ClientId, ContractId, TicketId, UserId},
    rules::{CheckKey, ParseWordError, Priority, Severity},
};

pub use self::{
    action::{Action, InvalidTransition, MAX_NOTE_BYTES, apply},
    automatic::{
        ClearDecision, NewTicket, RaiseDecision, attach, auto_resolve, detach, hand_back,
        on_alert_cleared, on_alert_raised, open, reopen,
    },
    escalation::{escalate, escalation_due_at},
    event::{Actor, Intent, News, PageReason, TicketEvent, TicketEventKind},
};

/// How long after its resolution a ticket is opened again by the same breach, rather than a new
/// one.
pub const REOPEN_WINDOW: DurationMs = DurationMs::from_mins(30);

/// One piece of work for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Its identifier.
    pub id: TicketId,
    /// The number people call it by.
    pub number: i64,
    /// The client it is for.
    pub client: ClientId,
    /// The contract that covers the host, if one does.
    pub contract: Option<ContractId>,
    /// The host it is about.
    pub host: Option<HostId>,
    /// The check it is about; with contract and host its key ([`open_key`]).
    pub check: Option<CheckKey>,
    /// One line.
    pub title: String,
    /// How soon people should act.
    pub priority: Priority,
    /// The worst alert attached to it.
    pub severity: Severity,
    /// Where it stands.
    pub state: TicketState,
    /// When it was opened.
    pub opened_at: UnixMillis,
    /// When this episode began: the opening, or the last reopening by an alert.
    pub episode_at: UnixMillis,
    /// When a human took this episode on; no page goes out after it.
    pub acknowledged_at: Option<UnixMillis>,
    /// When a human first responded, in the ticket's whole life.
    pub first_response_at: Option<UnixMillis>,
    /// When it was resolved; `None` unless it is resolved or closed.
    pub resolved_at: Option<UnixMillis>,
    /// Whether a human ever did anything with it.
    pub touched_by_human: bool,
    /// Who works on it.
    pub assignee: Option<UserId>,
    /// The line of support, 1 to 3.
    pub tier: u8,
    /// The resolved ticket about the same key before this one.
    pub previous: Option<TicketId>,
}

impl Ticket {
    /// The key of the store's unique partial index, while the ticket is open and automatic.
    pub fn open_key(&self) -> Option<String> {
        let check = self.check.as_ref().filter(|_| self.state.is_open())?;
        Some(open_key(self.contract, self.host, check))
    }
}

/// The key under which at most one automatic ticket may be open: contract, host, check.
pub fn open_key(contract: Option<ContractId>, host: Option<HostId>, check: &CheckKey) -> String {
    let contract = contract.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let host = host.map_or_else(|| "-".to_owned(), |id| id.to_string());
    format!("{contract}/{host}/{check}")
}

/// Where a ticket stands. Stored and written as one word ([`TicketState::as_str`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum TicketState {
    /// Nobody has looked at it.
    New,
    /// Someone has it.
    Open,
    /// It can't go on before something else happens.
    Waiting {
        /// What it waits for.
        on: WaitingOn,
    },
    /// The trouble is gone.
    Resolved,
    /// Done with; only a human opens it again.
    Closed,
}

/// What a waiting ticket waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingOn {
    /// An answer of the customer.
    Customer,
    /// A supplier or another third party.
    Supplier,
    /// An agreed time.
    Scheduled,
}

impl TicketState {
    /// Every state, in the order of a ticket's life.
    pub const ALL: [Self; 7] = [
        Self::New,
        Self::Open,
        Self::Waiting {
            on: WaitingOn::Customer,
        },
        Self::Waiting {
            on: WaitingOn::Supplier,
        },
        Self::Waiting {
            on: WaitingOn::Scheduled,
        },
        Self::Resolved,
        Self::Closed,
    ];

    /// The state as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Open => "open",
            Self::Waiting {
                on: WaitingOn::Customer,
            } => "waiting_customer",
            Self::Waiting {
                on: WaitingOn::Supplier,
            } => "waiting_supplier",
            Self::Waiting {
                on: WaitingOn::Scheduled,
            } => "waiting_scheduled",
            Self::Resolved => "resolved",
            Self::Closed => "closed",
        }
    }

    /// Whether work is left.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::New | Self::Open | Self::Waiting { .. })
    }
}

impl FromStr for TicketState {
    type Err = ParseWordError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == s)
            .ok_or_else(|| ParseWordError {
                found: s.to_owned(),
                expected: "new, open, waiting_customer, waiting_supplier, waiting_scheduled, \
                           resolved, closed",
            })
    }
}

impl TryFrom<String> for TicketState {
    type Error = ParseWordError;

    fn try_from(word: String) -> Result<Self, Self::Error> {
        word.parse()
    }
}

impl From<TicketState> for &'static str {
    fn from(state: TicketState) -> Self {
        state.as_str()
    }
}

impl fmt::Display for TicketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What follows from one step of a ticket: store all of it together.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The ticket as it is now.
    pub ticket: Ticket,
    /// What to add to its timeline.
    pub events: Vec<TicketEvent>,
    /// What to send.
    pub notify: Vec<Intent>,
}

/// A step in the making.
struct Step {
    applied: Applied,
    actor: Actor,
    now: UnixMillis,
}

impl Step {
    fn new(ticket: &Ticket, actor: Actor, now: UnixMillis) -> Self {
        let applied = Applied {
            ticket: ticket.clone(),
            events: Vec::new(),
            notify: Vec::new(),
        };
        Self {
            applied,
            actor,
            now,
        }
    }

    fn event(&mut self, kind: TicketEventKind) {
        self.applied.events.push(TicketEvent {
            at: self.now,
            actor: self.actor.clone(),
            kind,
        });
    }

    fn send(&mut self, intent: Intent) {
        if !self.applied.notify.contains(&intent) {
            self.applied.notify.push(intent);
        }
    }
}

#[cfg(test)]
mod tests;
