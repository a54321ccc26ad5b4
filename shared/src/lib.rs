//! What crosses the wire between the agent and the collector, and what both must agree on:
//! identifiers, time, metric names, the heartbeat protocol with its limits, the enrolment token.
//!
//! Nothing here does I/O, reads a clock or knows TLS; both binaries and `watchkeep-core` build on it.

mod error_text;
#[cfg(test)]
#[path = "../../tests/fuzz/check.rs"]
mod fuzz_check;
pub mod ids;
pub mod metric;
pub mod settings;
pub mod time;
pub mod token;
pub mod wire;

pub use error_text::error_text;
pub use ids::{BootId, CaId, HostId, InstanceId};
pub use time::{DurationMs, UnixMillis};
