//! What happened on a host, for its record: what a frame brings, changes of services, what its clocks
//! did.

use std::collections::HashMap;

use watchkeep_core::{
    alerts::{self, LogMatches},
    host::{BatchTaken, Placed},
};
use watchkeep_shared::{
    DurationMs, UnixMillis,
    wire::heartbeat::{Event, Frame, Service, ServiceStatus},
};

use super::{Context, Decision, HostEntry};
use crate::store::record::NewEvent;

/// Log matches count for alerts if they are not older than this: a line that was spooled for a few
/// minutes still wakes someone, one of yesterday does not.
const LOG_MATCH_FRESH: DurationMs = DurationMs::from_mins(15);

/// A wall clock that was set, and a machine that slept, are events of the host.
pub(super) fn clocks(
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
        let changes =
            alerts::raise_clock_step(&mut entry.alerts, context.rules, at, step, context.alert_id);
        decision.changes.extend(changes);
    }
}

/// Stores the events of a frame, and judges its log matches.
pub(super) fn events(
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
            && entry.limits.admit_judgement(placed.mark.arrived_at)
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
            entry
                .limits
                .note_alert_changes(placed.mark.arrived_at, changes.len());
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
pub(super) fn service_events(
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
