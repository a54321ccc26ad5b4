//! Weekly service hours, as in `mon-fri 08:00-18:00, sat 09:00-13:00`, and when they begin and end
//! in a time zone.
//!
//! A window belongs to the day on which it begins and may end on the next. A begin that falls into
//! a gap of the local clock is the transition; one that occurs twice is the first. An end in a gap
//! is the transition; one that occurs twice is the second: a change of the clock never makes a
//! hole. No holidays and no exceptions by date yet.

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, DateTime, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};
use serde::{Deserialize, Serialize};
use watchkeep_shared::UnixMillis;

/// Most windows of a week.
const MAX_WINDOWS: usize = 64;
/// Longest text, bytes.
const MAX_TEXT_BYTES: usize = 256;
const DAY_MINUTES: u16 = 24 * 60;
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// The hours of a week in which a contract is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WeeklyHours {
    text: String,
    /// `None`: around the clock.
    windows: Option<Vec<Window>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    day: Weekday,
    /// Minutes since the day's midnight.
    from: u16,
    /// Minutes since the day's midnight, more than `from`; past 1440 on the next day.
    to: u16,
}

/// A text that is no service hours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} are not service hours: write \"24x7\", or days and times as in \
     \"mon-fri 08:00-18:00, sat 09:00-13:00\""
)]
pub struct ParseHoursError {
    /// The part that can't be read.
    pub found: String,
}

impl WeeklyHours {
    /// Around the clock.
    pub fn always() -> Self {
        Self {
            text: "24x7".to_owned(),
            windows: None,
        }
    }

    /// Whether an instant lies in the hours.
    pub fn contain(&self, at: UnixMillis, zone: &TimeZone) -> bool {
        self.windows.is_none()
            || self
                .spans(at, zone)
                .iter()
                .any(|span| span.0 <= at && at < span.1)
    }

    /// The first instant from `at` on that lies in the hours; `None` if none does.
    pub fn next_inside(&self, at: UnixMillis, zone: &TimeZone) -> Option<UnixMillis> {
        if self.contain(at, zone) {
            return Some(at);
        }
        let begins = self.spans(at, zone).into_iter().map(|span| span.0);
        begins.filter(|from| *from > at).min()
    }

    /// The first instant from `at` on that lies outside the hours; `None` if none does.
    pub fn next_outside(&self, at: UnixMillis, zone: &TimeZone) -> Option<UnixMillis> {
        self.windows.as_ref()?;
        let mut spans = self.spans(at, zone);
        spans.sort_unstable();
        let last = spans.iter().map(|span| span.1).max();
        let mut inside_until = at;
        for (from, to) in spans {
            if from <= inside_until {
                inside_until = inside_until.max(to);
            }
        }
        // Hours without a gap in all the days looked at have none at all.
        (Some(inside_until) != last || inside_until == at).then_some(inside_until)
    }

