//! Stories and properties of following files, on real files.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::symlink,
};

use proptest::prelude::*;
use tempfile::TempDir;
use watchkeep_shared::wire::policy::LogRule;

use super::*;
use crate::clock;

mod between;
mod records;

/// A watcher over a directory, with a clock and a store of positions.
struct World {
    dir: TempDir,
    checks: Vec<LogCheck>,
    watcher: LogWatcher,
    committed: Option<String>,
    now_ms: i64,
    counts: BTreeMap<String, u64>,
    lines: Vec<String>,
    gaps: Vec<(LogGapReason, Option<u64>)>,
}

impl World {
    /// Follows `path` (relative to a new directory) with one rule.
    fn new(path: &str, pattern: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let checks = vec![LogCheck {
            path: dir.path().join(path).to_str().unwrap().to_owned(),
            rules: vec![LogRule {
                name: "rule".to_owned(),
                pattern: pattern.to_owned(),
                lines_per_minute: None,
            }],
            record_start: None,
            journal: None,
            event_log: None,
        }];
        let watcher = watcher(&dir, None);
        let mut world = Self {
            dir,
            checks,
            watcher,
            committed: None,
            now_ms: 0,
            counts: BTreeMap::new(),
            lines: Vec::new(),
            gaps: Vec::new(),
        };
        world.watcher.set(&world.checks);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .create(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn scan(&mut self) {
        self.now_ms += 1_000;
        while self.watcher.scan(self.now_ms) || self.watcher.pending.is_full() {
            self.commit();
        }
        if let Some(positions) = self.watcher.save(false) {
            self.committed = Some(positions);
        }
    }

    /// What is found becomes a durable frame with its positions.
    fn commit(&mut self) {
        let (events, positions) = self.watcher.take();
        self.committed = positions.or(self.committed.take());
        for event in events {
            match event {
                Event::LogMatch {
                    count, lines, path, ..
                } => {
                    *self.counts.entry(path).or_default() += count;
                    self.lines.extend(lines);
                }
                Event::LogGap { reason, bytes, .. } => self.gaps.push((reason, bytes)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn scan_and_commit(&mut self) {
        self.scan();
        self.commit();
    }

    /// `kill -9` and a new process.
    fn restart(&mut self) {
        self.watcher = watcher(&self.dir, self.committed.as_deref());
        self.watcher.set(&self.checks);
    }

    fn matched(&self) -> u64 {
        self.counts.values().sum()
    }
}

thread_local! {
    /// Compiling its patterns takes longer than most tests.
    static REDACTOR: Arc<Redactor> = Arc::new(Redactor::new(Vec::new()));
}

fn watcher(dir: &TempDir, saved: Option<&str>) -> LogWatcher {
    let allowed = AllowedPath::new(dir.path().join("**").to_str().unwrap()).unwrap();
    LogWatcher::new(saved, vec![allowed], REDACTOR.with(Arc::clone))
}

/// Waits until files are stamped later than those that there are. What is copied within a tick of the
/// clock that stamps files could be from before or after a look.
pub(super) fn tick() {
    let now_us = (clock::now().wall_ms + 1) * 1_000;
    while clock::file_time_us() < now_us {
        std::thread::yield_now();
    }
}

#[test]
fn old_content_is_passed_over_and_new_files_are_read_from_their_beginning() {
    let mut world = World::new("*.log", "ERROR");
    world.append("old.log", "ERROR before\n");
    world.scan_and_commit();
    world.append("old.log", "fine\nERROR after\n");
    world.append("new.log", "ERROR first\n");
    world.append("old.log.gz", "ERROR packed\n");
    world.scan_and_commit();
    assert_eq!(world.lines, ["ERROR after", "ERROR first"]);
    assert_eq!(world.gaps, []);
}

#[test]
fn lines_are_redacted_cut_lossy_and_counted_beyond_the_shown_ones() {
    let mut world = World::new("a.log", "ERROR");
    world.scan_and_commit();
    world.append("a.log", b"ERROR \xff\xfe password=hunter2\r\n");
    for n in 0..20 {
        world.append("a.log", format!("ERROR {n} {}\n", "x".repeat(5_000)));
    }
    world.scan_and_commit();
    assert_eq!(world.matched(), 21);
    assert_eq!(world.lines.len(), 5);
    assert_eq!(world.lines[0], "ERROR \u{fffd}\u{fffd} password=[redacted]");
    assert!(world.lines.iter().all(|line| line.len() <= 1_024));
}

#[test]
fn an_unfinished_line_waits_for_its_end() {
    let mut world = World::new("a.log", "^ERROR done$");
    world.scan_and_commit();
    world.append("a.log", "ERROR");
    world.scan_and_commit();
    assert_eq!(world.matched(), 0);
    world.restart();
    world.append("a.log", " done\n");
    world.scan_and_commit();
    assert_eq!(world.matched(), 1);
}

#[test]
fn an_overlong_line_matches_by_its_beginning_and_the_rest_is_a_gap() {
    let mut world = World::new("a.log", "ERROR");
    world.scan_and_commit();
    let rest = 200_000;
    let long = format!("ERROR{}", "x".repeat(framing::MAX_LINE_BYTES - 5 + rest));
    let (first, second) = long.split_at(90_000);
    world.append("a.log", first);
    world.scan_and_commit();
    world.restart();
    world.append("a.log", format!("{second} ERROR\nERROR next\n"));
    world.scan_and_commit();
    assert_eq!(world.matched(), 2);
    let skipped = (rest + " ERROR".len()) as u64;
    assert_eq!(world.gaps, [(LogGapReason::LineTooLong, Some(skipped))]);
}

#[test]
fn a_truncated_file_without_a_copy_is_a_gap_and_is_read_anew() {
    let mut world = World::new("a.log", "ERROR");
    world.append("a.log", "a line that is there\n");
    world.scan_and_commit();
    File::create(world.path("a.log")).unwrap();
    // Longer than before, so that its size alone does not tell.
    world.append("a.log", format!("ERROR one\n{}\n", "x".repeat(100)));
    world.scan_and_commit();
    assert_eq!(world.matched(), 1);
    assert_eq!(world.gaps, [(LogGapReason::Truncated, None)]);
}

#[test]
fn a_file_that_was_rotated_and_deleted_while_the_agent_was_away_is_a_gap() {
    let mut world = World::new("a.log", "ERROR");
    world.append("a.log", "first\n");
    world.scan_and_commit();
    world.append("a.log", "ERROR lost\n");
    fs::rename(world.path("a.log"), world.path("a.log.1")).unwrap();
    world.append("a.log", "ERROR found\n");
    fs::remove_file(world.path("a.log.1")).unwrap();
    world.restart();
    world.scan_and_commit();
    assert_eq!(world.lines, ["ERROR found"]);
    assert_eq!(world.gaps, [(LogGapReason::RotatedAway, None)]);
}

#[test]
fn what_is_written_to_a_renamed_file_is_still_read() {
    let mut world = World::new("a.log", "ERROR");
    world.append("a.log", "first\n");
    world.scan_and_commit();
    fs::rename(world.path("a.log"), world.path("a.log.1")).unwrap();
    world.append("a.log", "ERROR new file\n");
    world.scan_and_commit();
    world.append("a.log.1", "ERROR late in old file");
    world.scan_and_commit();
    assert_eq!(world.matched(), 1);
    // Its writer has let go of it: the last line will get no end.
    world.now_ms += 120_000;
    world.scan_and_commit();
    assert_eq!(world.matched(), 2);
    assert_eq!(world.gaps, []);
}

#[test]
fn a_link_out_of_the_allowed_paths_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "ERROR\n").unwrap();
    let mut world = World::new("*.log", "ERROR");
    world.scan_and_commit();
    symlink(outside.path().join("secret"), world.path("a.log")).unwrap();
    world.scan_and_commit();
    world.scan_and_commit();
    assert_eq!(world.matched(), 0);
    assert_eq!(world.gaps, [(LogGapReason::Unreadable, None)]);
}

#[test]
fn more_kinds_of_matches_than_fit_a_frame_wait_for_the_next() {
    let mut world = World::new("*.log", "ERROR");
    world.checks[0].rules = (0..150)
        .map(|n| LogRule {
            name: format!("r{n}"),
            pattern: format!("E{n}$"),
            lines_per_minute: None,
        })
        .collect();
    world.watcher.set(&world.checks);
    world.scan_and_commit();
    for n in 0..150 {
        world.append("a.log", format!("E{n}\n"));
    }
    world.now_ms += 1_000;
    world.watcher.scan(world.now_ms);
    let (events, _) = world.watcher.take();
    assert_eq!(events.len(), 100);
    world.watcher.scan(world.now_ms);
    let (events, _) = world.watcher.take();
    assert_eq!(events.len(), 50);
}

#[test]
fn a_line_that_too_many_rules_match_keeps_to_the_limits_of_a_frame_and_says_so() {
    let mut world = World::new("a.log", "ERROR");
    world.checks[0].rules = (0..200)
        .map(|n| LogRule {
            name: format!("r{n}"),
            pattern: "ERROR".to_owned(),
            lines_per_minute: None,
        })
        .collect();
    world.watcher.set(&world.checks);
    world.scan_and_commit();
    world.append("a.log", "ERROR\n");
    world.now_ms += 1_000;
    world.watcher.scan(world.now_ms);
    let (events, _) = world.watcher.take();
    assert!(events.len() < 128, "{}", events.len());
    let limited = |event: &Event| {
        matches!(
            event,
            Event::LogGap {
                reason: LogGapReason::RateLimited,
                ..
            }
        )
    };
    assert!(events.iter().any(limited));
}

#[test]
fn positions_wait_while_matches_wait() {
    let mut world = World::new("a.log", "ERROR");
    world.scan();
    assert!(world.committed.is_some(), "a new check is kept at once");
    world.append("a.log", "ERROR\n");
    world.watcher.scan(5_000);
    // That there is a file is kept; how far it was read waits.
    let kept = world.watcher.save(true).unwrap();
    assert!(kept.contains("\"offset\":0"), "{kept}");
    assert_eq!(world.watcher.save(true), None);
    assert!(world.watcher.take().1.is_some());
}

/// What may happen to a log and to the agent that follows it, without loss.
#[derive(Clone, Debug)]
enum Step {
    /// So many lines, every second of which matches.
    Write(u8),
    /// The first half of a matching line; the next write completes it.
    WriteHalf,
    RotateByRename,
    RotateByCopy {
        scan_between: bool,
    },
    Scan,
    Commit,
    Kill,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u8..40).prop_map(Step::Write),
        1 => Just(Step::WriteHalf),
        2 => Just(Step::RotateByRename),
        2 => any::<bool>().prop_map(|scan_between| Step::RotateByCopy { scan_between }),
        4 => Just(Step::Scan),
        3 => Just(Step::Commit),
        2 => Just(Step::Kill),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

/// Writes lines with numbers and rotates like logrotate, keeping everything.
struct Writer {
    next: u64,
    half: bool,
    matching: u64,
}

impl Writer {
    fn write(&mut self, world: &World, lines: u8) {
        use std::fmt::Write as _;
        let mut text = String::new();
        if std::mem::take(&mut self.half) {
            text.push_str("OR half\n");
            self.matching += 1;
        }
        for _ in 0..lines {
            self.next += 1;
            let word = if self.next.is_multiple_of(2) {
                "ERROR"
            } else {
                "fine"
            };
            self.matching += u64::from(self.next.is_multiple_of(2));
            writeln!(text, "{} {word} {}", self.next, "pad".repeat(20)).unwrap();
        }
        world.append("app.log", text);
    }

    fn rotate(&mut self, world: &World, by_copy: bool) {
        if self.half {
            self.write(world, 0);
        }
        for n in (1..60).rev() {
            let from = world.path(&format!("app.log.{n}"));
            if from.exists() {
                fs::rename(from, world.path(&format!("app.log.{}", n + 1))).unwrap();
            }
        }
        if !world.path("app.log").exists() {
            return;
        }
        let first = world.path("app.log.1");
        if by_copy {
            fs::copy(world.path("app.log"), first).unwrap();
            tick();
        } else {
            fs::rename(world.path("app.log"), first).unwrap();
            File::create(world.path("app.log")).unwrap();
        }
    }
}

fn play(world: &mut World, steps: &[Step]) {
    let mut writer = Writer {
        next: 0,
        half: false,
        matching: 0,
    };
    world.scan_and_commit();
    for step in steps {
        match step {
            Step::Write(lines) => writer.write(world, *lines),
            Step::WriteHalf => {
                if !writer.half {
                    writer.half = true;
                    writer.next += 1;
                    // No two files may begin alike.
                    world.append("app.log", format!("{} half ERR", writer.next));
                }
            }
            Step::RotateByRename => writer.rotate(world, false),
            Step::RotateByCopy { scan_between } => {
                writer.rotate(world, true);
                if *scan_between {
                    world.scan();
                }
                if world.path("app.log").exists() {
                    File::create(world.path("app.log")).unwrap();
                }
            }
            Step::Scan => world.scan(),
            Step::Commit => world.commit(),
            Step::Kill => world.restart(),
            Step::Wait => world.now_ms += 120_000,
        }
    }
    writer.write(world, 1);
    for _ in 0..3 {
        world.scan_and_commit();
    }
    assert_eq!(world.gaps, [], "nothing was lost");
    assert_eq!(world.matched(), writer.matching);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_line_counts_once_through_rotations_and_kills(steps in steps()) {
        play(&mut World::new("app.log*", "ERROR"), &steps);
    }

    #[test]
    fn so_it_does_with_a_plain_path(steps in steps()) {
        play(&mut World::new("app.log", "ERROR"), &steps);
    }

    #[test]
    fn losses_are_never_silent_and_nothing_counts_twice(
        rounds in prop::collection::vec((1_u8..20, any::<bool>(), any::<bool>()), 1..12),
    ) {
        let mut world = World::new("app.log", "ERROR");
        let mut writer = Writer { next: 0, half: false, matching: 0 };
        world.append("app.log", "start\n");
        world.scan_and_commit();
        let mut gaps = 0;
        for (lines, look_before, kill) in rounds {
            writer.write(&world, lines);
            if look_before {
                world.scan_and_commit();
            }
            if kill {
                world.restart();
            }
            let before = world.matched();
            prop_assert!(before <= writer.matching, "counted twice");
            fs::remove_file(world.path("app.log")).unwrap();
            // No two files may begin alike.
            writer.next += 2;
            world.append("app.log", format!("start {}\n", writer.next));
            world.scan_and_commit();
            let lost = writer.matching - world.matched();
            prop_assert!(lost == 0 || world.gaps.len() > gaps, "{lost} lost in silence");
            gaps = world.gaps.len();
            writer.matching = world.matched();
        }
    }
}
