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

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::{
    alerts::AlertEvidence,
    ids::{AlertId, ClientId, ContractId, TicketId, UserId},
    rules::{CheckKey, ParseWordError, Priority, RuleId, Severity},
};

pub use self::{
    action::{Action, InvalidTransition, MAX_NOTE_BYTES, apply},
    automatic::{
        ClearDecision, NewTicket, RaiseDecision, attach, auto_resolve, detach, hand_back,
        on_alert_cleared, on_alert_raised, open, reopen,
    },
    escalation::{escalate, escalation_due_at},
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

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "actor", rename_all = "snake_case")]
pub enum Actor {
    /// Watchkeep itself.
    System,
    /// A person who is signed in.
    User {
        /// Who.
        id: UserId,
        /// Their name then.
        name: String,
    },
    /// A person who holds the acknowledgement link of a page.
    Link {
        /// To whom the page was sent.
        sent_to: String,
    },
}

impl Actor {
    /// Whether a person did it.
    pub const fn is_human(&self) -> bool {
        !matches!(self, Self::System)
    }
}

/// One line of a ticket's timeline. Events are appended and never changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TicketEvent {
    /// When.
    pub at: UnixMillis,
    /// Who.
    pub actor: Actor,
    /// What.
    pub kind: TicketEventKind,
}

/// What happened to a ticket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TicketEventKind {
    /// It was opened.
    Opened {
        /// The resolved ticket about the same key before it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<TicketId>,
    },
    /// An alert belongs to it from now on.
    AlertAttached {
        /// The alert.
        alert: AlertId,
        /// Its rule.
        rule: RuleId,
        /// Its check.
        check: CheckKey,
        /// Its severity.
        severity: Severity,
        /// One line.
        summary: String,
        /// What was observed.
        evidence: AlertEvidence,
    },
    /// An attached alert no longer fires.
    AlertCleared {
        /// The alert.
        alert: AlertId,
        /// Why, for people.
        reason: String,
        /// The value then, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<f64>,
    },
    /// A person took it on.
    Acknowledged,
    /// It has another assignee, or none.
    Assigned {
        /// Who.
        to: Option<UserId>,
        /// Their name then.
        name: Option<String>,
    },
    /// Its state changed, other than by being resolved, closed or reopened.
    StateChanged {
        /// From.
        from: TicketState,
        /// To.
        to: TicketState,
    },
    /// Someone wrote something.
    Note {
        /// Whether the customer must not see it.
        internal: bool,
        /// The text.
        text: String,
    },
    /// Its priority changed.
    PriorityChanged {
        /// From.
        from: Priority,
        /// To.
        to: Priority,
    },
    /// It went to another line of support.
    Escalated {
        /// Which one, 1 to 3.
        tier: u8,
    },
    /// It is open again.
    Reopened,
    /// The trouble is gone.
    Resolved {
        /// Whether Watchkeep resolved it by itself.
        auto: bool,
    },
    /// It is done with.
    Closed,
    /// All is well again, but a human has touched it: it is theirs to resolve.
    HandedBack,
    /// A notification or page was delivered, or given up.
    NotificationSent {
        /// The kind of channel, as in `email`.
        channel: String,
        /// To whom.
        to: String,
        /// How it ended, for people.
        outcome: String,
    },
}

/// What should be sent because of a change, or no longer be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "intent", rename_all = "snake_case")]
pub enum Intent {
    /// Page whoever is on call for a tier.
    Page {
        /// The line of support, 1 to 3.
        tier: u8,
        /// Why.
        reason: PageReason,
    },
    /// Tell those concerned, without waking anyone.
    Notify {
        /// Of what.
        news: News,
    },
    /// Cancel every page of this ticket that has not gone out.
    CancelPages,
}

/// Why a page goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageReason {
    /// The ticket was opened.
    Opened,
    /// It was opened again by the same breach.
    Reopened,
    /// A worse alert was attached, and nobody has acknowledged it yet.
    Worse,
    /// Nobody acknowledged it in time.
    Escalated,
}

/// What a notification tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// It has an assignee, who should know.
    Assigned,
    /// It was resolved.
    Resolved,
    /// All is well again; a human has to resolve it.
    HandedBack,
    /// An alert fires again, or another one does, on an acknowledged ticket.
    AlertAttached,
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
