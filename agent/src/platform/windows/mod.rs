//! Windows, by the safe wrappers of `winsafe`. What was exercised and what was not:
//! docs/windows.md.

mod events;
pub mod service;
mod services;

pub use self::{
    events::{event_log, last_record_before},
    services::{automatic_services, service_report},
};

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::windows::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio_util::sync::CancellationToken;
use watchkeep_shared::{ids::random_uuid, wire::heartbeat::Clocks};
use watchkeep_windows::access;
use winsafe::{
    GetTickCount64, HKEY, HPROCESS, HPROCESSLIST, QueryUnbiasedInterruptTime, RegistryValue, co,
};

/// The settings file that is read if it exists.
pub const SETTINGS: &str = r"C:\ProgramData\Watchkeep\agent.toml";
/// Where state is kept unless the settings say otherwise.
pub const STATE_DIR: &str = r"C:\ProgramData\Watchkeep\agent";

/// Longest name of a process, bytes: `MAX_PATH` characters, of up to 4 bytes.
pub const PROCESS_NAME_BYTES: usize = 1_040;

/// A key that the kernel keeps in memory only, so that a boot's identity ends with the boot.
const BOOT_KEY: &str = r"SOFTWARE\Watchkeep\Boot";
const BOOT_VALUE: &str = "Id";
/// `ERROR_TOO_MANY_OPEN_FILES`.
const OUT_OF_HANDLES: i32 = 4;
/// The exit code of a process that runs (`STILL_ACTIVE`).
const STILL_ACTIVE: u32 = 259;
/// Ticks of 100 ns in a millisecond.
const TICKS_PER_MS: u64 = 10_000;

/// Asked by the service manager, or by Ctrl-C.
static STOP: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);
/// The service manager said that the machine goes down.
static GOING_DOWN: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// The three clocks, read one right after the other.
///
/// Monotonic is the unbiased interrupt time, which stops while the machine sleeps; boot is
/// the tick count, which does not, and moves in steps of 10 to 16 ms.
pub fn clocks() -> Clocks {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let boot_ms = GetTickCount64();
    let mono_ms = QueryUnbiasedInterruptTime().map_or(boot_ms, |ticks| ticks / TICKS_PER_MS);
    Clocks {
        wall_ms: since_1970.map_or(0, |time| time.as_millis() as i64),
        mono_ms: mono_ms as i64,
        boot_ms: boot_ms as i64,
    }
}

/// The time by which files are stamped, microseconds since the Unix epoch: it moves by a tick, of at
/// most 16 ms, and the clock that is read here does not.
pub fn file_time_us() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |time| time.as_micros() as i64 - 16_000)
}

/// The running boot, a UUID. Windows has none: the first who asks draws one and leaves it in a
/// volatile key of the registry.
pub fn boot_id() -> io::Result<String> {
    let access = co::KEY::QUERY_VALUE | co::KEY::SET_VALUE;
    let (key, _) = HKEY::LOCAL_MACHINE
        .RegCreateKeyEx(BOOT_KEY, None, co::REG_OPTION::VOLATILE, access, None)
        .map_err(error)?;
    if let Ok(RegistryValue::Sz(id)) = key.RegQueryValueEx(Some(BOOT_VALUE)) {
        return Ok(id);
    }
    let id = random_uuid().to_string();
    key.RegSetValueEx(Some(BOOT_VALUE), RegistryValue::Sz(id.clone()))
        .map_err(error)?;
    Ok(id)
}

/// Whether the system has said that it is going down.
pub fn is_going_down() -> bool {
    GOING_DOWN.is_cancelled()
}

/// Whether this program was upgraded: not seen here, where a running program can't be replaced.
pub fn is_replaced() -> bool {
    false
}

/// Makes `dir` and its parents, and keeps others out of what was made. An existing directory is left as
/// it is.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    let Some(first) = dir.ancestors().take_while(|one| !one.exists()).last() else {
        return Ok(());
    };
    fs::create_dir_all(dir)?;
    access::keep_others_out(first)
}

/// Keeps everybody but the system and administrators out of a state directory, and where it is the
/// usual one out of the settings beside it, of which a service that runs as the system is given what
/// to do: below `C:\ProgramData` every user may make files and directories.
///
/// # Errors
///
/// If someone else made the directory and this process is no administrator's.
pub fn keep_others_out(state_dir: &Path) -> io::Result<()> {
    let shared = Path::new(SETTINGS).parent();
    let dir = shared.filter(|shared| state_dir.starts_with(shared));
    access::keep_others_out(dir.unwrap_or(state_dir))
}

/// Options for a new file. Who may read it follows from the directory's access list.
pub fn private_file() -> OpenOptions {
    OpenOptions::new()
}

