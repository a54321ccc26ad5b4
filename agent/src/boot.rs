//! Which boot this is, what is known about the one before, and whether the machine is going down.

use std::{
    fs,
    path::{Path, PathBuf},
};

use watchkeep_shared::{
    BootId,
    wire::heartbeat::{Clocks, Event, GoodbyeReason, PreviousBoot},
};

use crate::{platform, status::Status};

/// What a failure to read the boot's identity is about.
const BOOT_ID: &str = "the boot's identity";
const WTMP: &str = "/var/log/wtmp";
/// A hook for tests that play a reboot: a UUID that stands for the kernel's boot id.
const TEST_BOOT_ID: &str = "WATCHKEEP_TEST_BOOT_ID";

/// Why the boot can't be told.
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

/// The first event of this process: how the process before it ended, and, if the machine booted
/// since, the last sign of life of the boot before.
pub fn started(before: Option<&Status>, boot: BootId, now: Clocks) -> Event {
    let previous_boot = before
        .filter(|before| before.boot != boot)
        .map(|before| PreviousBoot {
            boot: Some(before.boot),
            last_seen_wall_ms: Some(last_seen(before, now)),
        });
    Event::AgentStarted {
        clean_stop: before.map(|before| before.clean_stop),
        previous_boot,
    }
}

/// The latest of the agent's own last word and the system's last record before this boot: of a log-in, on
/// Windows in the Event Log.
fn last_seen(before: &Status, now: Clocks) -> i64 {
    let booted_wall_ms = now.wall_ms - now.boot_ms;
    let recorded = fs::read(WTMP)
        .ok()
        .and_then(|wtmp| last_record_before(&wtmp, booted_wall_ms));
    recorded
        .into_iter()
        .chain(platform::last_record_before(booted_wall_ms))
        .fold(before.written_wall_ms, i64::max)
}

/// The time of the last record of a `wtmp(5)` file that lies before `limit_ms`, milliseconds. The
/// record's form is glibc's on Linux with 32-bit times: 384 bytes, seconds at offset 340.
fn last_record_before(wtmp: &[u8], limit_ms: i64) -> Option<i64> {
    const RECORD_BYTES: usize = 384;
    const SECONDS_AT: usize = 340;
    wtmp.rchunks_exact(RECORD_BYTES).find_map(|record| {
        let seconds = record.get(SECONDS_AT..SECONDS_AT + 4)?;
        let ms = i64::from(u32::from_le_bytes(seconds.try_into().ok()?)) * 1_000;
        (ms > 0 && ms < limit_ms).then_some(ms)
    })
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
    fn the_last_login_record_before_this_boot_is_found() {
        let wtmp = [record(7, 1, 100), record(7, 1, 200), record(2, 0, 300)].concat();
        assert_eq!(last_record_before(&wtmp, 250_000), Some(200_000));
        assert_eq!(last_record_before(&wtmp, 1_000), None);
        assert_eq!(last_record_before(b"short", 1_000), None);
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
