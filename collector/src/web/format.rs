//! Values as text for people: times, lengths of time, bytes, percentages. Pure; `now` comes in.
//! Texts are English; a page's script turns instants into the reader's zone and language.

use jiff::{Timestamp, tz::TimeZone};
use watchkeep_shared::{DurationMs, UnixMillis, metric};

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

/// "12 s", "5 min 3 s", "3 h 12 min", "2 d 4 h": two units at most; "< 1 s" for what is shorter.
pub(crate) fn span(length: DurationMs) -> String {
    if (1..1000).contains(&length.0) {
        return "< 1 s".to_owned();
    }
    let s = length.0.max(0) / 1000;
    let pair = |big: i64, unit: &str, small: i64, sub: &str| {
        if small == 0 {
            format!("{big} {unit}")
        } else {
            format!("{big} {unit} {small} {sub}")
        }
    };
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => pair(s / 60, "min", s % 60, "s"),
        3_600..86_400 => pair(s / 3_600, "h", s % 3_600 / 60, "min"),
        _ => pair(s / 86_400, "d", s % 86_400 / 3_600, "h"),
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

/// "42 %", "0.4 %": one decimal below ten.
pub(crate) fn percent(value: f64) -> String {
    if value.abs() < 9.95 {
        format!("{value:.1} %")
    } else {
        format!("{value:.0} %")
    }
}

/// "12.4 GiB": powers of 1024, three figures.
pub(crate) fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = value;
    let mut unit = 0;
    while value.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value.abs() >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// The unit of a metric, from the end of its family: `pct`, `bytes`, `bytes_per_s`, `ms`, `s`,
/// `per_s`, or empty for a plain number.
pub(crate) fn unit(name: &str) -> &'static str {
    let (family, _) = metric::split(name);
    for (end, unit) in [
        ("_pct", "pct"),
        ("_bytes_per_s", "bytes_per_s"),
        ("_bytes", "bytes"),
        ("_per_s", "per_s"),
        ("_ms", "ms"),
        ("_s", "s"),
    ] {
        if family.ends_with(end) {
            return unit;
        }
    }
    ""
}

/// A value with its unit (see [`unit()`]).
pub(crate) fn value(value: f64, unit: &str) -> String {
    match unit {
        "pct" => percent(value),
        "bytes" => bytes(value),
        "bytes_per_s" => format!("{}/s", bytes(value)),
        "ms" => span_ms(value),
        "s" => span(DurationMs((value * 1000.0) as i64)),
        "per_s" => format!("{}/s", number(value)),
        _ => number(value),
    }
}

fn span_ms(value: f64) -> String {
    if value.abs() < 1000.0 {
        format!("{value:.0} ms")
    } else {
        format!("{:.1} s", value / 1000.0)
    }
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    short.to_owned()
}

/// A link with the parameters that are not empty.
pub(crate) fn link(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut link = path.to_owned();
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        link.push(if link.contains('?') { '&' } else { '?' });
        link.push_str(name);
        link.push('=');
        link.push_str(&encoded(value));
    }
    link
}

/// Percent-encodes what a query's value can't hold as it is (RFC 3986).
fn encoded(value: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/:".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
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
        for (s, text) in [
            (0, "0 s"),
            (61, "1 min 1 s"),
            (7_200, "2 h"),
            (11_520, "3 h 12 min"),
            (187_200, "2 d 4 h"),
        ] {
            assert_eq!(span(DurationMs::from_secs(s)), text);
        }
        assert_eq!(span(DurationMs(999)), "< 1 s");
        assert_eq!(
            utc(UnixMillis(1_795_295_045_678)),
            "2026-11-21 21:04:05 UTC"
        );
        let paris = TimeZone::get("Europe/Paris").unwrap();
        assert_eq!(
            zoned(UnixMillis(1_795_295_045_678), &paris),
            "21 Nov 2026, 22:04:05 CET"
        );
        assert_eq!(bytes(13_314_398_617.6), "12.4 GiB");
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(percent(9.94), "9.9 %");
        assert_eq!(percent(42.4), "42 %");
        assert_eq!(value(1536.0, unit("net.rx_bytes_per_s:eth0")), "1.5 KiB/s");
        assert_eq!(value(0.5, unit("load.1m")), "0.5");
        assert_eq!(unit("system.uptime_s"), "s");
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
