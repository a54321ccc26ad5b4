//! What came and went between two looks at a plain path, and what only looks like it.

use std::time::{Duration, SystemTime};

use super::*;

/// A log that is followed and has lines already.
fn followed(path: &str) -> World {
    let mut world = World::new(path, "ERROR");
    world.append("app.log", "0 ERROR old\n");
    world.append("app.log.1", "ERROR older\n");
    world.append("app.log.2", "ERROR oldest\n");
    tick();
    world.scan_and_commit();
    world.append("app.log", "1 ERROR\n");
    world.scan_and_commit();
    tick();
    world
}

impl World {
    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Like logrotate with `create`, `app.log.1` being the newest.
    fn rotate(&self) {
        for n in (1..30).rev() {
            if self.path(&format!("app.log.{n}")).exists() {
                self.rename(&format!("app.log.{n}"), &format!("app.log.{}", n + 1));
            }
        }
        self.rename("app.log", "app.log.1");
        File::create(self.path("app.log")).unwrap();
    }

    /// Like gzip.
    fn pack(&self, name: &str) {
        let written = fs::metadata(self.path(name)).unwrap().modified().unwrap();
        tick();
        let packed = format!("{name}.gz");
        self.append(&packed, "no lines");
        let file = OpenOptions::new().write(true).open(self.path(&packed));
        file.unwrap().set_modified(written).unwrap();
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Two looks, for what the first may have missed, and two more, in which nothing comes.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.scan_and_commit();
        }
    }
}

#[test]
fn each_of_many_quick_rotations_is_read_under_whatever_name() {
    let renamed: [fn(u32) -> String; 6] = [
        |n| format!("app.log-2026010{n}"),
        |n| format!("app-2026010{n}.log"),
        |n| format!("app.log.2026-01-0{n}"),
        |n| format!("app-{n}.log"),
        |n| format!("app.{n}.log"),
        |n| format!("app_run{n}.log"),
    ];
    for away in [false, true] {
        for name in renamed {
            let mut world = followed("app.log");
            for n in 1..8 {
                world.append("app.log", format!("{n} ERROR again\n"));
                world.rename("app.log", &name(n));
            }
            world.append("app.log", "8 ERROR now\n");
            if away {
                world.restart();
            }
            world.settle();
            assert_eq!(world.matched(), 9, "{}", name(0));
            assert_eq!(world.gaps, []);
        }
    }
}

/// A directory that is read while its files are renamed may not show all of them.
#[test]
fn what_the_first_look_at_a_rotation_does_not_show_the_second_does() {
    let mut world = followed("app.log");
    world.rename("app.log", "app.log.1");
    world.append("app.log", "2 ERROR\n");
    world.rename("app.log", "moving");
    world.append("app.log", "3 ERROR\n");
    world.scan_and_commit();
    world.rename("moving", "app.log.2");
    world.settle();
    assert_eq!(world.matched(), 3);
    assert_eq!(world.gaps, []);
}

#[test]
fn what_lies_there_under_two_names_is_read_once_even_if_it_is_written_later() {
    let mut world = followed("app.log");
    world.rotate();
    world.rotate();
    fs::hard_link(world.path("app.log.1"), world.path("app.log.old")).unwrap();
    world.settle();
    world.append("app.log.1", "2 ERROR by a writer that still had it\n");
    world.settle();
    assert_eq!(world.matched(), 2);
    // Nothing that is followed is at the path.
    world.rename("app.log", "app.log.3");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "ERROR secret\n").unwrap();
    tick();
    world.append("app.log", "");
    world.rename("app.log", "app.log.4");
    symlink(outside.path().join("secret"), world.path("app.log")).unwrap();
    world.settle();
    world.append("app.log.4", "3 ERROR by another\n");
    world.settle();
    assert_eq!(world.matched(), 3);
    assert_eq!(world.gaps, [(LogGapReason::Unreadable, None)]);
}

/// So far nothing of it distinguishes it from a file that was renamed.
#[test]
fn a_copy_that_only_begins_is_not_taken_for_a_log() {
    let mut world = followed("app.log");
    world.rename("app.log", "app.log.1");
    world.append("app.log", "2 ERROR\n");
    tick();
    world.rename("app.log.2", "app.log.3");
    File::create(world.path("app.log.2")).unwrap();
    world.scan_and_commit();
    fs::copy(world.path("app.log"), world.path("app.log.2")).unwrap();
    world.settle();
    File::create(world.path("app.log")).unwrap();
    world.settle();
    assert_eq!(world.matched(), 2);
    assert_eq!(world.gaps, []);
}

