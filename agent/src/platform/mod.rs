//! What differs between operating systems, behind functions of the same names: clocks, the boot's
//! identity, file modes and numbers, reading at a place, signals. Everything above this seam is the
//! same everywhere; measuring has a sampler for each system, since hardly anything of it is shared.
//!
//! Linux is what the agent is made for and tested on. Of Windows, docs/windows.md says what was
//! exercised.

use std::net::SocketAddr;

mod events;
mod manager;
#[cfg(unix)]
mod netlink;

pub use events::{EventLog, EventLogError, EventRecord, EventStream};
pub use manager::{ManagerNews, ServiceExit, ServiceReport, ServiceRun};
#[cfg(unix)]
pub use netlink::listening_sockets;

/// A listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address that it is bound to.
    pub address: SocketAddr,
    /// Whether an IPv6 socket takes no IPv4 connections (`IPV6_V6ONLY`, `ipv6(7)`).
    pub v6_only: bool,
    /// The user that opened it.
    pub uid: u32,
    /// Its number, as in the links of `/proc/PID/fd`.
    pub inode: u64,
}

#[cfg(unix)]
#[path = "unix.rs"]
mod system;
#[cfg(windows)]
#[path = "windows/mod.rs"]
mod system;

pub use system::*;