    /// The hours from the day before an instant to eight days after it: all windows of a week,
    /// whatever the zone.
    fn spans(&self, at: UnixMillis, zone: &TimeZone) -> Vec<(UnixMillis, UnixMillis)> {
        let Ok(instant) = Timestamp::from_millisecond(at.0) else {
            return Vec::new();
        };
        let today = instant.to_zoned(zone.clone()).date();
        let windows = self.windows.as_deref().unwrap_or_default();
        let mut spans = Vec::new();
        for offset in -1_i64..=8 {
            let Ok(day) = today.checked_add(offset.days()) else {
                continue;
            };
            for window in windows.iter().filter(|one| one.day == day.weekday()) {
                let from = instant_of(day, window.from, zone, Boundary::Begin);
                let to = instant_of(day, window.to, zone, Boundary::End);
                spans.extend(from.zip(to).filter(|(from, to)| from < to));
            }
        }
        spans
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boundary {
    Begin,
    End,
}

/// The instant of a wall time; `None` outside the calendar's range.
fn instant_of(day: Date, minutes: u16, zone: &TimeZone, boundary: Boundary) -> Option<UnixMillis> {
    let local = wall_time(day, minutes)?;
    let instant = match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok()?,
        AmbiguousOffset::Fold { before, after } => match boundary {
            Boundary::Begin => before.to_timestamp(local).ok()?,
            Boundary::End => after.to_timestamp(local).ok()?,
        },
        AmbiguousOffset::Gap { before, .. } => {
            // As if the clock had not been set: at or after the transition.
            let late = before.to_timestamp(local).ok()?;
            let just_after = late.checked_add(1.second()).ok()?;
            let transition = zone.preceding(just_after).next()?;
            transition.timestamp()
        }
    };
    Some(UnixMillis(instant.as_millisecond()))
}

fn wall_time(day: Date, minutes: u16) -> Option<DateTime> {
    let (day, minutes) = if minutes >= DAY_MINUTES {
        (day.tomorrow().ok()?, minutes - DAY_MINUTES)
    } else {
        (day, minutes)
    };
    let hour = i8::try_from(minutes / 60).ok()?;
    let minute = i8::try_from(minutes % 60).ok()?;
    Some(day.at(hour, minute, 0, 0))
}

impl FromStr for WeeklyHours {
    type Err = ParseHoursError;

    fn from_str(text: &str) -> Result<Self, ParseHoursError> {
        let fault = |found: &str| ParseHoursError {
            found: found.chars().take(MAX_TEXT_BYTES).collect(),
        };
        let text = text.trim();
        if text.len() > MAX_TEXT_BYTES {
            return Err(fault(text));
        }
        if text == "24x7" {
            return Ok(Self::always());
        }
        let mut windows = Vec::new();
        for part in text.split(',').map(str::trim) {
            windows.extend(windows_of(part).ok_or_else(|| fault(part))?);
        }
        if windows.len() > MAX_WINDOWS {
            return Err(fault(text));
        }
        Ok(Self {
            text: text.to_owned(),
            windows: Some(windows),
        })
    }
}

/// `mon-fri 08:00-18:00` as a window a day.
fn windows_of(part: &str) -> Option<Vec<Window>> {
    let (days, times) = part.split_once(' ')?;
    let (from, to) = times.trim().split_once('-')?;
    let (from, to) = (minutes_of(from)?, minutes_of(to)?);
    if from >= DAY_MINUTES {
        return None;
    }
    let to = if to <= from { to + DAY_MINUTES } else { to };
    let (first, last) = days.split_once('-').unwrap_or((days, days));
    let (first, last) = (index_of(first)?, index_of(last)?);
    let count = (last + DAYS.len() - first) % DAYS.len() + 1;
    let days = (0..count).map(|n| DAYS[(first + n) % DAYS.len()].1);
    Some(days.map(|day| Window { day, from, to }).collect())
}

fn index_of(day: &str) -> Option<usize> {
    let day = day.trim().to_ascii_lowercase();
    DAYS.iter().position(|(name, _)| *name == day)
}

/// `08:30` as minutes since midnight; `24:00` is the end of a day.
fn minutes_of(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let is_number = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MINUTES).then_some(total)
}

impl TryFrom<String> for WeeklyHours {
    type Error = ParseHoursError;

    fn try_from(text: String) -> Result<Self, ParseHoursError> {
        text.parse()
    }
}

impl From<WeeklyHours> for String {
    fn from(hours: WeeklyHours) -> Self {
        hours.text
    }
}

