//! Which boot this is, what is known about the one before, and whether the machine is going down.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use watchkeep_shared::{
    BootId,
    wire::heartbeat::{Clocks, Event, GoodbyeReason, PreviousBoot},
};

use crate::{platform, status::Status};

/// What a failure to read the boot's identity is about.
const BOOT_ID: &str = "the boot's identity";
const WTMP: &str = "/var/log/wtmp";
/// The journal is asked of the boot before with this program,
const JOURNALCTL: &str = "journalctl";
/// which has so long to answer: the agent waits for it before it starts.
const JOURNAL_ANSWERS: Duration = Duration::from_secs(5);
/// A hook for tests that play a reboot: a UUID in place of the kernel's boot id.
const TEST_BOOT_ID: &str = "WATCHKEEP_TEST_BOOT_ID";

/// Why the boot is not known.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel does not say.
    #[error("{path}: {source}")]
    Read {
        /// The file or variable.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a UUID.
    #[error("{from} holds \"{text}\", which is not a boot id (a UUID)")]
    Form {
        /// Where it was read.
        from: &'static str,
        /// What was found.
        text: String,
    },
}

/// The running boot.
pub fn boot_id() -> Result<BootId, BootError> {
    let (from, text) = match std::env::var(TEST_BOOT_ID) {
        Ok(text) => (TEST_BOOT_ID, text),
        Err(_) => (
            BOOT_ID,
            platform::boot_id().map_err(|source| BootError::Read {
                path: BOOT_ID.into(),
                source,
            })?,
        ),
    };
    let text = text.trim().to_owned();
    text.parse().map_err(|_| BootError::Form { from, text })
}

/// What is known when the agent starts.
#[derive(Debug)]
pub struct Start {
    /// The running boot.
    pub boot: BootId,
    /// What the process before left.
    before: Option<Status>,
    /// When the journal had its last entry of the boot before.
    journal_wall_ms: Option<i64>,
}

impl Start {
    /// Looks; waits for the journal if the machine booted since the process before.
    pub async fn look(state_dir: &Path) -> Result<Self, BootError> {
        let boot = boot_id()?;
        let before = Status::read(state_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "the status of the process before can't be read");
            None
        });
        let journal_wall_ms = last_in_journal(before.as_ref(), boot).await;
        Ok(Self {
            boot,
            before,
            journal_wall_ms,
        })
    }

    /// The first event of this process: how the process before it ended, and, if the machine booted
    /// since, the last sign of life of the boot before.
    pub fn event(&self, now: Clocks) -> Event {
        let before = self.before.as_ref();
        let previous_boot = before
            .filter(|before| before.boot != self.boot)
            .map(|before| PreviousBoot {
                boot: Some(before.boot),
                last_seen_wall_ms: Some(last_seen(before, now, self.journal_wall_ms)),
            });
        Event::AgentStarted {
            clean_stop: before.map(|before| before.clean_stop),
            previous_boot,
        }
    }
}

/// When the last entry of the boot before was written to the systemd journal, by the wall clock: only
/// if the process that left `before` ran in another boot. `None` without a journal that outlives a
/// boot.
async fn last_in_journal(before: Option<&Status>, boot: BootId) -> Option<i64> {
    let before = before.filter(|before| before.boot != boot)?;
    let asked = ask_journal(OsStr::new(JOURNALCTL), before.boot);
    let answer = tokio::time::timeout(JOURNAL_ANSWERS, asked).await;
    answer.ok().flatten()
}

