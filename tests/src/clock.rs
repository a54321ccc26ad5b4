//! The only file of this package that reads clocks.

use rustix::time::{ClockId, clock_gettime};
use watchkeep_shared::{UnixMillis, wire::heartbeat::Clocks};

/// The wall clock of this machine, milliseconds since the Unix epoch.
pub fn wall_now() -> UnixMillis {
    UnixMillis(read_ms(ClockId::Realtime))
}

/// The three clocks of this machine, read together.
pub fn clocks_now() -> Clocks {
    Clocks {
        wall_ms: read_ms(ClockId::Realtime),
        mono_ms: read_ms(ClockId::Monotonic),
        boot_ms: read_ms(ClockId::Boottime),
    }
}

fn read_ms(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}