impl fmt::Display for WeeklyHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        let instant: Timestamp = text.parse().expect("a test's instant");
        UnixMillis(instant.as_millisecond())
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).expect("a test's zone")
    }

    fn hours(text: &str) -> WeeklyHours {
        text.parse().expect("a test's hours")
    }

    #[test]
    fn office_hours_are_those_of_the_zone() {
        let (office, paris) = (hours("mon-fri 08:00-18:00"), zone("Europe/Paris"));
        // 2026-11-27 is a Friday; Paris is an hour ahead of UTC.
        for (instant, is_inside) in [
            ("2026-11-27T06:59:59Z", false),
            ("2026-11-27T07:00:00Z", true),
            ("2026-11-27T16:59:59Z", true),
            ("2026-11-27T17:00:00Z", false),
            ("2026-11-28T10:00:00Z", false),
        ] {
            assert_eq!(office.contain(at(instant), &paris), is_inside, "{instant}");
        }
        let friday_evening = at("2026-11-27T20:00:00Z");
        let monday = Some(at("2026-11-30T07:00:00Z"));
        assert_eq!(office.next_inside(friday_evening, &paris), monday);
        let noon = at("2026-11-27T12:00:00Z");
        assert_eq!(office.next_inside(noon, &paris), Some(noon));
        let closing = Some(at("2026-11-27T17:00:00Z"));
        assert_eq!(office.next_outside(noon, &paris), closing);
    }

    #[test]
    fn windows_may_cross_midnight_and_touch() {
        let (night, utc) = (hours("fri 22:00-06:00, sat 06:00-24:00"), zone("UTC"));
        assert!(night.contain(at("2026-11-28T05:00:00Z"), &utc));
        let friday = at("2026-11-27T23:00:00Z");
        let sunday = Some(at("2026-11-29T00:00:00Z"));
        assert_eq!(night.next_outside(friday, &utc), sunday);
        assert!(!night.contain(at("2026-11-26T23:00:00Z"), &utc));
        let wrapped = hours("sat-mon 00:00-24:00");
        assert!(wrapped.contain(at("2026-11-30T12:00:00Z"), &utc));
        assert!(!wrapped.contain(at("2026-12-01T12:00:00Z"), &utc));
    }

    #[test]
    fn around_the_clock_has_no_outside() {
        let now = at("2026-11-27T20:00:00Z");
        for text in ["24x7", "mon-sun 00:00-24:00"] {
            let always = hours(text);
            assert!(always.contain(now, &zone("UTC")), "{text}");
            assert_eq!(always.next_outside(now, &zone("UTC")), None, "{text}");
            assert_eq!(always.next_inside(now, &zone("UTC")), Some(now), "{text}");
        }
    }

    #[test]
    fn a_change_of_the_clock_makes_no_hole() {
        let berlin = zone("Europe/Berlin");
        // On 2027-03-28 the clock goes from 02:00 to 03:00, at 01:00 UTC.
        let gap = hours("sun 02:30-05:00");
        let begin = Some(at("2027-03-28T01:00:00Z"));
        assert_eq!(gap.next_inside(at("2027-03-28T00:00:00Z"), &berlin), begin);
        // On 2027-10-31 it goes from 03:00 back to 02:00, at 01:00 UTC.
        let fold = hours("sun 02:15-02:30");
        let before = at("2027-10-31T00:00:00Z");
        let begin = at("2027-10-31T00:15:00Z");
        assert_eq!(fold.next_inside(before, &berlin), Some(begin));
        let end = Some(at("2027-10-31T01:30:00Z"));
        assert_eq!(fold.next_outside(begin, &berlin), end);
    }

    #[test]
    fn what_is_no_service_hours_is_refused_by_part() {
        for text in [
            "",
            "8-18",
            "mon-fri",
            "mon-fri 8:00-18:00",
            "mon 08:00-25:00",
            "mon 24:00-25:00",
            "monday 08:00-18:00",
            "mon 08:60-18:00",
        ] {
            assert!(text.parse::<WeeklyHours>().is_err(), "{text}");
        }
        let error = "mon-fri 08:00-18:00, x".parse::<WeeklyHours>();
        assert_eq!(error.expect_err("x is no day").found, "x");
        let kept = hours("mon-fri 08:00-18:00");
        assert_eq!(kept.to_string(), "mon-fri 08:00-18:00");
    }
}
