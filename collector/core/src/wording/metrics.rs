//! Phrases about metrics: what a family is called, and what a breach of it says.

use watchkeep_shared::{DurationMs, metric};

use super::{
    duration,
    units::{Unit, value, value_against},
};
use crate::rules::Limit;

/// The texts about a family. In the texts `{i}` is the instance, `{v}` the value, `{l}` the limit,
/// `{s}` the ending of a plural.
struct Family {
    name: &'static str,
    /// What a chart or table calls it.
    label: &'static str,
    /// The title of a breach.
    breach: &'static str,
    /// Whether the value is a state or a count of faults, of which less than one is as it should be.
    is_state: bool,
}

const fn level(name: &'static str, label: &'static str, breach: &'static str) -> Family {
    Family {
        name,
        label,
        breach,
        is_state: false,
    }
}

const fn state(name: &'static str, label: &'static str, breach: &'static str) -> Family {
    Family {
        name,
        label,
        breach,
        is_state: true,
    }
}

const FAMILIES: [Family; 24] = [
    level("cpu.busy_pct", "CPU busy", "CPU {v} busy (limit {l})"),
    level("load.1m", "Load, 1 min", "Load {v} (limit {l})"),
    level("load.5m", "Load, 5 min", "Load {v} (limit {l})"),
    level(
        "load.5m_per_cpu",
        "Load per CPU, 5 min",
        "Load {v} per CPU (limit {l})",
    ),
    level("mem.used_pct", "Memory used", "Memory {v} used (limit {l})"),
    level("swap.used_pct", "Swap used", "Swap {v} used (limit {l})"),
    level(
        "disk.used_pct",
        "Disk {i} used",
        "Disk {i} {v} full (limit {l})",
    ),
    level(
        "disk.inodes_used_pct",
        "Inodes of {i} used",
        "Inodes of {i} {v} used (limit {l})",
    ),
    state(
        "disk.turned_readonly",
        "{i} turned read-only",
        "File system {i} turned read-only",
    ),
    state(
        "disk.errors",
        "Errors of {i}",
        "File system {i} has {v} error{s}",
    ),
    state(
        "raid.missing_disks",
        "Missing disks of {i}",
        "RAID array {i} is missing {v} disk{s}",
    ),
    state(
        "raid.inactive",
        "{i} inactive",
        "RAID array {i} is inactive",
    ),
    level(
        "sensor.temperature_celsius",
        "Temperature of {i}",
        "Temperature of {i} {v} (limit {l})",
    ),
    level(
        "sensor.below_critical_celsius",
        "Temperature of {i} below its critical point",
        "Temperature of {i} {v} below its critical point (limit {l})",
    ),
    state(
        "mem.oom_kills",
        "Programs killed for lack of memory",
        "{v} program{s} killed for lack of memory",
    ),
    level(
        "psi.memory_full_pct",
        "Memory pressure",
        "Memory pressure {v} (limit {l})",
    ),
    level(
        "psi.io_full_pct",
        "Disk pressure",
        "Disk pressure {v} (limit {l})",
    ),
    level(
        "container.memory_used_pct",
        "Container memory used",
        "Container memory {v} used (limit {l})",
    ),
    level(
        "system.fds_used_pct",
        "Open-file limit used",
        "Open-file limit {v} used (limit {l})",
    ),
    level(
        "system.threads_used_pct",
        "Thread limit used",
        "Thread limit {v} used (limit {l})",
    ),
    level(
        "net.tracked_pct",
        "Connection-tracking table used",
        "Connection-tracking table {v} full (limit {l})",
    ),
    level(
        "system.zombies",
        "Zombie processes",
        "{v} zombie process{s} (limit {l})",
    ),
    state(
        "system.reboot_required",
        "Reboot required",
        "Reboot required",
    ),
    state(
        "updates.waiting_security",
        "Security updates waiting",
        "{v} security update{s} waiting",
    ),
];

/// What a chart or table calls a metric: `Disk /var used`; an unknown one by its name.
pub fn label(name: &str) -> String {
    match metric::split(name) {
        ("tls.days_left", Some(target)) => format!("Certificate {target}, days left"),
        ("clock.offset_ms", _) => "Clock offset".to_owned(),
        ("clock.synchronised", _) => "Clock synchronised".to_owned(),
        (family, instance) => find(family, instance).map_or_else(
            || name.to_owned(),
            |one| one.label.replace("{i}", instance.unwrap_or_default()),
        ),
    }
}

/// The title of a breach: `Disk /var 98 % full (limit 95 %)`. An unknown metric is named as it is,
/// after the rule.
pub fn breach(rule: &str, name: &str, observed: f64, raise: Limit) -> String {
    let (family, instance) = metric::split(name);
    let limit = raise.value();
    match (family, instance) {
        ("tls.days_left", Some(target)) => return certificate(target, observed, limit),
        ("clock.offset_ms", _) => return clock_offset(name, observed, limit),
        ("clock.synchronised", _) => return "Clock not synchronised".to_owned(),
        _ => {}
    }
    let text = value_against(name, observed, limit);
    let Some(known) = find(family, instance) else {
        return format!("{rule}: {name} {text} (limit {})", value(name, limit));
    };
    let is_one = (observed - 1.0).abs() < f64::EPSILON;
    let plural = match family {
        _ if is_one => "",
        "system.zombies" => "es",
        _ => "s",
    };
    known
        .breach
        .replace("{v}", &text)
        .replace("{l}", &value(name, limit))
        .replace("{s}", plural)
        // Last: what an agent names may hold braces.
        .replace("{i}", instance.unwrap_or_default())
}

