//! Threshold rules on the values of a heartbeat. The usual case, in which nothing is pending or
//! firing and no level is passed, is one comparison an entry.

use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    AlertChange, AlertEvidence, AlertState, Beat, Finding, HostAlerts, NewAlertId,
    entry::{Entry, EntryKind, Holds, Turn, UNBOUND, Verdict},
    raised,
};
use crate::{
    rules::{Limit, Resolved, ResolvedEntry, RuleKind},
    wording,
};

/// The values of one heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// When they were taken, on the collector's time line.
    pub at: UnixMillis,
    /// The longest step after the sample before that still counts as unbroken; what lies in a
    /// longer one is not known and counts for no duration.
    pub max_step: DurationMs,
    /// The values, in the order of the schema that `resolved` was made for.
    pub values: &'a [Option<f64>],
}

/// Judges the values of one heartbeat. A sample not later than the last one changes nothing.
pub fn evaluate_values(
    host: &mut HostAlerts,
    resolved: &Resolved,
    sample: &Sample<'_>,
    new_id: NewAlertId<'_>,
) -> Vec<AlertChange> {
    let Some(beat) = Beat::next(&mut host.values_at, sample.at, sample.max_step) else {
        return Vec::new();
    };
    bind(host, resolved);
    let mut changes = Vec::new();
    let mut has_ok = false;
    // Walks the resolved entries and the few remembered ones together, both by slot.
    let mut next = 0;
    for (slot, watched) in resolved.entries().iter().enumerate() {
        let value = sample
            .values
            .get(watched.value)
            .copied()
            .flatten()
            .filter(|value| value.is_finite());
        let is_remembered = host
            .metrics
            .get(next)
            .is_some_and(|entry| entry.slot.0 == slot);
        if !is_remembered {
            if !value.is_some_and(|value| watched.is_breach(value)) {
                continue;
            }
            let (rule, check) = (watched.rule.id.clone(), watched.check.clone());
            let mut entry = Entry::new(EntryKind::Metric, rule, check);
            entry.slot.0 = slot;
            host.metrics.insert(next, entry);
        }
        let entry = &mut host.metrics[next];
        next += 1;
        let turn = entry.advance(verdict(watched, value), beat, holds(&watched.rule.kind));
        host.changed.0 |= turn != Turn::Same;
        changes.extend(report(
            watched,
            entry,
            turn,
            Observed { beat, value },
            new_id,
        ));
        has_ok |= entry.state == AlertState::Ok;
    }
    for entry in &mut host.metrics[next..] {
        entry.advance(Verdict::Unknown, beat, HELD_NEVER);
    }
    if has_ok {
        host.drop_ok();
    }
    changes
}

const HELD_NEVER: Holds = Holds {
    raise_for: DurationMs(i64::MAX),
    clear_for: DurationMs(i64::MAX),
};

/// Points the remembered entries at the places of this schema and pack.
fn bind(host: &mut HostAlerts, resolved: &Resolved) {
    if host.bound_to.0 == Some(resolved.id()) {
        return;
    }
    for entry in &mut host.metrics {
        entry.slot.0 = resolved
            .entries()
            .iter()
            .position(|to| to.check == entry.check && to.rule.id == entry.rule)
            .unwrap_or(UNBOUND);
    }
    host.metrics.sort_by_key(|entry| entry.slot.0);
    host.bound_to.0 = Some(resolved.id());
}

fn verdict(watched: &ResolvedEntry, value: Option<f64>) -> Verdict {
    match value {
        None => Verdict::Unknown,
        Some(value) if watched.is_breach(value) => Verdict::Breach,
        Some(value) if watched.is_normal(value) => Verdict::Normal,
        Some(_) => Verdict::Between,
    }
}

const fn holds(kind: &RuleKind) -> Holds {
    match kind {
        RuleKind::Threshold {
            raise_for,
            clear_for,
            ..
        } => Holds {
            raise_for: *raise_for,
            clear_for: *clear_for,
        },
        // Only thresholds are ever resolved.
        _ => HELD_NEVER,
    }
}

/// The value of one metric in one heartbeat.
#[derive(Clone, Copy)]
struct Observed {
    beat: Beat,
    value: Option<f64>,
}

fn report(
    watched: &ResolvedEntry,
    entry: &mut Entry,
    turn: Turn,
    observed: Observed,
    new_id: NewAlertId<'_>,
) -> Option<AlertChange> {
    let Observed { beat, value } = observed;
    let RuleKind::Threshold {
        raise,
        raise_for,
        clear,
        ..
    } = &watched.rule.kind
    else {
        return None;
    };
    match turn {
        Turn::Same | Turn::Moved => None,
        Turn::Raise => {
            let name = watched.check.as_str();
            let observed = value.unwrap_or_default();
            let finding = Finding {
                summary: wording::breach(&watched.rule.name, name, observed, *raise),
                evidence: AlertEvidence {
                    value,
                    threshold: Some(raise.value()),
                    detail: (raise_for.0 > 0).then(|| {
                        let way = match raise {
                            Limit::Above(_) => "above",
                            Limit::Below(_) => "below",
                        };
                        let length = wording::duration(*raise_for);
                        format!("{way} the limit for at least {length}")
                    }),
                    lines: Vec::new(),
                },
            };
            Some(raised(&watched.rule, entry, beat.at, finding, new_id))
        }
        Turn::Clear => {
            let name = watched.check.as_str();
            let reason = wording::recovery(name, value.unwrap_or_default(), *clear);
            entry.clear(beat.at, value, &reason)
        }
    }
}
