//! Amounts, and values of metrics with their unit. Every value that people see is
//! rounded here.

use watchkeep_shared::{DurationMs, metric};

use crate::duration::format_duration;

/// The unit of a metric, by the end of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `_pct`, 0 to 100.
    Percent,
    /// `_bytes`.
    Bytes,
    /// `_bytes_per_s`.
    BytesPerSecond,
    /// `_per_s`.
    PerSecond,
    /// `_celsius`.
    Celsius,
    /// `_ms`.
    Milliseconds,
    /// `_s`.
    Seconds,
    /// `days_left`.
    Days,
    /// A plain number.
    Plain,
}

impl Unit {
    /// The unit of a metric.
    pub fn of(name: &str) -> Self {
        let (family, _) = metric::split(name);
        // The longer endings first.
        let endings = [
            ("_pct", Self::Percent),
            ("_bytes_per_s", Self::BytesPerSecond),
            ("_bytes", Self::Bytes),
            ("_per_s", Self::PerSecond),
            ("_celsius", Self::Celsius),
            ("_ms", Self::Milliseconds),
            ("_s", Self::Seconds),
            (".days_left", Self::Days),
        ];
        let found = endings.iter().find(|(end, _)| family.ends_with(end));
        found.map_or(Self::Plain, |(_, unit)| *unit)
    }

    /// A value in this unit.
    pub fn text(self, value: f64) -> String {
        self.with_decimals(value, self.decimals(value))
    }

    /// How many decimals a value has: enough for three figures, but of time only whole units.
    fn decimals(self, value: f64) -> usize {
        let size = value.abs();
        match self {
            Self::Percent if size < 9.95 => 1,
            Self::Percent | Self::Milliseconds | Self::Seconds | Self::Days => 0,
            Self::Bytes | Self::BytesPerSecond => 1,
            Self::Celsius | Self::PerSecond | Self::Plain => match size {
                _ if size >= 100.0 => 0,
                _ if size >= 10.0 => 1,
                _ => 2,
            },
        }
    }

    fn with_decimals(self, value: f64, decimals: usize) -> String {
        match self {
            Self::Percent => format!("{} %", rounded(value, decimals)),
            Self::Bytes => bytes(value),
            Self::BytesPerSecond => format!("{}/s", bytes(value)),
            Self::PerSecond => format!("{}/s", rounded(value, decimals)),
            Self::Celsius => format!("{} °C", rounded(value, decimals)),
            Self::Milliseconds => milliseconds(value, decimals),
            Self::Seconds => format_duration(DurationMs((value * 1_000.0) as i64)),
            Self::Days if rounded(value.floor(), 0) == "1" => "1 day".to_owned(),
            Self::Days => format!("{} days", rounded(value.floor(), 0)),
            Self::Plain => rounded(value, decimals),
        }
    }
}

/// A value of a metric with its unit, as in `98 %`, `3.5 MiB`, `0.5`.
pub fn value(metric: &str, value: f64) -> String {
    Unit::of(metric).text(value)
}

/// A value of a metric beside its limit: with more decimals where both would read the same, as in
/// `95.3 %` beside `95 %`.
pub fn value_against(metric: &str, value: f64, limit: f64) -> String {
    let unit = Unit::of(metric);
    let limit_text = unit.text(limit);
    let first = unit.decimals(value);
    let texts = (first..=first + 2).map(|decimals| unit.with_decimals(value, decimals));
    let mut last = String::new();
    for text in texts {
        if text != limit_text {
            return text;
        }
        last = text;
    }
    last
}

/// A percentage: whole from ten on, with one decimal below.
pub fn percent(value: f64) -> String {
    Unit::Percent.text(value)
}

/// A plain number of about three figures.
pub fn number(value: f64) -> String {
    Unit::Plain.text(value)
}

/// An amount in powers of 1024, as in `12.4 GiB`.
pub fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled.abs() >= 1_024.0 && unit + 1 < UNITS.len() {
        scaled /= 1_024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && scaled.abs() < 99.95);
    format!("{} {}", rounded(scaled, decimals), UNITS[unit])
}

fn milliseconds(value: f64, decimals: usize) -> String {
    if value.abs() < 1_000.0 {
        format!("{} ms", rounded(value, decimals))
    } else {
        format!("{} s", rounded(value / 1_000.0, decimals.max(1)))
    }
}

/// At most so many decimals, without zeros at the end and without a minus before zero.
fn rounded(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let short = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    match short {
        "-0" => "0".to_owned(),
        short => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_carry_the_unit_of_their_family() {
        for (name, given, expected) in [
            ("disk.used_pct:/var", 98.35, "98 %"),
            ("disk.used_pct:/var", 9.94, "9.9 %"),
            ("disk.used_pct:/var", 0.0, "0 %"),
            ("sensor.temperature_celsius:nvme", 51.5, "51.5 °C"),
            ("mem.used_bytes", 3.5 * 1024.0 * 1024.0, "3.5 MiB"),
            ("mem.used_bytes", 13_314_398_617.6, "12.4 GiB"),
            ("mem.used_bytes", 500.0 * 1024.0, "500 KiB"),
            ("net.rx_bytes_per_s:eth0", 900.0, "900 B/s"),
            ("net.rx_errors_per_s:eth0", 2.0, "2/s"),
            ("load.1m", 4.0, "4"),
            ("load.1m", 0.456, "0.46"),
            ("load.1m", -0.001, "0"),
            ("system.threads", 1_234.0, "1234"),
            ("system.uptime_s", 12.0, "12 s"),
            ("diskio.read_latency_ms:sda", 12.4, "12 ms"),
            ("diskio.read_latency_ms:sda", 1_540.0, "1.5 s"),
            ("tls.days_left:/etc/x.pem", 12.9, "12 days"),
            ("tls.days_left:/etc/x.pem", 1.0, "1 day"),
        ] {
            assert_eq!(value(name, given), expected, "{name} {given}");
        }
    }

    #[test]
    fn a_value_never_reads_the_same_as_the_limit_it_passed() {
        let pct = "disk.used_pct:/";
        assert_eq!(value_against(pct, 98.35, 95.0), "98 %");
        assert_eq!(value_against(pct, 95.34, 95.0), "95.3 %");
        assert_eq!(value_against(pct, 95.004, 95.0), "95 %", "not for ever");
        assert_eq!(value_against("load.5m_per_cpu", 4.01, 4.0), "4.01");
        assert_eq!(value_against("clock.offset_ms", 500.3, 500.0), "500.3 ms");
    }
}
