//! What follows from one batch, or from a deadline, for one host. Pure: a host's memory, the
//! message and the instant in; the memory is moved on and everything that must be written comes out.

mod admit;
mod events;
mod judge;

use watchkeep_core::{
    alerts::{self, AlertChange, NewAlertId, Silence},
    evidence::Evidence,
    host::{Outcome, Placed, take_batch, take_silence},
    rules::RulePack,
    series,
};
use watchkeep_shared::{
    UnixMillis, metric,
    wire::{
        heartbeat::{Ack, Batch, Frame, Rejected},
        host::Want,
    },
};

pub(super) use self::admit::admit;
use self::{
    events::{clocks, events, service_events},
    judge::{judge, reboot, troubles},
};
use super::{NotTaken, hosts::HostEntry};
use crate::store::{heartbeats::NewHeartbeat, record::NewEvent};

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
    /// The agent's version, if it is another one than before.
    pub(super) agent_version: Option<String>,
    pub(super) repeats: u64,
    pub(super) ack: Ack,
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
    if entry.take_version(batch, at) {
        decision.agent_version = Some(batch.agent_version.clone());
    }
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
                let host = (entry.id, entry.name.as_str());
                entry.rejected.note(host, reason, (1, at));
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
