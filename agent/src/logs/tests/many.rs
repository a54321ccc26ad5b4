//! Any number of files under one glob, more than may be open, and only what was noticed.

use std::time::{Duration, SystemTime};

use super::*;

fn open(world: &World) -> usize {
    world.watcher.checks.iter().map(Check::open).sum()
}

/// All lines are shown.
fn world_of(path: &str) -> World {
    let mut world = World::new(path, "ERROR");
    world.checks[0].rules[0].lines_per_minute = Some(1_000_000);
    world.watcher.set(&world.checks);
    world
}

fn settle(world: &mut World) {
    for _ in 0..4 {
        world.scan_and_commit();
    }
}

fn append_to_all(world: &World, files: usize, text: &str) {
    for n in 0..files {
        world.append(&format!("{n}.log"), text);
    }
}

#[test]
fn each_line_of_hundreds_of_files_counts_once_and_no_old_one() {
    for files in [200, MAX_OPEN_FILES + 90] {
        let mut world = world_of("*.log");
        append_to_all(&world, files, "ERROR of last year\nERROR of yesterday\n");
        world.scan_and_commit();
        for round in 0..3 {
            append_to_all(&world, files, &format!("{round} ERROR\n"));
            settle(&mut world);
            assert_eq!(world.matched(), (files * (round + 1)) as u64);
            assert!(open(&world) <= MAX_OPEN_FILES);
            world.restart();
        }
        // All are rotated; those that are closed are found under their new names.
        settle(&mut world);
        for n in 0..files {
            let name = format!("{n}.log");
            world.append(&name, "late ERROR\n");
            fs::rename(world.path(&name), world.path(&format!("{name}.1"))).unwrap();
            world.append(&name, "early ERROR\n");
        }
        settle(&mut world);
        // Where not all can be open, those that were renamed make room when nothing more comes.
        world.now_ms += 61_000;
        settle(&mut world);
        assert_eq!(world.matched(), (files * 5) as u64);
        assert_eq!(world.gaps, []);
    }
}

#[test]
fn several_checks_share_the_files_that_may_be_open() {
    let mut world = world_of("a/*.log");
    fs::create_dir(world.path("a")).unwrap();
    fs::create_dir(world.path("b")).unwrap();
    let mut other = world.checks[0].clone();
    other.path = world.path("b/*.log").to_str().unwrap().to_owned();
    world.checks.push(other);
    world.watcher.set(&world.checks);
    let append = |world: &World, text: &str| {
        for n in 0..400 {
            world.append(&format!("a/{n}.log"), text);
            world.append(&format!("b/{n}.log"), text);
        }
    };
    append(&world, "ERROR of last year\n");
    world.scan_and_commit();
    settle(&mut world);
    append(&world, "ERROR\n");
    settle(&mut world);
    assert_eq!(world.matched(), 800);
    let open: Vec<usize> = world.watcher.checks.iter().map(Check::open).collect();
    assert_eq!(open, [MAX_OPEN_FILES / 2; 2]);
    assert_eq!(world.gaps, []);
}

#[test]
fn files_beyond_the_limit_are_left_out_once_reported_and_never_replayed() {
    let mut world = World::new("*.log", "ERROR");
    let most = 50;
    let files = most + 10;
    world.watcher.most_files = most;
    for n in 0..files {
        fs::write(world.path(&format!("{n}.log")), "ERROR of last year\n").unwrap();
    }
    world.scan_and_commit();
    tick();
    append_to_all(&world, files, "harmless\n");
    settle(&mut world);
    world.restart();
    world.watcher.most_files = most;
    settle(&mut world);
    // There is room for one of those that were left out.
    for n in 0..20 {
        fs::remove_file(world.path(&format!("{n}.log"))).unwrap();
    }
    settle(&mut world);
    assert_eq!(world.matched(), 0, "{:?}", world.lines);
    let reported = world
        .gaps
        .iter()
        .filter(|(reason, _)| *reason == LogGapReason::Unreadable);
    assert!(reported.count() >= 1);
}

