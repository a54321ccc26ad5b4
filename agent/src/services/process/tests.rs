//! Processes as they come and go.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use watchkeep_shared::wire::policy::ServiceCheck;

use super::*;

fn watch(name: &str, min: Option<u32>, max: Option<u32>) -> ProcessWatch {
    let check = ServiceCheck::Process {
        name: name.to_owned(),
        min,
        max,
        in_containers: None,
    };
    ProcessWatch::of(&check).unwrap()
}

/// A shell that waits for a signal before it becomes `sleep` under another name.
struct Late {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Late {
    fn start(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(name);
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = Command::new("/bin/sh")
            .args(["-c", "echo ready; read go; exec \"$0\" 600"])
            .arg(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Self { child, _dir: dir }
    }

    fn rename(&mut self, name: &str) {
        self.child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let comm = format!("/proc/{}/comm", self.child.id());
        while std::fs::read_to_string(&comm).unwrap().trim_end() != name {
            std::thread::yield_now();
        }
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks at these instants; whether it runs after each.
fn looks(watch: &mut [ProcessWatch], newcomers: &mut Newcomers, at_s: &[i64]) -> Vec<bool> {
    let look = |at: &i64| {
        let look = Look {
            now_ms: at * 1_000,
            notice: &|_| true,
            are_hidden: &|| false,
        };
        check(watch, newcomers, &look);
        watch[0].has_enough()
    };
    at_s.iter().map(look).collect()
}

#[test]
fn a_name_is_read_twice_before_it_is_passed_over_and_again_after_half_a_minute() {
    let mut soon = [watch("wk-soon", None, None)];
    let mut newcomers = Newcomers::default();
    assert_eq!(looks(&mut soon, &mut newcomers, &[0]), [false]);
    let mut process = Late::start("wk-soon");
    assert_eq!(looks(&mut soon, &mut newcomers, &[2]), [false]);
    process.rename("wk-soon");
    assert_eq!(looks(&mut soon, &mut newcomers, &[4]), [true]);

    let mut late = [watch("wk-late", None, None)];
    let mut newcomers = Newcomers::default();
    let mut process = Late::start("wk-late");
    assert_eq!(looks(&mut late, &mut newcomers, &[0, 2]), [false, false]);
    process.rename("wk-late");
    let found = looks(&mut late, &mut newcomers, &[4, 29, 30]);
    assert_eq!(found, [false, false, true]);
}

#[test]
fn where_processes_are_hidden_none_of_a_name_is_unknown_and_one_that_is_seen_counts() {
    use ServiceStatus::{Failed, Running, Stopped, Unknown};

    let mut process = Late::start("wk-own");
    process.rename("wk-own");
    let look = |name: &str, min, max, hidden: bool| {
        let mut watches = [watch(name, min, max)];
        let look = Look {
            now_ms: 0,
            notice: &|_| true,
            are_hidden: &|| hidden,
        };
        check(&mut watches, &mut Newcomers::default(), &look);
        watches[0].finding(0).status
    };
    for (name, min, max, hidden, expected) in [
        ("wk-none", None, None, false, Stopped),
        ("wk-none", None, None, true, Unknown),
        ("wk-own", None, None, true, Running),
        ("wk-own", Some(2), None, false, Stopped),
        ("wk-own", Some(2), None, true, Unknown),
        ("wk-own", None, Some(2), false, Running),
        ("wk-own", None, Some(2), true, Unknown),
        ("wk-own", Some(0), Some(0), true, Failed),
    ] {
        assert_eq!(
            look(name, min, max, hidden),
            expected,
            "{name} {min:?} {max:?} {hidden}"
        );
    }
}

#[test]
fn another_of_the_name_takes_the_place_of_one_that_died() {
    let name = "wk-again";
    let mut watches = [watch(name, None, None)];
    let mut newcomers = Newcomers::default();
    let start = |_| {
        let mut process = Late::start(name);
        process.rename(name);
        process
    };
    let mut others: Vec<Late> = (0..=KEPT).map(start).collect();
    assert_eq!(looks(&mut watches, &mut newcomers, &[0, 2]), [true, true]);
    let kept: Vec<u32> = watches[0].kept.iter().map(|known| known.pid).collect();
    assert_eq!(kept.len(), KEPT);
    others.retain(|other| !kept.contains(&other.child.id()));
    assert_eq!(others.len(), 1);
    // The one that was passed over, at the first look after.
    assert_eq!(looks(&mut watches, &mut newcomers, &[4]), [true]);
}

/// A sleeper with these arguments, which `sh` ignores.
fn started(program: &Path, arguments: &[&str]) -> Child {
    let mut child = Command::new(program)
        .args(["-c", "echo ready; read go", "sh"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_process_is_found_by_its_command_line() {
    let check = |contains: &str| ServiceCheck::Command {
        contains: contains.to_owned(),
        min: None,
        max: None,
        in_containers: None,
    };
    let shop = check("-jar /opt/wk-shop.jar");
    let mut watches = [
        ProcessWatch::of(&shop).unwrap(),
        ProcessWatch::of(&check("-jar /opt/wk-other.jar")).unwrap(),
    ];
    let child = started(Path::new("/bin/sh"), &["-jar", "/opt/wk-shop.jar"]);
    let mut newcomers = Newcomers::default();
    assert_eq!(looks(&mut watches, &mut newcomers, &[0]), [true]);
    assert_eq!(watches[0].key(), shop.key());
    let finding = watches[1].finding(0);
    assert_eq!(finding.status, ServiceStatus::Stopped);
    let none = "no process with this in its command line";
    assert_eq!(finding.detail.as_deref(), Some(none));
    end(child);
    assert_eq!(looks(&mut watches, &mut newcomers, &[2]), [false]);
}

#[test]
fn a_program_that_was_replaced_while_it_runs_is_still_known_by_its_long_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wk-metrics-shipper-77");
    std::fs::copy("/bin/sh", &path).unwrap();
    let child = started(&path, &[]);
    std::fs::remove_file(&path).unwrap();
    let find = |name: &str| {
        let mut watches = [watch(name, None, None)];
        looks(&mut watches, &mut Newcomers::default(), &[0])
    };
    assert_eq!(find("wk-metrics-shipper-77"), [true]);
    assert_eq!(find("wk-metrics-shipper-78"), [false]);
    end(child);
}

/// In a process namespace of its own, as a container's processes are.
#[test]
fn processes_in_containers_count_only_where_the_policy_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wk-inside");
    std::fs::copy("/bin/sh", &path).unwrap();
    // For users other than root a namespace of users makes it possible.
    let mut child = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
        ])
        .arg(&path)
        .args(["-c", "echo ready; read go"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    let look = |in_containers: Option<bool>| {
        let check = ServiceCheck::Process {
            name: "wk-inside".to_owned(),
            min: None,
            max: None,
            in_containers,
        };
        let mut watches = [ProcessWatch::of(&check).unwrap()];
        looks(&mut watches, &mut Newcomers::default(), &[0]);
        watches[0].finding(0)
    };
    let outside = look(None);
    assert_eq!(outside.status, ServiceStatus::Stopped);
    let text = "no process of this name outside of containers";
    assert_eq!(outside.detail.as_deref(), Some(text));
    assert_eq!(look(Some(true)).status, ServiceStatus::Running);
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn only_what_is_news_wakes_often() {
    let known = |pid: u32, noticed: bool| KnownProcess {
        pid,
        start_ticks: 1,
        noticed,
    };
    let after = |min: u32, max: Option<u32>, noticed: u32, alone: u32| {
        let mut watch = watch("x", Some(min), max);
        watch.kept.extend((0..noticed).map(|pid| known(pid, true)));
        watch
            .kept
            .extend((0..alone).map(|pid| known(100 + pid, false)));
        check_after(&[watch])
    };
    assert_eq!(after(1, None, 1, 0), CHECK_NOTICED);
    assert_eq!(after(1, None, 0, 1), CHECK_ALONE);
    assert_eq!(after(1, None, 7, 1), CHECK_COUNTED);
    assert_eq!(after(1, None, 0, 0), CHECK_MISSING);
    // 200 workers of a web server.
    assert_eq!(after(2, Some(500), 16, 184), CHECK_COUNTED);
}
