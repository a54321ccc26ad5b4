//! Whether a process of a name runs. A look at all of `/proc` finds the processes; from then on the
//! kernel tells when one of those ends (`pidfd_open(2)`), or, where it can't, those few are looked at
//! twice a second. When too few of them are left, all of `/proc` is looked at again. Where the
//! policy counts processes (`min`, `max`) all of `/proc` is looked at every half minute besides.

use std::{cell::OnceCell, ffi::OsString, time::Duration};

use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::{Finding, restarts::Restarts};
use crate::platform;

/// Most processes that are kept for one name: where only one is needed,
const KEPT: usize = 8;
/// and where they are counted.
const KEPT_COUNTED: usize = 1_024;
/// How often the number of processes is looked at while enough run, milliseconds.
const RECOUNT_MS: i64 = 30_000;
/// How often processes are looked at: while the kernel tells of each one's end,
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
    kept: Vec<Known>,
    restarts: Restarts,
    /// When all of `/proc` was last looked at for it.
    counted_ms: Option<i64>,
}

/// A process; the start time tells it from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    pid: u32,
    start_ticks: u64,
    /// Its end will be told.
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

/// Looks at the kept processes, and at all of `/proc` if too few of a name run. `notice` asks to be
/// told of a process's end, and returns whether that will be so. `now_ms` is of the boot-time clock.
pub(super) fn check(watches: &mut [ProcessWatch], notice: &dyn Fn(u32) -> bool, now_ms: i64) {
    for watch in watches.iter_mut() {
        watch
            .kept
            .retain(|known| platform::start_of_process(known.pid) == Some(known.start_ticks));
    }
    if !watches.iter().any(|watch| watch.wants_scan(now_ms)) {
        return;
    }
    let all_gone: Vec<bool> = watches.iter().map(|watch| watch.kept.is_empty()).collect();
    scan_all(watches, notice);
    for (watch, all_gone) in watches.iter_mut().zip(all_gone) {
        // The first look finds what runs already; after it, whatever appears was started.
        if watch.counted_ms.is_some() && all_gone && !watch.kept.is_empty() {
            watch.restarts.note(now_ms, 1);
        }
        watch.counted_ms = Some(now_ms);
    }
}

fn scan_all(watches: &mut [ProcessWatch], notice: &dyn Fn(u32) -> bool) {
    platform::each_process(&mut |pid, comm| {
        let process = Process {
            pid,
            comm,
            program: OnceCell::new(),
        };
        for watch in watches.iter_mut() {
            if watch.kept.len() < watch.keeps() && process.is_named(watch) {
                let alive = platform::start_of_process(pid);
                watch.kept.extend(alive.map(|start_ticks| Known {
                    pid,
                    start_ticks,
                    noticed: notice(pid),
                }));
            }
        }
    });
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
