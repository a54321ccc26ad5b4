//! The verdict on one gap in what is proven up. In the order of the design: the collector was down;
//! another boot; same boot and process with a clock that stood still or ran on; same boot, new
//! process; else unknown. A gap without later frames is silent. A verdict of down is given
//! only on proof; where the collector's own absence would explain a gap as well, it is unknown.

use watchkeep_shared::UnixMillis;

use super::{
    Cause, Interval, ObservedState, Span,
    facts::{Break, Chain, DEFAULT_STEP_MS, Facts},
    interval::Cover,
    observe::span,
};

/// How long after its start the collector's absence still explains that no frames arrive:
/// agents back off before they try again.
pub(super) const RECONNECT_GRACE_MS: i64 = 120_000;

/// How far the ends of a break and of the chains around it may differ. Frames are placed by their
/// arrival, so the same frame can be placed twice a little apart.
const PLACEMENT_SLACK_MS: i64 = 5_000;

/// Times of the first and the last frame up to now, if there are any.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameTimes {
    first: Option<UnixMillis>,
    last: Option<UnixMillis>,
}

impl FrameTimes {
    /// From sorted instants.
    pub(super) fn of(marks: &[UnixMillis], now: UnixMillis) -> Self {
        let known = &marks[..marks.partition_point(|&mark| mark <= now)];
        Self {
            first: known.first().copied(),
            last: known.last().copied(),
        }
    }
}

/// A stretch of the record that nothing proves up, between two instants at which something was
/// received, or at the record's or the known time's edge.
#[derive(Debug)]
pub(super) struct Gap<'a> {
    pub(super) part: Interval,
    pub(super) up: &'a Cover,
    pub(super) frames: FrameTimes,
    pub(super) now: UnixMillis,
}

/// The spans of a gap, in no particular order.
pub(super) fn judge(facts: &Facts, gap: &Gap<'_>) -> Vec<Span> {
    let mut canvas = Canvas::of(gap.part);
    match (gap.frames.first, gap.frames.last) {
        (Some(first), _) if gap.part.to <= first => {
            canvas.paint_rest(ObservedState::Unknown, Cause::NoFrameYet);
        }
        (_, Some(last)) if gap.part.from < last => between(facts, gap, &mut canvas),
        (_, Some(last)) => tail(facts, gap, last, &mut canvas),
        (_, None) => {
            canvas.paint_within(&facts.collector_down, gap.part);
            canvas.paint_rest(ObservedState::Silent, Cause::NoFrameYet);
        }
    }
    canvas.done
}

/// A gap with frames after it.
fn between(facts: &Facts, gap: &Gap<'_>, canvas: &mut Canvas) {
    for off in &facts.off {
        let (clean, since) = (off.clean, off.since);
        let cause = Cause::BootChanged { clean, since };
        canvas.paint(off.span, ObservedState::DownReboot, cause);
    }
    for resumption in facts.breaks_in(widen(gap.part)) {
        let area = snap(resumption.span(), gap.part).intersect(gap.part);
        // One process before and after it: frames came late that the break did not know of, and what
        // is missing between them is not where that process ended.
        let is_other = resumption.before.instance != resumption.after.instance;
        if area.is_empty() || (is_other && process_around(facts, gap.part).is_some()) {
            continue;
        }
        if resumption.before.boot != resumption.after.boot {
            rebooted(facts, resumption, area, canvas);
        } else if resumption.before.instance == resumption.after.instance {
            same_process(facts, resumption, gap, (area, canvas));
        } else {
            let absent = absence(facts, facts.step_ms(resumption.before.instance), 0, area);
            canvas.paint_within(&absent, area);
            let goodbye = resumption
                .goodbye
                .or_else(|| facts.goodbye_in(resumption.before.at, resumption.after.at));
            let cause = Cause::AgentRestarted { goodbye };
            canvas.paint(area, ObservedState::AgentStopped, cause);
        }
    }
    untold(facts, gap.part, canvas);
}

/// The chain before a stretch, if the same process has one after it.
fn process_around(facts: &Facts, part: Interval) -> Option<&Chain> {
    let after = facts.beginning_at(part.to);
    facts.ending_at(part.from).iter().find(|a| {
        after
            .iter()
            .any(|b| (a.boot, a.instance) == (b.boot, b.instance))
    })
}