/// Why an alert recovered: `80 %, below 93 %`.
pub fn recovery(name: &str, observed: f64, clear: Limit) -> String {
    let (family, instance) = metric::split(name);
    match family {
        "tls.days_left" => return format!("valid for {}", value(name, observed)),
        "clock.synchronised" => return "synchronised again".to_owned(),
        _ if find(family, instance).is_some_and(|known| known.is_state) => {
            return "back to normal".to_owned();
        }
        _ => {}
    }
    let way = match clear {
        Limit::Above(_) => "above",
        Limit::Below(_) => "below",
    };
    format!(
        "{}, {way} {}",
        value_against(name, observed, clear.value()),
        value(name, clear.value())
    )
}

/// The family, if its texts fit: one that names its instance needs one.
fn find(family: &str, instance: Option<&str>) -> Option<&'static Family> {
    let known = FAMILIES.iter().find(|one| one.name == family)?;
    let needs_instance = known.breach.contains("{i}");
    (needs_instance == instance.is_some()).then_some(known)
}

fn certificate(target: &str, days: f64, limit: f64) -> String {
    if days < 0.0 {
        let since = Unit::Days.text((-days).ceil());
        format!("Certificate {target} expired {since} ago")
    } else if days < 1.0 {
        format!("Certificate {target} expires within a day")
    } else {
        let left = Unit::Days.text(days);
        format!(
            "Certificate {target} expires in {left} (limit {})",
            super::number(limit)
        )
    }
}

fn clock_offset(name: &str, observed: f64, limit: f64) -> String {
    let way = if observed < 0.0 { "behind" } else { "ahead of" };
    let size = observed.abs();
    let text = if size < 60_000.0 {
        value_against(name, size, limit.abs())
    } else {
        duration(DurationMs(size as i64))
    };
    format!(
        "Clock {text} {way} its time servers (limit {})",
        value(name, limit.abs())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{DEFAULT_PACK_TOML, RuleKind, RulePack};

    #[test]
    fn a_breach_names_the_thing_the_value_and_the_limit() {
        use Limit::{Above, Below};
        for (name, observed, raise, expected) in [
            (
                "disk.used_pct:/srv/data",
                98.35,
                Above(95.0),
                "Disk /srv/data 98 % full (limit 95 %)",
            ),
            (
                "tls.days_left:/etc/ssl/shop.pem",
                12.4,
                Below(21.0),
                "Certificate /etc/ssl/shop.pem expires in 12 days (limit 21)",
            ),
            (
                "tls.days_left:shop:443",
                0.4,
                Below(7.0),
                "Certificate shop:443 expires within a day",
            ),
            (
                "tls.days_left:shop:443",
                -0.4,
                Below(7.0),
                "Certificate shop:443 expired 1 day ago",
            ),
            (
                "raid.missing_disks:md0",
                1.0,
                Above(0.5),
                "RAID array md0 is missing 1 disk",
            ),
            (
                "clock.offset_ms",
                -620.0,
                Below(-500.0),
                "Clock 620 ms behind its time servers (limit 500 ms)",
            ),
            (
                "clock.offset_ms",
                7_200_000.0,
                Above(500.0),
                "Clock 2 h ahead of its time servers (limit 500 ms)",
            ),
            (
                "system.zombies",
                120.0,
                Above(100.0),
                "120 zombie processes (limit 100)",
            ),
            (
                "shop.orders_per_s:{v}",
                2.0,
                Below(5.0),
                "Orders: shop.orders_per_s:{v} 2/s (limit 5/s)",
            ),
            (
                "disk.used_pct:/{v}{l}",
                98.0,
                Above(95.0),
                "Disk /{v}{l} 98 % full (limit 95 %)",
            ),
        ] {
            assert_eq!(breach("Orders", name, observed, raise), expected);
        }
    }

    #[test]
    fn a_recovery_says_what_was_reached() {
        use Limit::{Above, Below};
        for (name, observed, clear, expected) in [
            ("disk.used_pct:/", 80.0, Below(93.0), "80 %, below 93 %"),
            ("disk.used_pct:/", 92.96, Below(93.0), "92.96 %, below 93 %"),
            ("tls.days_left:x", 89.2, Above(22.0), "valid for 89 days"),
            ("raid.inactive:md0", 0.0, Below(0.5), "back to normal"),
            ("clock.synchronised", 1.0, Above(0.5), "synchronised again"),
        ] {
            assert_eq!(recovery(name, observed, clear), expected);
        }
    }

    #[test]
    fn every_metric_of_the_default_pack_has_words() {
        let pack = RulePack::parse(DEFAULT_PACK_TOML).expect("the default pack is valid");
        for rule in pack.rules() {
            let RuleKind::Threshold { metric, raise, .. } = &rule.kind else {
                continue;
            };
            // With an instance, or without: one of them is known.
            let names = [metric.clone(), format!("{metric}:x")];
            let texts = names.map(|name| (breach("?", &name, raise.value(), *raise), label(&name)));
            assert!(
                texts.iter().any(|(title, _)| !title.starts_with("?:")),
                "{metric}"
            );
            assert!(
                texts.iter().any(|(_, label)| !label.contains(metric)),
                "{metric}"
            );
        }
    }
}
