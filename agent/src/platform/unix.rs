//! Linux.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read as _},
    net::{IpAddr, UdpSocket},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
            net::{SocketAddr, UnixDatagram},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock},
    time::Duration,
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
    platform::{EventLog, EventLogError, EventStream, ManagerNews, ServiceReport, netlink},
};

/// The settings file that is read if it exists.
pub const SETTINGS: &str = "/etc/watchkeep/agent.toml";
/// Where state is kept unless the settings say otherwise.
pub const STATE_DIR: &str = "/var/lib/watchkeep-agent";

/// What the kernel adds to the path of a program whose file is gone.
const REPLACED: &[u8] = b" (deleted)";
/// How much of a command line is looked at, bytes.
const MAX_COMMAND_BYTES: u64 = 16 << 10;
/// `/proc/PID/status` and `/proc/PID/cgroup` are shorter, bytes.
const MAX_STATUS_BYTES: u64 = 8 << 10;

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
        boot_ms: millis(clock_gettime(ClockId::Boottime)) - *OWN_BOOT_BEGAN_MS,
    }
}

/// When the boot that [`boot_id`] names began, by the kernel's boot clock: 0 but in containers that have
/// a boot identity of their own (LXC, systemd-nspawn), which is put over the kernel's. There the clock
/// is still the host's, and the boot is as old as the container's first process.
static OWN_BOOT_BEGAN_MS: LazyLock<i64> = LazyLock::new(|| {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let first = fs::read_to_string("/proc/1/stat").unwrap_or_default();
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    own_boot_began_ms(&mounts, &first, ticks_per_s).unwrap_or(0)
});

/// `mounts`: `proc_pid_mountinfo(5)`; `first`: `proc_pid_stat(5)` of process 1.
fn own_boot_began_ms(mounts: &str, first: &str, ticks_per_s: u64) -> Option<i64> {
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.find(|point| *point == "/proc/sys/kernel/random/boot_id")?;
    // Fields from the third on, the state; the 22nd is the start.
    let fields = first.rsplit_once(") ")?.1;
    let ticks: u64 = fields.split(' ').nth(22 - 3)?.parse().ok()?;
    i64::try_from(ticks * 1_000 / ticks_per_s.max(1)).ok()
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
    fs::read_link("/proc/self/exe")
        .is_ok_and(|program| program.as_os_str().as_encoded_bytes().ends_with(REPLACED))
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

/// Whether no name leads to a file any more.
pub fn is_unlinked(metadata: &Metadata) -> bool {
    metadata.nlink() == 0
}

/// Where the next bytes of a file are that are no hole, from a place on; `None`: there are no more.
pub fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(next) => Ok(Some(next)),
        Err(Errno::NXIO) => Ok(None),
        // The file system does not know holes.
        Err(Errno::INVAL) => Ok(Some(at)),
        Err(error) => Err(error.into()),
    }
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

/// Whether an interface of this machine has this address now.
pub fn is_own_address(address: IpAddr) -> bool {
    match netlink::interface_addresses() {
        Ok(own) => own.contains(&address),
        // A sandbox that refuses netlink. A socket can be bound to an own address, and to any if
        // the system says so (`ip(7)`, `ip_nonlocal_bind`).
        Err(_) => !may_bind_anything() && UdpSocket::bind((address, 0)).is_ok(),
    }
}

fn may_bind_anything() -> bool {
    ["ipv4", "ipv6"].iter().any(|family| {
        let setting = format!("/proc/sys/net/{family}/ip_nonlocal_bind");
        fs::read_to_string(setting).is_ok_and(|text| text.trim() != "0")
    })
}