/// Like `mv` and `tar`, which keep its time.
#[test]
fn an_old_file_that_is_put_there_is_not_read_and_a_new_one_is() {
    let mut world = World::new("*.log", "ERROR");
    world.scan_and_commit();
    world.append("old", "ERROR of last year\n");
    let year = Duration::from_hours(24 * 365);
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock::now().wall_ms as u64);
    let file = OpenOptions::new().write(true).open(world.path("old"));
    file.unwrap().set_modified(now - year).unwrap();
    fs::rename(world.path("old"), world.path("old.log")).unwrap();
    world.append("new", "ERROR new\n");
    fs::rename(world.path("new"), world.path("new.log")).unwrap();
    world.scan_and_commit();
    world.append("old.log", "ERROR appended\n");
    settle(&mut world);
    assert_eq!(world.lines, ["ERROR new", "ERROR appended"]);
    assert_eq!(world.gaps, []);
}

#[test]
fn a_tree_that_is_too_large_to_look_through_is_reported_once() {
    let mut world = World::new("**/*.log", "ERROR");
    fs::write(world.path("x"), "").unwrap();
    for n in 0..20_010 {
        if n % 5_000 == 0 {
            fs::create_dir(world.path(&format!("d{}", n / 5_000))).unwrap();
        }
        let name = world.path(&format!("d{}/x{n}", n / 5_000));
        fs::hard_link(world.path("x"), name).unwrap();
    }
    settle(&mut world);
    assert_eq!(world.gaps, [(LogGapReason::Unreadable, None)]);
}

#[test]
fn only_what_was_noticed_is_read_until_everything_is_looked_at_again() {
    let mut world = World::new("*.log", "ERROR");
    append_to_all(&world, 3, "old\n");
    world.scan_and_commit();
    world.scan_and_commit();
    append_to_all(&world, 3, "ERROR\n");
    world.append("new.log", "ERROR\n");
    let scan = |world: &mut World, after_ms: i64, changes: &Changes| {
        world.now_ms += after_ms;
        world.watcher.scan_changed(world.now_ms, changes);
        world.commit();
        world.matched()
    };
    let mut changes = Changes::default();
    assert_eq!(scan(&mut world, 100, &changes), 0);
    changes.add_file(FileId::of(&fs::metadata(world.path("1.log")).unwrap()));
    changes.add_entry(world.path("other.txt"), false);
    assert_eq!(scan(&mut world, 100, &changes), 1);
    let nothing = Changes::default();
    assert_eq!(scan(&mut world, 5_000, &nothing), 3, "all that are open");
    let mut entry = Changes::default();
    entry.add_entry(world.path("new.log"), false);
    assert_eq!(scan(&mut world, 100, &entry), 4);
    world.append("later.log", "ERROR\n");
    assert_eq!(scan(&mut world, 100, &nothing), 4);
    assert_eq!(
        scan(&mut world, 31_000, &nothing),
        5,
        "a look without a notice"
    );
}

/// What a scan could not read for its budget waits for no other notice.
#[test]
fn what_was_noticed_is_read_even_if_it_takes_several_scans() {
    let mut world = World::new("*.log", "ERROR");
    append_to_all(&world, 3, "old\n");
    world.scan_and_commit();
    let mut changes = Changes::default();
    for n in 0..3 {
        let name = format!("{n}.log");
        world.append(
            &name,
            "x".repeat(99).repeat(SCAN_BYTES / 99 / 2) + "\nERROR\n",
        );
        changes.add_file(FileId::of(&fs::metadata(world.path(&name)).unwrap()));
    }
    world.now_ms += 100;
    while world.watcher.scan_changed(world.now_ms, &changes) {
        changes = Changes::default();
    }
    world.commit();
    assert_eq!(world.matched(), 3);
}

#[test]
fn notices_are_asked_for_of_every_file_and_directory_that_matters() {
    let mut world = World::new("*/app.log", "ERROR");
    fs::create_dir(world.path("a")).unwrap();
    fs::create_dir(world.path("b")).unwrap();
    world.append("a/app.log", "old\n");
    world.scan_and_commit();
    let watches = world.watcher.watches().unwrap();
    let directories = [world.path(""), world.path("a"), world.path("b")];
    let directories = directories.map(|path| path.components().collect::<PathBuf>());
    assert_eq!(watches.directories, BTreeSet::from(directories));
    let files: Vec<_> = watches.files.into_values().collect();
    assert_eq!(files, [world.path("a/app.log")]);
    world
        .watcher
        .scan_changed(world.now_ms + 100, &Changes::default());
    assert_eq!(world.watcher.watches(), None);
}
