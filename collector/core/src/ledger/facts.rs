//! Evidence rows sorted into what the verdicts ask for: covers of time that is proven up, breaks
//! with what both their sides say, and the record's own bounds. Rows of other hosts and rows learned
//! after the cut-off are left out; the order of rows does not matter.

use std::collections::{BTreeMap, BTreeSet};

use watchkeep_shared::{
    BootId, InstanceId, UnixMillis,
    wire::{heartbeat::GoodbyeReason, limits},
};

use super::{
    Interval,
    interval::Cover,
    observe::HostRecord,
    reboot::{Boots, Off, OsRecord},
};
use crate::evidence::{Evidence, EvidenceKind, FrameMark};

/// Instants are held within ±2^52 ms (about 140,000 years), so that no difference or sum of them
/// overflows and every sum is exact as a 64-bit float.
const LIMIT_MS: i64 = 1 << 52;

/// The longest step assumed for an agent of which no chain is known.
pub(super) const DEFAULT_STEP_MS: i64 = 30_000;

/// The longest step that is believed: three of the longest intervals that a policy can ask for.
const LONGEST_STEP_MS: i64 = 3 * limits::MAX_INTERVAL_MS as i64;

/// How far a monotonic clock may lag before it counts as having stood still.
const CLOCK_TOLERANCE_MS: i64 = 5_000;

/// A monotonic clock may also lag by this part of the break, if that is more: one fiftieth.
const CLOCK_TOLERANCE_PART: i64 = 50;

/// How far a kernel's boot time may lie before the last frame of the boot before it, from rounding
/// and network delay. Further is a contradiction, which proves nothing.
pub(super) const BOOT_TIME_SLACK_MS: i64 = 60_000;

/// An instant within the range that the ledger computes with.
pub(super) fn clamp(at: UnixMillis) -> UnixMillis {
    UnixMillis(at.0.clamp(-LIMIT_MS, LIMIT_MS))
}

/// One `Frames` row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chain {
    pub(super) boot: BootId,
    pub(super) instance: InstanceId,
    pub(super) seq_from: u64,
    pub(super) seq_to: u64,
    pub(super) from: UnixMillis,
    pub(super) to: UnixMillis,
    pub(super) step_ms: i64,
    pub(super) late: bool,
}

impl Chain {
    fn span(self) -> Interval {
        Interval::new(self.from, self.to)
    }
}

/// One `Resumed` row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Break {
    pub(super) before: FrameMark,
    pub(super) after: FrameMark,
    pub(super) kernel_boot_at: UnixMillis,
    pub(super) goodbye: Option<GoodbyeReason>,
    recorded_at: UnixMillis,
}

impl Break {
    pub(super) fn span(&self) -> Interval {
        Interval::new(self.before.at, self.after.at)
    }

    pub(super) fn clock_tolerance_ms(&self) -> i64 {
        CLOCK_TOLERANCE_MS.max(self.span().len_ms() / CLOCK_TOLERANCE_PART)
    }

    /// For how long the clock of one process stood still, if it clearly did.
    pub(super) fn stood_still_ms(&self) -> Option<i64> {
        let ran = self.after.mono_ms.saturating_sub(self.before.mono_ms);
        let still = self.span().len_ms().saturating_sub(ran);
        let same = self.before.instance == self.after.instance;
        (same && ran >= 0 && still > self.clock_tolerance_ms()).then_some(still)
    }

    /// Whether the new boot is said to have begun well before the old one's last frame.
    pub(super) fn contradicts_itself(&self) -> bool {
        self.kernel_boot_at.0 < self.before.at.0 - BOOT_TIME_SLACK_MS
    }

    /// When the new kernel booted, held inside the break.
    pub(super) fn kernel_boot(&self) -> UnixMillis {
        self.kernel_boot_at.max(self.before.at).min(self.after.at)
    }