/// Whether processes of other users are hidden from this one (`proc(5)`, `hidepid`): then nobody can
/// say that there is none of a name.
pub fn are_processes_hidden() -> bool {
    File::open("/proc/1/stat").is_err()
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

/// The file name of a process's program, also of one that was replaced since; `None` if that is not
/// ours to see.
pub fn program_of_process(pid: u32) -> Option<OsString> {
    let link = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let mut name = link.file_name()?.to_owned().into_vec();
    // `proc_pid_exe(5)`.
    if name.ends_with(REPLACED) {
        name.truncate(name.len() - REPLACED.len());
    }
    Some(OsString::from_vec(name))
}

/// The beginning of a process's arguments, each ended by a zero byte; empty if there are none.
pub fn command_line_of_process(pid: u32) -> Vec<u8> {
    read_start(&format!("/proc/{pid}/cmdline"), MAX_COMMAND_BYTES).unwrap_or_default()
}

/// Whether a process runs in a container: it has a number of its own in there (`NSpid` of
/// `proc_pid_status(5)`, since Linux 4.1), or its control group is one that a container manager made.
pub fn is_process_in_container(pid: u32) -> bool {
    let status = read_start(&format!("/proc/{pid}/status"), MAX_STATUS_BYTES).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    if let Some(numbers) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) {
        return numbers.split_whitespace().count() > 1;
    }
    let group = read_start(&format!("/proc/{pid}/cgroup"), MAX_STATUS_BYTES).unwrap_or_default();
    is_group_of_container(&String::from_utf8_lossy(&group))
}

fn is_group_of_container(group: &str) -> bool {
    const MARKS: [&str; 6] = [
        "/docker",
        "/kubepods",
        "/lxc",
        "/libpod",
        "docker-",
        "libpod-",
    ];
    MARKS.iter().any(|mark| group.contains(mark))
}

/// The first bytes of a file of `/proc`.
fn read_start(path: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
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

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    user: u32,
    group: u32,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.group)
    }
}

/// The owner of a directory, if this process is root and the directory is there and another user's.
pub fn other_owner(dir: &Path) -> io::Result<Option<Owner>> {
    if !is_root() {
        return Ok(None);
    }
    match fs::metadata(dir) {
        Ok(metadata) if metadata.uid() == 0 => Ok(None),
        Ok(metadata) => Ok(Some(Owner {
            user: metadata.uid(),
            group: metadata.gid(),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What root owns directly in a directory.
pub fn files_of_root(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.uid() == 0) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// This program, to be run again. By this link it runs for any user, whoever may search the directory
/// that it is in (`proc_pid_exe(5)`).
pub fn own_program() -> io::Result<PathBuf> {
    Ok(PathBuf::from("/proc/self/exe"))
}

/// Has a command run as this user and group, in no further groups.
pub fn run_as(command: &mut Command, owner: Owner) {
    command.uid(owner.user).gid(owner.group);
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

/// Tells systemd, if that started the agent (`sd_notify(3)`). Never waits, as the usual libraries do:
/// a systemd that has crashed reads no more, and must not take the agent with it.
pub fn tell_manager(news: ManagerNews) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let state = match news {
        ManagerNews::Ready => "READY=1",
        ManagerNews::Alive => "WATCHDOG=1",
        ManagerNews::Stopping => "STOPPING=1",
    };
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&socket),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "systemd can't be told");
    }
}

/// After how long without [`ManagerNews::Alive`] systemd ends the agent; `None`: it does not.
pub fn watchdog_timeout() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let timeout = number("WATCHDOG_USEC").filter(|_| is_ours);
    timeout.map(Duration::from_micros)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_with_a_boot_identity_of_its_own_began_with_its_first_process() {
        let stat = "1 (systemd) S 0 1 1 0 -1 4194560 9 9 9 9 1 2 3 4 20 0 1 0 8640012 170 33 1\n";
        let host =
            "22 28 0:21 / /proc rw,nosuid - proc proc rw\n28 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        assert_eq!(own_boot_began_ms(host, stat, 100), None);
        let container = format!(
            "{host}412 398 0:70 /.lxc-boot-id /proc/sys/kernel/random/boot_id ro - tmpfs none ro\n"
        );
        assert_eq!(own_boot_began_ms(&container, stat, 100), Some(86_400_120));
        assert_eq!(own_boot_began_ms(&container, "", 100), None);
    }
}
