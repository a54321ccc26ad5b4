//! What differs between operating systems, behind functions of the same names: clocks, the boot's
//! identity, file modes and numbers, reading at a place, signals. Everything above this seam is the
//! same everywhere; measuring has a sampler for each system, since hardly anything of it is shared.
//!
//! Linux is what the agent is made for and tested on. Of Windows, docs/windows.md says what was
//! exercised.

mod events;
mod manager;

pub use events::{EventLog, EventLogError, EventRecord, EventStream};
pub use manager::{ServiceExit, ServiceReport, ServiceRun};

#[cfg(unix)]
#[path = "unix.rs"]
mod system;
#[cfg(windows)]
#[path = "windows/mod.rs"]
mod system;

pub use system::*;
