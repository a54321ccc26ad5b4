//! Calendar months and days of a contract's time zone, by calendar arithmetic: days of 23 and 25
//! hours come out right. Reads the time zone database through jiff; a zone that is not in it is
//! refused.

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};
use watchkeep_shared::UnixMillis;

use super::{ClassTotals, ClassedSpan, Interval};

/// A month that can't be laid out.
#[derive(Debug, thiserror::Error)]
pub enum MonthError {
    /// Not of the form YYYY-MM.
    #[error("month {text:?} is not a month; write it as in \"2026-03\"")]
    NotAMonth {
        /// What was given.
        text: String,
    },
    /// The zone is not known here.
    #[error(
        "time zone {zone:?} is not in the time zone database; write an IANA name as in \"Europe/Paris\""
    )]
    UnknownZone {
        /// What was given.
        zone: String,
        /// What the database said.
        #[source]
        source: jiff::Error,
    },
    /// The month has no place on the time line.
    #[error("month {text:?} is out of range")]
    OutOfRange {
        /// What was given.
        text: String,
        /// What the calendar said.
        #[source]
        source: jiff::Error,
    },
}

/// One calendar month in one time zone.
#[derive(Clone, Debug)]
pub struct Month {
    text: String,
    zone: TimeZone,
    zone_name: String,
    window: Interval,
    days: Vec<(Date, Interval)>,
}

impl Month {
    /// From `YYYY-MM` and an IANA zone name.
    pub fn new(month: &str, zone: &str) -> Result<Self, MonthError> {
        let out_of_range = |source| MonthError::OutOfRange {
            text: month.to_owned(),
            source,
        };
        let (year, number) = parse(month).ok_or_else(|| MonthError::NotAMonth {
            text: month.to_owned(),
        })?;
        let time_zone = TimeZone::get(zone).map_err(|source| MonthError::UnknownZone {
            zone: zone.to_owned(),
            source,
        })?;
        let first = Date::new(year, number, 1).map_err(out_of_range)?;
        let mut days = Vec::with_capacity(31);
        let mut day = first;
        while day.month() == number {
            let next = day.tomorrow().map_err(out_of_range)?;
            let from = midnight(day, &time_zone).map_err(out_of_range)?;
            let to = midnight(next, &time_zone).map_err(out_of_range)?;
            days.push((day, Interval::new(from, to)));
            day = next;
        }
        let from = midnight(first, &time_zone).map_err(out_of_range)?;
        let to = midnight(day, &time_zone).map_err(out_of_range)?;
        Ok(Self {
            text: month.to_owned(),
            zone: time_zone,
            zone_name: zone.to_owned(),
            window: Interval::new(from, to),
            days,
        })
    }

    /// The month as `YYYY-MM`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The zone's IANA name as given.
    pub fn zone_name(&self) -> &str {
        &self.zone_name
    }

    /// From the first instant of its first day to the first instant of the next month.
    pub const fn window(&self) -> Interval {
        self.window
    }

    /// Its days with their bounds, in order. A day that a zone skipped is empty.
    pub fn days(&self) -> &[(Date, Interval)] {
        &self.days
    }

    /// An instant as local time with its offset, as in `2026-03-29T03:00:00+02:00`; whole seconds,
    /// rounded down. Outside the calendar's range, the bare milliseconds.
    pub fn local(&self, at: UnixMillis) -> String {
        Timestamp::from_millisecond(at.0).map_or_else(
            |_| at.to_string(),
            |instant| {
                instant
                    .to_zoned(self.zone.clone())
                    .strftime("%Y-%m-%dT%H:%M:%S%:z")
                    .to_string()
            },
        )
    }
}

fn parse(month: &str) -> Option<(i16, i8)> {
    let (year, number) = month.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if year.len() != 4 || number.len() != 2 || !digits(year) || !digits(number) {
        return None;
    }
    let number = number
        .parse()
        .ok()
        .filter(|number| (1..=12).contains(number))?;
    Some((year.parse().ok()?, number))
}

fn midnight(day: Date, zone: &TimeZone) -> Result<UnixMillis, jiff::Error> {
    let start = day.to_zoned(zone.clone())?;
    Ok(UnixMillis(start.timestamp().as_millisecond()))
}

/// The bounds of a month `YYYY-MM` in an IANA time zone.
pub fn month_window(month: &str, zone: &str) -> Result<Interval, MonthError> {
    Month::new(month, zone).map(|month| month.window())
}

/// What an uptime calendar shows for a day: the worst that is proven, then the lack of proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DayClass {
    /// Some time was down.
    Down,
    /// Nothing was down, and some time is without proof.
    Unknown,
    /// All counted time so far was up.
    Up,
    /// All of the contract's time so far is excluded.
    Excluded,
    /// Nothing of it counts: not enrolled, retired, or outside service hours.
    NotCounted,
    /// Nothing of it has passed yet.
    Future,
}

/// One day of an uptime calendar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayCell {
    /// The date in the contract's zone, as in `2026-03-29`.
    pub date: String,
    /// Its first instant.
    pub from: UnixMillis,
    /// The next day's first instant.
    pub to: UnixMillis,
    /// Milliseconds in each class, so far.
    pub totals: ClassTotals,
    /// What to show.
    pub class: DayClass,
}

/// The days of a month up to `now` with what spans of one host, or of many hosts together in any order,
/// say of each. A day of which they say nothing does not count, and one that has not begun is to come.
pub fn day_cells(spans: &[ClassedSpan], month: &Month, now: UnixMillis) -> Vec<DayCell> {
    let mut cells: Vec<DayCell> = month
        .days
        .iter()
        .map(|(date, day)| DayCell {
            date: date.to_string(),
            from: day.from,
            to: day.to,
            totals: ClassTotals::default(),
            class: DayClass::Future,
        })
        .collect();
    for span in spans {
        let first = cells.partition_point(|cell| cell.to <= span.from);
        for cell in cells[first..]
            .iter_mut()
            .take_while(|cell| cell.from < span.to)
        {
            let day = Interval::new(cell.from, cell.to);
            let part = day.intersect(Interval::new(span.from, span.to));
            cell.totals.add(span.class, part.len_ms());
        }
    }
    for cell in &mut cells {
        cell.class = if cell.from < now {
            day_class(cell.totals)
        } else {
            DayClass::Future
        };
    }
    cells
}

const fn day_class(totals: ClassTotals) -> DayClass {
    if totals.down_ms > 0 {
        DayClass::Down
    } else if totals.unknown_ms > 0 {
        DayClass::Unknown
    } else if totals.up_ms > 0 {
        DayClass::Up
    } else if totals.excluded_ms > 0 {
        DayClass::Excluded
    } else {
        DayClass::NotCounted
    }
}
