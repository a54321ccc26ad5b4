//! Rules about the machine as a whole: silence, unexpected reboots, a wrong or jumping clock, and
//! about its agent: problems of its own, an identity used twice.

use std::sync::Arc;

use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    AlertChange, AlertEvidence, AlertState, Beat, Finding, HostAlerts, NewAlertId, Updated,
    entry::{EntryKind, Holds, Turn, Verdict},
    raised,
};
use crate::{
    rules::{CheckKey, Rule, RuleKind, RulePack},
    wording,
};

/// A host from which no heartbeat comes.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// The last sign of life.
    pub since: UnixMillis,
    /// When it was noticed.
    pub at: UnixMillis,
}

/// A reboot that nobody announced.
#[derive(Clone, Copy, Debug)]
pub struct Reboot {
    /// When it became known.
    pub at: UnixMillis,
    /// From the last heartbeat before it to the first after it.
    pub gap: DurationMs,
}

/// How wrong a machine's wall clock is.
#[derive(Clone, Copy, Debug)]
pub struct Skew {
    /// When it was measured, on the collector's time line.
    pub at: UnixMillis,
    /// As in [`super::Sample::max_step`].
    pub max_step: DurationMs,
    /// The machine's clock minus the collector's; positive if it is ahead.
    pub skew: DurationMs,
}

/// The host is silent: raises the silent rule, holds back service and log alerts, and stops the
/// time of what waits for time to pass. Nothing if it is silent already.
pub fn set_silent(
    host: &mut HostAlerts,
    rules: &RulePack,
    silence: Silence,
    new_id: NewAlertId<'_>,
) -> Vec<AlertChange> {
    if host.is_silent() {
        return Vec::new();
    }
    host.silent_since = Some(silence.since);
    host.changed.0 = true;
    let Some(rule) = single(rules, |kind| matches!(kind, RuleKind::Silent)) else {
        return Vec::new();
    };
    let i = host.other(EntryKind::Silent, &rule.id, &CheckKey::host());
    let entry = &mut host.others[i];
    if entry.alert().is_some() {
        return Vec::new();
    }
    let finding = Finding {
        summary: wording::silence(silence.since),
        evidence: AlertEvidence {
            detail: Some(wording::silence_detail(silence.since, silence.at)),
            ..AlertEvidence::default()
        },
    };
    vec![raised(&rule, entry, silence.at, finding, new_id)]
}

/// Heartbeats resumed. Nothing if the host was not silent.
pub fn clear_silent(host: &mut HostAlerts, at: UnixMillis) -> Vec<AlertChange> {
    let Some(silent_since) = host.silent_since.take() else {
        return Vec::new();
    };
    host.changed.0 = true;
    let mut changes = Vec::new();
    for entry in &mut host.others {
        match entry.kind {
            EntryKind::Silent => changes.extend(entry.clear(at, None, "heartbeats resumed")),
            EntryKind::Log | EntryKind::Reboot | EntryKind::ClockStep => {
                let counted_from = match entry.state {
                    AlertState::Ok => at,
                    AlertState::Pending { since } => since,
                    AlertState::Firing {
                        since,
                        clearing_since,
                        ..
                    } => clearing_since.unwrap_or(since),
                };
                let unknown = DurationMs(at.since(silent_since.max(counted_from)).0.max(0));
                entry.shift(unknown);
                entry.ends_at = entry.ends_at.map(|ends_at| ends_at + unknown);
                for matched in &mut entry.matched {
                    matched.at = matched.at + unknown;
                }
            }
            EntryKind::Metric
            | EntryKind::Service
            | EntryKind::Skew
            | EntryKind::AgentDegraded
            | EntryKind::ClonedIdentity => {}
        }
    }
    host.drop_ok();
    changes
}

