use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::rules::Resolved;

const PACK: &str = r#"
[[rule]]
id = "high"
name = "High"
kind = "threshold"
severity = "warning"
priority = "P3"
metric = "disk.used_pct"
raise = { above = 85 }
raise_for = "60s"
clear = { below = 80 }
clear_for = "30s"

[[rule]]
id = "full"
name = "Full"
kind = "threshold"
severity = "critical"
priority = "P2"
metric = "disk.used_pct"
raise = { above = 95 }
clear = { below = 90 }

[[rule]]
id = "low"
name = "Low"
kind = "threshold"
severity = "info"
priority = "P4"
metric = "mem.available_bytes"
raise = { below = 10 }
raise_for = "20s"
clear = { above = 12 }
clear_for = "20s"
"#;

const NAMES: [&str; 4] = [
    "cpu.busy_pct",
    "disk.used_pct:/",
    "mem.available_bytes",
    "disk.used_pct:/var",
];
const MAX_STEP_S: i64 = 30;

fn names(order: &[usize]) -> Vec<String> {
    order.iter().map(|&i| NAMES[i].to_owned()).collect()
}

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

    fn resolved(&self) -> Resolved {
        self.pack.resolve(&names(&[0, 1, 2, 3]))
    }

    fn sample(
        &mut self,
        resolved: &Resolved,
        secs: i64,
        values: &[Option<f64>],
    ) -> Vec<AlertChange> {
        let sample = Sample {
            at: at(secs),
            max_step: DurationMs::from_secs(MAX_STEP_S),
            values,
        };
        evaluate_values(&mut self.host, resolved, &sample, &mut *self.ids)
    }

    /// One sample with only the root disk of interest.
    fn disk(&mut self, secs: i64, value: Option<f64>) -> Vec<String> {
        let resolved = self.resolved();
        brief(&self.sample(&resolved, secs, &[Some(1.0), value, Some(50.0), Some(1.0)]))
    }
}

const NONE: [&str; 0] = [];

#[test]
fn a_breach_fires_after_its_time_and_clears_after_the_other() {
    let mut bench = Bench::new();
    for secs in (0..60).step_by(10) {
        assert_eq!(bench.disk(secs, Some(86.0)), NONE);
    }
    assert_eq!(bench.disk(60, Some(86.0)), ["raised high disk.used_pct:/"]);
    assert_eq!(bench.disk(70, Some(79.0)), NONE);
    assert_eq!(bench.disk(80, Some(79.0)), NONE);
    assert_eq!(bench.disk(90, Some(82.0)), NONE, "between the levels");
    assert_eq!(bench.disk(100, Some(79.0)), NONE);
    assert_eq!(bench.disk(120, Some(79.0)), NONE);
    assert_eq!(
        bench.disk(130, Some(79.0)),
        ["cleared high disk.used_pct:/"]
    );
    assert_eq!(bench.host.firing().count(), 0);
}

#[test]
fn a_raised_alert_says_what_was_seen() {
    let mut bench = Bench::new();
    let resolved = bench.resolved();
    let changes = bench.sample(&resolved, 5, &[None, Some(97.25), None, None]);
    let [AlertChange::Raised(raised)] = &changes[..] else {
        panic!("not one alert raised: {changes:?}");
    };
    assert_eq!(raised.summary, "Disk / 97 % full (limit 95 %)");
    assert_eq!(raised.severity, Severity::Critical);
    assert_eq!(raised.priority, Priority::P2);
    assert_eq!(raised.evidence.value, Some(97.25));
    assert_eq!(raised.evidence.threshold, Some(95.0));
    assert_eq!(raised.at, at(5));
    assert_eq!(
        bench.host.firing_on(&CheckKey::metric("disk.used_pct:/")),
        1
    );
    let changes = bench.sample(&resolved, 15, &[None, Some(89.0), None, None]);
    let [AlertChange::Cleared(cleared)] = &changes[..] else {
        panic!("not one alert cleared: {changes:?}");
    };
    assert_eq!(cleared.alert, raised.alert);
    assert_eq!(cleared.reason, "89 %, below 90 %");
}

#[test]
fn null_values_neither_count_nor_reset() {
    let mut bench = Bench::new();
    for secs in [0, 10, 20] {
        bench.disk(secs, Some(86.0));
    }
    for secs in (30..600).step_by(10) {
        assert_eq!(bench.disk(secs, None), NONE);
    }
    // 20 s are counted; the step out of the gap is not.
    for secs in (600..640).step_by(10) {
        assert_eq!(bench.disk(secs, Some(86.0)), NONE, "at {secs}");
    }
    assert_eq!(bench.disk(640, Some(86.0)), ["raised high disk.used_pct:/"]);
}

#[test]
fn a_step_that_is_too_long_counts_for_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.disk(0, Some(86.0)), NONE);
    assert_eq!(bench.disk(3_600, Some(86.0)), NONE);
    assert_eq!(bench.disk(3_630, Some(86.0)), NONE);
    assert_eq!(
        bench.disk(3_660, Some(86.0)),
        ["raised high disk.used_pct:/"]
    );
}

