//! Rules: when a check is a breach. A pack of rules is parsed from TOML ([`RulePack::parse`]) and
//! resolved against a list of metric names once ([`RulePack::resolve`]), so that judging a
//! heartbeat needs no look-up by name.
//!
//! This module knows conditions, not their memory: what is pending or firing is in
//! [`crate::alerts`]. Not here yet: rate of change, forecast, certificate expiry, inheritance
//! (client, site, contract, host). A pack with any fault is refused as a whole, with all faults
//! listed ([`RuleError`]).

mod parse;
mod resolve;

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use watchkeep_shared::{DurationMs, metric};

pub use parse::{Problem, RuleError};
pub use resolve::{Resolved, ResolvedEntry};

/// The default pack, `config/rules/default.toml`, as TOML.
pub const DEFAULT_PACK_TOML: &str = include_str!("../../../../config/rules/default.toml");

/// Most rules in one pack.
pub const MAX_RULES: usize = 256;
/// Longest rule id, bytes.
pub const MAX_RULE_ID_BYTES: usize = 64;
/// Longest duration a rule may name: 30 days, milliseconds.
pub const MAX_RULE_DURATION_MS: i64 = 30 * 24 * 3_600_000;

/// Names a rule for as long as it exists: 1 to [`MAX_RULE_ID_BYTES`] bytes of `a-z 0-9 - _ .`.
/// Alerts survive a change of the pack by it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub String);

impl RuleId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing watched on a host: a metric's name, `service:KEY`, `log:RULE`, `host` (silence,
/// reboots), `clock`, `agent` or `identity`. With contract and host it is the key of an automatic ticket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckKey(pub String);

impl CheckKey {
    /// The check of a metric: its full name.
    pub fn metric(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The check of a service, by the key under which its state is reported.
    pub fn service(key: &str) -> Self {
        Self(format!("service:{key}"))
    }

    /// The check of a log rule of the policy, over all files it reads.
    pub fn log(rule: &str) -> Self {
        Self(format!("log:{rule}"))
    }

    /// The check of the machine as a whole: silence and reboots.
    pub fn host() -> Self {
        Self("host".to_owned())
    }

    /// The check of the agent itself: what keeps it from doing all that it should.
    pub fn agent() -> Self {
        Self("agent".to_owned())
    }

    /// The check of the host's identity: one machine, one certificate.
    pub fn identity() -> Self {
        Self("identity".to_owned())
    }

    /// The check of the machine's wall clock.
    pub fn clock() -> Self {
        Self("clock".to_owned())
    }

    /// What is left of a host's checks when it has as many tickets as it may have.
    pub fn surplus() -> Self {
        Self("surplus".to_owned())
    }

    /// Whether it is of the host as a whole, not of something that the host names.
    pub fn is_of_whole_host(&self) -> bool {
        [Self::host(), Self::agent(), Self::identity(), Self::clock()].contains(self)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The service's key, of a check of a service.
    pub fn as_service(&self) -> Option<&str> {
        self.0.strip_prefix("service:")
    }

    /// The log rule's name, of a check of a log rule.
    pub fn as_log(&self) -> Option<&str> {
        self.0.strip_prefix("log:")
    }

    /// Whether it is about what processes use up: then the busiest ones are part of its evidence.
    pub fn is_about_processes(&self) -> bool {
        FAMILIES_OF_PROCESSES
            .iter()
            .any(|family| self.0.starts_with(family))
    }

    /// The metric's name, of a check of a metric: its family has a dot, which no other check has.
    pub fn as_metric(&self) -> Option<&str> {
        let (family, _) = metric::split(&self.0);
        family.contains('.').then_some(self.as_str())
    }
}

impl fmt::Display for CheckKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CheckKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Families of metrics that rise because of some process.
const FAMILIES_OF_PROCESSES: [&str; 8] = [
    "cpu.",
    "load.",
    "mem.",
    "swap.",
    "psi.",
    "container.",
    "system.fds_",
    "system.threads_",
];

/// A text that names none of a closed set of words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{found}\" is not one of {expected}")]
pub struct ParseWordError {
    pub found: String,
    /// What is allowed.
    pub expected: &'static str,
}

/// How bad a breach is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will become a failure if nobody acts.
    Warning,
    /// A failure now.
    Critical,
}

impl Severity {
    /// The word as stored and written in packs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl FromStr for Severity {
    type Err = ParseWordError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "info" => Ok(Self::Info),
            "warning" => Ok(Self::Warning),
            "critical" => Ok(Self::Critical),
            other => Err(ParseWordError {
                found: other.to_owned(),
                expected: "info, warning, critical",
            }),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How soon people should act; `P1` is the most urgent and orders first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// At once.
    P1,
    /// Within the hour.
    P2,
    /// Today.
    P3,
    /// When there is time.
    P4,
}

impl Priority {
    /// The word as stored and written in packs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P1 => "P1",
            Self::P2 => "P2",
            Self::P3 => "P3",
            Self::P4 => "P4",
        }
    }
}