#[test]
fn copies_that_are_truncated_quickly_are_read_each() {
    for away in [false, true] {
        let mut world = followed("app.log");
        for n in 0..5 {
            world.append("app.log", format!("{n} ERROR copied\n"));
            fs::copy(world.path("app.log"), world.path(&format!("app.log.1{n}"))).unwrap();
            File::create(world.path("app.log")).unwrap();
        }
        if away {
            world.restart();
        }
        world.settle();
        assert_eq!(world.matched(), 6);
        assert_eq!(world.gaps, []);
    }
}

#[test]
fn what_comes_and_goes_while_nothing_is_there_is_read() {
    let mut world = World::new("app.log", "ERROR");
    world.scan_and_commit();
    world.append("app.log", "1 ERROR\n");
    world.rotate();
    world.settle();
    assert_eq!(world.matched(), 1, "renamed before it was seen");
    fs::remove_file(world.path("app.log")).unwrap();
    world.settle();
    world.append("app.log", "2 ERROR\n");
    world.rename("app.log", "app.log.old");
    world.settle();
    assert_eq!(world.matched(), 2);
    assert_eq!(world.gaps, []);
}

#[test]
fn a_link_that_was_switched_twice_led_to_a_file_of_the_same_series() {
    let lead_to = |world: &World, n: u32| {
        let _ = fs::remove_file(world.path("current"));
        world.append(&format!("run-{n}"), format!("{n} ERROR\n"));
        symlink(world.path(&format!("run-{n}")), world.path("current")).unwrap();
    };
    for away in [false, true] {
        let mut world = World::new("current", "ERROR");
        world.append("run-9", "9 ERROR of long ago\n");
        tick();
        world.scan_and_commit();
        lead_to(&world, 1);
        world.scan_and_commit();
        world.append("run-errors", "ERROR of another log\n");
        lead_to(&world, 2);
        lead_to(&world, 3);
        if away {
            world.restart();
        }
        world.settle();
        assert_eq!(world.matched(), 3);
        assert_eq!(world.gaps, []);
    }
}

#[test]
fn what_was_there_before_or_is_another_log_is_not_read() {
    for away in [false, true] {
        let mut world = followed("app.log");
        fs::copy(world.path("app.log"), world.path("app.log.bak")).unwrap();
        fs::hard_link(world.path("app.log"), world.path("app.log.3")).unwrap();
        world.append("app.log", "2 ERROR\n");
        // From before the check, and its writer still has it.
        world.append("app.log.2", "2 ERROR late\n");
        fs::copy(world.path("app.log"), world.path("app.log.20260101")).unwrap();
        for other in ["app-errors.log", "app-2.log", "app.log.conf", "apps.log.1"] {
            world.append(other, "3 ERROR of another\n");
        }
        // Unpacked, like gunzip does.
        world.append("app.log.7", "4 ERROR of last week\n");
        let week_ago = SystemTime::UNIX_EPOCH + Duration::from_millis(clock::now().wall_ms as u64)
            - Duration::from_hours(168);
        let file = OpenOptions::new().write(true).open(world.path("app.log.7"));
        file.unwrap().set_modified(week_ago).unwrap();
        world.rotate();
        world.append("app.log", "5 ERROR\n");
        if away {
            world.restart();
        }
        world.settle();
        // A copy is made of what the agent has read and will lose sight of.
        fs::copy(world.path("app.log"), world.path("app.log.old")).unwrap();
        world.rotate();
        world.settle();
        assert_eq!(world.matched(), 3);
        assert_eq!(world.gaps, []);
    }
}

/// More was read of the file than the copy has. What was written after the copy nobody can know.
#[test]
fn a_copy_of_what_was_read_on_before_a_crash_is_not_counted_again() {
    let mut world = followed("app.log");
    world.append("app.log", "2 ERROR\n");
    fs::copy(world.path("app.log"), world.path("app.log.3")).unwrap();
    world.scan();
    world.append("app.log", "3 ERROR\n");
    world.scan();
    File::create(world.path("app.log")).unwrap();
    world.restart();
    world.settle();
    assert_eq!(world.matched(), 2);
    assert_eq!(world.gaps, []);
}

