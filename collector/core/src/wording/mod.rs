//! The texts about checks, values and limits that people read: in titles, mails, tables and charts.
//! One place, so that a value is rounded once and says the same everywhere.
//!
//! [`units`](value()) formats amounts and values with their unit; the other
//! functions make whole phrases. Instants are in UTC, with the zone named. English only.

mod metrics;
mod services;
mod units;

use jiff::Timestamp;
use watchkeep_shared::{DurationMs, UnixMillis};

pub use self::{
    metrics::{breach, label, recovery},
    services::{service_breach, service_recovery},
    units::{Unit, bytes, number, percent, value, value_against},
};
pub use crate::duration::format_duration as duration;

/// The title of a host from which nothing comes: `No heartbeat since 13:15 UTC`.
pub fn silence(since: UnixMillis) -> String {
    format!("No heartbeat since {}", format_utc(since, "%H:%M UTC"))
}

/// The evidence of a silence: `last heartbeat at 13:15:20 UTC, 25 s earlier`.
pub fn silence_detail(since: UnixMillis, at: UnixMillis) -> String {
    format!(
        "last heartbeat at {}, {} earlier",
        format_utc(since, "%Y-%m-%d %H:%M:%S UTC"),
        duration(at.since(since))
    )
}

/// The title of a reboot that was not announced.
pub const REBOOT: &str = "Rebooted without a shutdown notice";

/// The evidence of a reboot: `27 min between the last heartbeat before it and the first after it`.
pub fn reboot_detail(gap: DurationMs) -> String {
    format!(
        "{} between the last heartbeat before it and the first after it",
        duration(gap)
    )
}

/// The title of a wrong clock: `Clock 1 h behind (limit 30 s)`.
pub fn skew(skew: DurationMs, limit: DurationMs) -> String {
    let way = if skew.0 < 0 { "behind" } else { "ahead" };
    let size = duration(DurationMs(skew.0.saturating_abs()));
    format!("Clock {size} {way} (limit {})", duration(limit))
}

/// The title of a clock that was set: `Clock jumped back by 1 h`.
pub fn clock_step(step: DurationMs) -> String {
    let way = if step.0 < 0 { "back" } else { "ahead" };
    let size = duration(DurationMs(step.0.saturating_abs()));
    format!("Clock jumped {way} by {size}")
}

/// The title of matching log lines: `shop-errors: 3 matching log lines in 5 min`.
pub fn log_lines(log_rule: &str, count: u64, window: DurationMs) -> String {
    if count == 1 {
        format!("{log_rule}: 1 matching log line")
    } else {
        format!(
            "{log_rule}: {count} matching log lines in {}",
            duration(window)
        )
    }
}

/// An instant in UTC; the bare milliseconds outside the calendar's range.
fn format_utc(at: UnixMillis, format: &str) -> String {
    Timestamp::from_millisecond(at.0).map_or_else(
        |_| at.to_string(),
        |instant| instant.strftime(format).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_to_a_machine_is_said_with_times_that_stay_true() {
        let since = UnixMillis(1_795_785_320_000);
        assert_eq!(silence(since), "No heartbeat since 13:15 UTC");
        assert_eq!(
            silence_detail(since, since + DurationMs::from_secs(25)),
            "last heartbeat at 2026-11-27 13:15:20 UTC, 25 s earlier"
        );
        assert_eq!(
            skew(DurationMs::from_hours(-1), DurationMs::from_secs(30)),
            "Clock 1 h behind (limit 30 s)"
        );
        assert_eq!(
            clock_step(DurationMs::from_hours(-1)),
            "Clock jumped back by 1 h"
        );
        let window = DurationMs::from_mins(5);
        assert_eq!(
            log_lines("shop-errors", 3, window),
            "shop-errors: 3 matching log lines in 5 min"
        );
        assert_eq!(
            log_lines("shop-errors", 1, window),
            "shop-errors: 1 matching log line"
        );
    }
}
