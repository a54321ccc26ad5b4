use proptest::prelude::*;
use watchkeep_shared::wire::{
    heartbeat::ServiceStatus,
    policy::{EventLogFilter, Item, LogRule},
};

use super::*;

fn unit(name: &str) -> ServiceCheck {
    ServiceCheck::Systemd {
        unit: format!("{name}.service"),
    }
}

fn log(path: &str, rules: &[(&str, &str)]) -> LogCheck {
    LogCheck {
        path: path.to_owned(),
        rules: rules
            .iter()
            .map(|(name, pattern)| LogRule {
                name: (*name).to_owned(),
                pattern: (*pattern).to_owned(),
                lines_per_minute: None,
            })
            .collect(),
        record_start: None,
        journal: None,
        event_log: None,
    }
}

fn layer() -> impl Strategy<Value = Layer> {
    let process =
        (0_u8..6, prop::option::of(1_u32..4)).prop_map(|(name, min)| ServiceCheck::Process {
            name: format!("p{name}"),
            min,
            max: None,
        });
    let service = prop_oneof![process, (0_u8..6).prop_map(|n| unit(&format!("u{n}")))];
    let rule = (0_u8..6, 0_u8..3);
    let logs = (0_u8..3, prop::collection::vec(rule, 1..4)).prop_map(|(path, rules)| LogCheck {
        rules: rules
            .iter()
            .flat_map(|(n, p)| log("", &[(&format!("r{n}"), &format!("p{p}"))]).rules)
            .collect(),
        ..log(&format!("/var/log/{path}"), &[])
    });
    let without = prop_oneof![
        (0_u8..6).prop_map(|n| format!("process:p{n}")),
        (0_u8..6).prop_map(|n| format!("log:r{n}")),
    ];
    (
        prop::option::of(200_u32..10_000),
        prop::collection::vec(service, 0..5),
        prop::collection::vec(logs, 0..3),
        prop::collection::vec(without, 0..3),
    )
        .prop_map(|(interval_ms, services, logs, without)| Layer {
            interval_ms,
            services,
            logs,
            without,
        })
}

fn layers() -> impl Strategy<Value = Vec<Layer>> {
    prop::collection::vec(layer(), 5)
}

fn merged(layers: &[Layer]) -> Effective {
    merge(Level::ALL.into_iter().zip(layers))
}

