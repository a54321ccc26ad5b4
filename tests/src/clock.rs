//! The only file of this package that reads clocks.

use rustix::time::{ClockId, clock_gettime};
use watchkeep_shared::{UnixMillis, wire::heartbeat::Clocks};

/// The wall clock of this machine, milliseconds since the Unix epoch.
pub fn wall_now() -> UnixMillis {
    UnixMillis(read_ms(ClockId::Realtime))
}

/// The present month in UTC, as `2026-11`.
pub fn month_now() -> String {
    month_of(wall_now())
}

/// The month of an instant, by the days of the Gregorian calendar counted from 1 March 0000
/// (400 years have 146,097 days).
fn month_of(at: UnixMillis) -> String {
    const DAYS_TO_1970: i64 = 719_468;
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let days = at.0.div_euclid(24 * 3_600_000) + DAYS_TO_1970;
    let era = days.div_euclid(DAYS_IN_400_YEARS);
    let day = days.rem_euclid(DAYS_IN_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}")
}

/// The three clocks of this machine, read together.
pub fn clocks_now() -> Clocks {
    Clocks {
        wall_ms: read_ms(ClockId::Realtime),
        mono_ms: read_ms(ClockId::Monotonic),
        boot_ms: read_ms(ClockId::Boottime),
    }
}

fn read_ms(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        for (ms, month) in [
            (0, "1970-01"),
            (-1, "1969-12"),
            (951_782_399_000, "2000-02"),
            (951_868_800_000, "2000-03"),
            (1_798_761_599_999, "2026-12"),
            (1_798_761_600_000, "2027-01"),
        ] {
            assert_eq!(month_of(UnixMillis(ms)), month, "{ms}");
        }
    }
}
