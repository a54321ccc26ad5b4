//! What a host's clocks say about the machine: that its wall clock was set, or that it slept.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{BootId, DurationMs, wire::heartbeat::Clocks};

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
