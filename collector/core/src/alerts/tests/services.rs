use watchkeep_shared::wire::heartbeat::{Service, ServiceStatus};

use super::*;

const PACK: &str = r#"
[[rule]]
id = "down"
name = "Service down"
kind = "service_state"
severity = "critical"
priority = "P2"
clear_for = "30s"

[[rule]]
id = "slow"
name = "Database down"
kind = "service_state"
severity = "critical"
priority = "P1"
service = "tcp:db"
raise_for = "60s"

[[rule]]
id = "silent"
name = "Host silent"
kind = "silent"
severity = "critical"
priority = "P1"
"#;

struct Bench {
    pack: RulePack,
    host: HostAlerts,
    ids: Box<dyn FnMut() -> AlertId>,
}

impl Bench {
    fn new() -> Self {
        Self {
            pack: pack(PACK),
            host: HostAlerts::default(),
            ids: Box::new(ids()),
        }
    }

    fn beat(&mut self, secs: i64, services: Option<&[(&str, ServiceStatus)]>) -> Vec<AlertChange> {
        let services: Option<Vec<Service>> = services.map(|services| {
            let list = services.iter().map(|(key, status)| Service {
                key: (*key).to_owned(),
                status: *status,
                detail: Some("seen".to_owned()),
            });
            list.collect()
        });
        let seen = ServiceBeat {
            at: at(secs),
            max_step: DurationMs::from_secs(30),
            services: services.as_deref(),
        };
        evaluate_services(&mut self.host, &self.pack, &seen, &mut *self.ids)
    }

    fn said(&mut self, secs: i64, services: Option<&[(&str, ServiceStatus)]>) -> Vec<String> {
        brief(&self.beat(secs, services))
    }
}

use ServiceStatus::{Changing, Failed, RestartLoop, Running, Stopped, Unknown};

const NONE: [&str; 0] = [];

#[test]
fn a_stopped_service_fires_at_once_and_clears_after_running_on() {
    let mut bench = Bench::new();
    assert_eq!(bench.said(0, Some(&[("process:x", Running)])), NONE);
    assert!(!bench.host.take_changed());
    let changes = bench.beat(1, Some(&[("process:x", Failed)]));
    assert!(bench.host.take_changed());
    let [AlertChange::Raised(raised)] = &changes[..] else {
        panic!("not one alert raised: {changes:?}");
    };
    assert_eq!(raised.check, CheckKey::service("process:x"));
    assert_eq!(raised.summary, "Process x: seen");
    assert_eq!(bench.said(10, None), NONE);
    assert_eq!(bench.said(20, Some(&[("process:x", Running)])), NONE);
    assert_eq!(bench.said(30, None), NONE);
    assert_eq!(bench.said(40, None), NONE);
    assert_eq!(bench.said(50, None), ["cleared down service:process:x"]);
}

#[test]
fn heartbeats_without_a_list_let_a_breach_last() {
    let mut bench = Bench::new();
    let down = "raised down service:tcp:db";
    assert_eq!(bench.said(0, Some(&[("tcp:db", Stopped)])), [down]);
    assert_eq!(bench.said(30, None), NONE);
    assert_eq!(bench.said(60, None), ["raised slow service:tcp:db"]);
    assert_eq!(bench.host.firing_on(&CheckKey::service("tcp:db")), 2);
}

#[test]
fn an_unknown_status_freezes() {
    let mut bench = Bench::new();
    bench.beat(0, Some(&[("tcp:db", Stopped)]));
    bench.beat(20, Some(&[("tcp:db", Unknown)]));
    for secs in (40..200).step_by(20) {
        assert_eq!(bench.said(secs, None), NONE);
    }
    assert_eq!(bench.said(200, Some(&[("tcp:db", Stopped)])), NONE);
    assert_eq!(bench.said(230, None), NONE);
    assert_eq!(bench.said(259, None), NONE);
    assert_eq!(bench.said(260, None), ["raised slow service:tcp:db"]);
}

