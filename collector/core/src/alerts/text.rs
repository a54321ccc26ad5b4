//! The lines that people read in tickets and pages: plain, short, with units.

use watchkeep_shared::{DurationMs, metric, wire::heartbeat::Service};

use crate::rules::Level;

pub(super) fn threshold(rule: &str, name: &str, value: f64, raise: Level) -> String {
    format!(
        "{rule}: {name} is {} ({})",
        quantity(name, value),
        level(name, raise)
    )
}

pub(super) fn cleared(name: &str, value: f64, clear: Level) -> String {
    format!(
        "{name} is {} ({})",
        quantity(name, value),
        level(name, clear)
    )
}

pub(super) fn service(rule: &str, service: &Service) -> String {
    let status = service.status.text();
    match &service.detail {
        Some(detail) => format!("{rule}: {} is {status} ({detail})", service.key),
        None => format!("{rule}: {} is {status}", service.key),
    }
}

pub(super) fn log(rule: &str, log_rule: &str, total: u64, window: DurationMs) -> String {
    let lines = if total == 1 { "line" } else { "lines" };
    if total == 1 {
        format!("{rule}: {total} {lines} matched {log_rule}")
    } else {
        format!(
            "{rule}: {total} {lines} matched {log_rule} within {}",
            duration(window)
        )
    }
}

pub(super) fn skew(rule: &str, skew: DurationMs, above: DurationMs) -> String {
    let way = if skew.0 < 0 { "behind" } else { "ahead" };
    let size = duration(DurationMs(skew.0.saturating_abs()));
    format!(
        "{rule}: the clock is {size} {way} (more than {})",
        duration(above)
    )
}

/// A span in its two largest units, as in `1 h 30 min`.
pub(crate) fn duration(span: DurationMs) -> String {
    const UNITS: [(i64, &str); 5] = [
        (24 * 3_600_000, "d"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1_000, "s"),
        (1, "ms"),
    ];
    let ms = span.0.max(0);
    let first = UNITS.iter().position(|(size, _)| ms >= *size).unwrap_or(3);
    let (size, unit) = UNITS[first];
    let whole = format!("{} {unit}", ms / size);
    match UNITS.get(first + 1) {
        // Parts of a second matter only beneath a second.
        Some((next, next_unit)) if *next >= 1_000 && ms % size >= *next => {
            format!("{whole} {} {next_unit}", ms % size / next)
        }
        _ => whole,
    }
}

fn level(name: &str, level: Level) -> String {
    match level {
        Level::Above(value) => format!("above {}", quantity(name, value)),
        Level::Below(value) => format!("below {}", quantity(name, value)),
    }
}

/// A value with the unit that its metric's family ends in.
fn quantity(name: &str, value: f64) -> String {
    let (family, _) = metric::split(name);
    if family.ends_with("_pct") {
        format!("{} %", number(value))
    } else if family.ends_with("_bytes") {
        bytes(value)
    } else if family.ends_with("_bytes_per_s") {
        format!("{}/s", bytes(value))
    } else if family.ends_with("_per_s") {
        format!("{}/s", number(value))
    } else if family.ends_with("_celsius") {
        format!("{} °C", number(value))
    } else if family.ends_with("_ms") {
        format!("{} ms", number(value))
    } else if family.ends_with("_s") {
        format!("{} s", number(value))
    } else {
        number(value)
    }
}

fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled.abs() >= 1_024.0 && unit + 1 < UNITS.len() {
        scaled /= 1_024.0;
        unit += 1;
    }
    format!("{} {}", number(scaled), UNITS[unit])
}

/// Hundredths at most, without trailing zeros.
fn number(value: f64) -> String {
    format!("{}", metric::round_to_hundredth(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_carry_the_unit_of_their_family() {
        let cases = [
            ("disk.used_pct:/var", 91.234, "91.23 %"),
            ("sensor.temperature_celsius:nvme", 51.5, "51.5 °C"),
            ("mem.used_bytes", 3.5 * 1024.0 * 1024.0, "3.5 MiB"),
            ("net.rx_bytes_per_s:eth0", 900.0, "900 B/s"),
            ("net.rx_errors_per_s:eth0", 2.0, "2/s"),
            ("load.1m", 4.0, "4"),
            ("system.uptime_s", 12.0, "12 s"),
        ];
        for (name, value, expected) in cases {
            assert_eq!(quantity(name, value), expected, "{name}");
        }
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        let cases = [
            (0, "0 s"),
            (250, "250 ms"),
            (1_500, "1 s"),
            (90_000, "1 min 30 s"),
            (300_000, "5 min"),
            (5_400_000, "1 h 30 min"),
            (90_061_000, "1 d 1 h"),
        ];
        for (ms, expected) in cases {
            assert_eq!(duration(DurationMs(ms)), expected);
        }
    }
}
