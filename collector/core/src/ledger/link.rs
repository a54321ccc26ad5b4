//! Link incidents: times in which the server ran and its frames did not arrive. Derived from frames that
//! came late; a break of which nothing came later is no link incident but a gap with a verdict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use watchkeep_shared::{BootId, InstanceId, UnixMillis};

use super::{
    Interval,
    facts::{Chain, Facts, clamp},
    interval::Cover,
    observe::HostRecord,
    verdict::absence_with_return,
};
use crate::evidence::Evidence;

/// A break in live reception that late frames prove up: up for "server running", down for
/// "reachable from us".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkIncident {
    /// The last frame received in time, or the window's start.
    pub from: UnixMillis,
    /// The last frame received late, or the window's end.
    pub to: UnixMillis,
    /// How many frames of that time, and not only of the part in the window, came late.
    pub frames_late: u64,
}

/// The link incidents of one host inside the window, oldest first. Breaks no longer than one
/// ordinary step, and those that the collector's own absence explains (until agents have had time
/// to reconnect), are not reported. Arguments as for [`super::observe()`].
pub fn link_incidents(
    record: &HostRecord,
    collector: &[Evidence],
    window: Interval,
    cutoff: UnixMillis,
    now: UnixMillis,
) -> Vec<LinkIncident> {
    let now = clamp(now);
    let window = Interval::new(clamp(window.from), clamp(window.to).min(now));
    let facts = Facts::of(record, collector, cutoff);
    let past = Interval::new(UnixMillis(i64::MIN), now);
    let known = facts.record(now).intersect(&Cover::of(vec![past]));
    let broken = facts
        .late
        .intersect(&known)
        .minus(&facts.live)
        .minus(&absence_with_return(&facts, past));
    let late: Vec<_> = facts
        .chains()
        .iter()
        .filter(|chain| chain.late)
        .copied()
        .collect();
    let ends: Vec<_> = late
        .iter()
        .scan(UnixMillis(i64::MIN), |end, chain| {
            *end = chain.to.max(*end);
            Some(*end)
        })
        .collect();
    broken
        .iter()
        .filter_map(|part| {
            let first = ends.partition_point(|&end| end < part.from);
            let last = late.partition_point(|chain| chain.from <= part.to);
            let late: Vec<_> = late[first..last]
                .iter()
                .filter(|chain| chain.to >= part.from)
                .copied()
                .collect();
            let step_ms = late.iter().map(|chain| chain.step_ms).min()?;
            let shown = part.intersect(window);
            (part.len_ms() >= step_ms && !shown.is_empty()).then(|| LinkIncident {
                from: shown.from,
                to: shown.to,
                frames_late: count(&late),
            })
        })
        .collect()
}

/// How many different frames the rows hold.
fn count(late: &[Chain]) -> u64 {
    let mut by_process: BTreeMap<(BootId, InstanceId), Vec<(u64, u64)>> = BTreeMap::new();
    for chain in late {
        by_process
            .entry((chain.boot, chain.instance))
            .or_default()
            .push((chain.seq_from, chain.seq_to));
    }
    let mut frames = 0_u64;
    for mut ranges in by_process.into_values() {
        ranges.sort_unstable();
        let mut next = 0_u64;
        for (from, to) in ranges {
            let from = from.max(next);
            if from <= to {
                frames = frames.saturating_add(to - from).saturating_add(1);
                next = to.saturating_add(1);
            }
        }
    }
    frames
}
