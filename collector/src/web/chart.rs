//! What a chart needs to know, as JSON in its element's `data-chart`: where its points come from
//! and how they are drawn. Which charts a host's page has, from the metrics that the host sends.

use askama::{Template, filters::HtmlSafe};
use serde::Serialize;
use watchkeep_shared::metric;

use super::format;

/// Lines in one chart; a machine with more disks or interfaces shows the first.
const MAX_LINES: usize = 8;

/// A chart and its figure.
#[derive(Debug, Template)]
#[template(path = "parts/chart.html")]
pub(crate) struct Chart {
    title: String,
    options: String,
}

impl HtmlSafe for Chart {}

/// How the script draws it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Options {
    pub(crate) src: String,
    pub(crate) unit: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) labels: Vec<String>,
    /// Areas on top of each other.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) stack: bool,
    /// Top of the scale; absent: from the values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<f64>,
    /// The range is given by the points and never moves.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) fixed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threshold: Option<f64>,
    /// An instant to mark, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<i64>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Chart {
    pub(crate) fn new(title: impl Into<String>, options: &Options) -> Self {
        // Plain strings and numbers can always be written.
        let options = serde_json::to_string(options).unwrap_or_default();
        Self {
            title: title.into(),
            options,
        }
    }
}

/// A chart of some metric families, by their label.
struct Plan {
    title: &'static str,
    families: &'static [(&'static str, &'static str)],
    stack: bool,
    max: Option<f64>,
}

const PLANS: [Plan; 7] = [
    Plan {
        title: "CPU",
        families: &[
            ("cpu.user_pct", "user"),
            ("cpu.system_pct", "system"),
            ("cpu.iowait_pct", "I/O wait"),
            ("cpu.steal_pct", "steal"),
            ("cpu.irq_pct", "interrupts"),
            ("cpu.softirq_pct", "soft interrupts"),
            ("cpu.nice_pct", "nice"),
        ],
        stack: true,
        max: Some(100.0),
    },
    Plan {
        title: "Load",
        families: &[
            ("load.1m", "1 min"),
            ("load.5m", "5 min"),
            ("load.15m", "15 min"),
        ],
        stack: false,
        max: None,
    },
    Plan {
        title: "Memory and swap",
        families: &[("mem.used_pct", "memory"), ("swap.used_pct", "swap")],
        stack: false,
        max: Some(100.0),
    },
    Plan {
        title: "Disk space used",
        families: &[("disk.used_pct", "")],
        stack: false,
        max: Some(100.0),
    },
    Plan {
        title: "Disk I/O",
        families: &[
            ("diskio.read_bytes_per_s", "read"),
            ("diskio.write_bytes_per_s", "write"),
        ],
        stack: false,
        max: None,
    },
    Plan {
        title: "Network",
        families: &[("net.rx_bytes_per_s", "in"), ("net.tx_bytes_per_s", "out")],
        stack: false,
        max: None,
    },
    Plan {
        title: "Pressure (time stalled)",
        families: &[
            ("psi.cpu_some_pct", "CPU"),
            ("psi.memory_some_pct", "memory"),
            ("psi.memory_full_pct", "memory, all"),
            ("psi.io_some_pct", "I/O"),
            ("psi.io_full_pct", "I/O, all"),
        ],
        stack: false,
        max: None,
    },
];

/// The charts of a host that sends these metrics.
pub(crate) fn of_host<S: AsRef<str>>(host: &str, names: &[S]) -> Vec<Chart> {
    PLANS
        .iter()
        .filter_map(|plan| of_plan(plan, host, names))
        .collect()
}

fn of_plan<S: AsRef<str>>(plan: &Plan, host: &str, names: &[S]) -> Option<Chart> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (family, label) in plan.families {
        for name in names.iter().map(AsRef::as_ref) {
            let (found, instance) = metric::split(name);
            if found != *family {
                continue;
            }
            let label = match instance {
                None => (*label).to_owned(),
                Some(instance) if label.is_empty() => instance.to_owned(),
                Some(instance) => format!("{instance} {label}"),
            };
            lines.push((name, label));
        }
    }
    // Both directions of one device share a chart; the rest of many devices is left out.
    if plan.families.len() == 2 {
        lines.sort_by(|a, b| metric::split(a.0).1.cmp(&metric::split(b.0).1));
    }
    let all = lines.len();
    lines.truncate(MAX_LINES);
    let metrics: Vec<(&str, &str)> = lines.iter().map(|(name, _)| ("metric", *name)).collect();
    let options = Options {
        src: format::link(&format!("/api/v1/hosts/{host}/series"), &metrics),
        unit: format::unit(lines.first()?.0),
        labels: lines.iter().map(|(_, label)| label.clone()).collect(),
        stack: plan.stack,
        max: plan.max,
        ..Options::default()
    };
    let title = if all > MAX_LINES {
        format!("{} ({MAX_LINES} of {all} shown)", plan.title)
    } else {
        plan.title.to_owned()
    };
    Some(Chart::new(title, &options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_follow_the_metrics_that_a_host_sends() {
        let names: Vec<String> = [
            "load.1m",
            "disk.used_pct:/",
            "disk.used_pct:/var",
            "mem.used_bytes",
        ]
        .map(str::to_owned)
        .to_vec();
        let charts = of_host("H", &names);
        let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
        assert_eq!(titles, ["Load", "Disk space used"]);
        assert!(
            charts[1].options.contains(r#""labels":["/","/var"]"#),
            "{}",
            charts[1].options
        );
        assert!(
            charts[1].options.contains("metric=disk.used_pct:/&"),
            "{}",
            charts[1].options
        );
    }

    #[test]
    fn a_chart_has_a_bounded_number_of_lines() {
        let names: Vec<String> = (0..30)
            .map(|i| format!("net.rx_bytes_per_s:eth{i}"))
            .collect();
        let charts = of_host("H", &names);
        assert_eq!(charts[0].title, "Network (8 of 30 shown)");
    }
}
