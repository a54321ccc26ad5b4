//! Instants, links and shares as text for people; values with their units are `core::wording`. Pure;
//! `now` comes in. Texts are English; a page's script turns instants into the reader's zone and
//! language.

use jiff::{Timestamp, tz::TimeZone};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use watchkeep_core::wording::Unit;
use watchkeep_shared::UnixMillis;

pub(crate) use watchkeep_core::wording::{bytes, duration as span, percent};

/// What is encoded in the value of a query (RFC 3986): all but the unreserved characters, `/` and `:`.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/')
    .remove(b':');

/// "just now", "12 s ago", "5 min ago", "3 h ago", "2 d ago". What lies ahead is "just now".
pub(crate) fn ago(at: UnixMillis, now: UnixMillis) -> String {
    let s = now.since(at).0.max(0) / 1000;
    match s {
        0..5 => "just now".to_owned(),
        5..60 => format!("{s} s ago"),
        60..3_600 => format!("{} min ago", s / 60),
        3_600..86_400 => format!("{} h ago", s / 3_600),
        _ => format!("{} d ago", s / 86_400),
    }
}

/// RFC 3339 in UTC; empty for an instant outside the calendar.
pub(crate) fn iso(at: UnixMillis) -> String {
    Timestamp::from_millisecond(at.0)
        .map(|at| at.to_string())
        .unwrap_or_default()
}

/// "2026-11-21 21:03:05 UTC"; empty for an instant outside the calendar.
pub(crate) fn utc(at: UnixMillis) -> String {
    Timestamp::from_millisecond(at.0)
        .map(|at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_default()
}

/// "21 Nov 2026, 22:03:05 CET": an instant in a zone, which is named; empty outside the calendar.
pub(crate) fn zoned(at: UnixMillis, zone: &TimeZone) -> String {
    Timestamp::from_millisecond(at.0)
        .map(|at| {
            at.to_zoned(zone.clone())
                .strftime("%-d %b %Y, %H:%M:%S %Z")
                .to_string()
        })
        .unwrap_or_default()
}

/// The unit of a metric as charts know it: `pct`, `bytes`, `bytes_per_s`, `ms`, `s`, `per_s`, or
/// empty for what is shown as a plain number.
pub(crate) fn unit(name: &str) -> &'static str {
    match Unit::of(name) {
        Unit::Percent => "pct",
        Unit::Bytes => "bytes",
        Unit::BytesPerSecond => "bytes_per_s",
        Unit::Milliseconds => "ms",
        Unit::Seconds => "s",
        Unit::PerSecond => "per_s",
        Unit::Celsius | Unit::Days | Unit::Plain => "",
    }
}

/// A word of a shell's command line, quoted where it has to be.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A link with the parameters that are not empty.
pub(crate) fn link(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut link = path.to_owned();
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        link.push(if link.contains('?') { '&' } else { '?' });
        link.push_str(name);
        link.push('=');
        link.extend(utf8_percent_encode(value, QUERY_VALUE));
    }
    link
}

/// A page's parameters with some of them changed.
pub(crate) fn changed<'a, const N: usize>(
    own: [(&'static str, &'a str); N],
    changes: &[(&str, &'a str)],
) -> [(&'static str, &'a str); N] {
    own.map(|(name, value)| {
        let change = changes.iter().find(|(changed, _)| *changed == name);
        (name, change.map_or(value, |(_, value)| value))
    })
}

#[cfg(test)]
mod tests {
    use watchkeep_shared::DurationMs;

    use super::*;

    #[test]
    fn texts() {
        let now = UnixMillis(1_000_000_000);
        for (past_s, text) in [
            (-9, "just now"),
            (4, "just now"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (90_000, "1 d ago"),
        ] {
            assert_eq!(ago(now - DurationMs::from_secs(past_s), now), text);
        }
        assert_eq!(
            utc(UnixMillis(1_795_295_045_678)),
            "2026-11-21 21:04:05 UTC"
        );
        let paris = TimeZone::get("Europe/Paris").unwrap();
        assert_eq!(
            zoned(UnixMillis(1_795_295_045_678), &paris),
            "21 Nov 2026, 22:04:05 CET"
        );
        assert_eq!(unit("system.uptime_s"), "s");
    }

    #[test]
    fn words_of_a_command_line_are_quoted_where_they_have_to_be() {
        for (text, word) in [
            (
                "/etc/watchkeep/collector.toml",
                "/etc/watchkeep/collector.toml",
            ),
            ("Oven 2", "'Oven 2'"),
            ("Bob's $HOME", "'Bob'\\''s $HOME'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }

    #[test]
    fn links_leave_empty_parameters_out_and_encode_the_rest() {
        assert_eq!(link("/", &[("q", ""), ("state", "up")]), "/?state=up");
        assert_eq!(
            link("/t", &[("q", "a&b é"), ("x", "1")]),
            "/t?q=a%26b%20%C3%A9&x=1"
        );
    }
}
