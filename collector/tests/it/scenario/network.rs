//! How an agent's requests fare on a bad line: some are slow, some break off, and of some only the
//! answer is lost. Times are those of the real agent (`agent/src/uplink`): a request that is not
//! answered is given up after 8 s, from the third failure in a row on after 20 s, and each failure in a row
//! doubles the longest wait.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use watchkeep_shared::{DurationMs, UnixMillis, wire::heartbeat::Batch};

/// As of the real agent.
const REQUEST_LIMIT: DurationMs = DurationMs::from_secs(8);
const LONGEST_REQUEST: DurationMs = DurationMs::from_secs(20);
const EARLY_FAILURES: u32 = 3;
const LONGEST_WAIT_S: i64 = 30;
/// Shares of requests, in a thousand.
const SLOW: u32 = 150;
const BROKEN: u32 = 20;
const ANSWER_LOST: u32 = 5;
/// A slow request takes up to so long.
const SLOWEST_S: i64 = 6;

/// The line of one machine.
#[derive(Debug)]
pub(super) struct Line {
    rng: StdRng,
    flight: Option<Flight>,
    retry_at: UnixMillis,
    failures: u32,
}

/// A request on its way.
#[derive(Debug)]
struct Flight {
    batch: Batch,
    /// `None` once it has arrived.
    arrives_at: Option<UnixMillis>,
    is_answer_lost: bool,
    given_up_at: UnixMillis,
}

/// What the agent learns of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Answer,
    Nothing,
}

impl Line {
    pub(super) fn new(seed: u64, now: UnixMillis) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            flight: None,
            retry_at: now,
            failures: 0,
        }
    }

    /// Whether the agent may send now: it waits for each answer, and after a failure.
    pub(super) fn is_free(&mut self, now: UnixMillis) -> bool {
        if self
            .flight
            .as_ref()
            .is_some_and(|flight| flight.given_up_at <= now)
        {
            self.fail(now);
        }
        self.flight.is_none() && self.retry_at <= now
    }

    /// Sends a batch.
    pub(super) fn send(&mut self, batch: Batch, now: UnixMillis) {
        let fate = self.rng.random_range(0..1_000);
        if fate < BROKEN {
            return self.fail(now);
        }
        let is_slow = fate < BROKEN + SLOW;
        let slow_s = if is_slow {
            self.rng.random_range(1..=SLOWEST_S)
        } else {
            0
        };
        let limit = if self.failures < EARLY_FAILURES {
            REQUEST_LIMIT
        } else {
            LONGEST_REQUEST
        };
        self.flight = Some(Flight {
            batch,
            arrives_at: Some(now + DurationMs::from_secs(slow_s)),
            is_answer_lost: fate >= 1_000 - ANSWER_LOST,
            given_up_at: now + limit,
        });
    }

    /// What arrives at the collector now.
    pub(super) fn arriving(&mut self, now: UnixMillis) -> Option<Batch> {
        let flight = self.flight.as_mut()?;
        flight.arrives_at.take_if(|at| *at <= now)?;
        Some(flight.batch.clone())
    }

    /// The collector answered.
    pub(super) fn answered(&mut self) -> Heard {
        if self
            .flight
            .as_ref()
            .is_some_and(|flight| flight.is_answer_lost)
        {
            return Heard::Nothing;
        }
        self.flight = None;
        self.failures = 0;
        Heard::Answer
    }

    /// The request failed: it is tried again after a while.
    pub(super) fn fail(&mut self, now: UnixMillis) {
        self.flight = None;
        let ceiling = (1_i64 << self.failures.min(6)).min(LONGEST_WAIT_S);
        self.failures += 1;
        self.retry_at = now + DurationMs(self.rng.random_range(100..=ceiling * 1_000));
    }

    /// The collector's time jumped; nothing else did.
    pub(super) fn shift(&mut self, by: DurationMs) {
        self.retry_at = self.retry_at + by;
        if let Some(flight) = &mut self.flight {
            flight.given_up_at = flight.given_up_at + by;
            flight.arrives_at = flight.arrives_at.map(|at| at + by);
        }
    }
}
