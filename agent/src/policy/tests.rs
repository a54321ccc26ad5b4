//! What is done, what is refused, and why.

use watchkeep_shared::wire::policy::LogRule;

use super::*;
use crate::config::AllowedPath;

fn limits() -> Limits {
    Limits {
        busiest_processes: true,
        log_paths: vec![AllowedPath::new("/var/log/**").unwrap()],
        min_interval_ms: 1_000,
        processes: Some(vec!["nginx".to_owned()]),
        journal_units: Some(vec!["ssh.service".to_owned()]),
        units: Some(vec![AllowedPath::new("web-*.service").unwrap()]),
        windows_services: Some(vec![AllowedPath::new("MSSQL*").unwrap()]),
        event_logs: vec!["System".to_owned()],
        failed_units: true,
        probe_ca: None,
        discovery: true,
        insecure_probes: Vec::new(),
        certificate_paths: vec![AllowedPath::new("/etc/ssl/**").unwrap()],
        tcp: vec!["db.example:5432".to_owned()],
    }
}

fn tcp(address: &str) -> Item<ServiceCheck> {
    Item::Known(ServiceCheck::Tcp {
        address: address.to_owned(),
    })
}

fn http(url: &str) -> Item<ServiceCheck> {
    Item::Known(ServiceCheck::Http {
        url: url.to_owned(),
        status: Vec::new(),
        contains: None,
        timeout_ms: None,
    })
}

fn certificate(path: &str) -> Item<ServiceCheck> {
    let path = path.to_owned();
    Item::Known(ServiceCheck::Certificate { path })
}

fn unit(unit: &str) -> Item<ServiceCheck> {
    let unit = unit.to_owned();
    Item::Known(ServiceCheck::Systemd { unit })
}

fn keys(effective: &Effective) -> Vec<String> {
    effective.services.iter().map(ServiceCheck::key).collect()
}

fn log(path: &str, pattern: &str) -> LogCheck {
    LogCheck {
        path: path.to_owned(),
        rules: vec![LogRule {
            name: "r".to_owned(),
            pattern: pattern.to_owned(),
            lines_per_minute: None,
        }],
        record_start: None,
        journal: None,
        event_log: None,
    }
}

#[test]
fn what_the_customer_allows_is_done_and_the_rest_is_refused_with_a_reason() {
    let process = |name: &str| Item::Known(ServiceCheck::process(name));
    let policy = Policy {
        version: 7,
        interval_ms: 200,
        services: vec![
            process("nginx"),
            process("secretd"),
            unit("web-1.service"),
            unit("sshd.service"),
            unit("web-1"),
            tcp("127.0.0.1:80"),
            tcp("[::1]:80"),
            tcp("localhost:81"),
            tcp("db.example:5432"),
            tcp("192.0.2.1:80"),
            tcp("example.com"),
            Item::Unknown(serde_json::json!({ "type": "mqtt" })),
            http("http://127.0.0.1/health"),
            http("https://db.example:5432/"),
            http("https://www.example/"),
            http("http://root:secret@127.0.0.1/"),
            http("file:///etc/shadow"),
            certificate("/etc/ssl/www.pem"),
            certificate("/etc/ssl/../shadow"),
            tcp("localhost:81"),
        ],
        logs: vec![
            log("/var/log/nginx/*.log", "error"),
            log("/etc/shadow", "root"),
            log("/var/log/../../etc/shadow", "root"),
            log("relative.log", "x"),
            log("/var/log/a", "("),
        ],
    };
    let effective = Effective::new(&policy, &limits(), &|ip| ip.is_loopback());
    assert_eq!(effective.interval_ms, 1_000);
    assert_eq!(
        keys(&effective),
        [
            "process:nginx",
            "systemd:web-1.service",
            "tcp:127.0.0.1:80",
            "tcp:[::1]:80",
            "tcp:localhost:81",
            "tcp:db.example:5432",
            "http:http://127.0.0.1/health",
            "http:https://db.example:5432/",
            "certificate:/etc/ssl/www.pem",
        ]
    );
    assert_eq!(effective.logs, [log("/var/log/nginx/*.log", "error")]);
    let refused: Vec<&str> = effective.refused.iter().map(|r| r.item.as_str()).collect();
    assert_eq!(
        refused,
        [
            "interval",
            "process:secretd",
            "systemd:sshd.service",
            "systemd:web-1",
            "tcp:192.0.2.1:80",
            "tcp:example.com",
            "services",
            "http:https://www.example/",
            "http:http://root:secret@127.0.0.1/",
            "http:file:///etc/shadow",
            "certificate:/etc/ssl/../shadow",
            "log:/etc/shadow",
            "log:/var/log/../../etc/shadow",
            "log:relative.log",
            "log:/var/log/a",
        ]
    );
}

#[test]
fn any_process_and_only_own_addresses_by_default() {
    let config = crate::config::Config::parse("", "x", &|_| None).unwrap();
    let policy = Policy {
        version: 1,
        interval_ms: 10_000,
        services: vec![
            ServiceCheck::process("anything").into(),
            tcp("192.0.2.1:80"),
        ],
        logs: vec![log("/var/log/syslog", "x")],
    };
    let effective = Effective::new(&policy, &config.limits, &|_| false);
    assert_eq!(keys(&effective), ["process:anything"]);
    assert_eq!(effective.refused.len(), 1);
    assert_eq!(effective.logs.len(), 1);
    assert!(is_local("127.0.0.1".parse().unwrap()));
    assert!(!is_local("192.0.2.1".parse().unwrap()));
}

#[test]
fn of_the_journal_only_units_that_the_customer_names() {
    let asked = |path: &str, units: &[&str]| {
        let units = units.iter().map(|unit| (*unit).to_owned()).collect();
        let journal = JournalFilter {
            units,
            ..JournalFilter::default()
        };
        allowed_journal(path, &journal, &limits()).is_ok()
    };
    assert!(asked("journal", &["ssh.service"]));
    assert!(!asked("journal", &["ssh.service", "cron.service"]));
    assert!(!asked("journal", &[]));
    assert!(!asked("/var/log/syslog", &["ssh.service"]));
}