    /// From the new kernel's boot to the first frame, unless its clocks say that the machine was
    /// suspended for some of that time.
    pub(super) fn since_boot(&self) -> Option<Interval> {
        let since_ms = self.after.at.since(self.kernel_boot_at).0;
        let still_ms = since_ms.saturating_sub(self.after.mono_ms);
        (still_ms <= CLOCK_TOLERANCE_MS).then(|| Interval::new(self.kernel_boot(), self.after.at))
    }
}

/// One host's evidence up to the cut-off, sorted.
#[derive(Debug, Default)]
pub(super) struct Facts {
    by_from: Vec<Chain>,
    by_to: Vec<Chain>,
    step_ms: BTreeMap<InstanceId, i64>,
    breaks: Vec<Break>,
    /// The latest end among the breaks up to each, for the search by interval.
    breaks_end: Vec<UnixMillis>,
    goodbyes: Vec<(UnixMillis, GoodbyeReason)>,
    /// When silence began and when it was noticed.
    pub(super) overdue: Vec<(UnixMillis, UnixMillis)>,
    /// `true` where the record begins, `false` where it ends.
    bounds: Vec<(UnixMillis, bool)>,
    pub(super) collector_down: Cover,
    pub(super) os_records: Vec<OsRecord>,
    /// Boots of which frames came late, and when their kernels ran before the first.
    pub(super) booted: Vec<(BootId, Interval)>,
    /// Proven outages.
    pub(super) off: Vec<Off>,
    /// Time between frames that were received in time.
    pub(super) live: Cover,
    /// Time between frames that were received late, or between those and others.
    pub(super) late: Cover,
    /// Time in which the kernel ran by its own record.
    pub(super) kernel: Cover,
}

impl Facts {
    pub(super) fn of(record: &HostRecord, collector: &[Evidence], cutoff: UnixMillis) -> Self {
        let mut facts = Self::default();
        let own = |row: &&Evidence| row.host == Some(record.host) && row.recorded_at <= cutoff;
        for row in record.evidence.iter().filter(own) {
            facts.take(row);
        }
        let down = collector
            .iter()
            .chain(&record.evidence)
            .filter(|row| row.recorded_at <= cutoff && row.kind == EvidenceKind::CollectorDown)
            .map(|row| Interval::new(clamp(row.valid_from), clamp(row.valid_to)))
            .collect();
        facts.collector_down = Cover::of(down);
        facts.sort();
        facts.prove();
        facts
    }

    fn take(&mut self, row: &Evidence) {
        let (from, to) = (clamp(row.valid_from), clamp(row.valid_to));
        match row.kind {
            EvidenceKind::Enrolled => self.bounds.push((from, true)),
            EvidenceKind::Retired => self.bounds.push((from, false)),
            EvidenceKind::Frames {
                boot,
                instance,
                seq_from,
                seq_to,
                late,
                max_step_ms,
            } if seq_from <= seq_to && from <= to => self.by_from.push(Chain {
                boot,
                instance,
                seq_from,
                seq_to,
                from,
                to,
                step_ms: max_step_ms.clamp(0, LONGEST_STEP_MS),
                late,
            }),
            EvidenceKind::Overdue => self.overdue.push((from, to)),
            EvidenceKind::Resumed {
                before,
                after,
                kernel_boot_at,
                previous_boot_last_seen,
                goodbye,
            } => {
                let resumption = Break {
                    before: FrameMark { at: from, ..before },
                    after: FrameMark { at: to, ..after },
                    kernel_boot_at: clamp(kernel_boot_at),
                    goodbye,
                    recorded_at: row.recorded_at,
                };
                self.recorded_with(&resumption, previous_boot_last_seen);
                self.breaks.push(resumption);
            }
            EvidenceKind::PreviousBoot {
                boot,
                next,
                reaches,
            } => self.os_records.push(OsRecord {
                boot,
                next,
                seen: from,
                reaches: clamp(reaches),
                next_start: to,
            }),
            EvidenceKind::Booted { boot } => {
                self.booted.push((boot, Interval::new(from, to)));
            }
            EvidenceKind::Goodbye { reason } => self.goodbyes.push((from, reason)),
            // A chain that ends before it begins proves nothing.
            EvidenceKind::Frames { .. } | EvidenceKind::CollectorDown => {}
        }
    }

