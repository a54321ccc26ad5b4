//! Whether a batch may be taken at all.

use watchkeep_core::{
    alerts::{self, Condition, ConditionReport},
    host::{Admission, Origin},
};
use watchkeep_shared::{UnixMillis, wire::heartbeat::Batch};

use super::{Context, Decision, HostEntry, NotTaken};
use crate::store::record::NewEvent;

/// Decides whether a batch may be taken at all: not if its host's identity is used twice. `None`
/// besides if so.
pub(in crate::ingest) fn admit(
    entry: &mut HostEntry,
    batch: &Batch,
    origin: Origin<'_>,
    at: UnixMillis,
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
    // Both machines send heartbeats.
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
