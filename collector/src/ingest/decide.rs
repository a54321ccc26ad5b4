//! What follows from one batch, or from a deadline, for one host. Pure: a host's memory, the
//! message and the instant in; the memory is moved on and everything that must be written comes out.

use std::collections::HashMap;

use watchkeep_core::{
    alerts::{
        self, AlertChange, Condition, ConditionReport, LogMatches, NewAlertId, Reboot, Sample,
        ServiceBeat, Silence, Skew,
    },
    evidence::{Evidence, EvidenceKind},
    host::{Admission, BatchTaken, Origin, Outcome, Placed, take_batch, take_silence, unbroken_ms},
    rules::RulePack,
    series,
};
use watchkeep_shared::{
    DurationMs, UnixMillis, metric,
    wire::{
        heartbeat::{Ack, Batch, Event, Frame, GoodbyeReason, Rejected, Service, ServiceStatus},
        host::Want,
    },
};

use super::{NotTaken, hosts::HostEntry};
use crate::store::{heartbeats::NewHeartbeat, record::NewEvent};

/// Log matches count for alerts if they are not older than this: a line that was spooled for a few
/// minutes still wakes someone, one of yesterday does not.
const LOG_MATCH_FRESH: DurationMs = DurationMs::from_mins(15);

/// With so many heartbeats at once the host's state is written too: it costs little beside them, and a
/// collector that starts again need not go through them.
const BACKLOG_FRAMES: usize = 16;

/// What all decisions share.
pub(super) struct Context<'a> {
    pub(super) rules: &'a RulePack,
    /// The host's silence belongs to an incident.
    pub(super) is_in_incident: bool,
    /// Identifiers of rows.
    pub(super) row_id: &'a mut dyn FnMut() -> i64,
    /// Identifiers of alerts.
    pub(super) alert_id: NewAlertId<'a>,
}

/// Everything that follows.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) heartbeats: Vec<NewHeartbeat>,
    pub(super) evidence: Vec<Evidence>,
    pub(super) events: Vec<NewEvent>,
    pub(super) changes: Vec<AlertChange>,
    /// The host's state must be written.
    pub(super) durable: bool,
    /// The host's identity turned out to be used twice at this instant.
    pub(super) quarantined: Option<UnixMillis>,
    pub(super) repeats: u64,
    pub(super) ack: Ack,
}

