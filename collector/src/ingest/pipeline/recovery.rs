//! After a failed commit: its outcome is unknown, so memory may be ahead of the store. What agents
//! sent is answered "busy" until the states have been read again; the agents keep it.
//!
//! The states are read only after the partitions have been claimed again. That is a write, so it
//! succeeds only when the store takes writes again. And it grows the epochs that every commit
//! checks, so a transaction whose connection was lost, and which the server might still commit, has
//! ended before the states are read: its lock on the epochs is waited for.

use watchkeep_shared::{DurationMs, UnixMillis};

use super::{LEASE, Pipeline, PipelineError, Reply, answer};
use crate::{
    ingest::{Arrival, NotTaken},
    store::{StoreError, fleet::PARTITIONS, leases},
};

/// Time to the second attempt; doubled for each one after it.
const FIRST_PAUSE: DurationMs = DurationMs(250);
/// Longest time between two attempts: a store that works again is noticed this soon.
const LAST_PAUSE: DurationMs = DurationMs::from_secs(2);

/// The states have to be read again.
#[derive(Debug)]
pub(super) struct Recovery {
    retry_at: UnixMillis,
    pause: DurationMs,
}

impl Pipeline {
    /// Whether the states in memory can't be relied on.
    pub(super) const fn is_recovering(&self) -> bool {
        self.recovery.is_some()
    }

    /// When recovery is tried again.
    pub(super) fn recovery_at(&self) -> Option<UnixMillis> {
        self.recovery.as_ref().map(|recovery| recovery.retry_at)
    }

    /// A commit failed, and not for the values in it.
    pub(super) async fn failed(
        &mut self,
        error: &StoreError,
        mut replies: Vec<Reply>,
    ) -> Result<(), PipelineError> {
        if !error.is_outage() {
            tracing::error!("failed to commit a round, reading the states again: {error}");
        }
        self.metrics.failed_rounds.inc();
        for reply in &mut replies {
            self.knocks.note(reply.arrival.host, reply.arrival.at);
            reply.answer = Err(NotTaken::Busy);
        }
        answer(replies);
        self.recovery = Some(Recovery {
            retry_at: self.app.clock.now(),
            pause: FIRST_PAUSE,
        });
        self.recover().await?;
        Ok(())
    }

    /// Reads the states again if it is time to try. Returns whether the pipeline can continue.
    pub(super) async fn recover(&mut self) -> Result<bool, PipelineError> {
        let now = self.app.clock.now();
        let Some(recovery) = &mut self.recovery else {
            return Ok(true);
        };
        if now < recovery.retry_at {
            return Ok(false);
        }
        let error = match self.read_states_again(now).await {
            Ok(()) => {
                self.recovery = None;
                self.was_held_up();
                return Ok(true);
            }
            Err(StoreError::LeaseLost) => return Err(PipelineError::LeaseLost),
            Err(error) => error,
        };
        if !error.is_outage() {
            tracing::error!("failed to read the states again: {error}");
        }
        let pause = self.recovery.as_ref().map_or(FIRST_PAUSE, |one| one.pause);
        self.recovery = Some(Recovery {
            retry_at: self.app.clock.now() + pause,
            pause: DurationMs(pause.0 * 2).min(LAST_PAUSE),
        });
        Ok(false)
    }

    async fn read_states_again(&mut self, now: UnixMillis) -> Result<(), StoreError> {
        let held = leases::claim(&self.app.store, self.held.owner, now, LEASE).await?;
        if held.parts.len() < PARTITIONS as usize {
            return Err(StoreError::LeaseLost);
        }
        self.held = held;
        self.load().await?;
        Ok(())
    }

    /// Answers "busy" to what arrived while the states can't be relied on.
    pub(super) fn refuse(&self, arrivals: Vec<Arrival>) {
        for arrival in arrivals {
            self.knocks.note(arrival.host, arrival.at);
            // The agent may have hung up meanwhile; it will send again.
            drop(arrival.reply.send(Err(NotTaken::Busy)));
        }
    }
}
