//! Whether a process of a name runs. A look at all of `/proc` finds the processes; from then on the
//! kernel tells when one of those ends (`pidfd_open(2)`), or, where it can't, those few are looked at
//! twice a second. When the last one of them is gone, or none was found, all of `/proc` is looked
//! at again.

use std::{cell::OnceCell, ffi::OsString, fs, time::Duration};

use crate::files;

/// Most processes that are kept for one name.
const KEPT: usize = 8;
/// How often processes are looked at: while the kernel tells of each one's end,
const CHECK_NOTICED: Duration = Duration::from_secs(5);
/// while one is missing and may come back,
const CHECK_MISSING: Duration = Duration::from_secs(2);
/// and while the kernel does not tell of some.
const CHECK_ALONE: Duration = Duration::from_millis(500);
/// Longest name that the kernel keeps in `comm`, bytes.
const COMM_BYTES: usize = 15;

/// A name that is watched.
#[derive(Debug)]
pub(super) struct ProcessWatch {
    name: String,
    kept: Vec<Known>,
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
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kept: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_running(&self) -> bool {
        !self.kept.is_empty()
    }

    fn comm(&self) -> &str {
        &self.name[..self.name.floor_char_boundary(COMM_BYTES)]
    }
}

/// When to look again.
pub(super) fn check_after(watches: &[ProcessWatch]) -> Duration {
    let all_noticed = |watch: &ProcessWatch| watch.kept.iter().all(|known| known.noticed);
    if !watches.iter().all(all_noticed) {
        CHECK_ALONE
    } else if watches.iter().any(|watch| !watch.is_running()) {
        CHECK_MISSING
    } else {
        CHECK_NOTICED
    }
}

/// Looks at the kept processes, and at all of `/proc` if none of a name runs. `notice` asks to be
/// told of a process's end, and returns whether that will be so.
pub(super) fn check(watches: &mut [ProcessWatch], notice: &dyn Fn(u32) -> bool) {
    for watch in watches.iter_mut() {
        watch
            .kept
            .retain(|known| start_ticks_if_alive(known.pid) == Some(known.start_ticks));
    }
    if watches.iter().any(|watch| !watch.is_running()) {
        scan_all(watches, notice);
    }
}

fn scan_all(watches: &mut [ProcessWatch], notice: &dyn Fn(u32) -> bool) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(comm) = fs::read(format!("/proc/{pid}/comm")) else {
            continue;
        };
        let process = Process {
            pid,
            comm: comm.strip_suffix(b"\n").unwrap_or(&comm),
            program: OnceCell::new(),
        };
        for watch in watches.iter_mut() {
            if watch.kept.len() < KEPT && process.is_named(watch) {
                let alive = start_ticks_if_alive(pid);
                watch.kept.extend(alive.map(|start_ticks| Known {
                    pid,
                    start_ticks,
                    noticed: notice(pid),
                }));
            }
        }
    }
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
        if comm_fits && watch.name.len() <= COMM_BYTES {
            return true;
        }
        let program = self.program.get_or_init(|| {
            let link = fs::read_link(format!("/proc/{}/exe", self.pid)).ok()?;
            link.file_name().map(ToOwned::to_owned)
        });
        match program {
            Some(program) => program.as_os_str() == watch.name.as_str(),
            // What `comm` shows has to do.
            None => comm_fits,
        }
    }
}

/// Field 22 of `/proc/PID/stat` (`proc_pid_stat(5)`); `None` if there is no such process or it is
/// dead and only waits to be collected.
fn start_ticks_if_alive(pid: u32) -> Option<u64> {
    let stat = files::read_virtual(&format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from its end.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