/// Decides whether a batch may be taken at all: not if its host's identity is used twice. `None`
/// besides if so.
pub(super) fn admit(
    entry: &mut HostEntry,
    batch: &Batch,
    (origin, at): (Origin<'_>, UnixMillis),
    context: &mut Context<'_>,
) -> (Decision, Option<NotTaken>) {
    let mut decision = Decision::default();
    let admission = watchkeep_core::host::admit(&mut entry.state, batch, origin, at);
    // Of two machines with one identity nobody knows which one this is.
    if matches!(admission, Admission::Welcome | Admission::Lifted)
        && entry.state.trust != *origin.trust
    {
        entry.state.trust.clone_from(origin.trust);
        decision.durable = true;
    }
    let detail = match (&admission, &entry.state.quarantine) {
        (Admission::Welcome, _) => return (decision, None),
        (Admission::Quarantined, _) => return (decision, Some(NotTaken::Quarantined)),
        (Admission::Lifted | Admission::Found, quarantine) => {
            quarantine.as_ref().map(|found| found.detail.clone())
        }
    };
    decision.durable = true;
    let report = ConditionReport {
        condition: Condition::ClonedIdentity,
        at,
        problems: detail.as_slice(),
    };
    decision.changes =
        alerts::set_condition(&mut entry.alerts, context.rules, report, context.alert_id);
    let Some(detail) = detail else {
        return (decision, None);
    };
    tracing::warn!(host.id = %entry.id, "{} is quarantined: {detail}", entry.name);
    decision.quarantined = Some(at);
    // It is heard, twice.
    entry.state.overdue = false;
    let changes = alerts::clear_silent(&mut entry.alerts, at);
    decision.changes.extend(changes);
    decision.events.push(NewEvent {
        id: (context.row_id)(),
        host: entry.id,
        kind: "quarantined",
        detail: serde_json::json!({ "type": "quarantined", "detail": detail }).to_string(),
        at,
        recorded_at: at,
    });
    (decision, Some(NotTaken::Quarantined))
}

/// Decides on a batch.
pub(super) fn decide(
    entry: &mut HostEntry,
    batch: &Batch,
    at: UnixMillis,
    context: &mut Context<'_>,
) -> Decision {
    let mut decision = Decision::default();
    let mut unknown: Vec<_> = batch
        .frames
        .iter()
        .map(|frame| frame.schema)
        .filter(|id| entry.schemas.get(*id).is_none() && !entry.schemas.is_refused(*id))
        .collect();
    if !unknown.is_empty() {
        unknown.sort_unstable();
        unknown.dedup();
        decision.ack.unknown_schemas = unknown;
        return decision;
    }
    let has_services = batch.frames.iter().any(|frame| frame.services.is_some());
    let services_before = has_services.then(|| entry.state.services.clone());
    let schemas = &entry.schemas;
    let names = |frame: &Frame| schemas.get(frame.schema).map(|schema| schema.names.len());
    let taken = take_batch(&mut entry.state, entry.id, batch, at, &names);
    decision.durable = taken.durable || batch.frames.len() >= BACKLOG_FRAMES;
    let no_longer_silent = if taken.back {
        alerts::clear_silent(&mut entry.alerts, at)
    } else {
        Vec::new()
    };
    clocks(entry, &taken, at, context, &mut decision);
    decision.evidence = taken.evidence;
    if !context.is_in_incident {
        reboot(entry, at, context, &mut decision);
    }
    // After the reboot, which belongs to the same ticket: it is not over between the two.
    decision.changes.extend(no_longer_silent);
    troubles(entry, at, context, &mut decision);
    for (frame, outcome) in batch.frames.iter().zip(&taken.frames) {
        match outcome.outcome {
            Outcome::Taken(placed) => {
                decision.ack.accepted += 1;
                store(entry, frame, placed, context, &mut decision);
                events(entry, frame, placed, context, &mut decision);
                if placed.newest {
                    judge(entry, frame, placed, context, &mut decision);
                }
            }
            Outcome::Repeat => {
                decision.ack.accepted += 1;
                decision.repeats += 1;
            }
            Outcome::Rejected(reason) => {
                entry.rejected += 1;
                decision.ack.rejected.push(Rejected {
                    instance: frame.instance,
                    seq: outcome.seq,
                    reason,
                });
            }
        }
    }
    if let Some(before) = services_before {
        service_events(entry, &before, at, context, &mut decision);
    }
    let lost = entry.limits.report(entry.id, (context.row_id)(), at);
    decision.events.extend(lost);
    decision.durable |= entry.alerts.take_changed();
    decision.ack.want = wanted(&decision.changes);
    if batch.policy_version != entry.policy.wire.version {
        decision.ack.policy = Some(entry.policy.wire.clone());
    }
    decision
}

/// What makes the evidence of an alert complete: of one about what processes use up, the busiest.
fn wanted(changes: &[AlertChange]) -> Vec<Want> {
    let by_processes = changes.iter().any(|change| match change {
        AlertChange::Raised(raised) => raised.check.is_about_processes(),
        AlertChange::Updated(_) | AlertChange::Cleared(_) => false,
    });
    by_processes
        .then_some(Want::Processes)
        .into_iter()
        .collect()
}

/// Decides on a host whose deadline has passed: silence, or time-driven ends of alerts.
pub(super) fn decide_deadline(
    entry: &mut HostEntry,
    silent: bool,
    now: UnixMillis,
    context: &mut Context<'_>,
) -> Decision {
    let mut decision = Decision::default();
    if silent {
        decision.evidence = take_silence(&mut entry.state, entry.id, now);
        decision.durable = true;
        let since = entry.state.last.map_or(now, |last| last.at);
        let silence = Silence { since, at: now };
        let changes =
            alerts::set_silent(&mut entry.alerts, context.rules, silence, context.alert_id);
        decision.changes.extend(changes);
    }
    decision
        .changes
        .extend(alerts::tick(&mut entry.alerts, now));
    decision.durable |= entry.alerts.take_changed();
    decision
}

/// A reboot that nobody announced. One that ends a silence of an incident raises nothing: after a
/// power failure at a site each of its machines has booted, and the incident says so.
fn reboot(
    entry: &mut HostEntry,
    at: UnixMillis,
    context: &mut Context<'_>,
    decision: &mut Decision,
) {
    let unannounced = decision.evidence.iter().find_map(|row| match &row.kind {
        EvidenceKind::Resumed {
            before,
            after,
            goodbye,
            ..
        } if before.boot != after.boot && *goodbye != Some(GoodbyeReason::Shutdown) => {
            Some(row.valid_to.since(row.valid_from))
        }
        _ => None,
    });
    let Some(gap) = unannounced else { return };
    let seen = Reboot { at, gap };
    let changes = alerts::raise_reboot(&mut entry.alerts, context.rules, &seen, context.alert_id);
    decision.changes.extend(changes);
}

/// The agent's own troubles are an alert as long as there are any.
fn troubles(
    entry: &mut HostEntry,
    at: UnixMillis,
    context: &mut Context<'_>,
    decision: &mut Decision,
) {
    let all: Vec<String> = entry
        .state
        .troubles
        .iter()
        .map(|one| format!("{}: {}", one.item, one.detail))
        .collect();
    let report = ConditionReport {
        condition: Condition::AgentDegraded,
        at,
        problems: &all,
    };
    let changes = alerts::set_condition(&mut entry.alerts, context.rules, report, context.alert_id);
    decision.changes.extend(changes);
}

/// A wall clock that was set, and a machine that slept, are events of the host.
fn clocks(
    entry: &mut HostEntry,
    taken: &BatchTaken,
    at: UnixMillis,
    context: &mut Context<'_>,
    decision: &mut Decision,
) {
    let step = taken.clock_step.map(|step| ("clock_step", step));
    let pause = taken.pause.map(|pause| ("slept", pause.slept));
    for (kind, ms) in step.into_iter().chain(pause) {
        let event = HostEvent {
            kind,
            detail: serde_json::json!({ "type": kind, "ms": ms.0 }).to_string(),
            at,
            recorded_at: at,
        };
        add_event(entry, event, context, decision);
    }
    if let Some(step) = taken.clock_step {
        let changes = alerts::raise_clock_step(
            &mut entry.alerts,
            context.rules,
            (at, step),
            context.alert_id,
        );
        decision.changes.extend(changes);
    }
}

fn store(
    entry: &mut HostEntry,
    frame: &Frame,
    placed: Placed,
    context: &mut Context<'_>,
    decision: &mut Decision,
) {
    let id = (context.row_id)();
    let (schema, values): (_, &[Option<f64>]) = if entry.schemas.is_refused(frame.schema) {
        entry.limits.lose_values();
        (metric::schema_id::<&str>(&[]), &[])
    } else {
        (frame.schema, &frame.values)
    };
    decision.heartbeats.push(NewHeartbeat {
        id,
        prev_id: entry.last_id,
        host: entry.id,
        mark: placed.mark,
        interval_ms: frame.interval_ms,
        late: placed.late || !placed.newest,
        schema,
        values: series::row::encode(values),
    });
    entry.last_id = id;
}

/// Judges the newest frame by the rules. Late frames amend the record and never page.
fn judge(
    entry: &mut HostEntry,
    frame: &Frame,
    placed: Placed,
    context: &mut Context<'_>,
    decision: &mut Decision,
) {
    let at = placed.mark.at;
    let max_step = DurationMs(unbroken_ms(frame.interval_ms));
    if let Some(schema) = entry.schemas.get(frame.schema) {
        entry.schema = Some(frame.schema);
        entry.values.clone_from(&frame.values);
        entry.values_at = at;
        let sample = Sample {
            at,
            max_step,
            values: &frame.values,
        };
        let changes = alerts::evaluate_values(
            &mut entry.alerts,
            &schema.resolved,
            &sample,
            context.alert_id,
        );
        decision.changes.extend(changes);
    }
    let rejudge = std::mem::take(&mut entry.rejudge);
    let services = expected(entry, frame.services.as_deref(), rejudge);
    let beat = ServiceBeat {
        at,
        max_step,
        services: services.as_deref(),
    };
    let changes =
        alerts::evaluate_services(&mut entry.alerts, context.rules, &beat, context.alert_id);
    decision.changes.extend(changes);
    let skew = Skew {
        at,
        max_step,
        skew: DurationMs(entry.state.skew_ms),
    };
    let changes = alerts::evaluate_skew(&mut entry.alerts, context.rules, skew, context.alert_id);
    decision.changes.extend(changes);
}

/// The services that rules look at: not those that do not exist here and are not expected to. After
/// a change of the policy all are looked at again, as they were last told.
fn expected(entry: &HostEntry, told: Option<&[Service]>, rejudge: bool) -> Option<Vec<Service>> {
    let all = told.or_else(|| rejudge.then_some(&entry.state.services))?;
    let here = all.iter().filter(|service| !entry.is_not_here(service));
    Some(here.cloned().collect())
}

fn events(
    entry: &mut HostEntry,
    frame: &Frame,
    placed: Placed,
    context: &mut Context<'_>,
    decision: &mut Decision,
) {
    for event in &frame.events {
        if let Event::LogMatch {
            rule,
            path,
            count,
            lines,
        } = event
            && placed.mark.arrived_at.since(placed.mark.at) <= LOG_MATCH_FRESH
        {
            let at = placed.mark.at;
            let matches = LogMatches {
                at,
                rule,
                path,
                count: *count,
                lines,
            };
            let changes = alerts::record_log_matches(
                &mut entry.alerts,
                context.rules,
                &matches,
                context.alert_id,
            );
            decision.changes.extend(changes);
        }
        let event = HostEvent {
            kind: event_kind(event),
            // A type made of texts and numbers always has a JSON form.
            detail: serde_json::to_string(event).unwrap_or_default(),
            at: placed.mark.at,
            recorded_at: placed.mark.arrived_at,
        };
        add_event(entry, event, context, decision);
    }
}

/// Notes each service whose state changed, for the host's timeline.
fn service_events(
    entry: &mut HostEntry,
    before: &[Service],
    at: UnixMillis,
    context: &mut Context<'_>,
    decision: &mut Decision,
) {
    if entry.state.services == before {
        return;
    }
    let before: HashMap<&str, ServiceStatus> = before
        .iter()
        .map(|service| (service.key.as_str(), service.status))
        .collect();
    let mut changed = Vec::new();
    for service in &entry.state.services {
        let was = before.get(service.key.as_str()).copied();
        if was == Some(service.status) {
            continue;
        }
        let detail = serde_json::json!({
            "key": service.key,
            "from": was,
            "to": service.status,
            "detail": service.detail,
        });
        changed.push(HostEvent {
            kind: "service",
            detail: detail.to_string(),
            at: entry.state.last.map_or(at, |last| last.at),
            recorded_at: at,
        });
    }
    for event in changed {
        add_event(entry, event, context, decision);
    }
}

/// Something that happened on the host.
struct HostEvent {
    kind: &'static str,
    /// JSON.
    detail: String,
    at: UnixMillis,
    recorded_at: UnixMillis,
}

/// Adds an event to the host's record, unless the host is at its limit.
fn add_event(
    entry: &mut HostEntry,
    event: HostEvent,
    context: &mut Context<'_>,
    decision: &mut Decision,
) {
    if !entry.limits.admit_event(event.recorded_at, &event.detail) {
        return;
    }
    decision.events.push(NewEvent {
        id: (context.row_id)(),
        host: entry.id,
        kind: event.kind,
        detail: event.detail,
        at: event.at,
        recorded_at: event.recorded_at,
    });
}

const fn event_kind(event: &Event) -> &'static str {
    match event {
        Event::AgentStarted { .. } => "agent_started",
        Event::Goodbye { .. } => "goodbye",
        Event::LogMatch { .. } => "log_match",
        Event::LogGap { .. } => "log_gap",
        Event::SpoolLoss { .. } => "spool_loss",
        Event::Discovered { .. } => "discovered",
        Event::HostFacts(_) => "host_facts",
        Event::Processes(_) => "processes",
        Event::Other => "other",
    }
}
