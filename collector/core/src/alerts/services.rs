//! Service rules: a watched service that is stopped or failed.

use watchkeep_shared::{
    DurationMs, UnixMillis,
    wire::heartbeat::{Service, ServiceStatus},
};

use super::{
    AlertChange, AlertEvidence, AlertState, Beat, Finding, HostAlerts, NewAlertId,
    entry::{Entry, EntryKind, Holds, LastReport, Turn, Verdict},
    raised,
};
use crate::{
    rules::{CheckKey, Rule, RuleKind, RulePack},
    wording,
};

/// What one heartbeat says about services.
#[derive(Clone, Copy, Debug)]
pub struct ServiceBeat<'a> {
    /// When it was made, on the collector's time line.
    pub at: UnixMillis,
    /// As in [`super::Sample::max_step`].
    pub max_step: DurationMs,
    /// Every watched service; `None`: as in the heartbeat before.
    pub services: Option<&'a [Service]>,
}

/// Judges the services of one heartbeat. Call it for every heartbeat, with or without a list, so
/// that durations run. A service that a list no longer has is cleared. A heartbeat not later than
/// the last one changes nothing.
pub fn evaluate_services(
    host: &mut HostAlerts,
    rules: &RulePack,
    seen: &ServiceBeat<'_>,
    new_id: NewAlertId<'_>,
) -> Vec<AlertChange> {
    let Some(beat) = Beat::next(&mut host.services_at, seen.at, seen.max_step) else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    match seen.services {
        None => carry_on(host, rules, beat, &mut changes, new_id),
        Some(services) => {
            drop_unwatched(host, services, beat.at, &mut changes);
            for service in services {
                let reported = Reported { beat, service };
                judge_all(host, rules, reported, &mut changes, new_id);
            }
        }
    }
    host.drop_ok();
    changes
}

/// Nothing changed since the heartbeat before: only durations run.
fn carry_on(
    host: &mut HostAlerts,
    rules: &RulePack,
    beat: Beat,
    changes: &mut Vec<AlertChange>,
    new_id: NewAlertId<'_>,
) {
    for i in 0..host.others.len() {
        let entry = &host.others[i];
        if entry.kind != EntryKind::Service {
            continue;
        }
        let Some(rule) = rules.rule(&entry.rule) else {
            continue;
        };
        let key = entry.check.as_str();
        let last = entry.last_report.clone().unwrap_or_else(|| assumed(entry));
        let service = Service {
            key: key.strip_prefix("service:").unwrap_or(key).to_owned(),
            status: last.status,
            detail: last.detail,
        };
        changes.extend(judge(
            host,
            rule,
            i,
            Reported {
                beat,
                service: &service,
            },
            new_id,
        ));
    }
}

/// The report behind an entry that was written before reports were kept.
const fn assumed(entry: &Entry) -> LastReport {
    let status = match entry.state {
        _ if entry.is_frozen => ServiceStatus::Unknown,
        AlertState::Firing {
            clearing_since: Some(_),
            ..
        } => ServiceStatus::Running,
        AlertState::Ok | AlertState::Pending { .. } | AlertState::Firing { .. } => {
            ServiceStatus::Stopped
        }
    };
    LastReport {
        status,
        detail: None,
    }
}

fn drop_unwatched(
    host: &mut HostAlerts,
    services: &[Service],
    at: UnixMillis,
    changes: &mut Vec<AlertChange>,
) {
    for entry in &mut host.others {
        let check = entry.check.as_str();
        let is_watched = check
            .strip_prefix("service:")
            .is_some_and(|key| services.iter().any(|service| service.key == key));
        if entry.kind == EntryKind::Service && !is_watched {
            changes.extend(entry.clear(at, None, "no longer watched"));
            host.changed.0 = true;
        }
    }
}

/// A service as one heartbeat reports it.
#[derive(Clone, Copy)]
struct Reported<'a> {
    beat: Beat,
    service: &'a Service,
}

fn judge_all(
    host: &mut HostAlerts,
    rules: &RulePack,
    reported: Reported<'_>,
    changes: &mut Vec<AlertChange>,
    new_id: NewAlertId<'_>,
) {
    let service = reported.service;
    let check = CheckKey::service(&service.key);
    if !service.status.is_fault() && host.others.iter().all(|entry| entry.check != check) {
        return;
    }
    for rule in rules.rules() {
        let RuleKind::ServiceState { service: meant, .. } = &rule.kind else {
            continue;
        };
        if meant == "*" || *meant == service.key {
            let i = host.other(EntryKind::Service, &rule.id, &check);
            changes.extend(judge(host, rule, i, reported, new_id));
        }
    }
}

fn judge(
    host: &mut HostAlerts,
    rule: &Rule,
    i: usize,
    reported: Reported<'_>,
    new_id: NewAlertId<'_>,
) -> Option<AlertChange> {
    let Reported { beat, service } = reported;
    let RuleKind::ServiceState {
        raise_for,
        clear_for,
        ..
    } = rule.kind
    else {
        return None;
    };
    let verdict = match service.status {
        ServiceStatus::Running => Verdict::Normal,
        status if status.is_fault() => Verdict::Breach,
        _ => Verdict::Unknown,
    };
    let suppresses = host.suppresses();
    let entry = &mut host.others[i];
    let turn = entry.advance(
        verdict,
        beat,
        Holds {
            raise_for,
            clear_for,
        },
    );
    let report = Some(LastReport::from(service));
    host.changed.0 |= turn != Turn::Same || entry.last_report != report;
    entry.last_report = report;
    match turn {
        Turn::Same | Turn::Moved => None,
        Turn::Raise if suppresses => {
            if entry.state == AlertState::Ok {
                entry.state = AlertState::Pending { since: beat.at };
            }
            None
        }
        Turn::Raise => {
            let finding = Finding {
                summary: wording::service_breach(
                    &service.key,
                    service.status,
                    service.detail.as_deref(),
                ),
                evidence: AlertEvidence {
                    detail: service.detail.clone(),
                    ..AlertEvidence::default()
                },
            };
            Some(raised(rule, entry, beat.at, finding, new_id))
        }
        Turn::Clear => entry.clear(beat.at, None, wording::service_recovery(&service.key)),
    }
}
