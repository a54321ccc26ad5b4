//! Which frames have been taken, so that a repeat is a no-op: per agent process, the sequence
//! numbers as a few ranges.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{BootId, InstanceId, UnixMillis};

use crate::evidence::FrameMark;

/// Agent processes remembered per host; more means that the oldest is forgotten and frames that
/// claim to be older are refused.
const MAX_RUNS: usize = 256;
/// Ranges per agent process; one with more holes than this gets new holes refused.
const MAX_RANGES: usize = 1_024;

/// The frames taken from one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Agent processes, oldest first by their newest frame.
    runs: Vec<Run>,
    /// Frames of unknown processes made before this instant are refused: their process may have
    /// been forgotten.
    forgotten_before: UnixMillis,
}

/// The frames taken from one agent process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    boot: BootId,
    instance: InstanceId,
    /// Taken sequence numbers, as inclusive ranges, ascending, not touching.
    ranges: Vec<(u64, u64)>,
    /// The newest frame: ties the boot's own clock to the collector's time line.
    newest_at: UnixMillis,
    newest_boot_ms: i64,
}

/// What the record of taken frames says about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Not taken yet.
    New,
    /// Taken before.
    Repeat,
    /// Can't tell any more.
    Forgotten,
}

impl Seen {
    /// Whether a frame was taken.
    pub(super) fn look_up(&self, instance: InstanceId, seq: u64, at: UnixMillis) -> Known {
        let Some(run) = self.runs.iter().rev().find(|run| run.instance == instance) else {
            return if at < self.forgotten_before {
                Known::Forgotten
            } else {
                Known::New
            };
        };
        let after = run.ranges.partition_point(|&(_, hi)| hi < seq);
        match run.ranges.get(after) {
            Some(&(lo, _)) if lo <= seq => Known::Repeat,
            _ if run.ranges.len() >= MAX_RANGES => Known::Forgotten,
            _ => Known::New,
        }
    }

    /// Notes a frame as taken. Returns whether the process was unknown.
    pub fn insert(&mut self, mark: &FrameMark) -> bool {
        let known = self
            .runs
            .iter()
            .rposition(|run| run.instance == mark.instance);
        let Some(at) = known else {
            self.forget_oldest();
            self.runs.push(Run {
                boot: mark.boot,
                instance: mark.instance,
                ranges: vec![(mark.seq, mark.seq)],
                newest_at: mark.at,
                newest_boot_ms: mark.boot_ms,
            });
            return true;
        };
        let run = &mut self.runs[at];
        insert_seq(&mut run.ranges, mark.seq);
        if mark.boot_ms > run.newest_boot_ms {
            run.newest_boot_ms = mark.boot_ms;
            run.newest_at = mark.at;
        }
        false
    }

    /// Where a frame of an earlier boot stands in time, from a known frame of the same boot.
    pub(super) fn place_by_boot(&self, boot: BootId, boot_ms: i64) -> Option<UnixMillis> {
        let run = self.runs.iter().rev().find(|run| run.boot == boot)?;
        Some(UnixMillis(
            run.newest_at
                .0
                .saturating_add(boot_ms.saturating_sub(run.newest_boot_ms)),
        ))
    }

    fn forget_oldest(&mut self) {
        if self.runs.len() < MAX_RUNS {
            return;
        }
        let oldest = self.runs.remove(0);
        self.forgotten_before = self.forgotten_before.max(oldest.newest_at);
    }
}

fn insert_seq(ranges: &mut Vec<(u64, u64)>, seq: u64) {
    let at = ranges.partition_point(|&(_, hi)| hi < seq);
    if ranges.get(at).is_some_and(|&(lo, _)| lo <= seq) {
        return;
    }
    let joins_before = at > 0 && ranges[at - 1].1.checked_add(1) == Some(seq);
    let joins_after = ranges
        .get(at)
        .is_some_and(|&(lo, _)| seq.checked_add(1) == Some(lo));
    match (joins_before, joins_after) {
        (true, true) => {
            ranges[at - 1].1 = ranges[at].1;
            ranges.remove(at);
        }
        (true, false) => ranges[at - 1].1 = seq,
        (false, true) => ranges[at].0 = seq,
        (false, false) => ranges.insert(at, (seq, seq)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_exactly_what_was_inserted(seqs in prop::collection::vec(1_u64..60, 0..80)) {
            let mut ranges = Vec::new();
            let mut model = BTreeSet::new();
            for seq in seqs {
                insert_seq(&mut ranges, seq);
                model.insert(seq);
            }
            let held: BTreeSet<u64> = ranges.iter().flat_map(|&(lo, hi)| lo..=hi).collect();
            prop_assert_eq!(held, model);
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0, "{:?} should be one range", ranges);
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_range_do_not_overflow() {
        let mut ranges = Vec::new();
        for seq in [u64::MAX, 0, u64::MAX - 1, 1] {
            insert_seq(&mut ranges, seq);
        }
        assert_eq!(ranges, vec![(0, 1), (u64::MAX - 1, u64::MAX)]);
    }
}
