//! What must hold for any policy: the body of the fuzz target `policy` (`tests/fuzz/`), which the
//! tests run too.

use std::{collections::HashSet, path::Path};

use watchkeep_shared::wire::{
    limits::{MAX_INTERVAL_MS, MAX_SERVICES_PER_FRAME, MIN_INTERVAL_MS},
    policy::{Item, Policy, ServiceCheck},
};

use super::{Effective, MAX_LOG_RULES};
use crate::config::{AllowedPath, Limits};

/// Most text of patterns that is compiled: what a pattern costs is bounded, and slow.
const MAX_PATTERN_BYTES: usize = 300;

/// Whatever a policy asks for stays within the customer's caps, what is not done is named, and what
/// is done would be allowed again. The first byte chooses among caps.
pub fn caps(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else {
        return;
    };
    let Ok(policy) = serde_json::from_slice::<Policy>(text) else {
        return;
    };
    let again = |policy: &Policy| -> Policy {
        let written = serde_json::to_vec(policy).expect("a policy has string keys only");
        serde_json::from_slice(&written).expect("what was written is read")
    };
    // A key that is listed twice, which RFC 8259 leaves open, makes an item one of an unknown kind until it
    // is written: then the last one counts.
    let kept = again(&policy);
    assert_eq!(again(&kept), kept, "written and read again");
    let patterns = policy.logs.iter().flat_map(|log| {
        let rules = log.rules.iter().map(|rule| &rule.pattern);
        rules.chain(&log.record_start)
    });
    if patterns.map(String::len).sum::<usize>() > MAX_PATTERN_BYTES {
        return;
    }
    let limits = limits(*choice);
    let is_local = |address: std::net::IpAddr| address.is_loopback();
    let effective = Effective::new(&policy, &limits, &is_local);
    within(&effective, &limits);
    named(&policy, &effective);

    let again = Policy {
        version: effective.version,
        interval_ms: effective.interval_ms,
        services: effective
            .services
            .iter()
            .cloned()
            .map(Item::Known)
            .collect(),
        logs: effective.logs.clone(),
    };
    let again = Effective::new(&again, &limits, &is_local);
    let refused = Vec::new();
    assert_eq!(
        again,
        Effective {
            refused,
            ..effective
        },
        "allowed again"
    );
}

fn within(effective: &Effective, limits: &Limits) {
    let Effective {
        interval_ms,
        services,
        logs,
        ..
    } = effective;
    assert!((MIN_INTERVAL_MS..=MAX_INTERVAL_MS).contains(interval_ms));
    assert!(*interval_ms >= limits.min_interval_ms);
    let keys: HashSet<_> = services.iter().map(ServiceCheck::key).collect();
    assert_eq!(keys.len(), services.len(), "each service once");
    assert!(services.len() <= MAX_SERVICES_PER_FRAME);
    for service in services {
        match service {
            ServiceCheck::Process { name, .. } => {
                let named = |names: &Vec<String>| names.contains(name);
                assert!(limits.processes.as_ref().is_none_or(named), "{name}");
            }
            ServiceCheck::Certificate { path } => {
                assert!(path.starts_with("/etc/ssl/"), "{path}");
                assert!(!path.contains("/../"), "{path}");
            }
            _ => {}
        }
    }
    let rules: usize = logs.iter().map(|log| log.rules.len()).sum();
    assert!(rules <= MAX_LOG_RULES);
    for log in logs {
        match (&log.journal, &log.event_log) {
            (Some(filter), _) => {
                let named = |units: &Vec<String>| {
                    !filter.units.is_empty() && filter.units.iter().all(|unit| units.contains(unit))
                };
                assert!(limits.journal_units.as_ref().is_none_or(named));
            }
            (None, Some(_)) => assert!(log.path.eq_ignore_ascii_case("eventlog:System")),
            (None, None) => assert!(Path::new(&log.path).starts_with("/var/log"), "{}", log.path),
        }
        assert!(!log.rules.is_empty());
    }
}

/// Every item is done, refused by name, or there twice.
fn named(policy: &Policy, effective: &Effective) {
    let refused = |item: &str| effective.refused.iter().any(|one| one.item == item);
    for item in &policy.services {
        match item {
            Item::Known(check) => {
                let key = check.key();
                let done = effective.services.iter().any(|done| done.key() == key);
                assert!(done || refused(&key), "{key}");
            }
            Item::Unknown(_) => assert!(refused("services")),
        }
    }
    for log in &policy.logs {
        let done = effective
            .logs
            .iter()
            .any(|done| done.path == log.path && done.rules.len() == log.rules.len());
        let nothing = log.rules.is_empty();
        assert!(done || nothing || refused(&format!("log:{}", log.path)));
    }
    if effective.interval_ms > policy.interval_ms.max(MIN_INTERVAL_MS) {
        assert!(refused("interval"));
    }
}

fn limits(choice: u8) -> Limits {
    let open = choice & 1 == 1;
    let paths = |text: &str| vec![AllowedPath::new(text).expect("it is a glob")];
    let only = |names: &[&str]| {
        (!open).then(|| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        })
    };
    Limits {
        log_paths: paths("/var/log/**"),
        min_interval_ms: if open { 0 } else { 5_000 },
        processes: only(&["nginx", "cron"]),
        journal_units: only(&["ssh.service"]),
        units: (!open).then(|| paths("web-*.service")),
        windows_services: (!open).then(|| paths("W3SVC")),
        event_logs: vec!["System".to_owned()],
        failed_units: true,
        busiest_processes: open,
        tcp: vec!["db.example:5432".to_owned()],
        discovery: open,
        probe_ca: None,
        insecure_probes: Vec::new(),
        certificate_paths: paths("/etc/ssl/**"),
    }
}

/// Inputs to begin with: a policy with everything, and parts of it.
pub fn seeds() -> Vec<Vec<u8>> {
    const SERVICES: &str = r#""services":[{"type":"process","name":"nginx","min":1,"max":4},
        {"type":"systemd","unit":"web-1.service"},{"type":"tcp","address":"127.0.0.1:5432"},
        {"type":"tcp","address":"db.example:5432"},{"type":"http","url":"http://localhost:80/","status":[200]},
        {"type":"tls","address":"[::1]:443"},{"type":"certificate","path":"/etc/ssl/a.pem"},
        {"type":"certificate","path":"/etc/ssl/../shadow"},{"type":"mqtt","broker":"x"},
        {"type":"winsvc","name":"W3SVC"}]"#;
    const LOGS: &str = r#""logs":[{"path":"/var/log/app*.log","record_start":"^[0-9]",
        "rules":[{"name":"e","pattern":"ERROR|(?i)panic","lines_per_minute":6}]},
        {"path":"journal","journal":{"units":["ssh.service"],"max_priority":3},"rules":[{"name":"j","pattern":"."}]},
        {"path":"eventlog:System","event_log":{},"rules":[{"name":"w","pattern":"disk"}]},
        {"path":"/etc/shadow","rules":[{"name":"s","pattern":"("}]}]"#;
    let head = r#""version":7,"interval_ms":10000"#;
    [
        format!("0{{{head}}}"),
        format!("0{{{head},{SERVICES}}}"),
        format!("1{{{head},{LOGS}}}"),
        format!("0{{{head},{SERVICES},{LOGS}}}"),
        format!(r#"1{{"version":1,"interval_ms":1,{SERVICES},{LOGS}}}"#),
    ]
    .map(String::into_bytes)
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_check::check;

    #[test]
    fn caps_hold() {
        check("policy", &seeds(), caps);
    }
}