    /// Rows of older versions held the operating system's record with the break.
    fn recorded_with(&mut self, resumption: &Break, last_seen: Option<UnixMillis>) {
        let Some(seen) = last_seen
            .map(clamp)
            .filter(|_| !resumption.contradicts_itself())
        else {
            return;
        };
        if resumption.before.boot != resumption.after.boot && seen < resumption.kernel_boot() {
            self.os_records.push(OsRecord {
                boot: resumption.before.boot,
                next: resumption.after.boot,
                seen,
                reaches: resumption.kernel_boot(),
                next_start: resumption.kernel_boot(),
            });
        }
    }

    /// Brings the rows into an order that depends on their content alone.
    fn sort(&mut self) {
        self.by_from
            .sort_unstable_by_key(|chain| (chain.from, *chain));
        self.by_from.dedup();
        self.by_to.clone_from(&self.by_from);
        self.by_to.sort_unstable_by_key(|chain| (chain.to, *chain));
        for chain in &self.by_from {
            let step = self.step_ms.entry(chain.instance).or_default();
            *step = (*step).max(chain.step_ms);
        }
        self.breaks.retain(|gap| !gap.span().is_empty());
        self.breaks
            .sort_by_cached_key(|gap| (gap.before.at, gap.after.at, format!("{gap:?}")));
        self.breaks.dedup();
        let mut end = UnixMillis(-LIMIT_MS);
        for gap in &self.breaks {
            end = end.max(gap.after.at);
            self.breaks_end.push(end);
        }
        self.os_records.sort_unstable();
        self.os_records.dedup();
        self.booted.sort_unstable();
        self.booted.dedup();
        self.goodbyes
            .sort_unstable_by_key(|&(at, reason)| (at, reason as u8));
        // An end at the instant of a beginning wins.
        self.bounds
            .sort_unstable_by_key(|&(at, begins)| (at, !begins));
    }

    fn prove(&mut self) {
        let (mut live, mut late) = (Vec::new(), Vec::new());
        for chain in &self.by_from {
            let side = if chain.late { &mut late } else { &mut live };
            side.push(chain.span());
        }
        for (bridge, is_late) in self.bridges() {
            let side = if is_late { &mut late } else { &mut live };
            side.push(bridge);
        }
        self.live = Cover::of(live);
        self.late = Cover::of(late);
        let boots = Boots::of(self);
        let (kernel, off) = (boots.kernel_ran(), boots.off());
        self.off = off;
        self.kernel = Cover::of(kernel);
    }

    /// The steps between rows of one agent process whose sequence numbers are adjacent and whose
    /// distance is an ordinary step. Such a step was late if the later row was.
    fn bridges(&self) -> Vec<(Interval, bool)> {
        let mut ends: BTreeMap<(BootId, InstanceId, u64), Vec<Chain>> = BTreeMap::new();
        for chain in &self.by_from {
            if let Some(next) = chain.seq_to.checked_add(1) {
                ends.entry((chain.boot, chain.instance, next))
                    .or_default()
                    .push(*chain);
            }
        }
        // The collector broke the chain there, however short the step was.
        let frozen: BTreeSet<_> = self
            .breaks
            .iter()
            .filter(|resumption| resumption.stood_still_ms().is_some())
            .map(|resumption| (resumption.after.instance, resumption.after.seq))
            .collect();
        let mut bridges = Vec::new();
        for chain in &self.by_from {
            if frozen.contains(&(chain.instance, chain.seq_from)) {
                continue;
            }
            let key = (chain.boot, chain.instance, chain.seq_from);
            for earlier in ends.get(&key).into_iter().flatten() {
                let bridge = Interval::new(earlier.to, chain.from);
                // The policy may have changed the interval between the two.
                if !bridge.is_empty() && bridge.len_ms() <= earlier.step_ms.max(chain.step_ms) {
                    bridges.push((bridge, chain.late));
                }
            }
        }
        bridges
    }

