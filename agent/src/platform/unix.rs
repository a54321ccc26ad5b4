//! Linux.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::OFlags,
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
    time::{ClockId, Timespec, clock_gettime},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
};
use watchkeep_shared::wire::heartbeat::Clocks;

use crate::{
    files,
    platform::{EventLog, EventLogError, EventStream, ServiceReport},
};

/// The settings file that is read if it exists.
pub const SETTINGS: &str = "/etc/watchkeep/agent.toml";
/// Where state is kept unless the settings say otherwise.
pub const STATE_DIR: &str = "/var/lib/watchkeep-agent";

/// Longest name of a process that the kernel keeps, bytes.
pub const PROCESS_NAME_BYTES: usize = 15;

/// The three clocks, read one right after the other.
pub fn clocks() -> Clocks {
    fn millis(time: Timespec) -> i64 {
        time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
    }
    Clocks {
        wall_ms: millis(clock_gettime(ClockId::Realtime)),
        mono_ms: millis(clock_gettime(ClockId::Monotonic)),
        boot_ms: millis(clock_gettime(ClockId::Boottime)),
    }
}

/// The time by which files are stamped, microseconds since the Unix epoch: that of the last tick
/// (`clock_gettime(2)`, `CLOCK_REALTIME_COARSE`).
pub fn file_time_us() -> i64 {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

/// The running boot, a UUID (`random(4)`).
pub fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
}

/// Whether the system has said that it is going down; here that is seen in files.
pub fn is_going_down() -> bool {
    false
}

/// Whether another program lies where this one was started from, or none: it was upgraded.
pub fn is_replaced() -> bool {
    // `proc_pid_exe(5)`.
    fs::read_link("/proc/self/exe").is_ok_and(|program| {
        program
            .as_os_str()
            .as_encoded_bytes()
            .ends_with(b" (deleted)")
    })
}

/// Makes `dir` and its parents, readable by the owner alone. An existing directory is left as it is.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Options under which a new file is readable by the owner alone.
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes new and renamed entries of a directory survive a power cut.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Two numbers that no other file of the machine has while this one exists.
pub fn file_numbers(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Opens a file, and says where it is: what was opened, whatever became of the path since.
pub fn open_to_read(path: &Path) -> io::Result<(File, PathBuf)> {
    // Not waiting for a writer, should it be a named pipe by now.
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    let target = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .or_else(|_| path.canonicalize())?;
    Ok((file, target))
}

/// Where a path leads, through all links.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// Reads at a place; how much, 0 at the end.
pub fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    file.read_at(buffer, at)
}

/// Reads all of `buffer`'s length at a place.
pub fn read_exact_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(buffer, at)
}

/// Writes all at a place.
pub fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    file.write_all_at(bytes, at)
}

/// Whether this process or the machine has no file handle left.
pub fn is_out_of_handles(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::MFILE.raw_os_error()) || code == Some(Errno::NFILE.raw_os_error())
}

/// Calls `with` for each process whose number `is_wanted`, with its number and name, which is cut
/// after 15 bytes.
pub fn each_process(is_wanted: &mut dyn FnMut(u32) -> bool, with: &mut dyn FnMut(u32, &[u8])) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if !is_wanted(pid) {
            continue;
        }
        // With room for more than the name and its end of line, so one read is enough.
        let mut comm = [0; PROCESS_NAME_BYTES + 2];
        let read =
            File::open(format!("/proc/{pid}/comm")).and_then(|mut file| file.read(&mut comm));
        if let Ok(length) = read {
            let comm = &comm[..length];
            with(pid, comm.strip_suffix(b"\n").unwrap_or(comm));
        }
    }
}

/// A process's name; `None` if there is none of this number.
pub fn name_of_process(pid: u32) -> Option<String> {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(comm.trim_end().to_owned())
}

/// The file name of a process's program; `None` if that is not ours to see.
pub fn program_of_process(pid: u32) -> Option<OsString> {
    let link = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    link.file_name().map(ToOwned::to_owned)
}

/// A number that distinguishes a process from a later one with the same id: field 22 of `/proc/PID/stat`
/// (`proc_pid_stat(5)`). `None` if there is no such process or it is dead and only waits to be
/// collected.
pub fn start_of_process(pid: u32) -> Option<u64> {
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

/// The end of a process, reported by the kernel (`pidfd_open(2)`).
#[derive(Debug)]
pub struct ProcessEnd(AsyncFd<OwnedFd>);

impl ProcessEnd {
    /// `None` where the kernel does not tell.
    #[expect(
        deprecated,
        reason = "unsound only for types that don't own their descriptor; its successor is unsafe"
    )]
    pub fn of(pid: u32) -> Option<Self> {
        let process = pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok()?;
        let end = AsyncFd::with_interest(process, Interest::READABLE).ok()?;
        Some(Self(end))
    }

    /// Waits for it.
    pub async fn wait(&self) {
        // An error comes with the runtime's own end.
        let _ = self.0.readable().await;
    }
}

/// Fails: there is no service manager of Windows.
pub fn service_report(_name: &str) -> io::Result<Option<ServiceReport>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// None.
pub fn automatic_services() -> Vec<(String, Option<String>)> {
    Vec::new()
}

/// The Event Log: there is none.
pub fn event_log() -> Arc<dyn EventLog> {
    Arc::new(NoEventLog)
}

#[derive(Debug)]
struct NoEventLog;

impl EventLog for NoEventLog {
    fn last(&self, _channel: &str) -> Result<Option<String>, EventLogError> {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }

    fn follow(
        &self,
        _channel: &str,
        _after: Option<&str>,
    ) -> Result<Box<dyn EventStream>, EventLogError> {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }
}

/// `None`: records of log-ins and the journal tell it.
pub fn last_record_before(_wall_ms: i64) -> Option<i64> {
    None
}

/// Does nothing: modes of directories keep others out.
pub fn keep_others_out(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// A connection to a program of this machine.
pub type LocalStream = tokio::net::UnixStream;

/// Connects to a program's socket.
pub async fn connect_locally(socket: &Path) -> io::Result<LocalStream> {
    LocalStream::connect(socket).await
}

/// The user that this process runs as.
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The wish that the agent stop: SIGTERM or SIGINT.
#[derive(Debug)]
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for it.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The wish that the settings be read again: SIGHUP.
#[derive(Debug)]
pub struct ReloadSignal(Signal);

impl ReloadSignal {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for it.
    pub async fn wait(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime ends.
            std::future::pending::<()>().await;
        }
    }
}
