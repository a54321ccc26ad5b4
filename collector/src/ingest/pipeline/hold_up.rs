//! Hold-ups of the collector itself: times in which no heartbeat could be taken in, because the
//! process did not run (see [`super::super::pulse`]), the store did not commit, or the collector was
//! down. Nobody is judged by such a time: silence counts only after a grace period that begins when
//! the hold-up ends. A hold-up is noticed before any deadline is checked.

use watchkeep_shared::{DurationMs, UnixMillis};

use super::{Pipeline, collector_down, queue_deadline, upkeep::ALIVE_EVERY};
use crate::{
    ingest::{commit::Writes, deadlines::Deadlines, pulse::Stall},
    own::HoldUp,
};

/// A longer time without a commit of the collector's liveness is evidence `collector_down`, and
/// begins the full grace period: agents may have given up and wait before they connect again.
const COLLECTOR_GAP: DurationMs = DurationMs::from_secs(10);
/// The grace period after a shorter hold-up: connections are still open, and what agents sent
/// waits in their sockets; a batch that was answered "busy" comes again within this time.
const SETTLE: DurationMs = DurationMs::from_secs(5);

/// Whether the collector could hear its hosts since the round before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    Unbroken,
    HeldUp,
}

impl Pipeline {
    /// Notes every few seconds that the collector is alive; a longer pause becomes evidence.
    pub(super) fn alive(&mut self, now: UnixMillis, writes: &mut Writes) -> Liveness {
        let since = now.since(self.alive_at);
        writes.alive = since >= ALIVE_EVERY;
        let is_stall = std::mem::take(&mut self.has_stalled);
        if since >= COLLECTOR_GAP {
            writes.evidence.push(collector_down(self.alive_at, now));
            writes.held_up = self.hold_ups.add(HoldUp {
                from: self.alive_at,
                to: now,
            });
            tracing::warn!(
                gap_ms = since.0,
                "the collector was held up, no host is called silent for the grace period"
            );
        } else if !is_stall {
            return Liveness::Unbroken;
        }
        self.was_held_up();
        Liveness::HeldUp
    }

    /// Notes whether the process itself stood still since the round before. Requests were waiting in
    /// sockets meanwhile, nobody knows for how long: until the agents have sent them again, a batch
    /// whose time of sending is unknown is not taken.
    pub(super) fn notice_stall(&mut self, now: UnixMillis) {
        let stall = self.pulse.beat(now);
        let is_new = |stall: &Stall| stall.until > self.stalled_until;
        let Some(stall) = stall.filter(is_new) else {
            return;
        };
        self.stalled_until = stall.until;
        self.has_stalled = true;
        if stall.until.since(stall.from) > COLLECTOR_GAP {
            self.waited_until = stall.until + SETTLE;
        }
    }

    /// Begins the grace period that a hold-up which has just ended asks for.
    pub(super) fn was_held_up(&mut self) {
        let now = self.app.clock.now();
        let grace = if now.since(self.alive_at) >= COLLECTOR_GAP {
            self.app.config.silence.grace().max(SETTLE)
        } else {
            SETTLE
        };
        self.begin_grace(now, grace);
    }

    /// No host is called silent before this time has passed.
    pub(super) fn begin_grace(&mut self, now: UnixMillis, grace: DurationMs) {
        self.grace_until = self.grace_until.max(now + grace);
        self.deadlines = Deadlines::default();
        self.waiting.clear();
        self.has_more = false;
        for entry in self.hosts.values_mut() {
            entry.wake_at = None;
            queue_deadline(&mut self.deadlines, entry, &self.app, self.grace_until);
        }
    }

    /// Where the agents' port notes whom it had to answer "busy".
    pub fn knocks(&self) -> std::sync::Arc<crate::ingest::Knocks> {
        std::sync::Arc::clone(&self.knocks)
    }
}
