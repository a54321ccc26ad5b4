//! Files that others are put in the place of: rsync, `sed -i`, editors, scripts that keep the last lines.

use std::fmt::Write as _;

use super::*;

/// A log with so many lines, every third an error, that was read.
fn followed(lines: std::ops::Range<u32>) -> World {
    let mut world = World::new("app.log", "ERROR");
    world.scan_and_commit();
    world.append("app.log", text(lines));
    world.scan_and_commit();
    world.counts.clear();
    world
}

fn text(lines: std::ops::Range<u32>) -> String {
    lines.fold(String::new(), |mut text, n| {
        let level = if n % 3 == 0 { "ERROR" } else { "INFO" };
        writeln!(
            text,
            "2026-01-01 00:00 {level} request {n} {}",
            "x".repeat(60)
        )
        .unwrap();
        text
    })
}

impl World {
    fn replace(&self, text: &str) {
        fs::write(self.path(".app.log.new"), text).unwrap();
        fs::rename(self.path(".app.log.new"), self.path("app.log")).unwrap();
    }
}

#[test]
fn a_log_that_is_copied_anew_each_time_goes_on_where_it_was() {
    for away in [false, true] {
        let mut world = followed(0..60);
        for round in 0..4 {
            world.replace(&text(0..60 + 30 * (round + 1)));
            if away {
                world.restart();
            }
            world.settle();
            assert_eq!(world.matched(), u64::from(10 * (round + 1)));
        }
        // Nothing new.
        world.replace(&text(0..180));
        world.settle();
        assert_eq!(world.matched(), 40);
        world.append("app.log", text(180..183));
        world.settle();
        assert_eq!(world.matched(), 41);
        assert_eq!(world.gaps, []);
    }
}

#[test]
fn of_a_log_that_was_edited_only_lines_that_were_not_read_count() {
    let before = text(0..60);
    let deleted: String = before
        .lines()
        .skip(6)
        .fold(String::new(), |text, line| text + line + "\n");
    let changed = before.replace("ERROR request 30", "ERROR request XX");
    let kept: String = before
        .lines()
        .skip(40)
        .fold(String::new(), |text, line| text + line + "\n");
    let moved = deleted.clone() + &text(0..6);
    for (edited, new) in [(deleted, 0), (changed, 1), (kept, 0), (moved, 0)] {
        let mut world = followed(0..60);
        world.replace(&edited);
        world.settle();
        assert_eq!(world.matched(), new);
        world.append("app.log", text(60..63));
        world.settle();
        assert_eq!(world.matched(), new + 1);
        assert_eq!(world.gaps, []);
    }
    // With new lines at once.
    let mut world = followed(0..60);
    world.replace(&(before.replace("request 31", "request YY") + &text(60..90)));
    world.settle();
    assert_eq!(world.matched(), 10);
}

#[test]
fn a_log_that_begins_anew_counts_even_where_it_repeats_lines() {
    let mut world = World::new("app.log", "ERROR");
    world.scan_and_commit();
    world.append(
        "app.log",
        "start\nERROR no licence\n".to_owned() + &text(0..60),
    );
    world.scan_and_commit();
    world.counts.clear();
    world.replace("start\nERROR no licence\n");
    world.settle();
    assert_eq!(world.matched(), 1);
    fs::remove_file(world.path("app.log")).unwrap();
    world.append("app.log", text(100..103));
    world.settle();
    assert_eq!(world.matched(), 2);
}

#[test]
fn a_long_log_goes_on_behind_what_was_read_last() {
    let mut world = followed(0..3);
    let long = text(0..250_000);
    assert!(long.len() > 17 << 20);
    world.append("app.log", &long[text(0..3).len()..]);
    world.settle();
    world.counts.clear();
    // All lines are changed but the last ones.
    let (head, tail) = long.split_at(long.len() - 100_000);
    world.replace(&(head.replace("INFO", "info") + tail + &text(250_000..250_030)));
    world.settle();
    assert_eq!(world.matched(), 10);
    assert_eq!(world.gaps, []);
    // What changed can't be known: nothing counts again, and that is a gap.
    let changed = text(0..250_030)
        .replace("x ", "x  ")
        .replace("xxxx\n", "xxxy\n");
    world.replace(&(text(0..60).replace("INFO", "info") + &changed));
    world.settle();
    assert_eq!(world.matched(), 10);
    assert_eq!(world.gaps, [(LogGapReason::Truncated, None)]);
}

/// A copy under the name of an older log that was compressed just before.
#[test]
fn a_copy_in_the_place_of_another_log_is_still_a_copy() {
    let mut world = World::new("app.log*", "ERROR");
    world.scan_and_commit();
    world.append("app.log.1", text(0..30));
    world.append("app.log", text(30..60));
    world.scan_and_commit();
    fs::remove_file(world.path("app.log.1")).unwrap();
    fs::copy(world.path("app.log"), world.path("app.log.1")).unwrap();
    tick();
    world.scan_and_commit();
    File::create(world.path("app.log")).unwrap();
    world.settle();
    assert_eq!(world.matched(), 20);
    assert_eq!(world.gaps, []);
}
