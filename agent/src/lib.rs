//! Watchkeep's agent: it watches one server and ships heartbeats to the collector.
//!
//! Map: [`cli`] reads the command line and [`config`] the customer's file; [`run`] is the loop that
//! ties the parts together; [`sampler`] measures, [`services`] and [`logs`] watch what the MSP's
//! [`policy`] asks for within the customer's caps; every heartbeat lies in the [`spool`] until the
//! collector has acknowledged it over the [`uplink`].
//!
//! The agent opens no port and runs no command on anyone's behalf. It has one thread of its own;
//! all state belongs to the loop in [`run`], so there are no locks.

pub mod boot;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dbus;
pub mod enroll;
pub mod files;
#[cfg(test)]
#[path = "../../tests/fuzz/check.rs"]
mod fuzz_check;
pub mod identity;
pub mod logs;
pub mod manual;
pub mod platform;
pub mod policy;
pub mod process;
pub mod run;
#[cfg(windows)]
#[path = "platform/windows/sampler.rs"]
pub mod sampler;
#[cfg(unix)]
pub mod sampler;
pub mod services;
pub mod spool;
pub mod status;
pub mod timekeeping;
pub mod tls;
pub mod uplink;

/// Version of this program, as in `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
