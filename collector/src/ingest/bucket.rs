//! A token bucket as part of a host's memory (the generic cell rate algorithm, ITU-T I.371). Beside
//! [`crate::limit`], which is for requests, it takes several units at once and is copied with the host.

use watchkeep_shared::{DurationMs, UnixMillis};

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Time for one unit.
    step: DurationMs,
    /// Units in a full bucket.
    burst: i64,
}

impl Rate {
    /// One unit each `step`, `burst` at once.
    pub(super) const fn every(step: DurationMs, burst: i64) -> Self {
        Self { step, burst }
    }

    /// What a full bucket holds, milliseconds.
    const fn room_ms(self) -> i64 {
        self.step.0.saturating_mul(self.burst)
    }
}

/// A bucket; at first it is full.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// When it is full again.
    full_at: UnixMillis,
}

impl Bucket {
    /// Takes units out, if there are enough in it.
    pub(super) fn take(&mut self, rate: Rate, now: UnixMillis, units: i64) -> bool {
        // A bucket is never emptier than empty, whatever the clock was before.
        let full_at = self.full_at.0.clamp(now.0, now.0 + rate.room_ms());
        let after = full_at.saturating_add(rate.step.0.saturating_mul(units));
        let is_enough = after - now.0 <= rate.room_ms();
        self.full_at = UnixMillis(if is_enough { after } else { full_at });
        is_enough
    }

    /// Takes units out whose number is known only after the work: more than there are become a debt,
    /// up to `max_debt`.
    pub(super) fn spend(&mut self, rate: Rate, now: UnixMillis, units: i64, max_debt: i64) {
        let most_ms = rate
            .room_ms()
            .saturating_add(rate.step.0.saturating_mul(max_debt));
        let full_at = self.full_at.0.clamp(now.0, now.0 + most_ms);
        let after = full_at.saturating_add(rate.step.0.saturating_mul(units));
        self.full_at = UnixMillis(after.min(now.0 + most_ms));
    }

    /// Whether more than it held was spent, and that has not flowed in again.
    pub(super) const fn is_in_debt(self, rate: Rate, now: UnixMillis) -> bool {
        self.full_at.0 - now.0 > rate.room_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::every(DurationMs(1_000), 10);

    #[test]
    fn a_burst_then_the_rate_and_a_clock_set_back_blocks_nothing_for_long() {
        let mut bucket = Bucket::default();
        let mut take = |at: i64, units| bucket.take(RATE, UnixMillis(at), units);
        assert!(take(1_000_000, 7) && !take(1_000_000, 4) && take(1_000_000, 3));
        assert!(!take(1_000_999, 1) && take(1_001_000, 1));
        assert!(!take(500_000, 1) && take(501_000, 1));
    }

    #[test]
    fn a_debt_is_paid_by_the_rate_and_has_a_bound() {
        let mut bucket = Bucket::default();
        let at = UnixMillis;
        bucket.spend(RATE, at(1_000_000), 10, 60);
        assert!(!bucket.is_in_debt(RATE, at(1_000_000)));
        bucket.spend(RATE, at(1_000_000), 3, 60);
        assert!(bucket.is_in_debt(RATE, at(1_002_999)));
        assert!(!bucket.is_in_debt(RATE, at(1_003_000)));
        bucket.spend(RATE, at(1_003_000), i64::MAX, 60);
        assert!(bucket.is_in_debt(RATE, at(1_062_999)));
        assert!(!bucket.is_in_debt(RATE, at(1_063_000)));
    }
}
