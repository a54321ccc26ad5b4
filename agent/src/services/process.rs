//! Whether a process of a name runs. A look at all of `/proc` finds the processes; from then on the
//! kernel reports when one of those ends (`pidfd_open(2)`), or, where it can't, those few are looked at
//! twice a second. When too few of them are left, `/proc` is looked at again, but only at processes
//! that are new in it ([`Newcomers`]). Where the policy counts processes (`min`, `max`) all of
//! `/proc` is looked at every half minute besides.

use std::{cell::OnceCell, collections::HashSet, ffi::OsString, time::Duration};

use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::{Finding, restarts::Restarts};
use crate::platform;

/// Most processes that are kept for one name: where only one is needed,
const KEPT: usize = 8;
/// and where they are counted.
const KEPT_COUNTED: usize = 1_024;
/// How often the number of processes is looked at while enough run, milliseconds.
const RECOUNT_MS: i64 = 30_000;
/// How often processes are listed: while the kernel reports each one's end,
const CHECK_NOTICED: Duration = Duration::from_secs(5);
/// while one is missing and may come back,
const CHECK_MISSING: Duration = Duration::from_secs(2);
/// and while the kernel does not tell of some.
const CHECK_ALONE: Duration = Duration::from_millis(500);

/// A name that is watched.
#[derive(Debug)]
pub(super) struct ProcessWatch {
    name: String,
    min: usize,
    max: Option<usize>,
    kept: Vec<KnownProcess>,
    restarts: Restarts,
    /// When all of `/proc` was last looked at for it.
    counted_ms: Option<i64>,
    /// Whether enough of them ran then.
    enough_before: bool,
}

/// A process; the start time distinguishes it from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KnownProcess {
    pid: u32,
    start_ticks: u64,
    /// Its end will be reported.
    noticed: bool,
}

impl ProcessWatch {
    pub(super) fn new(name: &str, min: Option<u32>, max: Option<u32>) -> Self {
        Self {
            name: name.to_owned(),
            min: min.map_or(1, |min| min as usize).min(KEPT_COUNTED),
            max: max.map(|max| max as usize),
            kept: Vec::new(),
            restarts: Restarts::default(),
            counted_ms: None,
            enough_before: false,
        }
    }

    fn is_counted(&self) -> bool {
        self.min > 1 || self.max.is_some()
    }

    fn keeps(&self) -> usize {
        if self.is_counted() {
            KEPT_COUNTED
        } else {
            KEPT
        }
    }

    /// How it is.
    pub(super) fn finding(&self, now_ms: i64) -> Finding {
        let count = self.kept.len();
        let many = |count: usize| format!("{count} process{}", if count == 1 { "" } else { "es" });
        let (status, detail) = match self.max {
            _ if self.restarts.is_loop(now_ms) => (
                ServiceStatus::RestartLoop,
                Some(super::loop_text(self.restarts.recent(now_ms))),
            ),
            _ if count == 0 && self.min > 0 => (
                ServiceStatus::Stopped,
                Some("no process of this name".to_owned()),
            ),
            _ if count < self.min => (
                ServiceStatus::Stopped,
                Some(format!(
                    "{}, at least {} are asked for",
                    many(count),
                    self.min
                )),
            ),
            Some(max) if count > max => (
                ServiceStatus::Failed,
                Some(format!("{}, at most {max} are asked for", many(count))),
            ),
            _ if self.is_counted() => (ServiceStatus::Running, Some(many(count))),
            _ => (ServiceStatus::Running, None),
        };
        Finding { status, detail }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn has_enough(&self) -> bool {
        self.kept.len() >= self.min
    }

    fn wants_scan(&self, now_ms: i64) -> bool {
        let stale = self.counted_ms.is_none_or(|at| now_ms - at >= RECOUNT_MS);
        !self.has_enough() || (self.is_counted() && stale)
    }

    fn comm(&self) -> &str {
        &self.name[..self.name.floor_char_boundary(platform::PROCESS_NAME_BYTES)]
    }
}

/// Tells the processes that a look need not repeat. While a watched process is missing, `/proc` is
/// looked at every two seconds, and most of that time would go into names that were read before.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    /// Seen in the last look,
    last: HashSet<u32>,
    /// and of these, those whose name was read in a look before too. A program is started by `fork`
    /// and then `execve`, which changes the name: what was looked at just between them is looked at
    /// once more.
    settled: HashSet<u32>,
    /// When all were looked at, milliseconds of the boot-time clock.
    full_ms: Option<i64>,
}

impl Newcomers {
    /// Begins a look. All are looked at in the first one, when asked for, and every half minute, as a
    /// number may come to stand for another process.
    fn begin(&mut self, now_ms: i64, all: bool) {
        if all || self.full_ms.is_none_or(|at| now_ms - at >= RECOUNT_MS) {
            self.full_ms = Some(now_ms);
            self.last.clear();
            self.settled.clear();
        }
    }

    /// Whether the name of this one is to be read.
    fn is_new(&self, pid: u32) -> bool {
        !self.settled.contains(&pid)
    }

    /// Ends a look that saw these processes.
    fn end(&mut self, seen: HashSet<u32>) {
        self.settled = seen.intersection(&self.last).copied().collect();
        self.last = seen;
    }
}

/// When to look again.
pub(super) fn check_after(watches: &[ProcessWatch]) -> Duration {
    let all_noticed = |watch: &ProcessWatch| watch.kept.iter().all(|known| known.noticed);
    if !watches.iter().all(all_noticed) {
        CHECK_ALONE
    } else if watches.iter().any(|watch| !watch.has_enough()) {
        CHECK_MISSING
    } else {
        CHECK_NOTICED
    }
}

