//! Reboots: what proves that a machine was off, and when its kernels ran. A changed boot id alone
//! proves no length; a goodbye for a shutdown does, and so does what the operating system kept of
//! the old boot.

use std::collections::BTreeMap;

use watchkeep_shared::{BootId, UnixMillis, wire::heartbeat::GoodbyeReason};

use super::{
    DownSince, Interval,
    facts::{BOOT_TIME_SLACK_MS, Break, Facts},
};

/// How long after the last frame a sign of life of the same boot still continues it: later the agent
/// would have made another, so it was gone, or the machine was paused.
const LAST_SEEN_JOIN_MS: i64 = 30_000;

/// A record that ends so long before the last frame is not kept well enough to prove anything.
const STALE_RECORD_MS: i64 = 120_000;

/// The same instant, from two sources.
const SAME_MS: i64 = 5_000;

/// If the wall clock went back between two boots, a record is believed only if it ends with the
/// frames, at most so much apart: later entries may have been passed over.
const RECORD_WITH_FRAMES_MS: i64 = 30_000;

/// What the operating system kept of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OsRecord {
    pub(super) boot: BootId,
    pub(super) next: BootId,
    /// The last sign of life.
    pub(super) seen: UnixMillis,
    /// Up to when signs of life would have been reported.
    pub(super) reaches: UnixMillis,
    /// The start of the next kernel.
    pub(super) next_start: UnixMillis,
}

/// A proven outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Off {
    pub(super) span: Interval,
    pub(super) clean: bool,
    pub(super) since: DownSince,
}

/// The starts and ends of all boots in the evidence rows.
#[derive(Debug)]
pub(super) struct Boots<'a> {
    facts: &'a Facts,
    /// The instants at which frames of a boot ended, sorted.
    ends: BTreeMap<BootId, Vec<UnixMillis>>,
    /// When each kernel started.
    starts: BTreeMap<BootId, UnixMillis>,
}

impl<'a> Boots<'a> {
    pub(super) fn of(facts: &'a Facts) -> Self {
        let mut ends: BTreeMap<BootId, Vec<UnixMillis>> = BTreeMap::new();
        for chain in facts.chains() {
            ends.entry(chain.boot).or_default().push(chain.to);
        }
        let mut starts = BTreeMap::new();
        let mut start = |boot: BootId, at: UnixMillis| {
            let known = starts.entry(boot).or_insert(at);
            *known = at.min(*known);
        };
        for one in facts.breaks() {
            ends.entry(one.before.boot).or_default().push(one.before.at);
            if one.before.boot != one.after.boot && !one.contradicts_itself() {
                start(one.after.boot, one.kernel_boot());
            }
        }
        for &(boot, span) in &facts.booted {
            start(boot, span.from);
        }
        for record in &facts.os_records {
            start(record.next, record.next_start);
        }
        for ends in ends.values_mut() {
            ends.sort_unstable();
        }
        Self {
            facts,
            ends,
            starts,
        }
    }

    /// The last frame of a boot up to an instant.
    fn last_frame(&self, boot: BootId, until: UnixMillis) -> Option<UnixMillis> {
        let ends = self.ends.get(&boot)?;
        ends[..ends.partition_point(|&end| end <= until)]
            .last()
            .copied()
    }

    /// When the kernels ran, by their own record.
    pub(super) fn kernel_ran(&self) -> Vec<Interval> {
        let breaks = self
            .facts
            .breaks()
            .iter()
            .filter(|one| one.before.boot != one.after.boot && !one.contradicts_itself())
            .filter_map(Break::since_boot);
        let booted = self
            .facts
            .booted
            .iter()
            .filter(|&&(boot, span)| !self.contradicted(boot, span))
            .map(|&(_, span)| span);
        let records = self.facts.os_records.iter().filter_map(|record| {
            let last = self.last_frame(record.boot, record.seen)?;
            (record.seen.0 - last.0 <= LAST_SEEN_JOIN_MS)
                .then(|| Interval::new(last, record.seen.min(record.next_start)))
        });
        breaks.chain(booted).chain(records).collect()
    }

    /// Frames of another boot lie well inside `span`.
    fn contradicted(&self, boot: BootId, span: Interval) -> bool {
        let from = UnixMillis(span.from.0 + BOOT_TIME_SLACK_MS);
        self.ends
            .iter()
            .filter(|&(&other, _)| other != boot)
            .any(|(_, ends)| {
                let at = ends.partition_point(|&end| end <= from);
                ends.get(at).is_some_and(|&end| end <= span.to)
            })
    }