proptest! {
    #[test]
    fn each_item_is_the_last_word_on_it_and_stands_once(layers in layers()) {
        let all = merged(&layers);
        let keys: Vec<String> = all.keys().collect();
        let unique: BTreeSet<&String> = keys.iter().collect();
        prop_assert_eq!(unique.len(), keys.len());
        let by_level: Vec<(Level, &Layer)> = Level::ALL.into_iter().zip(&layers).collect();
        // Model: walk from the host upwards; the first level that names a key decides.
        let mut named: Vec<String> = keys.clone();
        for layer in &layers {
            named.extend(layer.services.iter().map(ServiceCheck::key));
            named.extend(layer.logs.iter().flat_map(|log| &log.rules).map(|r| format!("log:{}", r.name)));
        }
        for key in named {
            let verdict = by_level.iter().rev().find_map(|(level, layer)| {
                let service = layer.services.iter().rev().find(|one| one.key() == key);
                let rule = layer.logs.iter().rev().find_map(|log| {
                    let rule = log.rules.iter().rev().find(|r| format!("log:{}", r.name) == key)?;
                    Some(LogCheck { rules: vec![rule.clone()], ..log.clone() })
                });
                if service.is_some() || rule.is_some() {
                    Some(Some((*level, service, rule)))
                } else {
                    layer.without.contains(&key).then_some(None)
                }
            });
            let service = all.services.iter().find(|one| one.item.key() == key);
            let rule = all.logs.iter().find(|one| log_key(&one.item) == key);
            match verdict.flatten() {
                Some((level, Some(wanted), _)) => {
                    let found = service.unwrap();
                    prop_assert_eq!((found.from, &found.item), (level, wanted));
                    prop_assert_eq!(all.service(&key), Some(level));
                }
                Some((level, None, wanted)) => {
                    let found = rule.unwrap();
                    prop_assert_eq!((found.from, Some(&found.item)), (level, wanted.as_ref()));
                }
                None => {
                    prop_assert!(service.is_none() && rule.is_none(), "{key}");
                    let taken = all.without.iter().any(|one| one.item == key);
                    prop_assert!(taken, "{key} was taken away by someone");
                }
            }
        }
        let interval = by_level.iter().rev().find_map(|(level, layer)| Some((*level, layer.interval_ms?)));
        let interval = interval.unwrap_or((Level::Default, limits::DEFAULT_INTERVAL_MS));
        prop_assert_eq!((all.interval_ms.from, all.interval_ms.item), interval);
    }

    #[test]
    fn the_version_tells_contents_apart_and_levels_do_not_count(layers in layers(), other in layer()) {
        let all = merged(&layers);
        let wire = all.to_wire();
        prop_assert!(wire.version > 0);
        // The same content asked for at one level only is the same policy for the agent.
        let flat = Layer {
            interval_ms: Some(wire.interval_ms),
            services: wire.services.iter().filter_map(Item::known).cloned().collect(),
            logs: wire.logs.clone(),
            without: vec![],
        };
        prop_assert_eq!(flat.problems(), Vec::<String>::new());
        prop_assert_eq!(&merge([(Level::Default, &flat)]).to_wire(), &wire);
        let mut more = layers;
        more[4] = other;
        let changed = merged(&more).to_wire();
        let same = Policy { version: 0, ..changed.clone() } == Policy { version: 0, ..wire.clone() };
        prop_assert_eq!(same, changed.version == wire.version);
    }

    #[test]
    fn an_empty_layer_changes_nothing_and_a_layer_twice_is_the_layer(layers in layers(), at in 0_usize..5) {
        let mut with = layers.clone();
        with[at] = Layer::default();
        let without = Level::ALL.into_iter().zip(&layers).enumerate().filter(|(i, _)| *i != at);
        prop_assert_eq!(merged(&with), merge(without.map(|(_, one)| one)));
        let twice = Level::ALL.into_iter().zip(&layers).flat_map(|one| [one, one]);
        let sorted = |all: Effective| {
            let mut keys: Vec<String> = all.services.iter().map(|one| format!("{one:?}")).collect();
            keys.extend(all.logs.iter().map(|one| format!("{one:?}")));
            keys.sort();
            (keys, all.interval_ms)
        };
        prop_assert_eq!(sorted(merge(twice)), sorted(merged(&layers)));
    }

    #[test]
    fn a_plan_is_empty_exactly_if_nothing_differs(before in layer(), after in layer()) {
        prop_assert_eq!(before.changes(&after).is_empty(), before == after);
        let stored: Layer = serde_json::from_str(&serde_json::to_string(&after).unwrap()).unwrap();
        prop_assert_eq!(after.changes(&stored), Vec::<String>::new());
    }
}

#[test]
fn rules_of_several_levels_on_one_file_reach_the_agent_as_one_check() {
    let default = Layer {
        logs: vec![log("/var/log/a", &[("oom", "killed"), ("io", "I/O error")])],
        ..Layer::default()
    };
    let site = Layer {
        logs: vec![
            log("/var/log/a", &[("raid", "degraded")]),
            log("/var/log/b", &[("oom", "out of memory")]),
        ],
        ..Layer::default()
    };
    let wire = merge([(Level::Default, &default), (Level::Site, &site)]).to_wire();
    assert_eq!(
        wire.logs,
        [
            log("/var/log/b", &[("oom", "out of memory")]),
            log("/var/log/a", &[("io", "I/O error"), ("raid", "degraded")]),
        ]
    );
}

