//! The only place that reads the system's clocks. Shells hold a [`Clock`] and hand instants to the
//! decisions as values. What it gives is the collector's time line
//! ([`watchkeep_core::timeline`]): it never goes back, and a wall clock that is set moves it only
//! slowly.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use watchkeep_core::timeline::{Reading, TimeLine};
use watchkeep_shared::{DurationMs, UnixMillis};

/// A larger difference between the time line and the wall clock means that the wall clock was set.
pub const TOLERANCE: DurationMs = DurationMs::from_secs(5);

/// The system's clocks, or ones that a test moves by hand. Clones share one time line.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Mutex<Source>>);

#[derive(Debug)]
struct Source {
    line: TimeLine,
    /// The clocks that a test moves.
    hands: Option<Reading>,
}

impl Clock {
    /// The system's clocks.
    pub fn system() -> Self {
        Self::new(TimeLine::new(read_system()), None)
    }

    /// Clocks that show `now` until a test moves them.
    pub fn manual(now: UnixMillis) -> Self {
        let hands = Reading {
            wall_us: now.0 * 1_000,
            boot_us: 0,
        };
        Self::new(TimeLine::new(hands), Some(hands))
    }

    fn new(line: TimeLine, hands: Option<Reading>) -> Self {
        Self(Arc::new(Mutex::new(Source { line, hands })))
    }

    /// Now, on the time line.
    pub fn now(&self) -> UnixMillis {
        self.read(|line| line.now())
    }

    /// The time line minus the system's wall clock. Zero, but for drift, unless that clock was set.
    pub fn ahead_of_wall(&self) -> DurationMs {
        self.read(|line| line.ahead_of_wall())
    }

    /// What is wrong with the system's wall clock, for people; `None` if nothing is.
    pub fn problem(&self) -> Option<String> {
        let ahead_ms = self.ahead_of_wall().0;
        if ahead_ms.abs() < TOLERANCE.0 {
            return None;
        }
        let (seconds, side) = (
            ahead_ms.abs() / 1_000,
            if ahead_ms > 0 { "behind" } else { "ahead of" },
        );
        Some(format!(
            "the system's clock is {seconds} s {side} the collector's: it was set. Check it; if it is right now, {}",
            if ahead_ms > 0 {
                "the collector's times follow it by 1 ms a second"
            } else {
                "restart the collector to adopt it at once"
            }
        ))
    }

    /// The time line starts no earlier: the store already holds records up to `at`.
    pub fn start_at(&self, at: UnixMillis) {
        self.read(|line| line.start_at(at));
    }

    /// Manual clocks: time passes until it is `now`; if it is later already, the wall clock is set
    /// back. Does nothing to the system's clocks.
    pub fn set(&self, now: UnixMillis) {
        self.move_hands(|hands, line| {
            let elapsed_us = now.since(line).0 * 1_000;
            hands.wall_us += elapsed_us;
            hands.boot_us += elapsed_us.max(0);
        });
    }

    /// Manual clocks: someone sets the wall clock by so much; no time passes.
    pub fn step_wall(&self, by: DurationMs) {
        self.move_hands(|hands, _| hands.wall_us += by.0 * 1_000);
    }

    fn move_hands(&self, change: impl FnOnce(&mut Reading, UnixMillis)) {
        let mut source = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut hands) = source.hands else {
            return;
        };
        let now = source.line.advance(hands);
        change(&mut hands, now);
        source.hands = Some(hands);
    }

    fn read<T>(&self, result: impl FnOnce(&mut TimeLine) -> T) -> T {
        let mut source = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = source.hands.unwrap_or_else(read_system);
        source.line.advance(reading);
        result(&mut source.line)
    }
}

fn read_system() -> Reading {
    Reading {
        wall_us: micros(ClockId::Realtime),
        boot_us: micros(ClockId::Boottime),
    }
}

fn micros(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_shows_what_it_was_set_to() {
        let start = UnixMillis(1_800_000_000_000);
        let clock = Clock::manual(start);
        for second in 1..=10 {
            clock.set(start + DurationMs::from_secs(second));
        }
        assert_eq!(clock.now(), start + DurationMs::from_secs(10));
        clock.set(start + DurationMs::from_secs(4));
        assert_eq!(clock.now(), start + DurationMs::from_secs(10));
        assert_eq!(clock.ahead_of_wall(), DurationMs::from_secs(6));
        assert!(
            clock
                .problem()
                .is_some_and(|text| text.contains("6 s behind"))
        );
        clock.step_wall(DurationMs::from_secs(6));
        assert_eq!(clock.problem(), None);
    }

    #[test]
    fn the_systems_clock_is_near_the_wall_clock() {
        let clock = Clock::system();
        assert!(clock.now().0 > 1_700_000_000_000);
        assert_eq!(clock.problem(), None);
    }
}
