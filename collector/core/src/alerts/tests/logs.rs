use proptest::prelude::*;

use super::*;

const PACK: &str = r#"
[[rule]]
id = "any"
name = "Log lines"
kind = "log_count"
severity = "warning"
priority = "P3"
count = 5
window = "60s"
clear_for = "100s"

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

    fn lines(&mut self, secs: i64, rule: &str, count: u64) -> Vec<AlertChange> {
        let matches = LogMatches {
            at: at(secs),
            rule,
            path: "/var/log/app.log",
            count,
            lines: &["it broke".to_owned()],
        };
        record_log_matches(&mut self.host, &self.pack, &matches, &mut *self.ids)
    }
}

const NONE: [&str; 0] = [];

#[test]
fn a_host_that_invents_log_rules_has_a_bound_and_the_known_ones_are_judged() {
    let mut bench = Bench::new();
    for n in 0..1_000 {
        bench.lines(0, &format!("invented {n}"), 4);
    }
    assert_eq!(bench.host.entries().count(), 256);
    assert_eq!(bench.lines(1, "invented 255", 1).len(), 1);
    assert_eq!(bench.lines(1, "invented 256", 5), []);
    // Those of before have left their window.
    assert_eq!(bench.lines(90, "another", 5).len(), 1);
}

#[test]
fn enough_lines_within_the_window_fire() {
    let mut bench = Bench::new();
    assert_eq!(bench.lines(0, "oom", 4), []);
    assert_eq!(bench.lines(1, "other", 4), [], "each log rule counts alone");
    let changes = bench.lines(59, "oom", 1);
    let [AlertChange::Raised(raised)] = &changes[..] else {
        panic!("not one alert raised: {changes:?}");
    };
    assert_eq!(raised.check, CheckKey::log("oom"));
    assert_eq!(raised.summary, "oom: 5 matching log lines in 1 min");
    assert_eq!(raised.evidence.value, Some(5.0));
    assert_eq!(raised.evidence.lines, ["it broke"]);
    assert_eq!(
        raised.evidence.detail.as_deref(),
        Some("in /var/log/app.log")
    );
}

#[test]
fn lines_that_left_the_window_do_not_count() {
    let mut bench = Bench::new();
    assert_eq!(bench.lines(0, "oom", 4), []);
    assert_eq!(next_deadline(&bench.host), Some(at(60)));
    assert_eq!(bench.lines(60, "oom", 4), []);
    assert_eq!(bench.host.firing().count(), 0);
}

#[test]
fn late_lines_count_in_the_window_they_belong_to() {
    let mut bench = Bench::new();
    assert_eq!(bench.lines(100, "oom", 2), []);
    assert_eq!(bench.lines(30, "oom", 99), [], "it left the window");
    assert_eq!(bench.lines(41, "oom", 2), []);
    let changes = bench.lines(80, "oom", 1);
    assert_eq!(brief(&changes), ["raised any log:oom"]);
    assert_eq!(next_deadline(&bench.host), Some(at(200)));
    bench.host.take_changed();
    assert_eq!(bench.lines(99, "oom", 1), []);
    assert_eq!(next_deadline(&bench.host), Some(at(200)));
    assert!(!bench.host.take_changed());
}

#[test]
fn an_alert_clears_when_no_line_has_matched_for_long_enough() {
    let mut bench = Bench::new();
    assert_eq!(brief(&bench.lines(0, "oom", 9)), ["raised any log:oom"]);
    assert_eq!(bench.lines(50, "oom", 1), []);
    assert_eq!(next_deadline(&bench.host), Some(at(150)));
    assert_eq!(tick(&mut bench.host, at(149)), []);
    bench.host = stored(&bench.host);
    assert_eq!(
        brief(&tick(&mut bench.host, at(150))),
        ["cleared any log:oom"]
    );
    assert_eq!(next_deadline(&bench.host), None);
    assert_eq!(tick(&mut bench.host, at(999)), []);
}

#[test]
fn a_silent_hosts_logs_stand_still() {
    let mut bench = Bench::new();
    bench.lines(0, "oom", 9);
    let silence = Silence {
        since: at(20),
        at: at(45),
    };
    set_silent(&mut bench.host, &bench.pack, silence, &mut *bench.ids);
    assert_eq!(next_deadline(&bench.host), None);
    assert_eq!(tick(&mut bench.host, at(9_999)), []);
    clear_silent(&mut bench.host, at(1_020));
    // 20 of the 100 s had passed before the last sign of life.
    assert_eq!(next_deadline(&bench.host), Some(at(1_100)));
    assert_eq!(tick(&mut bench.host, at(1_099)), []);
    assert_eq!(
        brief(&tick(&mut bench.host, at(1_100))),
        ["cleared any log:oom"]
    );
}

#[test]
fn while_the_host_is_silent_no_log_is_raised() {
    let mut bench = Bench::new();
    let silence = Silence {
        since: at(0),
        at: at(25),
    };
    set_silent(&mut bench.host, &bench.pack, silence, &mut *bench.ids);
    assert_eq!(brief(&bench.lines(30, "oom", 9)), NONE);
    clear_silent(&mut bench.host, at(31));
    assert_eq!(brief(&bench.lines(32, "oom", 1)), ["raised any log:oom"]);
}

proptest! {
    /// Against a count by brute force over all lines since the last alert.
    #[test]
    fn it_fires_exactly_when_the_window_holds_enough(
        events in proptest::collection::vec((0_i64..40, 1_u64..4), 1..60),
    ) {
        let mut bench = Bench::new();
        let mut secs = 0;
        let mut seen: Vec<(i64, u64)> = Vec::new();
        let mut last_while_firing = None;
        let mut all = Vec::new();
        for (step, count) in events {
            secs += step;
            if last_while_firing.is_some_and(|last| secs - last >= 100) {
                last_while_firing = None;
                seen.clear();
            }
            seen.push((secs, count));
            let sum: u64 = seen.iter().filter(|(at, _)| *at > secs - 60).map(|(_, n)| n).sum();
            let fires = last_while_firing.is_some() || sum >= 5;
            bench.host = stored(&bench.host);
            let changes = bench.lines(secs, "oom", count);
            prop_assert_eq!(bench.host.firing().count() == 1, fires, "at {}", secs);
            all.extend(changes);
            if fires {
                last_while_firing = Some(secs);
            }
        }
        assert_alternating(&all);
    }
}
