//! The only file that reads the machine's clocks. Everything else takes them as values.

use watchkeep_shared::wire::heartbeat::Clocks;

use crate::platform;

/// The three clocks, read one right after the other.
pub fn now() -> Clocks {
    platform::clocks()
}

/// The time by which the file system stamps files: no file that is made from now on has an earlier
/// stamp. Microseconds since the Unix epoch.
pub fn file_time_us() -> i64 {
    platform::file_time_us()
}