#[test]
fn what_is_read_in_different_ways_stays_apart() {
    let filter = |event_ids: Vec<u32>| EventLogFilter {
        event_ids,
        ..EventLogFilter::default()
    };
    let checks = [
        log("eventlog:System", &[("a", "a")]),
        LogCheck {
            event_log: Some(filter(vec![1])),
            ..log("eventlog:System", &[("b", "b")])
        },
        LogCheck {
            event_log: Some(filter(vec![2])),
            ..log("eventlog:System", &[("c", "c")])
        },
        LogCheck {
            record_start: Some("^x".to_owned()),
            ..log("eventlog:System", &[("d", "d")])
        },
    ];
    let layer = Layer {
        logs: checks.to_vec(),
        ..Layer::default()
    };
    assert_eq!(merge([(Level::Default, &layer)]).to_wire().logs, checks);
}

#[test]
fn what_a_layer_must_not_hold_is_named_by_its_key() {
    let layer = Layer {
        interval_ms: Some(5),
        services: vec![unit("a"), ServiceCheck::process("b"), unit("a")],
        logs: vec![
            log("/x", &[("r", "1")]),
            log("/y", &[("r", "2")]),
            log("/z", &[]),
        ],
        without: vec!["nginx".to_owned(), "process:b".to_owned()],
    };
    let problems = layer.problems();
    for start in [
        "interval_ms: 5",
        "services[2]: systemd:a.service",
        "logs[1].rules[0].name",
        "logs[2].rules: at least one",
        "without[0]: `nginx`",
        "without[1]: process:b",
    ] {
        let found = problems
            .iter()
            .filter(|line| line.starts_with(start))
            .count();
        assert_eq!(found, 1, "{start}: {problems:?}");
    }
    assert_eq!(problems.len(), 6, "{problems:?}");
}

#[test]
fn a_plan_names_what_changes() {
    let before = Layer {
        services: vec![unit("a"), ServiceCheck::process("b")],
        without: vec!["process:x".to_owned()],
        ..Layer::default()
    };
    let after = Layer {
        interval_ms: Some(500),
        services: vec![
            ServiceCheck::Process {
                name: "b".to_owned(),
                min: Some(2),
                max: None,
            },
            unit("c"),
        ],
        logs: vec![log("/x", &[("r", "1")])],
        without: vec![],
    };
    assert_eq!(
        before.changes(&after),
        [
            "interval inherited to 500 ms",
            "~ process:b",
            "+ systemd:c.service",
            "- systemd:a.service",
            "+ log:r",
            "- without process:x",
        ]
    );
}

#[test]
fn an_item_is_pending_until_the_agent_tells_of_it() {
    let services = [Service {
        key: "tcp:a:1".to_owned(),
        status: ServiceStatus::Stopped,
        detail: None,
    }];
    let refused = [Refusal {
        item: "log:/x".to_owned(),
        reason: "not allowed".to_owned(),
    }];
    let reported = |version| {
        Some(ReportedPolicy {
            version,
            services: &services,
            refused: &refused,
        })
    };
    let service = |key, reported| item_status(PolicyItem::Service(key), 7, reported);
    assert_eq!(service("tcp:a:1", None), ItemStatus::Pending);
    assert_eq!(service("tcp:a:1", reported(7)), ItemStatus::Watched);
    assert_eq!(service("tcp:b:2", reported(7)), ItemStatus::Pending);
    assert_eq!(
        item_status(PolicyItem::Log("/x"), 7, reported(6)),
        ItemStatus::Refused("not allowed")
    );
    assert_eq!(
        item_status(PolicyItem::Log("/y"), 7, reported(6)),
        ItemStatus::Pending
    );
    assert_eq!(
        item_status(PolicyItem::Log("/y"), 7, reported(7)),
        ItemStatus::Watched
    );
}
