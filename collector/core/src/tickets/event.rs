//! The words for what happens to tickets: who did what, and what is to be sent because of it.

use serde::{Deserialize, Serialize};
use watchkeep_shared::UnixMillis;

use super::TicketState;
use crate::{
    alerts::AlertEvidence,
    ids::{AlertId, TicketId, UserId},
    rules::{CheckKey, Priority, RuleId, Severity},
};

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
