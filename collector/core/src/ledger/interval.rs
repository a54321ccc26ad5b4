//! Half-open intervals of time and ordered sets of them. Pure arithmetic on whole milliseconds;
//! knows nothing of hosts or evidence. Never fails: an interval that ends before it begins is
//! empty.

use serde::{Deserialize, Serialize};
use watchkeep_shared::UnixMillis;

/// A stretch of time `[from, to)`, empty when `to` is not later than `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// The first instant inside.
    pub from: UnixMillis,
    /// The first instant after it.
    pub to: UnixMillis,
}

impl Interval {
    /// `[from, to)`.
    pub const fn new(from: UnixMillis, to: UnixMillis) -> Self {
        Self { from, to }
    }

    /// Its length in milliseconds; 0 when empty.
    pub const fn len_ms(self) -> i64 {
        let span = self.to.0.saturating_sub(self.from.0);
        if span < 0 { 0 } else { span }
    }

    /// Whether no instant is inside.
    pub const fn is_empty(self) -> bool {
        self.to.0 <= self.from.0
    }

    /// What lies in both; may be empty.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        Self::new(self.from.max(other.from), self.to.min(other.to))
    }
}

/// A set of instants as ordered intervals that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cover(Vec<Interval>);

impl Cover {
    /// The union of any intervals in any order.
    pub(super) fn of(mut parts: Vec<Interval>) -> Self {
        parts.retain(|part| !part.is_empty());
        parts.sort_unstable();
        let mut merged: Vec<Interval> = Vec::with_capacity(parts.len());
        for part in parts {
            match merged.last_mut() {
                Some(last) if part.from <= last.to => last.to = last.to.max(part.to),
                _ => merged.push(part),
            }
        }
        Self(merged)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Interval> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        Self::of(self.iter().chain(other.iter()).collect())
    }

    /// Its parts inside `area`, in order.
    pub(super) fn within(&self, area: Interval) -> impl Iterator<Item = Interval> + '_ {
        let first = self.0.partition_point(|part| part.to <= area.from);
        self.0[first..]
            .iter()
            .take_while(move |part| part.from < area.to)
            .map(move |part| part.intersect(area))
            .filter(|part| !part.is_empty())
    }

    /// What of `area` is not in the set, in order.
    pub(super) fn gaps(&self, area: Interval) -> Vec<Interval> {
        let mut gaps = Vec::new();
        let mut from = area.from;
        for part in self.within(area) {
            gaps.push(Interval::new(from, part.from));
            from = part.to;
        }
        gaps.push(Interval::new(from, area.to));
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }

    /// The set without `other`.
    pub(super) fn minus(&self, other: &Self) -> Self {
        Self(self.iter().flat_map(|part| other.gaps(part)).collect())
    }

    /// What lies in both sets.
    pub(super) fn intersect(&self, other: &Self) -> Self {
        Self(
            self.iter()
                .flat_map(|part| other.within(part).collect::<Vec<_>>())
                .collect(),
        )
    }

    /// Milliseconds of `area` that are in the set.
    pub(super) fn len_within_ms(&self, area: Interval) -> i64 {
        self.within(area).map(Interval::len_ms).sum()
    }
}