#[test]
fn a_restart_loop_is_a_fault_and_a_unit_that_is_starting_is_neither_well_nor_ill() {
    let mut bench = Bench::new();
    assert_eq!(bench.said(0, Some(&[("systemd:x", Changing)])), NONE);
    let changes = bench.beat(10, Some(&[("systemd:x", RestartLoop)]));
    let [AlertChange::Raised(raised)] = &changes[..] else {
        panic!("not one alert raised: {changes:?}");
    };
    assert_eq!(raised.summary, "Unit x keeps restarting (seen)");
    // It must run for 30 s; the time in which it starts does not count.
    assert_eq!(bench.said(20, Some(&[("systemd:x", Running)])), NONE);
    assert_eq!(bench.said(40, Some(&[("systemd:x", Changing)])), NONE);
    assert_eq!(bench.said(60, Some(&[("systemd:x", Running)])), NONE);
    assert_eq!(bench.said(89, None), NONE);
    assert_eq!(bench.said(90, None), ["cleared down service:systemd:x"]);
}

#[test]
fn what_is_no_longer_watched_clears() {
    let mut bench = Bench::new();
    bench.beat(0, Some(&[("process:x", Stopped), ("process:y", Stopped)]));
    let changes = bench.beat(1, Some(&[("process:y", Stopped)]));
    let [AlertChange::Cleared(cleared)] = &changes[..] else {
        panic!("not one alert cleared: {changes:?}");
    };
    assert_eq!(cleared.check, CheckKey::service("process:x"));
    assert_eq!(cleared.reason, "no longer watched");
    assert_eq!(bench.host.firing().count(), 1);
}

#[test]
fn repeated_and_late_lists_change_nothing() {
    let mut bench = Bench::new();
    bench.beat(10, Some(&[("process:x", Stopped)]));
    let before = bench.host.clone();
    assert_eq!(bench.said(10, Some(&[("process:x", Running)])), NONE);
    assert_eq!(bench.said(5, Some(&[])), NONE);
    assert_eq!(bench.host, before);
}

#[test]
fn while_the_host_is_silent_services_clear_but_are_not_raised() {
    let mut bench = Bench::new();
    bench.beat(0, Some(&[("process:x", Stopped)]));
    let silence = Silence {
        since: at(0),
        at: at(25),
    };
    set_silent(&mut bench.host, &bench.pack, silence, &mut *bench.ids);
    let list = [("process:x", Running), ("process:y", Stopped)];
    assert_eq!(bench.said(26, Some(&list)), NONE);
    assert_eq!(bench.said(56, None), ["cleared down service:process:x"]);
    assert_eq!(
        brief(&clear_silent(&mut bench.host, at(60))),
        ["cleared silent host"]
    );
    // It waited, and is raised now that the host speaks for itself.
    assert_eq!(bench.said(61, None), ["raised down service:process:y"]);
}

/// What was reported is in the alert, however much later it is raised.
#[test]
fn an_alert_that_is_raised_later_says_what_was_reported() {
    let mut bench = Bench::new();
    bench.beat(0, Some(&[("tcp:db", Failed)]));
    assert!(bench.host.take_changed());
    bench.host = stored(&bench.host);
    assert_eq!(bench.said(30, None), NONE);
    let changes = bench.beat(60, None);
    let [AlertChange::Raised(raised)] = &changes[..] else {
        panic!("not one alert raised: {changes:?}");
    };
    assert_eq!(raised.summary, "db does not answer: seen");
    assert_eq!(raised.evidence.detail.as_deref(), Some("seen"));

    let mut bench = Bench::new();
    let silence = Silence {
        since: at(0),
        at: at(25),
    };
    set_silent(&mut bench.host, &bench.pack, silence, &mut *bench.ids);
    assert_eq!(bench.said(26, Some(&[("process:y", RestartLoop)])), NONE);
    clear_silent(&mut bench.host, at(40));
    let changes = bench.beat(41, None);
    let [AlertChange::Raised(raised)] = &changes[..] else {
        panic!("not one alert raised: {changes:?}");
    };
    assert_eq!(raised.summary, "Process y: seen");
}
