//! Alerts: the memory of what is pending or firing on one host, and what follows from each new
//! observation. Everything comes in as values with their own time `at`; every function returns the
//! changes that people should see, and [`HostAlerts::take_changed`] says whether the memory differs
//! from what was last written.
//!
//! Missing data freezes: a null value, an absent metric, an unknown service state or a silent host
//! neither clears an alert nor lets any duration run on. Observations that repeat or precede one
//! already judged change nothing (log matches, being events, count whenever they come). While the
//! silent alert fires, no service or log alert is raised (a pending one waits); recovery is never
//! held back.
//!
//! This module never decides about tickets or pages ([`crate::tickets`]) and keeps no history.
//! It can't fail: what it cannot judge stays as it is.

mod ending;
mod entry;
mod host;
mod logs;
mod services;
mod values;

use serde::{Deserialize, Serialize};
use watchkeep_shared::{DurationMs, UnixMillis};

use self::entry::{Entry, EntryKind};
use crate::{
    ids::AlertId,
    rules::{CheckKey, Priority, Rule, RuleId, RulePack, Severity},
};

pub use self::{
    ending::{Unwatched, end_all},
    entry::AlertState,
    host::{
        Condition, ConditionReport, Reboot, Silence, Skew, clear_silent, evaluate_skew,
        raise_clock_step, raise_reboot, set_condition, set_silent,
    },
    logs::{LogMatches, record_log_matches},
    services::{ServiceBeat, evaluate_services},
    values::{Sample, evaluate_values},
};

/// Gives the identifier of a new alert.
pub type NewAlertId<'a> = &'a mut dyn FnMut() -> AlertId;

/// What changed about an alert, for tickets and people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum AlertChange {
    /// It began to fire.
    Raised(Raised),
    /// It fires and has found more.
    Updated(Updated),
    /// It stopped.
    Cleared(Cleared),
}

/// An alert that began to fire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// The new alert.
    pub alert: AlertId,
    pub rule: RuleId,
    pub check: CheckKey,
    /// The rule's severity.
    pub severity: Severity,
    /// The rule's priority.
    pub priority: Priority,
    /// When it fired.
    pub at: UnixMillis,
    /// One line for people, as in `Disk /var 91 % full (limit 85 %)`.
    pub summary: String,
    pub evidence: AlertEvidence,
}

/// A firing alert that has found more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Updated {
    pub alert: AlertId,
    pub rule: RuleId,
    pub check: CheckKey,
    /// When it was found.
    pub at: UnixMillis,
    /// One line with all that is known now.
    pub summary: String,
    pub evidence: AlertEvidence,
}

/// An alert that stopped firing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cleared {
    pub alert: AlertId,
    pub rule: RuleId,
    pub check: CheckKey,
    /// When it stopped.
    pub at: UnixMillis,
    /// The value then, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Why, for people.
    pub reason: String,
}

/// What an alert was raised on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AlertEvidence {
    /// The value that fired: in the metric's unit; lines for a log; milliseconds for skew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What it was held against, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// More about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Log lines, as the agent sent them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// The alerts of one host that are pending or firing. Keyed by (rule id, check), so it survives a
/// change of the pack and of the host's schema.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostAlerts {
    /// When values were last judged.
    values_at: Option<UnixMillis>,
    /// When services were last judged.
    services_at: Option<UnixMillis>,
    /// When the clock was last judged.
    skew_at: Option<UnixMillis>,
    /// The last sign of life, while the host is silent.
    silent_since: Option<UnixMillis>,
    /// Threshold rules, in the order of the entries they are bound to.
    metrics: Vec<Entry>,
    /// All other rules.
    others: Vec<Entry>,
    /// Which [`crate::rules::Resolved`] the slots of `metrics` refer to.
    #[serde(skip)]
    bound_to: entry::Transient<Option<u64>>,
    #[serde(skip)]
    changed: entry::Transient<bool>,
}

/// One alert that fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiringAlert<'a> {
    pub alert: AlertId,
    pub rule: &'a RuleId,
    pub check: &'a CheckKey,
    /// When it fired.
    pub since: UnixMillis,
}

