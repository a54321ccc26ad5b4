//! The collector seen from outside: its processor time and memory from `/proc`, its store's size.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

/// `USER_HZ`: the unit of processor times in `/proc/PID/stat` (proc(5)), 100 on every Linux that
/// Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process's use of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Usage {
    /// User and system time of all its threads so far, seconds.
    pub cpu_s: f64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
}

/// Reads a process's usage.
pub fn usage(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))
    };
    let cpu_s = cpu_seconds(&read("stat")?).context("/proc/PID/stat has an unknown form")?;
    let rss_bytes = rss_bytes(&read("status")?).context("/proc/PID/status has no VmRSS")?;
    Ok(Usage { cpu_s, rss_bytes })
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The command, in parentheses, may itself hold blanks and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn rss_bytes(status: &str) -> Option<u64> {
    Some(kib_line(status, "VmRSS:")? * 1_024)
}

/// The most memory that a process ever had resident, bytes.
pub fn peak_rss_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    Ok(kib_line(&status, "VmHWM:").context("/proc/PID/status has no VmHWM")? * 1_024)
}

fn kib_line(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// What a small, steady program costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Footprint {
    /// Time on a processor so far, over all its threads, milliseconds.
    pub cpu_ms: f64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Its share of resident memory, bytes: pages shared by n programs count for an nth.
    pub pss_bytes: u64,
}

/// Reads a program's footprint. Its processor time is exact (the scheduler's own account, in
/// nanoseconds), as long as no thread of it has ended.
pub fn footprint(pid: u32) -> Result<Footprint> {
    let tasks = format!("/proc/{pid}/task");
    let mut cpu_ns = 0;
    for task in std::fs::read_dir(&tasks).with_context(|| format!("can't read {tasks}"))? {
        let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = schedstat.split(' ').next().unwrap_or_default();
        cpu_ns += first
            .parse::<u64>()
            .context("schedstat begins with nanoseconds")?;
    }
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Footprint {
        cpu_ms: cpu_ns as f64 / 1e6,
        rss_bytes: kib_line(&rollup, "Rss:").context("smaps_rollup has no Rss")? * 1_024,
        pss_bytes: kib_line(&rollup, "Pss:").context("smaps_rollup has no Pss")? * 1_024,
    })
}

/// Bytes of a SQLite store on disk: the database, its write-ahead log, nothing else.
pub fn sqlite_bytes(path: &Path) -> Result<u64> {
    let size = |path: &Path| std::fs::metadata(path).map(|meta| meta.len());
    let main = size(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    Ok(main + size(&PathBuf::from(wal)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 5 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(
            rss_bytes("VmHWM:\t 9 kB\nVmRSS:\t    12 kB\n"),
            Some(12_288)
        );
    }

    #[test]
    fn this_process_has_a_footprint() {
        let footprint = footprint(std::process::id()).unwrap();
        assert!(footprint.cpu_ms > 0.0);
        assert!(footprint.pss_bytes > 0 && footprint.pss_bytes <= footprint.rss_bytes);
    }

    #[test]
    fn this_process_has_a_usage() {
        assert!(usage(std::process::id()).unwrap().rss_bytes > 100_000);
    }
}
