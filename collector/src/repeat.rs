//! Work that is done again and again until the process stops. What fails is tried again, after
//! pauses that grow; a run of failures is logged once when it begins and once when it ends, and an
//! outage of the store not at all: the store logs that itself.

use std::time::Duration;

use rand::RngExt as _;

use crate::{app::App, store::StoreError};

/// Shortest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause after failures, for work that is done more often: a store that works again is
/// noticed this soon.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// Pauses differ by up to this share, so that workers do not all come back at once.
const JITTER: f64 = 0.2;

/// Why one run of a task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Other(String),
}

impl From<String> for TaskError {
    fn from(text: String) -> Self {
        Self::Other(text)
    }
}

impl TaskError {
    fn is_outage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_outage())
    }
}

/// Does `work` every `period` until the process stops.
pub(crate) fn every<F, T, E>(app: &App, name: &'static str, period: Duration, work: F)
where
    F: Fn() -> T + Send + 'static,
    T: Future<Output = Result<(), E>> + Send,
    E: Into<TaskError> + Send,
{
    let stop = app.process.stop.clone();
    app.process.spawn_essential(name, async move {
        let mut failures = Failures::default();
        let mut pause = period;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok::<(), String>(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = match work().await {
                Ok(()) => {
                    if let Some(count) = failures.ended() {
                        tracing::info!(task.name = name, failures = count, "{name} works again");
                    }
                    period
                }
                Err(error) => {
                    let error = error.into();
                    if failures.one_more(!error.is_outage()) {
                        tracing::error!(task.name = name, "{name} failed, trying again: {error}");
                    }
                    failures.pause(period, rand::rng().random_range(-JITTER..=JITTER))
                }
            };
        }
    });
}

/// A run of failures.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    is_logged: bool,
}

impl Failures {
    /// Counts a failure. Returns whether it is to be logged: the first of a run that may be.
    fn one_more(&mut self, may_log: bool) -> bool {
        self.count = self.count.saturating_add(1);
        let is_first = may_log && !self.is_logged;
        self.is_logged |= is_first;
        is_first
    }

    /// The run ends. Returns how long it was if its begin was logged.
    fn ended(&mut self) -> Option<u32> {
        let ended = std::mem::take(self);
        ended.is_logged.then_some(ended.count)
    }

    /// Time to the next attempt: doubles with each failure.
    fn pause(&self, period: Duration, jitter: f64) -> Duration {
        let doublings = self.count.saturating_sub(1).min(16);
        let pause = period.max(FIRST_PAUSE) * 2_u32.pow(doublings);
        pause.min(LAST_PAUSE.max(period)).mul_f64(1.0 + jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut failures = Failures::default();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            failures.one_more(true);
            pauses.push(failures.pause(Duration::from_millis(100), 0.0).as_millis());
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        // Rare work is not done more often because it fails.
        assert_eq!(
            failures.pause(Duration::from_mins(1), 0.0),
            Duration::from_mins(1)
        );
        assert_eq!(
            failures.pause(Duration::from_millis(100), -JITTER),
            Duration::from_secs(4)
        );
    }

    #[test]
    fn a_run_of_failures_is_logged_at_both_ends() {
        let mut failures = Failures::default();
        let lines = (0..100).filter(|_| failures.one_more(true)).count();
        assert_eq!(
            (lines, failures.ended(), failures.ended()),
            (1, Some(100), None)
        );
        // An outage of the store has its own lines.
        assert!(!failures.one_more(false));
        assert_eq!(failures.ended(), None);
    }
}
