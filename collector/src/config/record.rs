//! How much is kept, and for how long.

use serde::Deserialize;

/// Days that raw history is kept by default.
const DEFAULT_RAW_DAYS: u32 = 7;
/// Days that events of hosts are kept by default: thirteen months.
const DEFAULT_EVENTS_DAYS: u32 = 400;
/// Days that the audit log is kept by default: three years.
const DEFAULT_AUDIT_DAYS: u32 = 1_100;
/// Days that unreadable parts of history are kept by default.
const DEFAULT_SET_ASIDE_DAYS: u32 = 90;
/// Largest limit of open tickets that can be set.
const MAX_OPEN_TICKETS: u32 = 1_000;

/// How long history is kept.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Raw samples, days.
    pub raw_days: u32,
    /// Events of hosts: log matches, services, clocks; days.
    pub events_days: u32,
    /// The audit log, days.
    pub audit_days: u32,
    /// Parts of hosts' history that the collector can't read, days.
    pub set_aside_days: u32,
}

impl Default for History {
    fn default() -> Self {
        Self {
            raw_days: DEFAULT_RAW_DAYS,
            events_days: DEFAULT_EVENTS_DAYS,
            audit_days: DEFAULT_AUDIT_DAYS,
            set_aside_days: DEFAULT_SET_ASIDE_DAYS,
        }
    }
}

impl History {
    /// What can't be used.
    pub(super) fn problems(&self) -> Vec<String> {
        [
            ("raw_days", self.raw_days),
            ("events_days", self.events_days),
            ("audit_days", self.audit_days),
            ("set_aside_days", self.set_aside_days),
        ]
        .into_iter()
        .filter(|(_, days)| *days == 0)
        .map(|(key, _)| format!("history.{key}: at least 1 day"))
        .collect()
    }
}

/// Limits on tickets.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tickets {
    /// Open tickets of one host; twice as many may be opened within an hour. What breaches beyond
    /// that is collected in one more ticket.
    pub max_open_per_host: u32,
}

impl Default for Tickets {
    fn default() -> Self {
        Self {
            max_open_per_host: 30,
        }
    }
}

impl Tickets {
    /// What can't be used.
    pub(super) fn problems(self) -> Option<String> {
        let is_usable = (1..=MAX_OPEN_TICKETS).contains(&self.max_open_per_host);
        (!is_usable).then(|| format!("tickets.max_open_per_host: 1 to {MAX_OPEN_TICKETS}"))
    }
}