#[test]
fn a_log_of_which_only_the_header_is_known_is_not_taken_for_a_copy() {
    let mut world = followed("app.log");
    let header = "# service log, all times UTC\n";
    world.rotate();
    world.append("app.log", format!("{header}ERROR in between\n"));
    world.rotate();
    world.append("app.log", header);
    world.settle();
    assert_eq!(world.matched(), 2);
    assert_eq!(world.gaps, []);
}

/// A log that was rotated by copying for long when it came to be followed: those copies are younger
/// than the file and unknown.
#[test]
fn archives_from_before_the_check_stay_unread_after_a_crash() {
    let mut world = World::new("app.log", "ERROR");
    for n in 1..5 {
        world.append("app.log", format!("ERROR {n}\n"));
        fs::copy(world.path("app.log"), world.path(&format!("app.log.{n}"))).unwrap();
        File::create(world.path("app.log")).unwrap();
    }
    tick();
    world.scan_and_commit();
    world.restart();
    world.rotate();
    world.append("app.log", "5 ERROR\n");
    world.settle();
    assert_eq!(world.matched(), 1);
    assert_eq!(world.gaps, []);
}

#[test]
fn what_was_compressed_in_between_is_a_gap_and_what_was_read_is_none() {
    let mut world = followed("app.log");
    world.rotate();
    world.pack("app.log.1");
    world.rotate();
    world.pack("app.log.3");
    world.settle();
    assert_eq!(
        world.gaps,
        [],
        "the file was open, and older ones are from before"
    );
    world.append("app.log", "2 ERROR\n");
    world.rename("app.log", "app.log-20260101");
    tick();
    world.append("app.log", "3 ERROR\n");
    world.rename("app.log", "app.log-20260102");
    world.pack("app.log-20260101");
    world.pack("app.log-20260102");
    world.append("app.log", "4 ERROR\n");
    world.settle();
    assert_eq!(world.gaps, [(LogGapReason::RotatedAway, None)]);
    assert_eq!(world.matched(), 3, "the first of the two was open");
    // A crash right after that was handed over, of an agent that had closed what it has read.
    world.now_ms += 120_000;
    world.append("app.log", "5 ERROR\n");
    world.rename("app.log", "app.log-20260103");
    tick();
    world.append("app.log", "6 ERROR\n");
    world.rename("app.log", "app.log-20260104");
    world.pack("app.log-20260104");
    world.scan_and_commit();
    assert_eq!(world.gaps.len(), 2);
    world.restart();
    world.settle();
    assert_eq!(world.gaps.len(), 2, "reported once");
    assert_eq!(world.matched(), 4);
}

#[test]
fn what_the_customer_does_not_allow_is_a_gap() {
    let mut world = followed("app.log");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "ERROR secret\n").unwrap();
    tick();
    let only = AllowedPath::new(world.path("app.log").to_str().unwrap()).unwrap();
    world
        .watcher
        .set_limits(vec![only], REDACTOR.with(Arc::clone));
    world.watcher.set(&world.checks);
    world.settle();
    world.append("app.log", "2 ERROR\n");
    world.scan_and_commit();
    world.rotate();
    world.append("app.log", "3 ERROR\n");
    world.rotate();
    symlink(outside.path().join("secret"), world.path("app.log.5")).unwrap();
    world.settle();
    assert_eq!(world.matched(), 2);
    assert_eq!(world.gaps, [(LogGapReason::Unreadable, None)]);
}

#[test]
fn a_crowded_directory_is_looked_through_so_far_and_that_is_said() {
    let mut world = followed("app.log");
    fs::write(world.path("x"), "").unwrap();
    for n in 0..5_000 {
        fs::hard_link(world.path("x"), world.path(&format!("app.log-x{n}"))).unwrap();
    }
    for _ in 0..3 {
        world.rotate();
        world.settle();
    }
    let gaps = world.gaps.len();
    assert_eq!(world.gaps, [(LogGapReason::Unreadable, None)]);
    assert_eq!(gaps, 1, "once");
}
