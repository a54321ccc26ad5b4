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
        id: UserId,
        /// Their name then.
        name: String,
    },
    /// A person who holds the acknowledgement link of a page.
    Link {
        /// The recipient of the page.
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
    pub at: UnixMillis,
    pub actor: Actor,
    pub kind: TicketEventKind,
}

/// What happened to a ticket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TicketEventKind {
    Opened {
        /// The resolved ticket about the same key before it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<TicketId>,
    },
    /// An alert belongs to it from now on.
    AlertAttached {
        alert: AlertId,
        rule: RuleId,
        check: CheckKey,
        severity: Severity,
        /// One line.
        summary: String,
        evidence: AlertEvidence,
    },
    /// An attached alert that fires has found more.
    AlertUpdated {
        alert: AlertId,
        /// One line: all that is known now.
        summary: String,
        evidence: AlertEvidence,
    },
    /// An attached alert no longer fires.
    AlertCleared {
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
        to: Option<UserId>,
        /// Their name then.
        name: Option<String>,
    },
    /// Its state changed, other than by being resolved, closed or reopened; by Watchkeep itself, if
    /// the date that it waited for has come, or a new episode began.
    StateChanged {
        from: TicketState,
        to: TicketState,
        /// When it opens again, if it waits for a date.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<UnixMillis>,
    },
    /// Someone wrote something.
    Note {
        /// Whether the customer must not see it.
        internal: bool,
        text: String,
    },
    PriorityChanged {
        from: Priority,
        to: Priority,
    },
    /// A new episode began while the ticket was open; an earlier answer no longer counts.
    EpisodeStarted {
        reason: EpisodeReason,
    },
    /// A page that waited for its hours went out.
    Paged {
        /// The line of support, 1 to 3.
        tier: u8,
    },
    /// It went to another line of support.
    Escalated {
        /// Which one, 1 to 3.
        tier: u8,
    },
    /// It is open again.
    Reopened {
        /// How many alerts still fired, if it opened again because of that.
        #[serde(default, skip_serializing_if = "is_zero")]
        still_firing: u32,
    },
    Resolved {
        /// Whether Watchkeep resolved it by itself.
        auto: bool,
        /// How many alerts fired all the same.
        #[serde(default, skip_serializing_if = "is_zero")]
        still_firing: u32,
    },
    Closed,
    /// All its alerts recovered, but a person has worked on it: a person resolves it.
    HandedBack,
    /// A notification or page was delivered, or given up.
    NotificationSent {
        /// The kind of channel, as in `email`.
        channel: String,
        /// The recipient.
        to: String,
        /// How it ended, for people.
        outcome: String,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Why an episode began on an open ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpisodeReason {
    /// An alert is worse than what a person had answered.
    Worse,
    /// An alert fired after all had recovered.
    FiresAgain,
}

/// What should be sent because of a change, or no longer be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "intent", rename_all = "snake_case")]
pub enum Intent {
    /// Page the people on call for a tier.
    Page {
        /// The line of support, 1 to 3.
        tier: u8,
        reason: PageReason,
    },
    /// Send a message that wakes nobody.
    Notify {
        /// Its subject.
        news: News,
    },
    /// Cancel every page of this ticket that has not gone out.
    CancelPages,
}

/// Why people are called: by a page, or by a notice where the table of priorities says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageReason {
    /// The ticket was opened.
    Opened,
    /// It was opened again by the same breach.
    Reopened,
    /// An alert is worse than those before, or than what a person had answered.
    Worse,
    /// It fires again after everything had recovered and it waited for a person.
    FiresAgain,
    /// It was resolved while it fired, and still fires.
    StillFiring,
    /// It waited for the hours in which it pages.
    HoursBegan,
    /// Nobody answered in time.
    Escalated,
}

/// The subject of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// What would page if its priority were higher.
    Call {
        reason: PageReason,
    },
    /// It has an assignee, who should know.
    Assigned,
    /// The date that it waited for has come.
    HoldEnded,
    Resolved,
    /// All its alerts recovered; a person has to resolve it.
    HandedBack,
    /// One more alert, no worse than those before, on a ticket that a person has.
    AlertAttached,
    /// A firing alert has found more.
    AlertUpdated,
}
