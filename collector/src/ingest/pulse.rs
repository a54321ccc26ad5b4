//! Whether the process itself runs. A task of its own beats a few times a second, so a longer time
//! between two beats means that nothing in the process ran: it was stopped (SIGSTOP), the machine
//! was suspended, or every runtime thread was busy. A slow commit alone is not a stall: the agents'
//! port continues reading requests into the queue.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use watchkeep_shared::{DurationMs, UnixMillis};

use crate::app::App;

/// Time between two beats.
const EVERY: Duration = Duration::from_millis(250);
/// A longer time between two beats is a stall.
const STALL: DurationMs = DurationMs::from_secs(2);

/// When the process was last known to run, and its last stall.
#[derive(Debug)]
pub(super) struct Pulse(Mutex<Beats>);

#[derive(Debug)]
struct Beats {
    last: UnixMillis,
    stall: Option<Stall>,
}

/// A time in which nothing in the process ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stall {
    pub(super) from: UnixMillis,
    pub(super) until: UnixMillis,
}

impl Pulse {
    /// A process that runs since `now`.
    pub(super) fn new(now: UnixMillis) -> Self {
        Self(Mutex::new(Beats {
            last: now,
            stall: None,
        }))
    }

    /// Notes that the process runs at `now`. Returns the last stall.
    pub(super) fn beat(&self, now: UnixMillis) -> Option<Stall> {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(beats.last) >= STALL {
            beats.stall = Some(Stall {
                from: beats.last,
                until: now,
            });
        }
        beats.last = beats.last.max(now);
        beats.stall
    }

    /// Beats until the process stops.
    pub(super) fn start(self: &Arc<Self>, app: &App) {
        let (pulse, clock, stop) = (
            Arc::clone(self),
            app.clock.clone(),
            app.process.stop.clone(),
        );
        app.process.spawn_essential("pulse", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok::<(), String>(()),
                    () = tokio::time::sleep(EVERY) => {}
                }
                pulse.beat(clock.now());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_reported_whoever_notices_it_first() {
        let start = UnixMillis(1_000_000);
        let pulse = Pulse::new(start);
        let at = |ms| start + DurationMs(ms);
        for ms in [250, 500, 2_400] {
            assert_eq!(pulse.beat(at(ms)), None, "{ms}");
        }
        let stall = Some(Stall {
            from: at(2_400),
            until: at(4_400),
        });
        assert_eq!(pulse.beat(at(4_400)), stall);
        // The other beater sees it as well, and a clock that does not move is no stall.
        assert_eq!(pulse.beat(at(4_400)), stall);
        assert_eq!(pulse.beat(at(4_650)), stall);
    }
}
