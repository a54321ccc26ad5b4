//! Records of several lines, and how many lines leave the machine.

use super::*;

fn traces(pattern: &str) -> World {
    let mut world = World::new("app.log*", pattern);
    world.checks[0].record_start = Some("^[0-9]".to_owned());
    world.watcher.set(&world.checks);
    world.scan_and_commit();
    world
}

#[test]
fn a_record_is_matched_whole_when_the_next_begins_or_none_comes() {
    let mut world = traces("(?s)ERROR.*at db");
    world.append(
        "app.log",
        "1 ERROR\n at x\n at db\n2 fine\n at db\n3 ERROR\n",
    );
    world.scan_and_commit();
    assert_eq!(world.lines, ["1 ERROR\n at x\n at db"]);
    assert!(world.watcher.record_waits());
    world.append("app.log", " at db\n");
    world.watcher.scan(world.now_ms);
    assert_eq!(world.watcher.take().0, [], "more may come");
    world.scan_and_commit();
    assert_eq!(world.matched(), 2, "nothing more came for a second");
    assert!(!world.watcher.record_waits());
    assert_eq!(world.gaps, []);
}

#[test]
fn a_pattern_that_is_no_start_makes_records_of_what_there_is() {
    let mut world = traces("at db");
    world.append("app.log", " at db\n at db\n");
    world.scan_and_commit();
    world.scan_and_commit();
    assert_eq!(world.matched(), 1);
}

#[test]
fn no_more_lines_of_a_rule_are_shown_than_it_allows_and_all_are_counted() {
    let mut world = World::new("a.log", "ERROR");
    world.checks[0].rules[0].lines_per_minute = Some(7);
    world.watcher.set(&world.checks);
    world.scan_and_commit();
    for _ in 0..4 {
        world.append("a.log", "ERROR\n".repeat(5));
        world.scan_and_commit();
    }
    assert_eq!(world.matched(), 20);
    assert_eq!(world.lines.len(), 7);
    assert_eq!(world.gaps, [(LogGapReason::RateLimited, None)]);
    world.now_ms += 60_000;
    world.append("a.log", "ERROR\n");
    world.scan_and_commit();
    assert_eq!(world.lines.len(), 8);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8),
    Rename,
    CopyTruncate,
    Scan,
    Commit,
    Kill,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u8..9).prop_map(Step::Write),
        1 => Just(Step::Rename),
        1 => Just(Step::CopyTruncate),
        3 => Just(Step::Scan),
        2 => Just(Step::Commit),
        2 => Just(Step::Kill),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_record_counts_once_through_rotations_and_kills(steps in steps()) {
        let mut world = traces("(?s)^[0-9]+ ERROR\n.*at db");
        let (mut records, mut rotations) = (0_u32, 0);
        for step in steps {
            match step {
                Step::Write(more) => {
                    for _ in 0..more {
                        records += 1;
                        let text = format!("{records} ERROR\n at x {}\n at db\n", "x".repeat(90));
                        world.append("app.log", text);
                    }
                }
                Step::Rename | Step::CopyTruncate if !world.path("app.log").exists() => {}
                Step::Rename => {
                    rotations += 1;
                    let name = format!("app.log.{rotations}");
                    fs::rename(world.path("app.log"), world.path(&name)).unwrap();
                }
                Step::CopyTruncate => {
                    rotations += 1;
                    let name = format!("app.log.{rotations}");
                    fs::copy(world.path("app.log"), world.path(&name)).unwrap();
                    File::create(world.path("app.log")).unwrap();
                }
                Step::Scan => world.scan(),
                Step::Commit => world.commit(),
                Step::Kill => world.restart(),
                Step::Wait => world.now_ms += 120_000,
            }
        }
        for _ in 0..3 {
            world.scan_and_commit();
        }
        prop_assert_eq!(world.matched(), u64::from(records));
        prop_assert_eq!(&world.gaps, &[]);
    }
}
