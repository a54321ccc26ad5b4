//! What one host may add to the record in a given time, and what was left out because of it. A host
//! at a limit loses part of its own record; its heartbeats still count and are judged.

use serde::Serialize;
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use super::bucket::{Bucket, Rate};
use crate::store::record::NewEvent;

/// Events of one host, in units of one event and its KiB of text: 4,096 at once, then 1,800 an hour.
const EVENTS: Rate = Rate::every(DurationMs::from_secs(2), 4_096);
/// Changes of one host's alerts, each of which costs several statements: 512 at once, then one a
/// second. One heartbeat may bring more; the host then is not judged until it would have been
/// allowed, but for at most [`MAX_DEBT`] seconds.
const ALERT_CHANGES: Rate = Rate::every(DurationMs::from_secs(1), 512);
const MAX_DEBT: i64 = 600;
/// A loss that continues is recorded this often.
const REPORT_EVERY: DurationMs = DurationMs::from_hours(1);
/// The kind of the event that records a loss.
const KIND: &str = "limited";

/// The limits of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostLimits {
    events: Bucket,
    alert_changes: Bucket,
    /// Since the last report.
    lost: Lost,
    reported_at: Option<UnixMillis>,
}

/// What was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Lost {
    /// Heartbeats whose values were not taken: too many new lists of names.
    values: u64,
    /// Events that were not stored.
    events: u64,
    /// Heartbeats and log matches that were not judged: its alerts change too often.
    judgements: u64,
}

impl HostLimits {
    /// Whether an event may be stored; counts it as lost if not.
    pub(super) fn admit_event(&mut self, at: UnixMillis, detail: &str) -> bool {
        let units = 1 + detail.len() as i64 / 1_024;
        let is_admitted = self.events.take(EVENTS, at, units);
        self.lost.events += u64::from(!is_admitted);
        is_admitted
    }

    /// Whether what a host sends may change its alerts; counts it as not judged if not.
    pub(super) fn admit_judgement(&mut self, at: UnixMillis) -> bool {
        let is_admitted = !self.alert_changes.is_in_debt(ALERT_CHANGES, at);
        self.lost.judgements += u64::from(!is_admitted);
        is_admitted
    }

    /// Counts what a judgement changed.
    pub(super) fn note_alert_changes(&mut self, at: UnixMillis, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.alert_changes.spend(ALERT_CHANGES, at, count, MAX_DEBT);
    }

    /// Counts a heartbeat that was taken without its values.
    pub(super) const fn lose_values(&mut self) {
        self.lost.values += 1;
    }

    /// The event that records what was lost since the last one, if one is due: at once, then hourly.
    pub(super) fn report(&mut self, host: HostId, id: i64, at: UnixMillis) -> Option<NewEvent> {
        let is_due = self
            .reported_at
            .is_none_or(|last| at.since(last) >= REPORT_EVERY);
        if self.lost == Lost::default() || !is_due {
            return None;
        }
        let lost = std::mem::take(&mut self.lost);
        self.reported_at = Some(at);
        tracing::warn!(
            host.id = %host,
            values = lost.values,
            events = lost.events,
            judgements = lost.judgements,
            "the host is at a limit: part of what it sends is not stored or not judged"
        );
        let detail = serde_json::json!({
            "type": KIND, "values": lost.values, "events": lost.events,
            "judgements": lost.judgements,
        });
        Some(NewEvent {
            id,
            host,
            kind: KIND,
            detail: detail.to_string(),
            at,
            recorded_at: at,
        })
    }
}
