//! Whether a process of a name runs. A look at all of `/proc` finds the processes; from then on only
//! those few are looked at, which is cheap enough to do it twice a second. When the last one of
//! them is gone, or none was found, all of `/proc` is looked at again.

use std::fs;

/// Most processes that are kept for one name.
const KEPT: usize = 8;
/// While none runs, all of `/proc` is looked at after so many checks.
const CHECKS_BETWEEN_SCANS: u32 = 3;
/// Longest name that the kernel keeps in `comm`, bytes.
const COMM_BYTES: usize = 15;

/// A name that is watched.
#[derive(Debug)]
pub(super) struct ProcessWatch {
    name: String,
    kept: Vec<Known>,
    checks_until_scan: u32,
}

/// A process; the start time tells it from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    pid: u32,
    start_ticks: u64,
}

impl ProcessWatch {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kept: Vec::new(),
            checks_until_scan: 0,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_running(&self) -> bool {
        !self.kept.is_empty()
    }

    #[cfg(test)]
    pub(super) fn scan_next_time(&mut self) {
        self.checks_until_scan = 0;
    }

    fn comm(&self) -> &str {
        &self.name[..self.name.floor_char_boundary(COMM_BYTES)]
    }
}

/// Looks at the kept processes, and at all of `/proc` if a name needs it.
pub(super) fn check(watches: &mut [ProcessWatch]) {
    let mut scan = false;
    for watch in watches.iter_mut() {
        let before = watch.kept.len();
        watch
            .kept
            .retain(|known| start_ticks_if_alive(known.pid) == Some(known.start_ticks));
        if !watch.kept.is_empty() {
            continue;
        }
        // A restarted service has a new process at once.
        if before > 0 || watch.checks_until_scan == 0 {
            watch.checks_until_scan = CHECKS_BETWEEN_SCANS;
            scan = true;
        } else {
            watch.checks_until_scan -= 1;
        }
    }
    if scan {
        scan_all(watches);
    }
}

fn scan_all(watches: &mut [ProcessWatch]) {
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
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        for watch in watches.iter_mut() {
            if watch.kept.len() < KEPT && is_named(watch, pid, comm) {
                let alive = start_ticks_if_alive(pid);
                watch
                    .kept
                    .extend(alive.map(|start_ticks| Known { pid, start_ticks }));
            }
        }
    }
}

/// By `comm`, or by the file name of the program, which is known for processes of the same user.
fn is_named(watch: &ProcessWatch, pid: u32, comm: &[u8]) -> bool {
    if watch.kept.iter().any(|known| known.pid == pid) {
        return false;
    }
    let comm_fits = comm == watch.comm().as_bytes();
    if comm_fits && watch.name.len() <= COMM_BYTES {
        return true;
    }
    match fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => exe
            .file_name()
            .is_some_and(|name| name == watch.name.as_str()),
        // Not ours to see: what `comm` shows has to do.
        Err(_) => comm_fits,
    }
}

/// Field 22 of `/proc/PID/stat` (`proc_pid_stat(5)`); `None` if there is no such process or it is
/// dead and only waits to be collected.
fn start_ticks_if_alive(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from its end.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
