//! The only file that reads the machine's clocks. Everything else takes them as values.

use watchkeep_shared::wire::heartbeat::Clocks;

use crate::platform;

/// The three clocks, read one right after the other.
pub fn now() -> Clocks {
    platform::clocks()
}