/// The machine rebooted unannounced: raises the rule, or, if it fires already, starts the time
/// again after which it clears ([`super::tick`]).
pub fn raise_reboot(
    host: &mut HostAlerts,
    rules: &RulePack,
    reboot: &Reboot,
    new_id: NewAlertId<'_>,
) -> Vec<AlertChange> {
    let Some(rule) = single(rules, |kind| {
        matches!(kind, RuleKind::UnexpectedReboot { .. })
    }) else {
        return Vec::new();
    };
    let RuleKind::UnexpectedReboot { clear_after } = rule.kind else {
        return Vec::new();
    };
    let passing = Passing {
        entry: (EntryKind::Reboot, CheckKey::host()),
        at: reboot.at,
        clear_after,
        finding: Finding {
            summary: wording::REBOOT.to_owned(),
            evidence: AlertEvidence {
                detail: Some(wording::reboot_detail(reboot.gap)),
                ..AlertEvidence::default()
            },
        },
    };
    raise_for_a_while(host, &rule, passing, new_id)
}

/// The machine's wall clock jumped by `step` (positive: ahead): raises the rule if that is more
/// than it allows, or starts the time again after which it clears.
pub fn raise_clock_step(
    host: &mut HostAlerts,
    rules: &RulePack,
    at: UnixMillis,
    step: DurationMs,
    new_id: NewAlertId<'_>,
) -> Vec<AlertChange> {
    let Some(rule) = single(rules, |kind| matches!(kind, RuleKind::ClockStep { .. })) else {
        return Vec::new();
    };
    let RuleKind::ClockStep { above, clear_after } = rule.kind else {
        return Vec::new();
    };
    let size = DurationMs(step.0.saturating_abs());
    if size <= above {
        return Vec::new();
    }
    let passing = Passing {
        entry: (EntryKind::ClockStep, CheckKey::clock()),
        at,
        clear_after,
        finding: Finding {
            summary: wording::clock_step(step),
            evidence: AlertEvidence::default(),
        },
    };
    raise_for_a_while(host, &rule, passing, new_id)
}

/// Something that happened once, whose alert time alone ends.
struct Passing {
    entry: (EntryKind, CheckKey),
    at: UnixMillis,
    clear_after: DurationMs,
    finding: Finding,
}

fn raise_for_a_while(
    host: &mut HostAlerts,
    rule: &Arc<Rule>,
    passing: Passing,
    new_id: NewAlertId<'_>,
) -> Vec<AlertChange> {
    let (kind, check) = passing.entry;
    let i = host.other(kind, &rule.id, &check);
    let entry = &mut host.others[i];
    let ends_at = passing.at + passing.clear_after;
    if entry.ends_at.is_some_and(|before| before >= ends_at) {
        return Vec::new();
    }
    host.changed.0 = true;
    let mut changes = Vec::new();
    if entry.alert().is_none() {
        changes.push(raised(rule, entry, passing.at, passing.finding, new_id));
    }
    if let AlertState::Firing { clearing_since, .. } = &mut entry.state {
        *clearing_since = Some(passing.at);
    }
    entry.ends_at = Some(ends_at);
    changes
}

/// Something that holds until it is said to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The agent can't do all that it should.
    AgentDegraded,
    /// Two machines use the host's identity.
    ClonedIdentity,
}

/// What is known about a condition.
#[derive(Clone, Copy, Debug)]
pub struct ConditionReport<'a> {
    pub condition: Condition,
    /// When it was reported.
    pub at: UnixMillis,
    /// Every problem there is, in words; empty once the condition no longer holds.
    pub problems: &'a [String],
}

/// Most problems of one condition that are named, each once while its alert fires.
const MAX_NAMED: usize = 16;
/// Bytes by which problems are distinguished.
const NAMED_BYTES: usize = 200;

