//! Lengths of time as people write and read them.

use jiff::{Span, SpanRelativeTo};
use watchkeep_shared::DurationMs;

/// Reads a length such as `500ms`, `90s`, `1h30m`, `7d`, `2w`: what jiff reads, without months and
/// years, whose length varies. A day has 24 hours; fractions of a millisecond are cut off.
pub fn parse_duration(text: &str) -> Option<DurationMs> {
    let span: Span = text.trim().parse().ok()?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    i64::try_from(length.as_millis()).ok().map(DurationMs)
}

/// A length of time in its two largest units, as in `1 h 30 min`; below a second `250 ms`. Negative
/// ones are 0.
pub fn format_duration(length: DurationMs) -> String {
    const UNITS: [(i64, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1_000, "s"),
    ];
    let ms = length.0.max(0);
    let Some(first) = UNITS.iter().position(|(size, _)| ms >= *size) else {
        return if ms == 0 {
            "0 s".to_owned()
        } else {
            format!("{ms} ms")
        };
    };
    let (size, unit) = UNITS[first];
    let whole = format!("{} {unit}", ms / size);
    match UNITS.get(first + 1) {
        Some((next, next_unit)) if ms % size >= *next => {
            format!("{whole} {} {next_unit}", ms % size / next)
        }
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_with_their_units() {
        for (text, ms) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            (" 1d 12h ", 129_600_000),
            ("2w", 1_209_600_000),
            ("-1h", -3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(DurationMs(ms)), "{text}");
        }
        for wrong in ["", "7", "d", "1mo", "1y", "ever", "5m!", "99999999999d"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lengths_show_their_two_largest_units() {
        for (ms, expected) in [
            (-5, "0 s"),
            (0, "0 s"),
            (250, "250 ms"),
            (1_500, "1 s"),
            (61_000, "1 min 1 s"),
            (300_000, "5 min"),
            (7_200_000, "2 h"),
            (5_400_000, "1 h 30 min"),
            (90_061_000, "1 d 1 h"),
        ] {
            assert_eq!(format_duration(DurationMs(ms)), expected);
        }
    }
}
