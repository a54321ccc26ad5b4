//! Ports that stay a test's own, also while the program that uses them is down.
//!
//! They lie below the range from which the system takes the ports of outgoing connections
//! (32768 and up on Linux), so that no connection takes one while a collector restarts, and a lock
//! file keeps them from tests that run at the same time.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// A port of 127.0.0.1, kept until it is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a free port.
    pub fn take() -> Result<Self> {
        let dir = std::env::temp_dir().join("watchkeep-test-ports");
        std::fs::create_dir_all(&dir).with_context(|| format!("can't make {}", dir.display()))?;
        let span = u32::from(LAST - FIRST);
        // Tests start at different places, so that they rarely meet.
        let start = std::process::id().wrapping_mul(37) % span;
        for step in 0..span {
            let number = FIRST + ((start + step) % span) as u16;
            let lock = File::create(dir.join(number.to_string()))?;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        bail!("no port from {FIRST} to {LAST} is free")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_at_once_differ() {
        let (one, other) = (Port::take().unwrap(), Port::take().unwrap());
        assert_ne!(one.number(), other.number());
    }
}