async fn ask_journal(program: &OsStr, boot: BootId) -> Option<i64> {
    let boot = boot.to_string().replace('-', "");
    let mut command = Command::new(program);
    command
        .args(["--output=json", "--quiet", "--no-pager", "--lines=1"])
        .arg(format!("_BOOT_ID={boot}"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let printed = command.output().await.ok()?.stdout;
    let entry: serde_json::Value = serde_json::from_slice(&printed).ok()?;
    let wall_us: i64 = entry.get("__REALTIME_TIMESTAMP")?.as_str()?.parse().ok()?;
    Some(wall_us / 1_000)
}

/// The latest of the agent's own last word and the system's last records before this boot: of a log-in,
/// in the journal, on Windows in the Event Log.
fn last_seen(before: &Status, now: Clocks, journal_wall_ms: Option<i64>) -> i64 {
    let booted_wall_ms = now.wall_ms - now.boot_ms;
    let recorded = fs::read(WTMP)
        .ok()
        .and_then(|wtmp| last_record(&wtmp, before.written_wall_ms, booted_wall_ms));
    recorded
        .into_iter()
        .chain(platform::last_record_before(booted_wall_ms))
        .chain(journal_wall_ms.filter(|at| *at < booted_wall_ms))
        .fold(before.written_wall_ms, i64::max)
}

/// The time of the last record in a `wtmp(5)` file of the boot in which the agent wrote at
/// `written_ms`, if it lies before `limit_ms`; milliseconds. Records are in the order of their
/// writing: whatever follows the next boot's record is not of that boot. That record alone often
/// looks earlier than the boot itself, since `wtmp` cuts times to whole seconds. The record's form is
/// glibc's on Linux with 32-bit times: 384 bytes, seconds at offset 340.
fn last_record(wtmp: &[u8], written_ms: i64, limit_ms: i64) -> Option<i64> {
    const RECORD_BYTES: usize = 384;
    const SECONDS_AT: usize = 340;
    const BOOT_TIME: [u8; 2] = [2, 0];
    wtmp.chunks_exact(RECORD_BYTES)
        .filter_map(|record| {
            let seconds = record.get(SECONDS_AT..SECONDS_AT + 4)?;
            let ms = i64::from(u32::from_le_bytes(seconds.try_into().ok()?)) * 1_000;
            Some((record[..2] == BOOT_TIME, ms))
        })
        .take_while(|(is_boot, ms)| !is_boot || *ms <= written_ms)
        .map(|(_, ms)| ms)
        .filter(|ms| *ms > 0 && *ms < limit_ms)
        .last()
}

/// Why the agent is being stopped, as far as the system shows it.
pub fn goodbye_reason() -> GoodbyeReason {
    let going_down = platform::is_going_down()
        || Path::new("/run/systemd/shutdown/scheduled").exists()
        || Path::new("/run/nologin").exists()
        || fs::read("/run/utmp").is_ok_and(|utmp| is_shutdown_runlevel(&utmp));
    if going_down {
        GoodbyeReason::Shutdown
    } else if platform::is_replaced() {
        GoodbyeReason::Upgrade
    } else {
        GoodbyeReason::Stop
    }
}

/// Whether the last run-level record of a `utmp(5)` file says halt (0) or reboot (6).
fn is_shutdown_runlevel(utmp: &[u8]) -> bool {
    const RECORD_BYTES: usize = 384;
    const RUN_LVL: [u8; 2] = [1, 0];
    utmp.chunks_exact(RECORD_BYTES)
        .rfind(|record| record[..2] == RUN_LVL)
        // The run level is the low byte of the record's process id.
        .is_some_and(|record| matches!(record[4], b'0' | b'6'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, pid: u8, seconds: u32) -> Vec<u8> {
        let mut record = vec![0; 384];
        record[0] = kind;
        record[4] = pid;
        record[340..344].copy_from_slice(&seconds.to_le_bytes());
        record
    }

    #[test]
    fn the_last_record_of_the_boot_before_is_found() {
        let wtmp = [
            record(2, 0, 50),
            record(7, 1, 100),
            record(7, 1, 200),
            record(2, 0, 300),
            record(7, 1, 310),
        ]
        .concat();
        let last = |written_ms, limit_ms| last_record(&wtmp, written_ms, limit_ms);
        // The boot's own record says 300 s, cut to the second: 0.6 s before the kernel's start.
        assert_eq!(last(150_000, 300_600), Some(200_000));
        assert_eq!(last(150_000, 150_000), Some(100_000));
        // A boot in which the agent never ran says nothing about the end of the one before.
        assert_eq!(last(150_000, 900_000), Some(200_000));
        assert_eq!(last(40_000, 300_600), None);
        assert_eq!(last_record(b"short", 0, 250_000), None);
    }

    /// Prints an entry if it is asked as `journalctl` takes it.
    #[cfg(unix)]
    #[tokio::test]
    async fn the_journal_is_asked_for_the_last_entry_of_the_boot_before() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("journalctl");
        let boot: BootId = "e3b7a7d4-2f4c-4f7e-a2d1-5c9e0b1f6a22".parse().unwrap();
        let script = "#!/bin/sh\ncase \"$*\" in\n\
            *--lines=1*_BOOT_ID=e3b7a7d42f4c4f7ea2d15c9e0b1f6a22) \
            echo '{\"__CURSOR\":\"c\",\"__REALTIME_TIMESTAMP\":\"1795305431000999\"}' ;;\nesac\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let program = program.as_os_str();
        assert_eq!(ask_journal(program, boot).await, Some(1_795_305_431_000));
        let other = "11111111-2222-4333-8444-555555555555".parse().unwrap();
        assert_eq!(ask_journal(program, other).await, None);
        let absent = dir.path().join("absent");
        assert_eq!(ask_journal(absent.as_os_str(), boot).await, None);
    }

    #[test]
    fn run_levels_zero_and_six_mean_shutdown() {
        assert!(is_shutdown_runlevel(
            &[record(1, b'5', 1), record(1, b'6', 2)].concat()
        ));
        assert!(!is_shutdown_runlevel(
            &[record(1, b'6', 1), record(1, b'5', 2)].concat()
        ));
        assert!(!is_shutdown_runlevel(&record(7, b'6', 1)));
    }
}
