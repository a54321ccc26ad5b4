//! The Event Log as the rest of the agent sees it, in a form that every system can write down and test;
//! and its times, which are written as ISO 8601 with a `Z`.

use std::{fmt, io};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// A record of the Event Log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// It, as XML.
    pub xml: String,
    /// Its place in the channel; only the Event Log knows what it means.
    pub bookmark: String,
}

/// Why the Event Log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum EventLogError {
    /// Records that had not been read yet are gone.
    #[error("records were overwritten or cleared before they were read")]
    Stale,
    /// Anything else.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The Event Log of a machine. Its functions may take seconds.
pub trait EventLog: fmt::Debug + Send + Sync {
    /// The bookmark of the newest record of a channel; `None` of an empty one.
    fn last(&self, channel: &str) -> Result<Option<String>, EventLogError>;

    /// Follows a channel from behind the record at a bookmark on, or from its oldest record.
    ///
    /// # Errors
    ///
    /// [`EventLogError::Stale`] if that record is gone.
    fn follow(
        &self,
        channel: &str,
        after: Option<&str>,
    ) -> Result<Box<dyn EventStream>, EventLogError>;
}

/// What comes in a channel.
pub trait EventStream: Send {
    /// The records since the last call, oldest first; nothing: nothing for now. After an error it is to
    /// be followed again.
    fn next(&mut self) -> Result<Vec<EventRecord>, EventLogError>;
}

/// An instant as the Event Log writes it, of milliseconds since the Unix epoch.
#[cfg_attr(
    all(unix, not(test)),
    expect(dead_code, reason = "the Event Log is asked on Windows only")
)]
pub(super) fn iso_of(wall_ms: i64) -> String {
    let (days, ms) = (wall_ms.div_euclid(DAY_MS), wall_ms.rem_euclid(DAY_MS));
    // Days of the Gregorian calendar in eras of 400 years, which begin on the 1st of March.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    let thousandths = ms % 1_000;
    format!(
        "{year:04}-{month:02}-{day_of_month:02}T{hours:02}:{minutes:02}:{seconds:02}.{thousandths:03}Z"
    )
}

/// Milliseconds since the Unix epoch of a time as the Event Log writes it, with any number of decimals.
fn ms_of_iso(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator| -> Option<[i64; 3]> {
        let parts: Result<Vec<i64>, _> = text.split(separator).map(str::parse).collect();
        parts.ok()?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hours, minutes, seconds] = numbers(whole, ':')?;
    let in_range = (1601..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hours)
        && (0..60).contains(&minutes)
        && (0..=60).contains(&seconds);
    if !in_range || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(days * DAY_MS + ((hours * 60 + minutes) * 60 + seconds) * 1_000 + thousandths)
}

/// When a record was written, milliseconds since the Unix epoch.
#[cfg_attr(
    all(unix, not(test)),
    expect(dead_code, reason = "there are records on Windows only")
)]
pub(super) fn written_at(xml: &str) -> Option<i64> {
    let (_, rest) = xml.split_once("<TimeCreated SystemTime=")?;
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    ms_of_iso(rest[1..].split_once(quote)?.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_instants_are_read_and_written() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999),
            ("2026-11-22T05:05:00.000Z", 1_795_323_900_000),
            ("1969-12-31T23:59:59.999Z", -1),
        ] {
            assert_eq!(ms_of_iso(text), Some(ms), "{text}");
            assert_eq!(iso_of(ms), text);
        }
        assert_eq!(
            ms_of_iso("2026-11-22T05:05:00.1234567Z"),
            Some(1_795_323_900_123)
        );
        for odd in [
            "",
            "now",
            "2026-11-22",
            "2026-13-01T00:00:00Z",
            "2026-11-22T05:05:00+01:00",
        ] {
            assert_eq!(ms_of_iso(odd), None, "{odd}");
        }
        let xml = "<System><TimeCreated SystemTime='2000-02-29T23:59:59.9990000Z'/></System>";
        assert_eq!(written_at(xml), Some(951_868_799_999));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ms in -11_000_000_000_000_i64..200_000_000_000_000) {
            prop_assert_eq!(ms_of_iso(&iso_of(ms)), Some(ms));
        }
    }
}
