//! What the rules say of a batch.

use watchkeep_core::{
    alerts::{self, Condition, ConditionReport, Reboot, Sample, ServiceBeat, Skew},
    evidence::EvidenceKind,
    host::{Placed, unbroken_ms},
};
use watchkeep_shared::{
    DurationMs, UnixMillis,
    wire::heartbeat::{Frame, GoodbyeReason, Service},
};

use super::{Context, Decision, HostEntry};

/// A reboot that nobody announced. One that ends a silence of an incident raises nothing: after a
/// power failure at a site each of its machines has booted, and the incident says so.
pub(super) fn reboot(
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
pub(super) fn troubles(
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

/// Takes the newest frame's values, and judges it by the rules. Late frames amend the record and never
/// page.
pub(super) fn judge(
    entry: &mut HostEntry,
    frame: &Frame,
    placed: Placed,
    context: &mut Context<'_>,
    decision: &mut Decision,
) {
    if entry.schemas.get(frame.schema).is_some() {
        entry.schema = Some(frame.schema);
        entry.values.clone_from(&frame.values);
        entry.values_at = placed.mark.at;
    }
    let arrived_at = placed.mark.arrived_at;
    if !entry.limits.admit_judgement(arrived_at) {
        // What it says of services holds until it says something else.
        entry.rejudge |= frame.services.is_some();
        return;
    }
    let before = decision.changes.len();
    by_the_rules(entry, frame, placed, context, decision);
    let count = decision.changes.len() - before;
    entry.limits.note_alert_changes(arrived_at, count);
}

fn by_the_rules(
    entry: &mut HostEntry,
    frame: &Frame,
    placed: Placed,
    context: &mut Context<'_>,
    decision: &mut Decision,
) {
    let at = placed.mark.at;
    let max_step = DurationMs(unbroken_ms(frame.interval_ms));
    if let Some(schema) = entry.schemas.get(frame.schema) {
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

/// The services that rules are evaluated for: not those that do not exist here and are not expected
/// to. After a change of the policy all are evaluated again, as they were last reported.
fn expected(
    entry: &HostEntry,
    reported: Option<&[Service]>,
    rejudge: bool,
) -> Option<Vec<Service>> {
    let all = reported.or_else(|| rejudge.then_some(&entry.state.services))?;
    let here = all.iter().filter(|service| !entry.is_not_here(service));
    Some(here.cloned().collect())
}