/// Does nothing: a directory can't be flushed, NTFS journals its entries.
pub fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// The time of creation takes the place of the number that a file has here too but that the standard library
/// does not give. A file made within 15 s under the name of one that was moved away gets that one's
/// time ("tunneling"): then the content's first bytes tell them apart.
pub fn file_numbers(metadata: &Metadata) -> (u64, u64) {
    (0, metadata.creation_time())
}

/// Opens a file, and says where it is.
pub fn open_to_read(path: &Path) -> io::Result<(File, PathBuf)> {
    let target = real_path(path)?;
    Ok((File::open(&target)?, target))
}

/// Where a path leads, through all links, in the form that people write: Windows says it in one for
/// programs, `\\?\C:\…`, which no glob fits.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    let target = path.canonicalize()?;
    let plain = target
        .to_str()
        .and_then(|text| text.strip_prefix(r"\\?\"))
        .filter(|text| text.as_bytes().get(1) == Some(&b':'));
    Ok(plain.map_or_else(|| target.clone(), PathBuf::from))
}

/// Reads at a place; how much, 0 at the end.
pub fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    file.seek_read(buffer, at)
}

/// Reads all of `buffer`'s length at a place.
pub fn read_exact_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.seek_read(&mut buffer[filled..], at + filled as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
    }
    Ok(())
}

/// Writes all at a place.
pub fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.seek_write(&bytes[written..], at + written as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => written += n,
        }
    }
    Ok(())
}

/// Whether this process or the machine has no file handle left.
pub fn is_out_of_handles(error: &io::Error) -> bool {
    error.raw_os_error() == Some(OUT_OF_HANDLES)
}

/// Calls `with` for each process whose number `is_wanted`, with its number and name: the file name
/// of its program.
pub fn each_process(is_wanted: &mut dyn FnMut(u32) -> bool, with: &mut dyn FnMut(u32, &[u8])) {
    let Ok(mut list) = HPROCESSLIST::CreateToolhelp32Snapshot(co::TH32CS::SNAPPROCESS, None) else {
        return;
    };
    for process in list.iter_processes().filter_map(Result::ok) {
        if !is_wanted(process.th32ProcessID) {
            continue;
        }
        let name = process.szExeFile();
        with(process.th32ProcessID, name.as_bytes());
    }
}

/// A process's name; `None` if there is none of this number.
pub fn name_of_process(pid: u32) -> Option<String> {
    let mut found = None;
    each_process(&mut |other| other == pid, &mut |_, name| {
        found = Some(String::from_utf8_lossy(name).into_owned());
    });
    found
}

/// `None`: [`each_process`] has given it as the name already.
pub fn program_of_process(_pid: u32) -> Option<OsString> {
    None
}

/// A number that distinguishes a process from a later one with the same id: when it was made. `None` if
/// there is no such process, it has ended, or it is not ours to see.
pub fn start_of_process(pid: u32) -> Option<u64> {
    let access = co::PROCESS::QUERY_LIMITED_INFORMATION;
    let process = HPROCESS::OpenProcess(access, false, pid).ok()?;
    if process.GetExitCodeProcess().ok()? != STILL_ACTIVE {
        return None;
    }
    let (created, _, _, _) = process.GetProcessTimes().ok()?;
    Some(created.into())
}

/// The end of a process, which Windows does not report here: those processes are polled.
#[derive(Debug)]
pub struct ProcessEnd(std::convert::Infallible);

impl ProcessEnd {
    /// `None`.
    pub fn of(_pid: u32) -> Option<Self> {
        None
    }

    /// Never: there is no value of this type.
    pub async fn wait(&self) {
        std::future::pending::<()>().await;
    }
}

/// A connection to a program of this machine; there is none, since nothing here speaks D-Bus.
pub type LocalStream = tokio::io::DuplexStream;

/// Fails.
#[expect(clippy::unused_async, reason = "waits on Linux")]
pub async fn connect_locally(_socket: &Path) -> io::Result<LocalStream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The user that this process runs as: Windows has no numbers for them.
pub fn user_id() -> u32 {
    0
}

/// The wish that the agent stop: from the service manager, or Ctrl-C.
#[derive(Debug)]
pub struct StopSignal {
    console: tokio::signal::windows::CtrlC,
}

impl StopSignal {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            console: tokio::signal::windows::ctrl_c()?,
        })
    }

    /// Waits for it.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.console.recv() => {}
            () = STOP.cancelled() => {}
        }
    }
}

/// The wish that the settings be read again: here it is their file's change alone.
#[derive(Debug)]
pub struct ReloadSignal;

impl ReloadSignal {
    /// Listens from now on.
    #[expect(clippy::unnecessary_wraps, reason = "may fail on Linux")]
    pub fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for it.
    pub async fn wait(&mut self) {
        std::future::pending::<()>().await;
    }
}

fn error(code: co::ERROR) -> io::Error {
    io::Error::from_raw_os_error(code.raw() as i32)
}
