//! What a host's clocks say about the machine: that its wall clock was set, or that it slept.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{BootId, DurationMs, wire::heartbeat::Clocks};

use super::HostState;
use crate::evidence::FrameMark;

/// A smaller change is a reading that was interrupted, or a leap second.
const STEP_MS: i64 = 1_500;

/// Wall clock minus boot clock. Both are slewed together, so within a boot only setting the wall
/// clock changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// Of this boot.
    pub boot: BootId,
    /// Milliseconds.
    pub wall_minus_boot_ms: i64,
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

/// Remembers the skew of the boot that a new one followed.
pub(super) fn remember_skew(state: &mut HostState, boot: BootId) {
    state.earlier_skews.retain(|known| known.boot != boot);
    if state.earlier_skews.len() >= MAX_SKEWS {
        state.earlier_skews.remove(0);
    }
    let skew_ms = state.skew_ms;
    state.earlier_skews.push(BootSkew { boot, skew_ms });
}

/// The skew of an earlier boot: its own; of a boot that was never heard live, that of the boots on
/// both sides if they agree. `None` if nothing tells. `running` is the boot that sends now.
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
    let now = ClockOffset {
        boot,
        wall_minus_boot_ms: clocks.wall_ms.saturating_sub(clocks.boot_ms),
    };
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