impl HostAlerts {
    /// Whether what must survive a restart changed since the last call; the pending count as such.
    /// The times of the last observations alone do not: replaying the store's tail restores them.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed.0)
    }

    /// The state of a rule on a check.
    pub fn state(&self, rule: &RuleId, check: &CheckKey) -> AlertState {
        self.entries()
            .find(|entry| entry.rule == *rule && entry.check == *check)
            .map_or(AlertState::Ok, |entry| entry.state)
    }

    /// The alerts that fire.
    pub fn firing(&self) -> impl Iterator<Item = FiringAlert<'_>> {
        self.entries().filter_map(|entry| match entry.state {
            AlertState::Firing { alert, since, .. } => Some(FiringAlert {
                alert,
                rule: &entry.rule,
                check: &entry.check,
                since,
            }),
            AlertState::Ok | AlertState::Pending { .. } => None,
        })
    }

    /// How many alerts fire on a check: what [`crate::tickets::on_alert_cleared`] asks.
    pub fn firing_on(&self, check: &CheckKey) -> usize {
        self.firing().filter(|alert| alert.check == check).count()
    }

    /// Whether the host is silent ([`set_silent`]).
    pub const fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// When the alert about the host's silence was raised; `None` if none fires.
    pub fn silence_raised_at(&self) -> Option<UnixMillis> {
        self.others.iter().find_map(|entry| match entry.state {
            AlertState::Firing { since, .. } if entry.kind == EntryKind::Silent => Some(since),
            _ => None,
        })
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.metrics.iter().chain(&self.others)
    }

    /// Whether service and log alerts wait for the host's own.
    fn suppresses(&self) -> bool {
        self.others
            .iter()
            .any(|entry| entry.kind == EntryKind::Silent && entry.alert().is_some())
    }

    /// The index of a rule's entry on a check among `others`; a new one without a breach if there is
    /// none.
    fn other(&mut self, kind: EntryKind, rule: &RuleId, check: &CheckKey) -> usize {
        let found = self
            .others
            .iter()
            .position(|entry| entry.rule == *rule && entry.check == *check);
        found.unwrap_or_else(|| {
            self.others
                .push(Entry::new(kind, rule.clone(), check.clone()));
            self.others.len() - 1
        })
    }

    fn drop_ok(&mut self) {
        self.metrics.retain(|entry| entry.state != AlertState::Ok);
        self.others.retain(|entry| entry.state != AlertState::Ok);
    }
}

/// When [`tick`] has something to do next; `None` while nothing waits, or the host is silent.
pub fn next_deadline(host: &HostAlerts) -> Option<UnixMillis> {
    if host.is_silent() {
        return None;
    }
    host.others.iter().filter_map(|entry| entry.ends_at).min()
}

/// Lets time pass: log windows run out, a machine has run on long enough after a reboot. A silent
/// host's time does not advance.
pub fn tick(host: &mut HostAlerts, at: UnixMillis) -> Vec<AlertChange> {
    if next_deadline(host).is_none_or(|deadline| deadline > at) {
        return Vec::new();
    }
    let mut changes = Vec::new();
    for entry in &mut host.others {
        if entry.ends_at.is_some_and(|ends_at| ends_at <= at) {
            let reason = match entry.kind {
                EntryKind::Reboot => "no further reboot",
                EntryKind::ClockStep => "no further jump of the clock",
                _ => "no further matching lines",
            };
            changes.extend(entry.clear(at, None, reason));
        }
    }
    host.drop_ok();
    host.changed.0 = true;
    changes
}

/// Notes that a heartbeat made at `at` was judged before the memory was lost, so that durations run
/// on over a restart. Call it for each heartbeat of the tail that came after the memory was written:
/// by construction such a heartbeat changed nothing but these times.
pub fn note_observed(host: &mut HostAlerts, at: UnixMillis) {
    for last in [
        &mut host.values_at,
        &mut host.services_at,
        &mut host.skew_at,
    ] {
        *last = (*last).max(Some(at));
    }
}

/// Ends what belongs to rules that the pack no longer has. Call it after a change of the pack.
pub fn drop_removed_rules(
    host: &mut HostAlerts,
    rules: &RulePack,
    at: UnixMillis,
) -> Vec<AlertChange> {
    let mut changes = Vec::new();
    let mut changed = false;
    for entry in host.metrics.iter_mut().chain(&mut host.others) {
        let kept = rules
            .rule(&entry.rule)
            .is_some_and(|rule| entry.kind.judges(&rule.kind));
        if !kept {
            changes.extend(entry.clear(at, None, "the rule was removed"));
            changed = true;
        }
    }
    if changed {
        host.drop_ok();
        host.changed.0 = true;
    }
    changes
}

/// What an alert says when it is raised.
struct Finding {
    summary: String,
    evidence: AlertEvidence,
}

/// Makes the entry fire, as a new alert.
fn raised(
    rule: &Rule,
    entry: &mut Entry,
    at: UnixMillis,
    finding: Finding,
    new_id: NewAlertId<'_>,
) -> AlertChange {
    let alert = new_id();
    entry.state = AlertState::Firing {
        alert,
        since: at,
        clearing_since: None,
    };
    AlertChange::Raised(Raised {
        alert,
        rule: rule.id.clone(),
        check: entry.check.clone(),
        severity: rule.severity,
        priority: rule.priority,
        at,
        summary: finding.summary,
        evidence: finding.evidence,
    })
}

/// How far one observation lies after the one before of its kind.
#[derive(Clone, Copy, Debug)]
struct Beat {
    at: UnixMillis,
    /// The distance.
    span: DurationMs,
    /// Whether what was observed at both ends may be taken to hold between them.
    is_unbroken: bool,
}

impl Beat {
    /// `None` if `at` is not later than the last one.
    fn next(last: &mut Option<UnixMillis>, at: UnixMillis, max_step: DurationMs) -> Option<Self> {
        let span = match *last {
            Some(last) if at <= last => return None,
            Some(last) => at.since(last),
            None => DurationMs(0),
        };
        *last = Some(at);
        Some(Self {
            at,
            span,
            is_unbroken: span <= max_step,
        })
    }
}

#[cfg(test)]
mod tests;
