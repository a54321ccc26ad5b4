//! The episode of a ticket: whether people are still being called about it, and which of its alerts
//! fire.

use serde::{Deserialize, Serialize};
use watchkeep_shared::UnixMillis;

use crate::rules::Priority;

/// The time from an opening, or from a later beginning, until everything recovered or a person
/// resolved the ticket. One answer of a person ends the paging of one episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// When it began.
    pub since: UnixMillis,
    /// How far it has come.
    pub phase: Phase,
}

/// How far an episode has come. Only an unanswered one ever pages or escalates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// No person has answered.
    Unanswered {
        /// When it first paged; `None` while its priority is only a notice, or less.
        paged_at: Option<UnixMillis>,
    },
    /// A person has taken it on, or was given it.
    Taken { at: UnixMillis },
    /// All alerts recovered, or a person resolved the ticket.
    Over {
        at: UnixMillis,
        /// When a person had taken it on before.
        taken_at: Option<UnixMillis>,
        /// When a ticket that was resolved with firing alerts is checked again
        /// ([`super::recheck`]); `None` if nothing fired, or once nothing does.
        recheck_at: Option<UnixMillis>,
    },
}

impl Episode {
    /// An episode that begins now.
    pub const fn begin(now: UnixMillis) -> Self {
        Self {
            since: now,
            phase: Phase::Unanswered { paged_at: None },
        }
    }

    /// When a person took it on.
    pub const fn taken_at(&self) -> Option<UnixMillis> {
        match self.phase {
            Phase::Unanswered { .. } => None,
            Phase::Taken { at } => Some(at),
            Phase::Over { taken_at, .. } => taken_at,
        }
    }

    /// Whether nobody has answered and something is left to answer.
    pub const fn is_unanswered(&self) -> bool {
        matches!(self.phase, Phase::Unanswered { .. })
    }

    /// Whether everything recovered, or a person resolved the ticket.
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over { .. })
    }
}

/// The alerts of a ticket that fire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    count: u32,
    /// `None` exactly if the count is 0.
    most_urgent: Option<Priority>,
}

impl Firing {
    /// Nothing fires.
    pub const NONE: Self = Self {
        count: 0,
        most_urgent: None,
    };

    /// So many alerts, the most urgent of this priority; nothing if either is missing.
    pub const fn new(count: u32, most_urgent: Option<Priority>) -> Self {
        match most_urgent {
            Some(_) if count > 0 => Self { count, most_urgent },
            _ => Self::NONE,
        }
    }

    /// How many fire.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The priority of the most urgent one.
    pub const fn most_urgent(self) -> Option<Priority> {
        self.most_urgent
    }

    /// Whether none fires.
    pub const fn is_none(self) -> bool {
        self.count == 0
    }

    /// One alert more.
    #[must_use]
    pub fn and(self, priority: Priority) -> Self {
        let most_urgent = self
            .most_urgent
            .map_or(priority, |before| before.min(priority));
        Self {
            count: self.count.saturating_add(1),
            most_urgent: Some(most_urgent),
        }
    }
}
