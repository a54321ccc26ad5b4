use super::*;

const PACK: &str = r#"
[[rule]]
id = "silent"
name = "Host silent"
kind = "silent"
severity = "critical"
priority = "P1"

[[rule]]
id = "reboot"
name = "Unexpected reboot"
kind = "unexpected_reboot"
severity = "warning"
priority = "P3"
clear_after = "10m"

[[rule]]
id = "clock"
name = "Clock skew"
kind = "clock_skew"
severity = "warning"
priority = "P4"
above = "30s"
clear_below = "10s"
raise_for = "20s"

[[rule]]
id = "step"
name = "Clock jumped"
kind = "clock_step"
severity = "info"
priority = "P4"
above = "5s"
clear_after = "1h"

[[rule]]
id = "agent"
name = "Agent degraded"
kind = "agent_trouble"
severity = "warning"
priority = "P3"
"#;

const NONE: [&str; 0] = [];

#[test]
fn silence_fires_once_and_ends_with_the_next_heartbeat() {
    let rules = pack(PACK);
    let mut ids = ids();
    let mut host = HostAlerts::default();
    assert_eq!(clear_silent(&mut host, at(0)), []);
    assert!(!host.take_changed());
    let silence = Silence {
        since: at(0),
        at: at(25),
    };
    let changes = set_silent(&mut host, &rules, silence, &mut ids);
    let [AlertChange::Raised(raised)] = &changes[..] else {
        panic!("not one alert raised: {changes:?}");
    };
    assert_eq!(raised.check, CheckKey::host());
    assert_eq!(raised.summary, "No heartbeat since 22:13 UTC");
    assert_eq!(
        raised.evidence.detail.as_deref(),
        Some("last heartbeat at 2023-11-14 22:13:20 UTC, 25 s earlier")
    );
    assert!(host.take_changed() && host.is_silent());
    assert_eq!(set_silent(&mut host, &rules, silence, &mut ids), []);
    assert!(!host.take_changed());
    host = stored(&host);
    let changes = clear_silent(&mut host, at(90));
    assert_eq!(brief(&changes), ["cleared silent host"]);
    assert_eq!(host, HostAlerts::default());
}

#[test]
fn a_reboot_clears_after_the_machine_has_run_on() {
    let rules = pack(PACK);
    let mut ids = ids();
    let mut host = HostAlerts::default();
    let reboot = |secs| Reboot {
        at: at(secs),
        gap: DurationMs::from_mins(27),
    };
    let changes = raise_reboot(&mut host, &rules, &reboot(0), &mut ids);
    assert_eq!(brief(&changes), ["raised reboot host"]);
    assert_eq!(next_deadline(&host), Some(at(600)));
    // Again: the same alert, the time starts again.
    assert_eq!(raise_reboot(&mut host, &rules, &reboot(300), &mut ids), []);
    assert_eq!(next_deadline(&host), Some(at(900)));
    assert_eq!(raise_reboot(&mut host, &rules, &reboot(200), &mut ids), []);
    assert_eq!(
        next_deadline(&host),
        Some(at(900)),
        "an earlier one changes nothing"
    );
    assert_eq!(tick(&mut host, at(899)), []);
    assert_eq!(brief(&tick(&mut host, at(900))), ["cleared reboot host"]);
}

#[test]
fn silence_and_a_reboot_are_two_alerts_of_one_check() {
    let rules = pack(PACK);
    let mut ids = ids();
    let mut host = HostAlerts::default();
    let silence = Silence {
        since: at(0),
        at: at(25),
    };
    set_silent(&mut host, &rules, silence, &mut ids);
    let reboot = Reboot {
        at: at(60),
        gap: DurationMs::from_mins(1),
    };
    raise_reboot(&mut host, &rules, &reboot, &mut ids);
    assert_eq!(host.firing_on(&CheckKey::host()), 2);
    assert_eq!(
        brief(&clear_silent(&mut host, at(60))),
        ["cleared silent host"]
    );
    assert_eq!(host.firing_on(&CheckKey::host()), 1);
    assert_eq!(next_deadline(&host), Some(at(660)));
}