/// Notes whether a condition holds. A problem that comes while its alert fires updates the alert,
/// once; nothing follows while no new one comes.
pub fn set_condition(
    host: &mut HostAlerts,
    rules: &RulePack,
    report: ConditionReport<'_>,
    new_id: NewAlertId<'_>,
) -> Vec<AlertChange> {
    let ConditionReport {
        condition,
        at,
        problems,
    } = report;
    let (kind, check) = match condition {
        Condition::AgentDegraded => (EntryKind::AgentDegraded, CheckKey::agent()),
        Condition::ClonedIdentity => (EntryKind::ClonedIdentity, CheckKey::identity()),
    };
    let known = host.others.iter().position(|entry| entry.kind == kind);
    if problems.is_empty() {
        let Some(i) = known else {
            return Vec::new();
        };
        let reason = match condition {
            Condition::AgentDegraded => "the agent reports no problem any more",
            Condition::ClonedIdentity => "the host has a new key",
        };
        let change = host.others[i].clear(at, None, reason);
        host.changed.0 = true;
        host.drop_ok();
        return change.into_iter().collect();
    }
    let Some(rule) = single(rules, |rule| kind.judges(rule)) else {
        return Vec::new();
    };
    let i = known.unwrap_or_else(|| host.other(kind, &rule.id, &check));
    let entry = &mut host.others[i];
    let mut has_more = false;
    for problem in problems {
        let name = &problem[..problem.floor_char_boundary(NAMED_BYTES)];
        if entry.named.len() < MAX_NAMED && !entry.named.iter().any(|one| one == name) {
            entry.named.push(name.to_owned());
            has_more = true;
        }
    }
    let finding = named(&rule, &problems.join("; "));
    let change = match entry.alert() {
        None => raised(&rule, entry, at, finding, new_id),
        Some(alert) if has_more => AlertChange::Updated(Updated {
            alert,
            rule: rule.id.clone(),
            check,
            at,
            summary: finding.summary,
            evidence: finding.evidence,
        }),
        Some(_) => return Vec::new(),
    };
    host.changed.0 = true;
    vec![change]
}

/// The rule's name with a detail, which is also the evidence.
fn named(rule: &Rule, detail: &str) -> Finding {
    Finding {
        summary: format!("{}: {detail}", rule.name),
        evidence: AlertEvidence {
            detail: Some(detail.to_owned()),
            ..AlertEvidence::default()
        },
    }
}

/// Judges the machine's clock. A measurement not later than the last one changes nothing.
pub fn evaluate_skew(
    host: &mut HostAlerts,
    rules: &RulePack,
    measured: Skew,
    new_id: NewAlertId<'_>,
) -> Vec<AlertChange> {
    let Some(beat) = Beat::next(&mut host.skew_at, measured.at, measured.max_step) else {
        return Vec::new();
    };
    let Some(rule) = single(rules, |kind| matches!(kind, RuleKind::ClockSkew { .. })) else {
        return Vec::new();
    };
    let RuleKind::ClockSkew {
        above,
        clear_below,
        raise_for,
    } = rule.kind
    else {
        return Vec::new();
    };
    let size = DurationMs(measured.skew.0.saturating_abs());
    let verdict = if size > above {
        Verdict::Breach
    } else if size < clear_below {
        Verdict::Normal
    } else {
        Verdict::Between
    };
    let is_known = host.others.iter().any(|e| e.kind == EntryKind::Skew);
    if verdict != Verdict::Breach && !is_known {
        return Vec::new();
    }
    let i = host.other(EntryKind::Skew, &rule.id, &CheckKey::clock());
    let entry = &mut host.others[i];
    let clear_for = DurationMs(0);
    let turn = entry.advance(
        verdict,
        beat,
        Holds {
            raise_for,
            clear_for,
        },
    );
    host.changed.0 |= turn != Turn::Same;
    let value = Some(measured.skew.0 as f64);
    let change = match turn {
        Turn::Same | Turn::Moved => None,
        Turn::Raise => {
            let finding = Finding {
                summary: wording::skew(measured.skew, above),
                evidence: AlertEvidence {
                    value,
                    threshold: Some(above.0 as f64),
                    ..AlertEvidence::default()
                },
            };
            Some(raised(&rule, entry, beat.at, finding, new_id))
        }
        Turn::Clear => entry.clear(beat.at, value, "clock correct again"),
    };
    host.drop_ok();
    change.into_iter().collect()
}

/// The one rule of a kind of which a pack has at most one.
fn single(rules: &RulePack, is_meant: impl Fn(&RuleKind) -> bool) -> Option<Arc<Rule>> {
    rules
        .rules()
        .iter()
        .find(|rule| is_meant(&rule.kind))
        .cloned()
}
