//! The collector's time line: the clock by which everything is decided, ordered and recorded.
//!
//! It starts at the system's wall clock and then advances with the time that really passes
//! (`CLOCK_BOOTTIME`). A wall clock that is set, by a person or by NTP, is not elapsed time: the time
//! line neither jumps nor goes back, it only runs up to [`MAX_SLEW_PPM`] faster or slower until both
//! agree again. So a step of the wall clock makes no host silent, hides no silent host, and puts
//! nothing into the future. [`TimeLine::ahead_of_wall`] says how far the two are apart.
//!
//! What it can't know: time in which the boot clock itself stood still, as in a virtual machine that
//! was paused. The wall clock is then corrected by something outside, which looks like a step.

use watchkeep_shared::{DurationMs, UnixMillis};

/// How much faster or slower than real time the time line runs at most, parts per million. Small
/// enough that the longest heartbeat interval (ten minutes) is measured to within a second.
pub const MAX_SLEW_PPM: i64 = 1_000;

const PPM: i64 = 1_000_000;

/// Both clocks, read together, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock, since the Unix epoch.
    pub wall_us: i64,
    /// A clock that nobody sets, runs during suspend, and counts from any instant.
    pub boot_us: i64,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct TimeLine {
    now_us: i64,
    last: Reading,
    /// Elapsed time that has not yet allowed a whole microsecond of slew, times [`MAX_SLEW_PPM`].
    slew_remainder: i64,
}

impl TimeLine {
    /// A time line that starts at the wall clock.
    pub const fn new(reading: Reading) -> Self {
        Self {
            now_us: reading.wall_us,
            last: reading,
            slew_remainder: 0,
        }
    }

    /// Lets time pass until `reading`. Never returns an earlier instant than before.
    pub fn advance(&mut self, reading: Reading) -> UnixMillis {
        let elapsed_us = (reading.boot_us - self.last.boot_us).max(0);
        let allowed = elapsed_us
            .saturating_mul(MAX_SLEW_PPM)
            .saturating_add(self.slew_remainder);
        let slew_us = allowed / PPM;
        self.slew_remainder = allowed % PPM;
        let next_us = self.now_us.saturating_add(elapsed_us);
        let error_us = reading.wall_us.saturating_sub(next_us);
        self.now_us = next_us.saturating_add(error_us.clamp(-slew_us, slew_us));
        self.last = reading;
        self.now()
    }

    /// The instant of the last reading.
    pub const fn now(&self) -> UnixMillis {
        UnixMillis(self.now_us.div_euclid(1_000))
    }

    /// Starts later: the store already holds records up to `at`.
    pub fn start_at(&mut self, at: UnixMillis) {
        self.now_us = self.now_us.max(at.0.saturating_mul(1_000));
    }

    /// The time line minus the wall clock, at the last reading.
    pub const fn ahead_of_wall(&self) -> DurationMs {
        DurationMs((self.now_us - self.last.wall_us) / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Reading = Reading {
        wall_us: 1_800_000_000_000_000,
        boot_us: 5_000_000,
    };
    const S: i64 = 1_000_000;

    fn after(elapsed_us: i64, step_us: i64) -> Reading {
        Reading {
            wall_us: START.wall_us + elapsed_us + step_us,
            boot_us: START.boot_us + elapsed_us,
        }
    }

    fn since_start(line: &TimeLine) -> i64 {
        line.now().0 - START.wall_us / 1_000
    }

    #[test]
    fn a_step_of_the_wall_clock_is_not_elapsed_time() {
        for step_s in [3_600, 86_400, -600, -3_600, 365 * 86_400] {
            let mut line = TimeLine::new(START);
            line.advance(after(10 * S, 0));
            line.advance(after(11 * S, step_s * S));
            let passed = since_start(&line);
            assert!((10_998..=11_002).contains(&passed), "{step_s} s: {passed}");
            let ahead = line.ahead_of_wall().0;
            assert!((ahead + step_s * 1_000).abs() <= 2, "{step_s} s: {ahead}");
        }
    }

    #[test]
    fn it_follows_the_wall_clock_slowly_and_then_agrees_with_it() {
        for step_us in [2 * S, -2 * S] {
            let mut line = TimeLine::new(START);
            // Read often: the remainders must not be lost.
            for tick in 0..3_000_000 / 500 {
                line.advance(after(tick * 500, step_us));
            }
            let moved = since_start(&line) - 3_000;
            let slewed = 3 * step_us.signum();
            assert!((moved - slewed).abs() <= 1, "{moved} ms after 3 s");
            line.advance(after(2_100 * S, step_us));
            assert_eq!(line.ahead_of_wall(), DurationMs(0));
            assert_eq!(since_start(&line), 2_100_000 + step_us / 1_000);
        }
    }

    #[test]
    fn time_in_which_the_process_did_not_run_has_passed() {
        let mut line = TimeLine::new(START);
        line.advance(after(S, 0));
        line.advance(after(61 * S, 0));
        assert_eq!(since_start(&line), 61_000);
    }

    #[test]
    fn it_starts_no_earlier_than_the_record_ends() {
        let mut line = TimeLine::new(START);
        line.start_at(UnixMillis(START.wall_us / 1_000 + 60_000));
        assert_eq!(since_start(&line), 60_000);
        line.start_at(UnixMillis(START.wall_us / 1_000));
        assert_eq!(since_start(&line), 60_000);
        line.advance(after(10 * S, 0));
        assert_eq!(since_start(&line), 69_990);
    }

    proptest! {
        #[test]
        fn it_never_goes_back_and_keeps_real_time_within_the_slew(
            steps in proptest::collection::vec((0..100 * S, -100_000 * S..100_000 * S), 1..50),
        ) {
            let mut line = TimeLine::new(START);
            let mut elapsed = 0;
            for (more, step_us) in steps {
                let before = line.now();
                elapsed += more;
                let now = line.advance(after(elapsed, step_us));
                prop_assert!(now >= before);
                let error = since_start(&line) - elapsed / 1_000;
                prop_assert!(error.abs() <= elapsed / 1_000_000 + 1, "{error} of {elapsed}");
            }
        }
    }
}