#[test]
fn a_wrong_clock_fires_either_way_and_clears_within_the_lower_level() {
    let rules = pack(PACK);
    let mut ids = ids();
    let mut host = HostAlerts::default();
    let mut measure = |secs, skew_s| {
        let measured = Skew {
            at: at(secs),
            max_step: DurationMs::from_secs(30),
            skew: DurationMs::from_secs(skew_s),
        };
        evaluate_skew(&mut host, &rules, measured, &mut ids)
    };
    assert_eq!(measure(0, 30), [], "not more than the level");
    assert_eq!(measure(10, -3_600), []);
    assert_eq!(measure(20, -3_600), []);
    let changes = measure(30, -3_600);
    let [AlertChange::Raised(raised)] = &changes[..] else {
        panic!("not one alert raised: {changes:?}");
    };
    assert_eq!(raised.summary, "Clock 1 h behind (limit 30 s)");
    assert_eq!(raised.evidence.value, Some(-3_600_000.0));
    assert_eq!(brief(&measure(40, 20)), NONE, "between the levels");
    assert_eq!(brief(&measure(40, 0)), NONE, "repeated");
    assert_eq!(brief(&measure(50, 9)), ["cleared clock clock"]);
}

#[test]
fn a_condition_fires_once_and_ends_when_it_is_taken_back() {
    let rules = pack(PACK);
    let mut ids = ids();
    let mut host = HostAlerts::default();
    let mut say = |secs, problems: &[&str]| {
        let problems: Vec<String> = problems.iter().map(|one| (*one).to_owned()).collect();
        let report = ConditionReport {
            condition: Condition::AgentDegraded,
            at: at(secs),
            problems: &problems,
        };
        let changes = set_condition(&mut host, &rules, report, &mut ids);
        host = stored(&host);
        changes
    };
    let (disk, config) = ("spool: the disk refuses", "config: wrong");
    assert_eq!(say(0, &[]), []);
    let changes = say(1, &[disk]);
    let [AlertChange::Raised(raised)] = &changes[..] else {
        panic!("not one alert raised: {changes:?}");
    };
    assert_eq!(raised.summary, "Agent degraded: spool: the disk refuses");
    assert_eq!(say(2, &[disk]), []);
    let changes = say(3, &[disk, config]);
    let [AlertChange::Updated(updated)] = &changes[..] else {
        panic!("a second problem updates the alert: {changes:?}");
    };
    assert_eq!(updated.alert, raised.alert);
    assert_eq!(
        updated.summary,
        "Agent degraded: spool: the disk refuses; config: wrong"
    );
    assert_eq!(say(4, &[config]), [], "one that is over changes nothing");
    assert_eq!(say(5, &[disk, config]), [], "each is named once");
    assert_eq!(brief(&say(6, &[])), ["cleared agent agent"]);
    assert_eq!(say(7, &[]), []);
    assert_eq!(brief(&say(8, &[disk])), ["raised agent agent"]);
    // A pack without such a rule raises nothing.
    let report = ConditionReport {
        condition: Condition::ClonedIdentity,
        at: at(9),
        problems: &["two machines".to_owned()],
    };
    assert_eq!(set_condition(&mut host, &rules, report, &mut ids), []);
}

#[test]
fn an_agent_can_name_only_so_many_problems() {
    let rules = pack(PACK);
    let mut ids = ids();
    let mut host = HostAlerts::default();
    let mut updates = 0;
    for n in 0..1_000 {
        let report = ConditionReport {
            condition: Condition::AgentDegraded,
            at: at(n),
            problems: &[format!("config: attempt {n}")],
        };
        updates += set_condition(&mut host, &rules, report, &mut ids).len();
    }
    assert_eq!(updates, 16, "one raise and fifteen updates");
}

#[test]
fn a_jump_of_the_clock_fires_beyond_its_level_and_ends_by_time() {
    let rules = pack(PACK);
    let mut ids = ids();
    let mut host = HostAlerts::default();
    let mut jump =
        |secs, ms| raise_clock_step(&mut host, &rules, at(secs), DurationMs(ms), &mut ids);
    assert_eq!(jump(0, 5_000), []);
    let changes = jump(1, -3_600_000);
    let [AlertChange::Raised(raised)] = &changes[..] else {
        panic!("not one alert raised: {changes:?}");
    };
    assert_eq!(raised.summary, "Clock jumped back by 1 h");
    assert_eq!(jump(61, 3_600_000), [], "the time starts anew");
    assert_eq!(tick(&mut host, at(3_660)), []);
    assert_eq!(brief(&tick(&mut host, at(3_661))), ["cleared step clock"]);
}
