//! What a host's clocks say about the machine: that its wall clock was set, or that it slept.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{BootId, DurationMs, UnixMillis, wire::heartbeat::Clocks};

use super::HostState;
use crate::evidence::FrameMark;

/// A smaller change is a reading that was interrupted, or a leap second.
const STEP_MS: i64 = 1_500;

/// How far the collector's clock may run ahead of an agent's between two frames before it counts as
/// a pause, milliseconds: more than any delay of a network that still delivers.
pub(super) const MAX_CLOCK_LAG_MS: i64 = 5_000;

/// Of a long time, clocks that are not synchronised may differ by one part in so many.
pub(super) const DRIFT: i64 = 1_000;

/// Wall clock minus boot clock. Both are slewed together, so within a boot only setting the wall
/// clock changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// Of this boot.
    pub boot: BootId,
    /// Milliseconds.
    pub wall_minus_boot_ms: i64,
}

impl ClockOffset {
    pub(super) fn of(boot: BootId, clocks: Clocks) -> Self {
        Self {
            boot,
            wall_minus_boot_ms: wall_minus_boot_ms(clocks),
        }
    }

    /// By how much the wall clock was put forward since an earlier reading of the same boot.
    pub(super) const fn since(self, earlier: Self) -> i64 {
        self.wall_minus_boot_ms
            .saturating_sub(earlier.wall_minus_boot_ms)
    }
}

const fn wall_minus_boot_ms(clocks: Clocks) -> i64 {
    clocks.wall_ms.saturating_sub(clocks.boot_ms)
}

/// The newest live frame before the last break, with how its boot's wall clock stood. Frames that
/// were made after it and come late are placed from here or from their arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The frame.
    pub mark: FrameMark,
    /// Of its boot, milliseconds; `None` if it is not known.
    pub wall_minus_boot_ms: Option<i64>,
}

/// A boot's wall clock minus the collector's, at the last live frame of that boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSkew {
    /// The boot.
    pub boot: BootId,
    /// Milliseconds.
    pub skew_ms: i64,
}

/// Boots whose skew is remembered.
const MAX_SKEWS: usize = 16;

/// Wall clocks of two boots that differ by less have not been set in between.
const SKEW_TOLERANCE_MS: i64 = 5_000;

/// When a frame's boot clock showed zero, by where the frame was placed, Unix milliseconds.
pub(super) const fn origin_of(mark: &FrameMark) -> i64 {
    mark.at.0.saturating_sub(mark.boot_ms)
}

/// Remembers the skew of the boot that a new one followed.
pub(super) fn remember_skew(state: &mut HostState, boot: BootId) {
    state.earlier_skews.retain(|known| known.boot != boot);
    if state.earlier_skews.len() >= MAX_SKEWS {
        state.earlier_skews.remove(0);
    }
    let skew_ms = state.skew_ms;
    state.earlier_skews.push(BootSkew { boot, skew_ms });
}

/// The skew of an earlier boot: its own; of a boot without live frames, that of the boots on
/// both sides if they agree. `None` if it is unknown. `running` is the boot that sends now.
pub(super) fn skew_of(state: &HostState, boot: BootId, running: BootSkew) -> Option<i64> {
    let last = state.last.map(|last| BootSkew {
        boot: last.boot,
        skew_ms: state.skew_ms,
    });
    let known = || state.earlier_skews.iter().copied().chain(last);
    if let Some(own) = known().find(|known| known.boot == boot) {
        return Some(own.skew_ms);
    }
    let other = known().rfind(|known| known.boot != running.boot);
    let agree = other.is_none_or(|other| {
        running
            .skew_ms
            .saturating_sub(other.skew_ms)
            .saturating_abs()
            <= SKEW_TOLERANCE_MS
    });
    agree.then_some(running.skew_ms)
}

/// Why a machine stood still although it did not boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// How long it slept: its boot clock ran on while its monotonic clock did not.
    pub slept: DurationMs,
}

/// Takes a reading in; gives the step if the wall clock was set since the one before.
pub(super) fn take_reading(
    known: &mut Option<ClockOffset>,
    boot: BootId,
    clocks: Clocks,
) -> Option<DurationMs> {
    let now = ClockOffset::of(boot, clocks);
    let Some(before) = known.filter(|before| before.boot == boot) else {
        *known = Some(now);
        return None;
    };
    let step = now
        .wall_minus_boot_ms
        .saturating_sub(before.wall_minus_boot_ms);
    if step.saturating_abs() < STEP_MS {
        // The first reading stays: small changes must not hide a slow drift nor cost a write.
        return None;
    }
    *known = Some(now);
    Some(DurationMs(step))
}

