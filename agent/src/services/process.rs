//! Whether a process runs, by its name or its command line. A look at all of `/proc` finds the processes; from then on the
//! kernel reports when one of those ends (`pidfd_open(2)`), or, where it can't, those few are looked at
//! twice a second. When too few of them are left, `/proc` is looked at again, but only at processes
//! that are new in it ([`Newcomers`]). Where the policy counts processes (`min`, `max`) all of
//! `/proc` is looked at every half minute besides. Processes inside of containers do not count,
//! unless the policy says so: they are others' of the same name.

mod matching;

use std::{collections::HashSet, time::Duration};

use watchkeep_shared::wire::{heartbeat::ServiceStatus, policy::ServiceCheck};

use self::matching::{Candidate, Wanted};

use super::{Finding, restarts::Restarts};
use crate::platform;

/// Most processes that are kept for one name: where only one is needed,
const KEPT: usize = 8;
/// and where they are counted.
const KEPT_COUNTED: usize = 1_024;
/// How often the number of processes is looked at while enough run, milliseconds.
const RECOUNT_MS: i64 = 30_000;
/// Most processes of a name whose ends the kernel is asked to report: of more, one that ends is
/// seldom news.
const NOTICED: usize = 16;
/// How often processes are looked at: while the kernel reports each end that is news,
const CHECK_NOTICED: Duration = Duration::from_secs(30);
/// while there are more of a name than the kernel is asked about,
const CHECK_COUNTED: Duration = Duration::from_secs(5);
/// while one is missing and may come back,
const CHECK_MISSING: Duration = Duration::from_secs(2);
/// and while the kernel does not report the end of the only one.
const CHECK_ALONE: Duration = Duration::from_millis(500);

/// What is watched.
#[derive(Debug)]
pub(super) struct ProcessWatch {
    wanted: Wanted,
    /// Whether processes inside of containers count too.
    in_containers: bool,
    /// Whether one was seen there that does not count.
    seen_in_container: bool,
    min: usize,
    max: Option<usize>,
    kept: Vec<KnownProcess>,
    restarts: Restarts,
    /// When all of `/proc` was last looked at for it, and what that showed.
    last_scan: Option<Scan>,
}

#[derive(Clone, Copy, Debug)]
struct Scan {
    /// Of the boot-time clock.
    at_ms: i64,
    /// Whether enough of them ran.
    had_enough: bool,
    /// Whether processes of other users were hidden.
    others_hidden: bool,
}

