//! One rule on one check: the state machine that every kind of rule shares.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{
    DurationMs, UnixMillis,
    wire::heartbeat::{Service, ServiceStatus},
};

use super::{AlertChange, Beat, Cleared};
use crate::{
    ids::AlertId,
    rules::{CheckKey, RuleId, RuleKind},
};

/// The state of a rule on a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AlertState {
    /// No breach.
    Ok,
    /// A breach that has not lasted long enough to fire.
    Pending {
        /// Since when, moved forward by every stretch for which nothing is known.
        since: UnixMillis,
    },
    /// An alert fires.
    Firing {
        alert: AlertId,
        /// When it fired.
        since: UnixMillis,
        /// Since when the check is normal again, moved forward likewise; `None` while it is not.
        clearing_since: Option<UnixMillis>,
    },
}

/// Which kind of rule an entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EntryKind {
    Metric,
    Service,
    Log,
    Silent,
    Reboot,
    Skew,
    ClockStep,
    /// Stored by an earlier name.
    #[serde(rename = "agent_trouble")]
    AgentDegraded,
    ClonedIdentity,
}

impl EntryKind {
    /// Whether a rule of this kind is what the entry remembers.
    pub(super) const fn judges(self, kind: &RuleKind) -> bool {
        matches!(
            (self, kind),
            (Self::Metric, RuleKind::Threshold { .. })
                | (Self::Service, RuleKind::ServiceState { .. })
                | (Self::Log, RuleKind::LogCount { .. })
                | (Self::Silent, RuleKind::Silent)
                | (Self::Reboot, RuleKind::UnexpectedReboot { .. })
                | (Self::Skew, RuleKind::ClockSkew { .. })
                | (Self::ClockStep, RuleKind::ClockStep { .. })
                | (Self::AgentDegraded, RuleKind::AgentDegraded)
                | (Self::ClonedIdentity, RuleKind::ClonedIdentity)
        )
    }
}

/// A cache: no part of the value it sits in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transient<T>(pub(super) T);

impl<T> PartialEq for Transient<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Lines that matched at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Matched {
    pub(super) at: UnixMillis,
    pub(super) count: u64,
}

/// What an agent reported last about a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastReport {
    pub(super) status: ServiceStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

impl From<&Service> for LastReport {
    fn from(service: &Service) -> Self {
        Self {
            status: service.status,
            detail: service.detail.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    pub(super) rule: RuleId,
    pub(super) check: CheckKey,
    pub(super) state: AlertState,
    /// The last observation was inconclusive.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) is_frozen: bool,
    /// When time alone ends it (logs, reboots).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ends_at: Option<UnixMillis>,
    /// Log lines that still count, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) matched: Vec<Matched>,
    /// A service's last report, for an alert that is raised later than it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_report: Option<LastReport>,
    /// The problems of a condition that its alert has named, each cut to a bounded length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) named: Vec<String>,
    /// Which resolved entry it belongs to; [`UNBOUND`] if none.
    #[serde(skip, default = "unbound")]
    pub(super) slot: Transient<usize>,
}

/// The slot of a metric that the host's schema does not have.
pub(super) const UNBOUND: usize = usize::MAX;

const fn unbound() -> Transient<usize> {
    Transient(UNBOUND)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// What an observation means for a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Breach,
    /// Neither a breach nor normal: between the levels.
    Between,
    /// As it should be.
    Normal,
    /// Inconclusive.
    Unknown,
}

/// How long a verdict must hold before it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holds {
    pub(super) raise_for: DurationMs,
    pub(super) clear_for: DurationMs,
}

/// What an observation did to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing that must be written.
    Same,
    /// The state changed, unseen by people.
    Moved,
    /// It must be raised now.
    Raise,
    /// It must be cleared now.
    Clear,
}

impl Entry {
    pub(super) const fn new(kind: EntryKind, rule: RuleId, check: CheckKey) -> Self {
        Self {
            kind,
            rule,
            check,
            state: AlertState::Ok,
            is_frozen: false,
            ends_at: None,
            matched: Vec::new(),
            last_report: None,
            named: Vec::new(),
            slot: unbound(),
        }
    }

    pub(super) const fn alert(&self) -> Option<AlertId> {
        match self.state {
            AlertState::Firing { alert, .. } => Some(alert),
            AlertState::Ok | AlertState::Pending { .. } => None,
        }
    }

    /// Takes in one observation. A span counts only if its step is unbroken and both of its ends
    /// was conclusive; otherwise what is counted is moved forward by it.
    pub(super) fn advance(&mut self, verdict: Verdict, beat: Beat, holds: Holds) -> Turn {
        let is_unknown = verdict == Verdict::Unknown;
        if is_unknown || self.is_frozen || !beat.is_unbroken {
            self.shift(beat.span);
        }
        self.is_frozen = is_unknown;
        match (&mut self.state, verdict) {
            (_, Verdict::Unknown)
            | (AlertState::Ok, Verdict::Between | Verdict::Normal)
            | (
                AlertState::Firing {
                    clearing_since: None,
                    ..
                },
                Verdict::Breach | Verdict::Between,
            ) => Turn::Same,
            (AlertState::Ok, Verdict::Breach) if holds.raise_for.0 <= 0 => Turn::Raise,
            (AlertState::Ok, Verdict::Breach) => {
                self.state = AlertState::Pending { since: beat.at };
                Turn::Moved
            }
            (AlertState::Pending { since }, Verdict::Breach) => {
                if beat.at.since(*since) >= holds.raise_for {
                    Turn::Raise
                } else {
                    Turn::Same
                }
            }
            (AlertState::Pending { .. }, Verdict::Between | Verdict::Normal) => {
                self.state = AlertState::Ok;
                Turn::Moved
            }
            (AlertState::Firing { clearing_since, .. }, Verdict::Normal) => {
                let was_clearing = clearing_since.is_some();
                let since = *clearing_since.get_or_insert(beat.at);
                if beat.at.since(since) >= holds.clear_for {
                    Turn::Clear
                } else if was_clearing {
                    Turn::Same
                } else {
                    Turn::Moved
                }
            }
            (AlertState::Firing { clearing_since, .. }, Verdict::Breach | Verdict::Between) => {
                *clearing_since = None;
                Turn::Moved
            }
        }
    }

    /// Moves what is being counted forward, by a span for which nothing is known.
    pub(super) fn shift(&mut self, span: DurationMs) {
        match &mut self.state {
            AlertState::Pending { since }
            | AlertState::Firing {
                clearing_since: Some(since),
                ..
            } => *since = *since + span,
            AlertState::Ok | AlertState::Firing { .. } => {}
        }
    }

    /// Ends it; the change, if an alert fired.
    pub(super) fn clear(
        &mut self,
        at: UnixMillis,
        value: Option<f64>,
        reason: &str,
    ) -> Option<AlertChange> {
        let alert = self.alert();
        self.state = AlertState::Ok;
        self.ends_at = None;
        self.named.clear();
        Some(AlertChange::Cleared(Cleared {
            alert: alert?,
            rule: self.rule.clone(),
            check: self.check.clone(),
            at,
            value,
            reason: reason.to_owned(),
        }))
    }
}