#[test]
fn an_alert_of_a_metric_that_vanished_waits_for_it() {
    let mut bench = Bench::new();
    let whole = bench.resolved();
    let without = bench.pack.resolve(&names(&[0, 2]));
    let changes = bench.sample(&whole, 0, &[None, Some(99.0), Some(50.0), None]);
    assert_eq!(brief(&changes), ["raised full disk.used_pct:/"]);
    let changes = bench.sample(&without, 10, &[Some(1.0), Some(50.0)]);
    assert_eq!(brief(&changes), NONE);
    let changes = bench.sample(&whole, 20, &[None, Some(99.0), Some(50.0), None]);
    assert_eq!(brief(&changes), NONE, "it fires already");
    let changes = bench.sample(&whole, 30, &[None, Some(50.0), Some(50.0), None]);
    assert_eq!(brief(&changes), ["cleared full disk.used_pct:/"]);
}

#[test]
fn the_time_without_a_metric_neither_counts_nor_resets() {
    let mut bench = Bench::new();
    let whole = bench.resolved();
    let without = bench.pack.resolve(&names(&[0, 2]));
    let full = [None, Some(86.0), Some(50.0), Some(99.0)];
    for secs in [0, 20, 40] {
        bench.sample(&whole, secs, &full);
    }
    for secs in (60..300).step_by(20) {
        let changes = bench.sample(&without, secs, &[Some(1.0), Some(50.0)]);
        assert_eq!(changes, [], "at {secs}");
    }
    // 40 s are counted; neither the step into the gap is nor the one out of it.
    assert_eq!(bench.sample(&whole, 300, &full), []);
    let changes = bench.sample(&whole, 319, &full);
    assert_eq!(changes, []);
    let changes = bench.sample(&whole, 320, &full);
    assert_eq!(
        brief(&changes),
        [
            "raised high disk.used_pct:/",
            "raised high disk.used_pct:/var"
        ]
    );
}

#[test]
fn alerts_of_a_removed_rule_end() {
    let mut bench = Bench::new();
    bench.disk(0, Some(99.0));
    let same = bench.pack.clone();
    assert_eq!(drop_removed_rules(&mut bench.host, &same, at(5)), []);
    let other = pack(&PACK.replace("\"full\"", "\"fuller\""));
    let changes = drop_removed_rules(&mut bench.host, &other, at(5));
    assert_eq!(brief(&changes), ["cleared full disk.used_pct:/"]);
    let high = CheckKey::metric("disk.used_pct:/");
    let state = bench.host.state(&RuleId("high".to_owned()), &high);
    assert_eq!(state, AlertState::Pending { since: at(0) });
}

#[test]
fn only_a_change_of_state_is_to_be_written() {
    let mut bench = Bench::new();
    bench.disk(0, Some(50.0));
    assert!(!bench.host.take_changed());
    bench.disk(10, Some(86.0));
    assert!(bench.host.take_changed(), "pending is a change");
    bench.disk(20, Some(86.0));
    assert!(!bench.host.take_changed());
    bench.disk(30, Some(50.0));
    assert!(bench.host.take_changed());
    assert_eq!(bench.host.metrics, []);
}

/// The same rules by plain counters, one metric at a time.
#[derive(Default)]
struct Naive {
    checks: BTreeMap<(String, usize), Counters>,
    last: Option<i64>,
}

#[derive(Default)]
struct Counters {
    fires: bool,
    breach_s: Option<i64>,
    well_s: Option<i64>,
    was_known: bool,
}

impl Naive {
    fn sample(&mut self, secs: i64, values: &[Option<f64>]) -> Vec<String> {
        if self.last.is_some_and(|last| secs <= last) {
            return Vec::new();
        }
        let step = secs - self.last.unwrap_or(secs);
        self.last = Some(secs);
        let mut said = Vec::new();
        for (i, rule) in [
            (1, "high"),
            (1, "full"),
            (2, "low"),
            (3, "high"),
            (3, "full"),
        ] {
            let counters = self.checks.entry((rule.to_owned(), i)).or_default();
            if let Some(word) = counters.sample(rule, step, values[i]) {
                said.push(format!("{word} {rule} {}", NAMES[i]));
            }
        }
        said
    }
}

impl Counters {
    fn sample(&mut self, rule: &str, step: i64, value: Option<f64>) -> Option<&'static str> {
        let was_known = std::mem::replace(&mut self.was_known, value.is_some());
        let value = value?;
        let counted = if was_known && step <= MAX_STEP_S {
            step
        } else {
            0
        };
        let (is_breach, is_normal, raise_s, clear_s) = match rule {
            "high" => (value > 85.0, value < 80.0, 60, 30),
            "full" => (value > 95.0, value < 90.0, 0, 0),
            _ => (value < 10.0, value > 12.0, 20, 20),
        };
        let count = |so_far: Option<i64>, holds: bool| {
            holds.then(|| so_far.map_or(0, |so_far| so_far + counted))
        };
        if self.fires {
            self.well_s = count(self.well_s, is_normal);
            if self.well_s.is_some_and(|well| well >= clear_s) {
                *self = Self {
                    was_known: true,
                    ..Self::default()
                };
                return Some("cleared");
            }
        } else {
            self.breach_s = count(self.breach_s, is_breach);
            if self.breach_s.is_some_and(|breach| breach >= raise_s) {
                *self = Self {
                    was_known: true,
                    fires: true,
                    ..Self::default()
                };
                return Some("raised");
            }
        }
        None
    }
}