impl FromStr for Priority {
    type Err = ParseWordError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "P1" => Ok(Self::P1),
            "P2" => Ok(Self::P2),
            "P3" => Ok(Self::P3),
            "P4" => Ok(Self::P4),
            other => Err(ParseWordError {
                found: other.to_owned(),
                expected: "P1, P2, P3, P4",
            }),
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A level that a value is beyond, strictly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The value is greater.
    Above(f64),
    /// The value is less.
    Below(f64),
}

impl Limit {
    /// Whether `value` is beyond the level. Never for a NaN.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::Above(level) => value > level,
            Self::Below(level) => value < level,
        }
    }

    /// The number.
    pub const fn value(self) -> f64 {
        match self {
            Self::Above(level) | Self::Below(level) => level,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Above(level) => write!(f, "above {level}"),
            Self::Below(level) => write!(f, "below {level}"),
        }
    }
}

/// When a check is a breach, and what it is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its lasting name.
    pub id: RuleId,
    /// What it is called in tickets, as in `Disk almost full`.
    pub name: String,
    /// How bad a breach is.
    pub severity: Severity,
    /// The priority of the ticket it opens.
    pub priority: Priority,
    /// Where to read what to do: a URL or a path.
    pub runbook: Option<String>,
    /// The condition.
    pub kind: RuleKind,
}

/// The condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// A metric beyond a level.
    Threshold {
        /// A family (`disk.used_pct`: each instance is a check) or a full name (`disk.used_pct:/var`).
        metric: String,
        /// Beyond this it is a breach.
        raise: Limit,
        /// How long it must be a breach before it fires.
        raise_for: DurationMs,
        /// Beyond this it is well again; between the two nothing changes.
        clear: Limit,
        /// How long it must be well before the alert clears.
        clear_for: DurationMs,
    },
    /// A service that is stopped or failed.
    ServiceState {
        /// The service's key, or `*` for every watched service.
        service: String,
        /// How long it must be down before it fires.
        raise_for: DurationMs,
        /// How long it must run before the alert clears.
        clear_for: DurationMs,
    },
    /// Matching log lines within a window.
    LogCount {
        /// The log rule's name in the policy, or `*` for every one.
        log_rule: String,
        /// How many lines within the window fire it; at least 1.
        count: u64,
        window: DurationMs,
        /// How long no line may match before the alert clears.
        clear_for: DurationMs,
    },
    /// No heartbeat within the silence deadline (which the collector's settings name).
    Silent,
    /// A reboot that nobody announced.
    UnexpectedReboot {
        /// How long the machine must run on before the alert clears.
        clear_after: DurationMs,
    },
    /// The machine's wall clock jumped.
    ClockStep {
        /// By more than this, either way.
        above: DurationMs,
        /// How long it must run on evenly before the alert clears.
        clear_after: DurationMs,
    },
    /// The agent reports a problem of its own.
    AgentDegraded,
    /// One identity is used by two machines; the host is quarantined.
    ClonedIdentity,
    /// The machine's wall clock is wrong.
    ClockSkew {
        /// A skew larger than this, either way, is a breach.
        above: DurationMs,
        /// A skew smaller than this is well again.
        clear_below: DurationMs,
        /// How long it must be a breach before it fires.
        raise_for: DurationMs,
    },
}

impl RuleKind {
    /// The word for the kind in packs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Threshold { .. } => "threshold",
            Self::ServiceState { .. } => "service_state",
            Self::LogCount { .. } => "log_count",
            Self::Silent => "silent",
            Self::UnexpectedReboot { .. } => "unexpected_reboot",
            Self::ClockSkew { .. } => "clock_skew",
            Self::ClockStep { .. } => "clock_step",
            Self::AgentDegraded => "agent_trouble",
            Self::ClonedIdentity => "cloned_identity",
        }
    }
}

/// A valid set of rules.
#[derive(Clone, Debug, PartialEq)]
pub struct RulePack {
    rules: Vec<Arc<Rule>>,
    fingerprint: u64,
}

impl RulePack {
    /// Reads a pack from TOML text (`[[rule]]` tables; `config/rules/default.toml` explains each
    /// key). Refuses unknown keys; lists every problem, each with its line and key path.
    pub fn parse(toml: &str) -> Result<Self, RuleError> {
        parse::parse(toml).map(Self::new)
    }

    fn new(rules: Vec<Rule>) -> Self {
        let fingerprint = resolve::fingerprint(&rules);
        Self {
            rules: rules.into_iter().map(Arc::new).collect(),
            fingerprint,
        }
    }

    /// The rules, in the order of the text.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rule of this id.
    pub fn rule(&self, id: &RuleId) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| rule.id == *id)
    }

    /// Matches the threshold rules with metric names: do it once a schema and share the result.
    pub fn resolve<S: AsRef<str>>(&self, names: &[S]) -> Resolved {
        resolve::resolve(&self.rules, self.fingerprint, names)
    }
}
