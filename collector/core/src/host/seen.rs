//! Which frames have been taken, so that a repeat is a no-op: per agent process, the sequence
//! numbers as a few ranges.
//!
//! The memory of one host is bounded. At the limit the oldest gap is given up: numbers up to its end
//! are no longer known, and frames with such numbers are refused as too old. New frames are always
//! taken, however many gaps there are, so a process with many gaps never looks silent.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{BootId, InstanceId, UnixMillis};

use crate::evidence::FrameMark;

/// Agent processes remembered per host; more means that the oldest is forgotten and frames that
/// claim to be older are refused.
const MAX_RUNS: usize = 256;
/// Ranges of sequence numbers per host, over all its processes.
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
    /// Numbers below this one were forgotten with the oldest gap.
    #[serde(default)]
    forgotten_below: u64,
    /// The newest frame: ties the boot's own clock to the collector's time line.
    newest_at: UnixMillis,
    newest_boot_ms: i64,
    /// `newest_at` rests on a wall clock that may have been set.
    #[serde(default)]
    unsure: bool,
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
            _ if seq < run.forgotten_below => Known::Forgotten,
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
                forgotten_below: 0,
                newest_at: mark.at,
                newest_boot_ms: mark.boot_ms,
                unsure: false,
            });
            self.forget_gaps();
            return true;
        };
        let run = &mut self.runs[at];
        insert_seq(&mut run.ranges, mark.seq);
        if mark.boot_ms > run.newest_boot_ms {
            run.newest_boot_ms = mark.boot_ms;
            run.newest_at = mark.at;
        }
        self.forget_gaps();
        false
    }

    /// The time of a frame of an earlier boot, from a known frame of the same boot, and
    /// whether that one's place is sure.
    pub(super) fn place_by_boot(&self, boot: BootId, boot_ms: i64) -> Option<(UnixMillis, bool)> {
        let mut runs = self.runs.iter().rev().filter(|run| run.boot == boot);
        let run = runs.next()?;
        let at = run
            .newest_at
            .0
            .saturating_add(boot_ms.saturating_sub(run.newest_boot_ms));
        Some((UnixMillis(at), !run.unsure))
    }

    /// Whether any frame of a boot was taken.
    pub(super) fn knows_boot(&self, boot: BootId) -> bool {
        self.runs.iter().any(|run| run.boot == boot)
    }

    /// Whether no frame was taken yet.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Notes that the place of a process's frames is not sure.
    pub(super) fn doubt(&mut self, instance: InstanceId) {
        let mut runs = self.runs.iter_mut().rev();
        if let Some(run) = runs.find(|run| run.instance == instance) {
            run.unsure = true;
        }
    }

    fn forget_oldest(&mut self) {
        if self.runs.len() < MAX_RUNS {
            return;
        }
        let oldest = self.runs.remove(0);
        self.forgotten_before = self.forgotten_before.max(oldest.newest_at);
    }

    /// Gives up the oldest gaps until the limit is kept.
    fn forget_gaps(&mut self) {
        let count: usize = self.runs.iter().map(|run| run.ranges.len()).sum();
        for _ in MAX_RANGES..count {
            if let Some(run) = self.runs.iter_mut().find(|run| run.ranges.len() > 1) {
                run.ranges.remove(0);
                run.forgotten_below = run.ranges[0].0;
            }
        }
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

    use std::ops::RangeInclusive;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn mark(instance: u128, seq: u64) -> FrameMark {
        FrameMark {
            boot: BootId(Uuid::from_u128(1)),
            instance: InstanceId(Uuid::from_u128(instance)),
            seq,
            at: UnixMillis(1_000),
            arrived_at: UnixMillis(1_000),
            mono_ms: 1_000,
            boot_ms: 1_000,
        }
    }

    fn look_up(seen: &Seen, instance: u128, seq: u64) -> Known {
        seen.look_up(
            InstanceId(Uuid::from_u128(instance)),
            seq,
            UnixMillis(1_000),
        )
    }

    /// Sequence numbers of three processes with many gaps: more than are remembered.
    fn numbers() -> impl Strategy<Value = Vec<(u128, u64)>> {
        const NUMBERS: RangeInclusive<u64> = 1..=6_000;
        prop::collection::vec((1..4_u128, NUMBERS), 0..4_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// What is known is right, what is forgotten is said to be, and the memory is bounded.
        #[test]
        fn a_frame_is_never_taken_twice_and_a_newer_one_is_always_taken(numbers in numbers()) {
            let mut seen = Seen::default();
            let mut taken = BTreeSet::new();
            for (instance, seq) in numbers {
                match look_up(&seen, instance, seq) {
                    Known::New => {
                        prop_assert!(taken.insert((instance, seq)), "{} twice", seq);
                        seen.insert(&mark(instance, seq));
                    }
                    Known::Repeat => prop_assert!(taken.contains(&(instance, seq))),
                    Known::Forgotten => {}
                }
                let ranges: usize = seen.runs.iter().map(|run| run.ranges.len()).sum();
                prop_assert!(ranges <= MAX_RANGES);
                let newest = taken.iter().filter(|one| one.0 == instance).max();
                let next = newest.map_or(1, |newest| newest.1 + 1);
                prop_assert_eq!(look_up(&seen, instance, next), Known::New);
                prop_assert_eq!(look_up(&seen, instance, next + 7), Known::New);
            }
        }
    }

    #[test]
    fn at_the_limit_frames_still_extend_fill_and_leave_gaps() {
        let mut seen = Seen::default();
        for n in 1..=MAX_RANGES as u64 {
            assert_eq!(look_up(&seen, 1, 2 * n), Known::New);
            seen.insert(&mark(1, 2 * n));
        }
        // Fills a gap, extends the end, leaves a further gap.
        let last = 2 * MAX_RANGES as u64;
        for seq in [last - 1, last + 1, last + 10] {
            assert_eq!(look_up(&seen, 1, seq), Known::New);
            seen.insert(&mark(1, seq));
            assert_eq!(look_up(&seen, 1, seq), Known::Repeat);
        }
        // One more gap than fits: the oldest was given up for it.
        seen.insert(&mark(1, last + 20));
        assert_eq!(look_up(&seen, 1, 3), Known::Forgotten);
        assert_eq!(look_up(&seen, 1, 5), Known::New);
        // What an earlier version stored is read.
        let stored = serde_json::to_string(&seen).unwrap();
        let older = stored.replace("\"forgotten_below\":4,", "");
        assert_ne!(stored, older);
        let older: Seen = serde_json::from_str(&older).unwrap();
        assert_eq!(look_up(&older, 1, last), Known::Repeat);
    }

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
