//! Tells the service manager that the agent is ready, that its loop still turns, and that it stops
//! (`sd_notify(3)`). A loop that hangs all the same is killed and started again (`WatchdogSec=`).

use std::time::Duration;

use tokio::time::Instant;

use crate::platform::{self, ManagerNews};

#[derive(Debug)]
pub(super) struct Watchdog {
    /// After so long without a word the manager ends the process; `None`: it never does.
    timeout: Option<Duration>,
    due_at: Instant,
}

impl Watchdog {
    /// The agent is ready.
    pub(super) fn ready(now: Instant) -> Self {
        platform::tell_manager(ManagerNews::Ready);
        Self {
            timeout: platform::watchdog_timeout(),
            due_at: now,
        }
    }

    /// The loop has turned. Says so a third of the time-out after the last time at the latest, and
    /// up to half of that earlier when the loop is awake anyway.
    pub(super) fn turned(&mut self, now: Instant) {
        let Some(timeout) = self.timeout else {
            return;
        };
        if now + timeout / 6 >= self.due_at {
            platform::tell_manager(ManagerNews::Alive);
            self.due_at = now + timeout / 3;
        }
    }

    /// When the loop must turn again.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.timeout.map(|_| self.due_at)
    }

    /// The agent stops.
    pub(super) fn stopping() {
        platform::tell_manager(ManagerNews::Stopping);
    }
}
