//! Whether a timer, or another unit that starts a unit, still does its work. Pure.
//!
//! A timer can be active and never fire again: its last run has not ended, or it repeats after a run
//! (`OnUnitActiveSec=`) that failed to begin, or the machine is always off at the time it names. The
//! last is found by the day of the last run, measured against how often the calendar comes round.

use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::{answer::Properties, query::Row};
use crate::dbus::Value;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// A run of a job that lasts this long keeps its timer from firing.
pub(super) const LONG_RUN_MS: i64 = 2 * DAY_MS;
/// A timer is late at the earliest after this, and after two periods and a day.
const LATE_MS: i64 = 7 * DAY_MS;
/// After a boot it has this long to make up for runs that were missed (`Persistent=`).
const CATCH_UP_MS: i64 = HOUR_MS;

/// What systemd says of a timer, socket, path or automount that may start a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TimerFacts {
    /// `ActiveState`.
    pub(super) active: String,
    /// `SubState`.
    pub(super) sub: String,
    /// `StateChangeTimestampMonotonic`, milliseconds; `None`: systemd does not tell.
    pub(super) changed_ms: Option<i64>,
    /// `InactiveExitTimestampMonotonic`, milliseconds: when it became active.
    pub(super) since_ms: i64,
    /// `LastTriggerUSec`, milliseconds of the wall clock; 0: never.
    pub(super) last_wall_ms: i64,
    /// The specifications of `TimersCalendar`, as in `*-*-* 03:00:00`.
    pub(super) calendar: Vec<String>,
    /// Whether `TimersMonotonic` has one that counts from the unit's last run.
    pub(super) repeats_after_runs: bool,
}

/// The two clocks of a look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// `CLOCK_MONOTONIC`, milliseconds.
    pub(super) mono_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub(super) wall_ms: i64,
}

impl TimerFacts {
    pub(super) fn read(properties: &Properties) -> Self {
        let member = |entry: &Value, at: usize| {
            let text = entry.list().get(at).and_then(Value::text);
            text.unwrap_or_default().to_owned()
        };
        let calendar = properties.list("TimersCalendar").iter();
        let monotonic = properties.list("TimersMonotonic").iter();
        Self {
            active: properties.text("ActiveState"),
            sub: properties.text("SubState"),
            changed_ms: properties.millis("StateChangeTimestampMonotonic"),
            since_ms: properties
                .millis("InactiveExitTimestampMonotonic")
                .unwrap_or(0),
            last_wall_ms: properties.millis("LastTriggerUSec").unwrap_or(0),
            calendar: calendar.map(|entry| member(entry, 1)).collect(),
            repeats_after_runs: monotonic
                .map(|entry| member(entry, 0))
                .any(|base| base.starts_with("OnUnit")),
        }
    }

    /// Its row in systemd's table of units, as far as it was asked for.
    pub(super) fn row(&self) -> Option<Row> {
        let row = Row {
            load: "loaded".to_owned(),
            active: self.active.clone(),
            sub: self.sub.clone(),
            has_job: false,
        };
        row.unless_at_rest()
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "refreshing")
    }

    /// What keeps an active timer from firing.
    pub(super) fn fault(&self, now: Now) -> Option<(ServiceStatus, String)> {
        if !self.is_active() {
            return None;
        }
        if self.sub == "elapsed" && self.repeats_after_runs {
            let text = "active, but no next run is scheduled";
            return Some((ServiceStatus::Stopped, text.to_owned()));
        }
        let running_ms = self.changed_ms.map_or(0, |since| now.mono_ms - since);
        if self.sub == "running" && running_ms >= LONG_RUN_MS {
            let days = running_ms / DAY_MS;
            let text = format!("not fired again: its last run has not ended for {days} days");
            return Some((ServiceStatus::Stuck, text));
        }
        let period_ms = self
            .calendar
            .iter()
            .filter_map(|one| period_ms(one))
            .min()?;
        let late_ms = LATE_MS.max(2 * period_ms + DAY_MS);
        let ago_ms = now.wall_ms - self.last_wall_ms;
        let had_its_chance = now.mono_ms - self.since_ms >= CATCH_UP_MS;
        if self.sub == "waiting" && self.last_wall_ms > 0 && had_its_chance && ago_ms > late_ms {
            let days = ago_ms / DAY_MS;
            let often = period_ms / DAY_MS;
            let due = match often {
                1 => "every day".to_owned(),
                often => format!("at least every {often} days"),
            };
            let text = format!("last run {days} days ago, though it is due {due}");
            return Some((ServiceStatus::Stopped, text));
        }
        None
    }
}