    /// The longest ordinary step of an agent process.
    pub(super) fn step_ms(&self, instance: InstanceId) -> i64 {
        self.step_ms
            .get(&instance)
            .copied()
            .unwrap_or(DEFAULT_STEP_MS)
    }

    /// The rows that end at `at`.
    pub(super) fn ending_at(&self, at: UnixMillis) -> &[Chain] {
        let first = self.by_to.partition_point(|chain| chain.to < at);
        let last = self.by_to.partition_point(|chain| chain.to <= at);
        &self.by_to[first..last]
    }

    /// The rows that begin at `at`.
    pub(super) fn beginning_at(&self, at: UnixMillis) -> &[Chain] {
        let first = self.by_from.partition_point(|chain| chain.from < at);
        let last = self.by_from.partition_point(|chain| chain.from <= at);
        &self.by_from[first..last]
    }

    /// The rows, by their beginning.
    pub(super) fn chains(&self) -> &[Chain] {
        &self.by_from
    }

    pub(super) fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    pub(super) fn goodbyes(&self) -> &[(UnixMillis, GoodbyeReason)] {
        &self.goodbyes
    }

    /// The breaks that meet `area`, the shortest first and of equals the last recorded: the most
    /// specific account of it comes first.
    pub(super) fn breaks_in(&self, area: Interval) -> Vec<&Break> {
        let first = self.breaks_end.partition_point(|&end| end <= area.from);
        let last = self.breaks.partition_point(|gap| gap.before.at < area.to);
        let mut found: Vec<_> = self
            .breaks
            .get(first..last)
            .unwrap_or_default()
            .iter()
            .filter(|gap| !gap.span().intersect(area).is_empty())
            .collect();
        found.sort_by_key(|gap| (gap.span().len_ms(), std::cmp::Reverse(gap.recorded_at)));
        found
    }

    /// What the agent said last in `[from, to]`.
    pub(super) fn goodbye_in(&self, from: UnixMillis, to: UnixMillis) -> Option<GoodbyeReason> {
        let end = self.goodbyes.partition_point(|&(at, _)| at <= to);
        self.goodbyes[..end]
            .last()
            .filter(|&&(at, _)| at >= from)
            .map(|&(_, reason)| reason)
    }

    /// Instants of frames: a break can begin or end there.
    pub(super) fn marks(&self) -> Vec<UnixMillis> {
        let chains = self.by_from.iter().flat_map(|chain| [chain.from, chain.to]);
        let breaks = self
            .breaks
            .iter()
            .flat_map(|gap| [gap.before.at, gap.after.at]);
        let mut marks: Vec<_> = chains.chain(breaks).collect();
        marks.sort_unstable();
        marks.dedup();
        marks
    }

    /// The time for which the host has a record.
    pub(super) fn record(&self, now: UnixMillis) -> Cover {
        let mut parts = Vec::new();
        let mut begun = None;
        for &(at, begins) in &self.bounds {
            if begins {
                begun = begun.or(Some(at));
            } else if let Some(from) = begun.take() {
                parts.push(Interval::new(from, at));
            }
        }
        parts.extend(begun.map(|from| Interval::new(from, now)));
        Cover::of(parts)
    }

    /// The earliest instant of which any row speaks.
    pub(super) fn earliest(&self) -> Option<UnixMillis> {
        let rows = self.by_from.first().map(|chain| chain.from);
        let breaks = self.breaks.first().map(|gap| gap.before.at);
        let bounds = self.bounds.first().map(|&(at, _)| at);
        [rows, breaks, bounds].into_iter().flatten().min()
    }
}
