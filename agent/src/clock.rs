//! The only file that reads the machine's clocks. Everything else takes them as values.

use rustix::time::{ClockId, Timespec, clock_gettime};
use watchkeep_shared::wire::heartbeat::Clocks;

fn millis(time: Timespec) -> i64 {
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

/// The three clocks, read one right after the other.
pub fn now() -> Clocks {
    Clocks {
        wall_ms: millis(clock_gettime(ClockId::Realtime)),
        mono_ms: millis(clock_gettime(ClockId::Monotonic)),
        boot_ms: millis(clock_gettime(ClockId::Boottime)),
    }
}
