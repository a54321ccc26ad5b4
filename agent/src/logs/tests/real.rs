//! Real rotations by the real logrotate in each of its modes, and real replacements by rsync and sed. Not
//! part of the suite, as it needs those programs:
//! `cargo nextest run --workspace --locked --run-ignored all -E 'test(/logs::tests::real/)'`.

use std::process::Command;

use super::*;

const ROUNDS: u64 = 8;
const LINES: u64 = 20;

/// Directives of logrotate, and whether rotation leaves what it rotated to be read.
const MODES: [(&str, bool); 14] = [
    ("create\nrotate 20", true),
    ("nocreate\nrotate 20", true),
    ("copytruncate\nrotate 20", true),
    ("create\ndateext\ndateformat -%Y%m%d-%s\nrotate 20", true),
    ("create\nextension .log\nrotate 20", true),
    ("create\ncompress\nrotate 20", false),
    ("create\ncompress\ndelaycompress\nrotate 20", true),
    ("nocreate\ncompress\nrotate 2", false),
    ("copytruncate\ncompress\nrotate 20", false),
    ("create\nolddir old\nrotate 20", true),
    ("create\nrotate 0", false),
    ("create\nrotate 1", true),
    ("create\ncompress\nshred\nrotate 3", false),
    ("copy\nrotate 20", true),
];

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {done:?}");
}

fn lines(from: u64) -> String {
    let line = |n: u64| {
        let level = if n.is_multiple_of(2) { "ERROR" } else { "INFO" };
        format!("{n} {level} request {}\n", "x".repeat(40))
    };
    (from..from + LINES).map(line).collect()
}

impl World {
    fn text_of(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[test]
#[ignore = "needs logrotate"]
fn each_line_counts_once_through_real_rotations() {
    let mut rotations = 0;
    for path in ["app.log", "app.log*"] {
        for (mode, is_left) in MODES {
            let mut world = World::new(path, "ERROR");
            world.scan_and_commit();
            fs::create_dir(world.path("old")).unwrap();
            let config = format!("{} {{\n{mode}\n}}\n", world.text_of("app.log"));
            fs::write(world.path("rotate.conf"), config).unwrap();
            let mut written = 0;
            for round in 0..ROUNDS {
                world.append("app.log", lines(written));
                written += LINES;
                // What rotation destroys must have been read.
                if !is_left || round % 2 == 0 {
                    world.scan_and_commit();
                }
                if mode.contains("dateext") {
                    // Names have seconds.
                    let second = clock::file_time_us() / 1_000_000;
                    while clock::file_time_us() / 1_000_000 == second {
                        std::thread::yield_now();
                    }
                }
                let state = world.text_of("state");
                run(
                    "logrotate",
                    &["-f", "-s", &state, &world.text_of("rotate.conf")],
                );
                rotations += 1;
                world.scan_and_commit();
            }
            for _ in 0..3 {
                world.scan_and_commit();
            }
            assert_eq!(
                world.matched(),
                written / 2,
                "{path} {mode}: {:?}",
                world.gaps
            );
            assert_eq!(world.gaps, [], "{path} {mode}");
        }
    }
    assert!(rotations > 200);
}

#[test]
#[ignore = "needs rsync and sed"]
fn only_lines_that_were_not_read_count_through_rsync_and_sed() {
    for path in ["app.log", "app.log*"] {
        let mut world = World::new(path, "ERROR");
        world.scan_and_commit();
        let mut written = 0;
        for _ in 0..ROUNDS {
            let before = fs::read(world.path("app.log")).unwrap_or_default();
            let new = lines(written);
            written += LINES;
            fs::write(world.path("sent"), [before, new.into_bytes()].concat()).unwrap();
            run(
                "rsync",
                &["-c", &world.text_of("sent"), &world.text_of("app.log")],
            );
            world.scan_and_commit();
            run(
                "sed",
                &["-i", "/INFO request/{0~5d}", &world.text_of("app.log")],
            );
            world.scan_and_commit();
        }
        assert_eq!(world.matched(), written / 2, "{path}: {:?}", world.gaps);
        assert_eq!(world.gaps, [], "{path}");
    }
}