/// The longest time between two elapses of a calendar specification in systemd's own form
/// (`systemd.time(7)`), rounded up to a day, a week, a month or a year; `None` if it names a year.
fn period_ms(specification: &str) -> Option<i64> {
    let mut words = specification.split_whitespace();
    let first = words.next()?;
    let is_weekday = first.starts_with(|c: char| c.is_ascii_alphabetic());
    let date = if is_weekday { words.next()? } else { first };
    // A tilde counts days from the end of the month.
    let date = date.replace('~', "-");
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let days = match (year, month, day) {
        ("*", "*", "*") if is_weekday => 7,
        ("*", "*", "*") => 1,
        ("*", "*", _) => 31,
        ("*", ..) => 366,
        _ => return None,
    };
    Some(days * DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        mono_ms: 100 * DAY_MS,
        wall_ms: 20_000 * DAY_MS,
    };

    fn waiting(calendar: &[&str], last_days_ago: i64) -> TimerFacts {
        TimerFacts {
            active: "active".to_owned(),
            sub: "waiting".to_owned(),
            changed_ms: Some(0),
            since_ms: 0,
            last_wall_ms: NOW.wall_ms - last_days_ago * DAY_MS,
            calendar: calendar.iter().map(|one| (*one).to_owned()).collect(),
            repeats_after_runs: false,
        }
    }

    fn text(timer: &TimerFacts) -> Option<String> {
        timer.fault(NOW).map(|(_, text)| text)
    }

    #[test]
    fn a_calendar_comes_round_within_its_period() {
        for (specification, days) in [
            ("*-*-* 03:00:00", Some(1)),
            ("*-*-* *:00/15:00", Some(1)),
            ("Mon..Fri *-*-* 03:00:00", Some(7)),
            ("*-*-01 00:00:00", Some(31)),
            ("*-*~01 00:00:00", Some(31)),
            ("*-01,07-01 00:00:00", Some(366)),
            ("2030-01-01 00:00:00", None),
            ("", None),
        ] {
            let period = period_ms(specification).map(|ms| ms / DAY_MS);
            assert_eq!(period, days, "{specification}");
        }
    }

    #[test]
    fn a_timer_that_no_longer_fires_is_at_fault() {
        let daily = &["*-*-* 03:00:00"][..];
        assert_eq!(text(&waiting(daily, 6)), None);
        let late = "last run 9 days ago, though it is due every day";
        assert_eq!(text(&waiting(daily, 9)).as_deref(), Some(late));
        assert_eq!(text(&waiting(&["Sun *-*-* 03:00:00"], 13)), None);
        assert!(text(&waiting(&["Sun *-*-* 03:00:00"], 16)).is_some());
        assert_eq!(text(&waiting(&["*-*-01 00:00:00"], 40)), None);
        // The more frequent one counts.
        assert!(text(&waiting(&["*-*-01 00:00:00", daily[0]], 40)).is_some());
        assert_eq!(text(&waiting(&[], 1_000)), None);
        let never = TimerFacts {
            last_wall_ms: 0,
            ..waiting(daily, 0)
        };
        assert_eq!(text(&never), None);
        let just_booted = TimerFacts {
            since_ms: NOW.mono_ms - CATCH_UP_MS / 2,
            ..waiting(daily, 9)
        };
        assert_eq!(text(&just_booted), None);
    }

    #[test]
    fn a_run_without_an_end_and_a_repetition_that_never_began_are_faults() {
        let running = |days: i64| TimerFacts {
            sub: "running".to_owned(),
            changed_ms: Some(NOW.mono_ms - days * DAY_MS),
            ..waiting(&[], 5)
        };
        assert_eq!(text(&running(1)), None);
        assert!(text(&running(3)).unwrap().contains("for 3 days"));
        let elapsed = |repeats_after_runs: bool| TimerFacts {
            sub: "elapsed".to_owned(),
            repeats_after_runs,
            ..waiting(&[], 5)
        };
        // One that fires once after the boot has done its work.
        assert_eq!(text(&elapsed(false)), None);
        assert!(text(&elapsed(true)).is_some());
        let stopped = TimerFacts {
            active: "inactive".to_owned(),
            ..elapsed(true)
        };
        assert_eq!(text(&stopped), None);
    }
}