/// What can be said of a gap from the chains on both sides alone.
fn untold(facts: &Facts, part: Interval, canvas: &mut Canvas) {
    let (before, after) = (facts.ending_at(part.from), facts.beginning_at(part.to));
    let same_boot = before
        .iter()
        .any(|a| after.iter().any(|b| a.boot == b.boot));
    if let Some(chain) = process_around(facts, part) {
        let absent = absence(
            facts,
            facts.step_ms(chain.instance),
            RECONNECT_GRACE_MS,
            part,
        );
        canvas.paint_within(&absent, part);
    } else {
        canvas.paint_within(&facts.collector_down, part);
        if same_boot {
            let goodbye = facts.goodbye_in(part.from, part.to);
            let cause = Cause::AgentRestarted { goodbye };
            canvas.paint(part, ObservedState::AgentStopped, cause);
        } else if !before.is_empty() && !after.is_empty() {
            canvas.paint(part, ObservedState::Unknown, Cause::BootTimeUnknown);
        }
    }
    canvas.paint_rest(ObservedState::Unknown, Cause::NoProof);
}

/// Another boot after the break.
fn rebooted(facts: &Facts, resumption: &Break, area: Interval, canvas: &mut Canvas) {
    let new_boot = resumption.after.boot;
    // Frames of a boot in between end the area: when that boot began is not known.
    let other_boot_follows = facts
        .beginning_at(area.to)
        .iter()
        .any(|chain| chain.boot != new_boot);
    let absent = absence(facts, facts.step_ms(resumption.before.instance), 0, area);
    canvas.paint_within(&absent, area);
    if resumption.contradicts_itself() || other_boot_follows {
        canvas.paint(area, ObservedState::Unknown, Cause::BootTimeUnknown);
        return;
    }
    let seen = facts.os_records.iter().filter(|one| one.next == new_boot);
    if let Some(seen) = seen.map(|one| one.seen).max() {
        let untold = Interval::new(area.from, seen).intersect(area);
        canvas.paint(untold, ObservedState::Unknown, Cause::PreviousBootSeen);
    }
    let before_kernel = Interval::new(area.from, resumption.kernel_boot()).intersect(area);
    canvas.paint(
        before_kernel,
        ObservedState::Unknown,
        Cause::RebootedSometime,
    );
}

/// The same boot and agent process after the break.
fn same_process(
    facts: &Facts,
    resumption: &Break,
    gap: &Gap<'_>,
    (area, canvas): (Interval, &mut Canvas),
) {
    let step_ms = facts.step_ms(resumption.before.instance);
    let absent = absence(facts, step_ms, RECONNECT_GRACE_MS, area);
    let ran = resumption
        .after
        .mono_ms
        .saturating_sub(resumption.before.mono_ms);
    // What frames inside the break account for is running time that is not part of the gap; of the
    // rest, one ordinary step passes before the next frame is due.
    let unaccounted = ran.saturating_sub(gap.up.len_within_ms(resumption.span()));
    if let Some(still_ms) = resumption.stood_still_ms()
        && unaccounted <= step_ms.saturating_add(resumption.clock_tolerance_ms())
    {
        // Both clocks prove it: that the collector was away meanwhile changes nothing. The machine
        // ran for as long as its clock says, at the latest until the next frame was due; on which
        // side of the pause it ran for the rest is not known.
        let froze = area.from.0.saturating_add(unaccounted.clamp(0, step_ms));
        let went_on = froze.saturating_add(still_ms).min(area.to.0);
        let frozen = Interval::new(UnixMillis(froze.min(area.to.0)), UnixMillis(went_on));
        canvas.paint(
            frozen,
            ObservedState::HostFrozen,
            Cause::ClockStoodStill { still_ms },
        );
        let not_due = Interval::new(area.from, frozen.from);
        canvas.paint(not_due, ObservedState::UpProven, Cause::NextNotDue);
        canvas.paint(area, ObservedState::Unknown, Cause::NoProof);
        return;
    }
    canvas.paint_within(&absent, area);
    if ran < 0 {
        canvas.paint(area, ObservedState::Unknown, Cause::NoProof);
    } else {
        canvas.paint(area, ObservedState::Stalled, Cause::ClockRanOn);
    }
}

