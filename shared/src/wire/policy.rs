//! Policy: what the MSP asks an agent to watch. It comes down in acknowledgements.

use serde::{Deserialize, Serialize};

/// What an agent watches and how often. The customer's local configuration may refuse items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Changes whenever the content does; never 0.
    pub version: u64,
    /// Time between heartbeats, milliseconds, within
    /// [`super::limits::MIN_INTERVAL_MS`]`..=`[`super::limits::MAX_INTERVAL_MS`].
    pub interval_ms: u32,
    /// Services to watch.
    #[serde(default)]
    pub services: Vec<ServiceCheck>,
    /// Logs to follow.
    #[serde(default)]
    pub logs: Vec<LogCheck>,
}

/// One service to watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServiceCheck {
    /// At least one process whose name (`/proc/PID/comm`, at most 15 bytes) or executable's file
    /// name is `name`.
    Process {
        /// The name.
        name: String,
    },
    /// A TCP port on this host that accepts connections.
    Tcp {
        /// `HOST:PORT`, as in `127.0.0.1:5432`.
        address: String,
    },
}

impl ServiceCheck {
    /// The key under which its state is reported (see [`super::heartbeat::Service::key`]).
    pub fn key(&self) -> String {
        match self {
            Self::Process { name } => format!("process:{name}"),
            Self::Tcp { address } => format!("tcp:{address}"),
        }
    }
}

/// Files to follow and what to look for in them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogCheck {
    /// A path or glob, as in `/var/log/nginx/*.log`.
    pub path: String,
    /// What to look for.
    pub rules: Vec<LogRule>,
}

/// A pattern to look for in log lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogRule {
    /// Unique within the policy; names the check in alerts.
    pub name: String,
    /// A regular expression (syntax of the Rust `regex` crate), matched against each line.
    pub pattern: String,
}

/// A policy item that the customer's configuration refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The item: `process:NAME`, `tcp:HOST:PORT`, or `log:PATH`.
    pub item: String,
    /// Why, for people.
    pub reason: String,
}
