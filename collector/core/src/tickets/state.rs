//! The states of a ticket, as one word each.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::rules::ParseWordError;

/// The state of a ticket. Stored and written as one word ([`TicketState::as_str`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum TicketState {
    /// No person has answered it.
    New,
    /// A person works on it.
    Open,
    /// Work continues after something else has happened.
    Waiting {
        /// What it waits for.
        on: WaitingOn,
    },
    /// The cause is gone, or a person said so.
    Resolved,
    /// Finished. A new alert opens another ticket.
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
    /// A date.
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

    /// The word that is stored.
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

    /// The state for people, as in `waiting for the customer`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Open => "open",
            Self::Waiting {
                on: WaitingOn::Customer,
            } => "waiting for the customer",
            Self::Waiting {
                on: WaitingOn::Supplier,
            } => "waiting for a supplier",
            Self::Waiting {
                on: WaitingOn::Scheduled,
            } => "on hold until a date",
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