/// What a look at processes works with.
pub(super) struct Look<'a> {
    /// Of the boot-time clock.
    pub(super) now_ms: i64,
    /// Asks to be notified of a process's end; whether that will be so.
    pub(super) notice: &'a dyn Fn(u32) -> bool,
    /// Whether processes of other users are hidden.
    pub(super) are_hidden: &'a dyn Fn() -> bool,
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
    /// For an item of a policy; `None` if it is of another kind.
    pub(super) fn of(check: &ServiceCheck) -> Option<Self> {
        let (wanted, min, max, in_containers) = match check {
            ServiceCheck::Process {
                name,
                min,
                max,
                in_containers,
            } => (Wanted::Name(name.clone()), min, max, in_containers),
            ServiceCheck::Command {
                contains,
                min,
                max,
                in_containers,
            } => (Wanted::Command(contains.clone()), min, max, in_containers),
            _ => return None,
        };
        Some(Self {
            wanted,
            in_containers: in_containers.unwrap_or(false),
            seen_in_container: false,
            min: min.map_or(1, |min| min as usize).min(KEPT_COUNTED),
            max: max.map(|max| max as usize),
            kept: Vec::new(),
            restarts: Restarts::default(),
            last_scan: None,
        })
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
            max if self.may_have_more(count, max) => {
                return super::no_access("processes of other users are hidden (hidepid of /proc)");
            }
            _ if count == 0 && self.min > 0 => (ServiceStatus::Stopped, Some(self.none())),
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

    /// Whether processes that can't be seen would make a difference.
    fn may_have_more(&self, count: usize, max: Option<usize>) -> bool {
        let others_hidden = self.last_scan.is_some_and(|scan| scan.others_hidden);
        others_hidden && (count < self.min || max.is_some_and(|max| count <= max))
    }

    fn none(&self) -> String {
        let what = match self.wanted {
            Wanted::Name(_) => "no process of this name",
            Wanted::Command(_) => "no process with this in its command line",
        };
        let but = if self.seen_in_container {
            " outside of containers"
        } else {
            ""
        };
        format!("{what}{but}")
    }

    /// The key under which it is reported.
    pub(super) fn key(&self) -> String {
        match &self.wanted {
            Wanted::Name(name) => format!("process:{name}"),
            Wanted::Command(text) => format!("command:{text}"),
        }
    }

    fn has_enough(&self) -> bool {
        self.kept.len() >= self.min
    }

    fn wants_scan(&self, now_ms: i64) -> bool {
        let is_stale = |scan: Scan| now_ms - scan.at_ms >= RECOUNT_MS;
        let stale = self.last_scan.is_none_or(is_stale);
        !self.has_enough() || (self.is_counted() && stale)
    }

    /// When to look again.
    fn check_after(&self) -> Duration {
        if !self.has_enough() {
            CHECK_MISSING
        } else if self.kept.iter().all(|known| known.noticed) {
            CHECK_NOTICED
        } else if self.kept.len() == 1 {
            CHECK_ALONE
        } else {
            CHECK_COUNTED
        }
    }

    /// Takes a process that was not known, if it is one of these.
    fn take(&mut self, candidate: &Candidate<'_>, notice: &dyn Fn(u32) -> bool) {
        let is_known = self.kept.iter().any(|known| known.pid == candidate.pid);
        if is_known || self.kept.len() >= self.keeps() || !candidate.is(&self.wanted) {
            return;
        }
        if !self.in_containers && candidate.is_in_container() {
            self.seen_in_container = true;
            return;
        }
        let Some(start_ticks) = platform::start_of_process(candidate.pid) else {
            return;
        };
        let noticed = self.kept.len() < NOTICED && notice(candidate.pid);
        self.kept.push(KnownProcess {
            pid: candidate.pid,
            start_ticks,
            noticed,
        });
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
    /// number may come to stand for another process. Returns whether it is a look at all.
    fn begin(&mut self, now_ms: i64, all: bool) -> bool {
        let all = all || self.full_ms.is_none_or(|at| now_ms - at >= RECOUNT_MS);
        if all {
            self.full_ms = Some(now_ms);
            self.last.clear();
            self.settled.clear();
        }
        all
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
    let soonest = watches.iter().map(ProcessWatch::check_after).min();
    soonest.unwrap_or(CHECK_NOTICED)
}

/// Looks at the kept processes, and at those of `/proc` if too few of a name run.
pub(super) fn check(watches: &mut [ProcessWatch], newcomers: &mut Newcomers, look: &Look<'_>) {
    let now_ms = look.now_ms;
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
        let lost_some = |scan: Scan| scan.had_enough && !watch.has_enough();
        watch.is_counted() || watch.last_scan.is_none_or(lost_some)
    });
    if newcomers.begin(now_ms, all) {
        for watch in watches.iter_mut() {
            watch.seen_in_container = false;
        }
    }
    scan(watches, newcomers, look.notice);
    let others_hidden = (look.are_hidden)();
    for (watch, all_gone) in watches.iter_mut().zip(all_gone) {
        // The first look finds what runs already; after it, whatever appears was started.
        if watch.last_scan.is_some() && all_gone && !watch.kept.is_empty() {
            watch.restarts.note(now_ms, 1);
        }
        watch.last_scan = Some(Scan {
            at_ms: now_ms,
            had_enough: watch.has_enough(),
            others_hidden,
        });
    }
}

fn scan(watches: &mut [ProcessWatch], newcomers: &mut Newcomers, notice: &dyn Fn(u32) -> bool) {
    let mut seen = HashSet::with_capacity(newcomers.last.len());
    let mut is_wanted = |pid| {
        seen.insert(pid);
        newcomers.is_new(pid)
    };
    platform::each_process(&mut is_wanted, &mut |pid, comm| {
        let candidate = Candidate::new(pid, comm);
        for watch in watches.iter_mut() {
            watch.take(&candidate, notice);
        }
    });
    newcomers.end(seen);
}

#[cfg(test)]
mod tests;
