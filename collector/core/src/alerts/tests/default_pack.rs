//! The default pack's rules about what the system reports about itself: each by a value that is as it
//! should be, and by one that is not.

use super::*;
use crate::rules::DEFAULT_PACK_TOML;

/// Rule, metric, a value that is well, one that is a breach, and how long it must last.
const CASES: [(&str, &str, f64, f64, i64); 19] = [
    (
        "certificate-expiring",
        "tls.days_left:/etc/x.pem",
        30.0,
        20.0,
        300,
    ),
    ("disk-read-only", "disk.turned_readonly:/", 0.0, 1.0, 30),
    ("disk-errors", "disk.errors:/srv", 0.0, 1.0, 60),
    ("raid-degraded", "raid.missing_disks:md0", 0.0, 1.0, 60),
    ("raid-inactive", "raid.inactive:md0", 0.0, 1.0, 300),
    (
        "temperature-critical",
        "sensor.below_critical_celsius:coretemp",
        30.0,
        4.0,
        180,
    ),
    ("out-of-memory-kill", "mem.oom_kills", 0.0, 1.0, 0),
    ("memory-pressure", "psi.memory_full_pct", 9.0, 21.0, 600),
    ("io-pressure", "psi.io_full_pct", 40.0, 71.0, 1_800),
    (
        "container-memory-full",
        "container.memory_used_pct",
        85.0,
        96.0,
        600,
    ),
    ("open-files-full", "system.fds_used_pct", 50.0, 91.0, 120),
    ("threads-full", "system.threads_used_pct", 50.0, 91.0, 120),
    ("connections-full", "net.tracked_pct", 50.0, 91.0, 120),
    ("zombies", "system.zombies", 40.0, 101.0, 3_600),
    (
        "clock-unsynchronised",
        "clock.synchronised",
        1.0,
        0.0,
        7_200,
    ),
    ("clock-ahead", "clock.offset_ms", 240.0, 510.0, 600),
    ("clock-behind", "clock.offset_ms", -240.0, -510.0, 600),
    (
        "reboot-required",
        "system.reboot_required",
        0.0,
        1.0,
        7 * 86_400,
    ),
    (
        "security-updates-waiting",
        "updates.waiting_security",
        0.0,
        3.0,
        7 * 86_400,
    ),
];

/// Heartbeats are so far apart here, seconds.
const STEP_S: i64 = 10;
/// No rule of the pack waits longer before it is well again.
const LONGEST_CLEAR_S: i64 = 1_800;

#[test]
fn each_rule_about_the_system_raises_after_its_time_and_clears() {
    for (rule, metric, well, bad, raise_for_s) in CASES {
        let pack = pack(DEFAULT_PACK_TOML);
        let resolved = pack.resolve(&[metric.to_owned()]);
        let mut host = HostAlerts::default();
        let mut ids = ids();
        let mut sample = |secs: i64, value: f64| {
            let values = [Some(value)];
            let sample = Sample {
                at: at(secs),
                max_step: DurationMs::from_secs(2 * STEP_S),
                values: &values,
            };
            brief(&evaluate_values(&mut host, &resolved, &sample, &mut ids))
        };
        assert!(sample(0, well).is_empty(), "{rule}: {well} is well");
        let mut secs = STEP_S;
        while secs < STEP_S + raise_for_s {
            assert!(sample(secs, bad).is_empty(), "{rule} raised after {secs} s");
            secs += STEP_S;
        }
        assert_eq!(sample(secs, bad), [format!("raised {rule} {metric}")]);
        let end = secs + LONGEST_CLEAR_S + 2 * STEP_S;
        let mut changes = Vec::new();
        while secs < end {
            secs += STEP_S;
            changes.extend(sample(secs, well));
        }
        assert_eq!(changes, [format!("cleared {rule} {metric}")]);
    }
}

#[test]
fn a_certificate_warns_three_weeks_before_its_end_and_pages_one_week_before() {
    let metric = "tls.days_left:127.0.0.1:443";
    let resolved = pack(DEFAULT_PACK_TOML).resolve(&[metric.to_owned()]);
    let mut host = HostAlerts::default();
    let mut ids = ids();
    let mut after = |from_s: i64, days: f64| {
        let mut changes = Vec::new();
        for secs in (from_s..from_s + 400).step_by(STEP_S as usize) {
            let values = [Some(days)];
            let sample = Sample {
                at: at(secs),
                max_step: DurationMs::from_secs(2 * STEP_S),
                values: &values,
            };
            changes.extend(brief(&evaluate_values(
                &mut host, &resolved, &sample, &mut ids,
            )));
        }
        changes
    };
    let change = |verb: &str, rule: &str| format!("{verb} certificate-{rule} {metric}");
    assert!(after(0, 21.5).is_empty());
    assert_eq!(after(400, 20.9), [change("raised", "expiring")]);
    assert!(after(800, 7.5).is_empty());
    assert_eq!(after(1_200, 6.9), [change("raised", "expired")]);
    assert!(after(1_600, -3.0).is_empty());
    let both = [change("cleared", "expiring"), change("cleared", "expired")];
    assert_eq!(after(2_000, 89.0), both);
}