/// Looks at the kept processes, and at those of `/proc` if too few of a name run. `notice` asks to be
/// notified of a process's end, and returns whether that will be so. `now_ms` is of the boot-time clock.
pub(super) fn check(
    watches: &mut [ProcessWatch],
    newcomers: &mut Newcomers,
    notice: &dyn Fn(u32) -> bool,
    now_ms: i64,
) {
    for watch in watches.iter_mut() {
        watch
            .kept
            .retain(|known| platform::start_of_process(known.pid) == Some(known.start_ticks));
    }
    if !watches.iter().any(|watch| watch.wants_scan(now_ms)) {
        return;
    }
    let all_gone: Vec<bool> = watches.iter().map(|watch| watch.kept.is_empty()).collect();
    // One that died may have left others of its name, which were passed over while it was enough;
    // and counting is for all.
    let all = watches.iter().any(|watch| {
        watch.counted_ms.is_none()
            || watch.is_counted()
            || watch.enough_before && !watch.has_enough()
    });
    newcomers.begin(now_ms, all);
    scan(watches, newcomers, notice);
    for (watch, all_gone) in watches.iter_mut().zip(all_gone) {
        // The first look finds what runs already; after it, whatever appears was started.
        if watch.counted_ms.is_some() && all_gone && !watch.kept.is_empty() {
            watch.restarts.note(now_ms, 1);
        }
        watch.counted_ms = Some(now_ms);
        watch.enough_before = watch.has_enough();
    }
}

fn scan(watches: &mut [ProcessWatch], newcomers: &mut Newcomers, notice: &dyn Fn(u32) -> bool) {
    let mut seen = HashSet::with_capacity(newcomers.last.len());
    let mut is_wanted = |pid| {
        seen.insert(pid);
        newcomers.is_new(pid)
    };
    platform::each_process(&mut is_wanted, &mut |pid, comm| {
        let process = Process {
            pid,
            comm,
            program: OnceCell::new(),
        };
        for watch in watches.iter_mut() {
            if watch.kept.len() < watch.keeps() && process.is_named(watch) {
                let alive = platform::start_of_process(pid);
                watch.kept.extend(alive.map(|start_ticks| KnownProcess {
                    pid,
                    start_ticks,
                    noticed: notice(pid),
                }));
            }
        }
    });
    newcomers.end(seen);
}

/// A process as a look at all of `/proc` sees it.
struct Process<'a> {
    pid: u32,
    comm: &'a [u8],
    /// The file name of the program, looked up when it is first needed; `None` inside: not ours to
    /// see.
    program: OnceCell<Option<OsString>>,
}

impl Process<'_> {
    /// By `comm`, or by the file name of the program, which is known for processes of the same user.
    fn is_named(&self, watch: &ProcessWatch) -> bool {
        if watch.kept.iter().any(|known| known.pid == self.pid) {
            return false;
        }
        let comm_fits = self.comm == watch.comm().as_bytes();
        if comm_fits && watch.name.len() <= platform::PROCESS_NAME_BYTES {
            return true;
        }
        let program = self
            .program
            .get_or_init(|| platform::program_of_process(self.pid));
        match program {
            Some(program) => program.as_os_str() == watch.name.as_str(),
            // What `comm` shows has to do.
            None => comm_fits,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        process::{Child, Command, Stdio},
    };

    use super::*;

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
            check(watch, newcomers, &|_| true, at * 1_000);
            watch[0].has_enough()
        };
        at_s.iter().map(look).collect()
    }

    #[test]
    fn a_name_is_read_twice_before_it_is_passed_over_and_again_after_half_a_minute() {
        let mut soon = [ProcessWatch::new("wk-soon", None, None)];
        let mut newcomers = Newcomers::default();
        assert_eq!(looks(&mut soon, &mut newcomers, &[0]), [false]);
        let mut process = Late::start("wk-soon");
        assert_eq!(looks(&mut soon, &mut newcomers, &[2]), [false]);
        process.rename("wk-soon");
        assert_eq!(looks(&mut soon, &mut newcomers, &[4]), [true]);

        let mut late = [ProcessWatch::new("wk-late", None, None)];
        let mut newcomers = Newcomers::default();
        let mut process = Late::start("wk-late");
        assert_eq!(looks(&mut late, &mut newcomers, &[0, 2]), [false, false]);
        process.rename("wk-late");
        let found = looks(&mut late, &mut newcomers, &[4, 29, 30]);
        assert_eq!(found, [false, false, true]);
    }

    #[test]
    fn another_of_the_name_takes_the_place_of_one_that_died() {
        let name = "wk-again";
        let mut watch = [ProcessWatch::new(name, None, None)];
        let mut newcomers = Newcomers::default();
        let start = |_| {
            let mut process = Late::start(name);
            process.rename(name);
            process
        };
        let mut others: Vec<Late> = (0..=KEPT).map(start).collect();
        assert_eq!(looks(&mut watch, &mut newcomers, &[0, 2]), [true, true]);
        let kept: Vec<u32> = watch[0].kept.iter().map(|known| known.pid).collect();
        assert_eq!(kept.len(), KEPT);
        others.retain(|other| !kept.contains(&other.child.id()));
        assert_eq!(others.len(), 1);
        // The one that was passed over, at the first look after.
        assert_eq!(looks(&mut watch, &mut newcomers, &[4]), [true]);
    }
}