    /// The proven outages.
    pub(super) fn off(&self) -> Vec<Off> {
        let records = self.facts.os_records.iter();
        let mut off: Vec<Off> = records.filter_map(|record| self.recorded(record)).collect();
        off.extend(self.announced());
        off.retain(|one| !one.span.is_empty());
        off.sort_by_key(|one| (one.span.from, one.span.to, one.clean, one.since));
        off
    }

    fn recorded(&self, record: &OsRecord) -> Option<Off> {
        let near = UnixMillis(record.next_start.0 + SAME_MS);
        let last = self.last_frame(record.boot, near);
        let since = last.map_or(record.seen, |last| last.max(record.seen));
        let goodbye = last.and_then(|last| {
            let from = UnixMillis(last.0 - SAME_MS);
            self.facts.goodbye_in(from, record.next_start)
        });
        // If the agent alone stopped, its own last frame is no sign of life of the machine.
        let outlives_frames = last.is_none_or(|last| record.seen.0 > last.0 + SAME_MS);
        let stopped = goodbye.is_some_and(|reason| reason != GoodbyeReason::Shutdown);
        if stopped && !outlives_frames {
            return None;
        }
        if last.is_some_and(|last| record.seen.0 < last.0 - STALE_RECORD_MS) {
            return None;
        }
        if record.reaches.0 < record.next_start.0 - SAME_MS {
            // The clock went back: entries after `reaches` were not read.
            let last = last.filter(|_| !stopped)?;
            let reached = record.reaches.0 >= since.0 - SAME_MS;
            if !reached || record.seen.0 > last.0 + RECORD_WITH_FRAMES_MS {
                return None;
            }
        }
        let span = Interval::new(since, record.next_start);
        let since = if last.is_none_or(|last| record.seen > last) {
            DownSince::OsRecord
        } else {
            DownSince::LastFrame
        };
        let clean = goodbye == Some(GoodbyeReason::Shutdown);
        (!self.other_between(span)).then_some(Off { span, clean, since })
    }

    /// Outages that began with a goodbye for a shutdown.
    fn announced(&self) -> Vec<Off> {
        let in_breaks = self.facts.breaks().iter().filter_map(|one| {
            let shutdown = one.goodbye == Some(GoodbyeReason::Shutdown);
            shutdown.then_some((one.before.at, one.before.boot))
        });
        let goodbyes = self
            .facts
            .goodbyes()
            .iter()
            .filter(|&&(_, reason)| reason == GoodbyeReason::Shutdown)
            .filter_map(|&(at, _)| Some((at, self.boot_at(at)?)));
        let mut order: Vec<(UnixMillis, BootId)> =
            self.starts.iter().map(|(&boot, &at)| (at, boot)).collect();
        order.sort_unstable();
        let has_record = |boot| {
            let mut records = self.facts.os_records.iter();
            records.any(|record| record.boot == boot && self.recorded(record).is_some())
        };
        // A boot without frames may lie between.
        let follows_another = |next, boot| {
            let mut records = self.facts.os_records.iter();
            records.any(|record| record.next == next && record.boot != boot)
        };
        in_breaks
            .chain(goodbyes)
            .filter_map(|(at, boot)| {
                let first = order.partition_point(|&(start, _)| start.0 < at.0 - SAME_MS);
                let next = order[first..].iter().find(|&&(_, other)| other != boot)?;
                let last = self.last_frame(boot, UnixMillis(next.0.0 + SAME_MS))?;
                let alone =
                    last.0 <= at.0 + SAME_MS && !has_record(boot) && !follows_another(next.1, boot);
                let span = Interval::new(at.max(last), next.0);
                (alone && !self.other_between(span)).then_some(Off {
                    span,
                    clean: true,
                    since: DownSince::LastFrame,
                })
            })
            .collect()
    }

    /// The boot of which frames ended at an instant.
    fn boot_at(&self, at: UnixMillis) -> Option<BootId> {
        let mut near = self.ends.iter().filter_map(|(&boot, ends)| {
            let first = ends.partition_point(|&end| end.0 < at.0 - SAME_MS);
            let gap = ends.get(first)?.0.saturating_sub(at.0).saturating_abs();
            (gap <= SAME_MS).then_some((gap, boot))
        });
        let nearest = near.next()?;
        Some(near.fold(nearest, |a, b| if b.0 < a.0 { b } else { a }).1)
    }

    /// Whether frames ended or another kernel started well inside a span.
    fn other_between(&self, span: Interval) -> bool {
        let inner = Interval::new(
            UnixMillis(span.from.0 + SAME_MS),
            UnixMillis(span.to.0 - SAME_MS),
        );
        let inside = |at: UnixMillis| inner.from < at && at < inner.to;
        self.starts.values().copied().any(inside)
            || self.ends.values().any(|ends| {
                let at = ends.partition_point(|&end| end <= inner.from);
                ends.get(at).copied().is_some_and(inside)
            })
    }
}
