//! How long to wait before trying again: exponential with full jitter, so that agents that lost
//! the same collector do not come back together. Pure; the random number is a parameter.

use std::time::Duration;

const FIRST_MS: f64 = 1_000.0;
/// So short that an agent whose first request is lost, too, is back before a collector that started
/// again calls hosts silent (90 s).
const LONGEST_MS: f64 = 30_000.0;
/// No wait is shorter, so that a refusal never becomes a busy loop.
const SHORTEST_MS: f64 = 100.0;
/// After a final refusal (revoked, version not spoken) people have to act first.
const FINAL: Duration = Duration::from_mins(5);
/// A `Retry-After` is obeyed up to here.
const LONGEST_ASKED: Duration = Duration::from_hours(1);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// After success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many attempts failed in a row.
    pub fn failures(self) -> u32 {
        self.failures
    }

    /// The wait after one more failure: between 0.1 s and a ceiling that doubles from 1 s to 30 s.
    /// `random` lies in `0.0..1.0`.
    pub fn after_failure(&mut self, random: f64) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let ceiling = (FIRST_MS * 2_f64.powi(doublings as i32)).min(LONGEST_MS);
        Duration::from_millis((ceiling * random).max(SHORTEST_MS) as u64)
    }

    /// The wait that the collector asked for, plus up to half of it.
    pub fn as_asked(&mut self, retry_after: Duration, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let asked = retry_after.clamp(Duration::from_millis(SHORTEST_MS as u64), LONGEST_ASKED);
        asked + asked.mul_f64(random / 2.0)
    }

    /// The wait after a refusal that only people can end: 5 to 7.5 minutes.
    pub fn after_final_refusal(&mut self, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        FINAL + FINAL.mul_f64(random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(failures in 0_u32..100, random in 0.0_f64..1.0) {
            let mut backoff = Backoff { failures };
            let wait = backoff.after_failure(random);
            prop_assert!(wait >= Duration::from_millis(100) && wait <= Duration::from_secs(30));
            prop_assert_eq!(backoff.failures(), failures + 1);
            let asked = backoff.as_asked(Duration::from_secs(7), random);
            prop_assert!(asked >= Duration::from_secs(7) && asked <= Duration::from_millis(10_500));
            let last = backoff.after_final_refusal(random);
            prop_assert!(last >= FINAL && last <= FINAL * 3 / 2);
        }
    }

    #[test]
    fn the_ceiling_doubles_up_to_half_a_minute() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<u64> = (0..8)
            .map(|_| backoff.after_failure(0.999_999).as_secs_f64().ceil() as u64)
            .collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 30, 30, 30]);
        backoff.reset();
        assert!(backoff.after_failure(0.5) <= Duration::from_millis(500));
    }
}