fn value() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        1 => Just(None),
        8 => prop_oneof![
            Just(5.0), Just(10.0), Just(11.0), Just(12.0), Just(50.0), Just(79.0), Just(80.0),
            Just(83.0), Just(85.0), Just(86.0), Just(92.0), Just(95.0), Just(97.0),
        ]
        .prop_map(Some),
    ]
}

/// Runs of equal values, so that durations are reached; steps now and then too long.
fn timeline() -> impl Strategy<Value = Vec<(i64, Vec<Option<f64>>)>> {
    let run = (
        proptest::collection::vec(value(), 4),
        proptest::collection::vec(prop_oneof![9 => 1_i64..=20, 1 => 25_i64..=90], 1..10),
    );
    proptest::collection::vec(run, 1..20).prop_map(|runs| {
        let mut secs = 0;
        let mut timeline = Vec::new();
        for (values, steps) in runs {
            for step in steps {
                secs += step;
                timeline.push((secs, values.clone()));
            }
        }
        timeline
    })
}

proptest! {
    #[test]
    fn it_does_what_plain_counters_do(timeline in timeline()) {
        let mut bench = Bench::new();
        let mut naive = Naive::default();
        let resolved = bench.resolved();
        let mut all = Vec::new();
        for (secs, values) in &timeline {
            let changes = bench.sample(&resolved, *secs, values);
            prop_assert_eq!(brief(&changes), naive.sample(*secs, values), "at {}", secs);
            all.extend(changes);
        }
        assert_alternating(&all);
        let still: usize = naive.checks.values().filter(|counters| counters.fires).count();
        prop_assert_eq!(bench.host.firing().count(), still);
    }

    #[test]
    fn repeated_and_late_samples_change_nothing(
        timeline in timeline(),
        again in proptest::collection::vec((any::<prop::sample::Index>(), value()), 0..40),
    ) {
        let mut once = Bench::new();
        let mut twice = Bench::new();
        let resolved = once.resolved();
        for (i, (secs, values)) in timeline.iter().enumerate() {
            let first = once.sample(&resolved, *secs, values);
            prop_assert_eq!(twice.sample(&resolved, *secs, values), first);
            twice.host.take_changed();
            for (earlier, other) in &again {
                let (secs, _) = &timeline[earlier.index(i + 1)];
                prop_assert_eq!(twice.sample(&resolved, *secs, &[*other; 4]), []);
            }
            prop_assert!(!twice.host.take_changed());
            prop_assert_eq!(&once.host, &twice.host);
        }
    }

    #[test]
    fn the_store_and_other_schemas_between_change_nothing(
        timeline in timeline(),
        order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        when in proptest::collection::vec(any::<bool>(), 1..8),
    ) {
        let mut plain = Bench::new();
        let mut other = Bench::new();
        let resolved = plain.resolved();
        let shuffled = plain.pack.resolve(&names(&order));
        for (i, (secs, values)) in timeline.iter().enumerate() {
            let mut expected = plain.sample(&resolved, *secs, values);
            let mut found = if when[i % when.len()] {
                other.host = stored(&other.host);
                let values: Vec<_> = order.iter().map(|&i| values[i]).collect();
                other.sample(&shuffled, *secs, &values)
            } else {
                other.sample(&resolved, *secs, values)
            };
            // The order of changes, and so the new ids, follow the schema; what they say does not.
            let key = |change: &AlertChange| brief(std::slice::from_ref(change));
            expected.sort_by_key(key);
            found.sort_by_key(key);
            prop_assert_eq!(brief(&found), brief(&expected));
        }
    }

    #[test]
    fn while_nothing_is_known_nothing_happens(timeline in timeline(), nulls in 1_i64..50) {
        let mut bench = Bench::new();
        let resolved = bench.resolved();
        let mut last = 0;
        for (secs, values) in &timeline {
            bench.sample(&resolved, *secs, values);
            last = *secs;
        }
        let firing: Vec<_> = bench.host.firing().map(|alert| alert.alert).collect();
        bench.host.take_changed();
        for step in 1..=nulls {
            let changes = bench.sample(&resolved, last + step * 10, &[None; 4]);
            prop_assert_eq!(changes, []);
            prop_assert!(!bench.host.take_changed());
        }
        let after: Vec<_> = bench.host.firing().map(|alert| alert.alert).collect();
        prop_assert_eq!(after, firing);
    }
}
