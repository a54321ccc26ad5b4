//! From evidence to observed states. The whole record is laid out first and cut to the window last,
//! so that a month and its parts agree. Layers, each only where those before it left room: outside
//! the record; frames in time; frames late; the kernel's own record; and for each gap that is left,
//! a verdict (see `verdict`). Adding frames can therefore only turn other time into up.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Cause, Interval, ObservedState, Span,
    facts::{Facts, clamp},
    interval::Cover,
    verdict::{FrameTimes, Gap, judge},
};
use crate::evidence::Evidence;

/// One host and its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// The host; rows of others are ignored.
    pub host: HostId,
    /// Its name, for the report.
    pub name: String,
    /// Its rows in any order. They must include its `Enrolled` and `Retired` rows, and the rows of
    /// a chain or break that reaches into the window from outside; a chain that still grows is
    /// given as a `Frames` row up to its newest frame.
    pub evidence: Vec<Evidence>,
}

/// The observed states of one host, sorted and exactly tiling `[window.from, min(window.to, now))`.
///
/// Only rows recorded at or before `cutoff` count. `collector` holds the collector's own
/// `CollectorDown` rows. Instants are held within ±2^52 ms of the epoch. For a past answer give the
/// `now` of then.
pub fn observe(
    record: &HostRecord,
    collector: &[Evidence],
    window: Interval,
    cutoff: UnixMillis,
    now: UnixMillis,
) -> Vec<Span> {
    let now = clamp(now);
    let window = Interval::new(clamp(window.from), clamp(window.to).min(now));
    if window.is_empty() {
        return Vec::new();
    }
    let facts = Facts::of(record, collector, cutoff);
    cut(lay_out(&facts, window, now), window)
}

/// All spans up to `now`, from the window's start or the first row, whichever is earlier.
fn lay_out(facts: &Facts, window: Interval, now: UnixMillis) -> Vec<Span> {
    let from = facts.earliest().unwrap_or(window.from).min(window.from);
    let all = Cover::of(vec![Interval::new(from, now)]);
    let record = facts.record(now).intersect(&all);
    let mut spans = outside(&record, &all);

    let mut up = Cover::default();
    let layers = [
        (&facts.live, ObservedState::UpLive, Cause::Frames),
        (&facts.late, ObservedState::UpProven, Cause::LateFrames),
        (&facts.kernel, ObservedState::UpProven, Cause::KernelRan),
    ];
    for (layer, state, cause) in layers {
        let free = layer.intersect(&record).minus(&up);
        spans.extend(free.iter().map(|part| span(part, state, cause)));
        up = up.union(&free);
    }

    let marks = facts.marks();
    let frames = FrameTimes::of(&marks, now);
    for open in record.minus(&up).iter() {
        for part in split(open, &marks) {
            let gap = Gap {
                part,
                up: &up,
                frames,
                now,
            };
            spans.extend(judge(facts, &gap));
        }
    }
    spans.sort_unstable_by_key(|span| span.from);
    spans
}

/// The spans outside the host's record: before its first beginning, and after an end.
fn outside(record: &Cover, all: &Cover) -> Vec<Span> {
    let begun = record.iter().next().map(|part| part.from);
    all.minus(record)
        .iter()
        .map(|part| match begun {
            Some(begun) if part.from >= begun => {
                span(part, ObservedState::Retired, Cause::AfterRetirement)
            }
            _ => span(part, ObservedState::NotEnrolled, Cause::BeforeEnrolment),
        })
        .collect()
}

/// Cuts `open` at the instants in `marks` that lie inside it.
fn split(open: Interval, marks: &[UnixMillis]) -> Vec<Interval> {
    let first = marks.partition_point(|&mark| mark <= open.from);
    let mut parts = Vec::new();
    let mut from = open.from;
    for &mark in marks[first..].iter().take_while(|&&mark| mark < open.to) {
        parts.push(Interval::new(from, mark));
        from = mark;
    }
    parts.push(Interval::new(from, open.to));
    parts
}

/// The part of sorted, tiling spans inside the window, equal neighbours made one.
fn cut(spans: Vec<Span>, window: Interval) -> Vec<Span> {
    let mut cut: Vec<Span> = Vec::new();
    for one in spans {
        let part = Interval::new(one.from, one.to).intersect(window);
        if part.is_empty() {
            continue;
        }
        match cut.last_mut() {
            Some(last)
                if last.to == part.from && last.state == one.state && last.cause == one.cause =>
            {
                last.to = part.to;
            }
            _ => cut.push(span(part, one.state, one.cause)),
        }
    }
    cut
}

pub(super) fn span(part: Interval, state: ObservedState, cause: Cause) -> Span {
    Span {
        from: part.from,
        to: part.to,
        state,
        cause,
    }
}