/// A gap without frames after it.
fn tail(facts: &Facts, gap: &Gap<'_>, last: UnixMillis, canvas: &mut Canvas) {
    let step_ms = facts
        .ending_at(last)
        .iter()
        .map(|chain| chain.step_ms)
        .max()
        .unwrap_or(DEFAULT_STEP_MS);
    let overdue = facts.overdue.iter().filter(|&&(from, _)| from >= last);
    let noticed = overdue.map(|&(_, at)| at).max();
    let goodbye = facts.goodbye_in(last, gap.now);
    // Up to now, or to the end of the record: one that ended before the next frame was due says nothing
    // of silence.
    let recent = Interval::new(last, gap.part.to).len_ms() <= step_ms;
    if recent && noticed.is_none() && goodbye.is_none() {
        canvas.paint_rest(ObservedState::UpLive, Cause::NextNotDue);
        return;
    }
    // Silence that was noticed after the collector came back is not explained by its absence.
    for down in absence(facts, step_ms, RECONNECT_GRACE_MS, gap.part).within(gap.part) {
        let end = facts
            .collector_down
            .within(down)
            .last()
            .map_or(down.to, |part| part.to);
        let to = match noticed {
            Some(at) if at >= end => end,
            _ => down.to,
        };
        let part = Interval::new(down.from, to);
        canvas.paint(part, ObservedState::CollectorDown, Cause::CollectorGap);
    }
    canvas.paint_rest(ObservedState::Silent, Cause::NoFrameSince { goodbye });
}

/// The collector's absences as far as they matter in `area`. One that explains why `area` began is
/// taken from a step before, in which the last frame may have come, to `after_ms` after its start;
/// a host that had been silent for longer is not explained by it.
fn absence(facts: &Facts, step_ms: i64, after_ms: i64, area: Interval) -> Cover {
    absences(facts, step_ms, after_ms, area, |down| {
        area.from.0 >= down.from.0.saturating_sub(step_ms)
    })
}

/// The collector's absences around `area`, each with the time that agents take to come back.
pub(super) fn absence_with_return(facts: &Facts, area: Interval) -> Cover {
    absences(facts, 0, RECONNECT_GRACE_MS, area, |_| true)
}

fn absences(
    facts: &Facts,
    step_ms: i64,
    after_ms: i64,
    area: Interval,
    explains: impl Fn(Interval) -> bool,
) -> Cover {
    let near = Interval::new(
        UnixMillis(area.from.0.saturating_sub(after_ms)),
        UnixMillis(area.to.0.saturating_add(step_ms)),
    );
    let widened = facts
        .collector_down
        .within(near)
        .map(|down| {
            if !explains(down) {
                return down;
            }
            Interval::new(
                UnixMillis(down.from.0.saturating_sub(step_ms)),
                UnixMillis(down.to.0.saturating_add(after_ms)),
            )
        })
        .collect();
    Cover::of(widened)
}

fn widen(part: Interval) -> Interval {
    Interval::new(
        UnixMillis(part.from.0 - PLACEMENT_SLACK_MS),
        UnixMillis(part.to.0 + PLACEMENT_SLACK_MS),
    )
}

/// `resumption` with those of its ends moved to the ends of `part` that lie close to them.
fn snap(resumption: Interval, part: Interval) -> Interval {
    let near = |a: UnixMillis, b: UnixMillis| (a.0 - b.0).abs() <= PLACEMENT_SLACK_MS;
    let from = if near(resumption.from, part.from) {
        part.from
    } else {
        resumption.from
    };
    let to = if near(resumption.to, part.to) {
        part.to
    } else {
        resumption.to
    };
    Interval::new(from, to)
}

/// A gap that is painted with verdicts; the first to paint an instant keeps it.
#[derive(Debug)]
struct Canvas {
    free: Vec<Interval>,
    done: Vec<Span>,
}

impl Canvas {
    fn of(part: Interval) -> Self {
        Self {
            free: vec![part],
            done: Vec::new(),
        }
    }

    fn paint(&mut self, area: Interval, state: ObservedState, cause: Cause) {
        let mut free = Vec::with_capacity(self.free.len() + 1);
        for part in self.free.drain(..) {
            let hit = part.intersect(area);
            if hit.is_empty() {
                free.push(part);
                continue;
            }
            self.done.push(span(hit, state, cause));
            free.push(Interval::new(part.from, hit.from));
            free.push(Interval::new(hit.to, part.to));
        }
        free.retain(|part| !part.is_empty());
        self.free = free;
    }

    /// The collector's absence, within `area`.
    fn paint_within(&mut self, absent: &Cover, area: Interval) {
        for part in absent.within(area) {
            self.paint(part, ObservedState::CollectorDown, Cause::CollectorGap);
        }
    }

    fn paint_rest(&mut self, state: ObservedState, cause: Cause) {
        let rest = self.free.drain(..);
        self.done.extend(rest.map(|part| span(part, state, cause)));
    }
}