/// Whether the machine slept between two frames of one boot.
pub(super) fn pause(before: &FrameMark, after: &FrameMark) -> Option<Pause> {
    if before.boot != after.boot {
        return None;
    }
    let slept = (after.boot_ms - after.mono_ms).saturating_sub(before.boot_ms - before.mono_ms);
    (slept >= STEP_MS).then_some(Pause {
        slept: DurationMs(slept),
    })
}

impl HostState {
    /// The newest live frame, as a point to place others from.
    pub(super) fn anchor(&self, last: FrameMark) -> Anchor {
        let clock = self.live_clock.filter(|clock| clock.boot == last.boot);
        Anchor {
            mark: last,
            wall_minus_boot_ms: clock.map(|clock| clock.wall_minus_boot_ms),
        }
    }

    /// The newest known frame of a boot that was made before one.
    fn anchor_before(&self, boot: BootId, boot_ms: i64) -> Option<Anchor> {
        let last = self.last.map(|last| self.anchor(last));
        [last, self.before_break]
            .into_iter()
            .flatten()
            .find(|one| one.mark.boot == boot && one.mark.boot_ms <= boot_ms)
    }
}

/// Notes how the wall clock stood at a frame that could not be placed for sure.
pub(super) fn note_doubt(state: &mut HostState, here: ClockOffset) {
    let earlier = state.doubted_clock.filter(|known| known.boot == here.boot);
    let is_earliest =
        earlier.is_none_or(|known| here.wall_minus_boot_ms < known.wall_minus_boot_ms);
    if is_earliest {
        state.doubted_clock = Some(here);
    }
}

/// For how long the boot clock may have stood still since the boot's first frames, by a wall clock
/// that was put forward meanwhile: the kernel may have started so much earlier than the boot clock
/// says.
pub(super) fn may_have_stood_ms(state: &HostState, now: ClockOffset) -> i64 {
    state
        .doubted_clock
        .filter(|known| known.boot == now.boot)
        .map(|known| {
            now.wall_minus_boot_ms
                .saturating_sub(known.wall_minus_boot_ms)
        })
        .filter(|&ms| ms > MAX_CLOCK_LAG_MS)
        .unwrap_or(0)
}

/// Places a frame of the running boot that by its age was made at `by_age`; returns whether that is
/// sure.
///
/// The age is the difference of two readings of the boot clock, which stops while a
/// hypervisor pauses the machine. If it stood between the last known frame and the arrival, the
/// frame was made before that or after it. After a pause the wall clock is put right, so the frame
/// belongs to the side whose wall clock it has; if that does not tell, it proves nothing.
pub(super) fn place_by_age(
    state: &HostState,
    (boot, frame, sent): (BootId, Clocks, Clocks),
    by_age: UnixMillis,
) -> (UnixMillis, bool) {
    let (here, at_sending) = (wall_minus_boot_ms(frame), wall_minus_boot_ms(sent));
    let Some(anchor) = state.anchor_before(boot, frame.boot_ms) else {
        // A wall clock that was put forward since may have been put right after a pause.
        let is_sure = at_sending.saturating_sub(here) <= MAX_CLOCK_LAG_MS;
        return (by_age, is_sure);
    };
    let ran_ms = frame.boot_ms.saturating_sub(anchor.mark.boot_ms);
    let by_anchor = UnixMillis(anchor.mark.at.0.saturating_add(ran_ms));
    let elapsed_ms = by_age.since(anchor.mark.at).0;
    if by_age.since(by_anchor).0 <= MAX_CLOCK_LAG_MS.saturating_add(elapsed_ms / DRIFT) {
        return (by_age, true);
    }
    let is_of = |offset: i64| here.saturating_sub(offset).saturating_abs() <= MAX_CLOCK_LAG_MS / 2;
    let is_before = anchor.wall_minus_boot_ms.is_some_and(is_of);
    match (is_before, is_of(at_sending)) {
        (true, false) => (by_anchor, true),
        (is_before, is_after) => (by_age, is_after && !is_before),
    }
}
