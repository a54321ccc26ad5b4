//! Reads from the registry which Windows this is, and whether it waits for a reboot.

use watchkeep_shared::wire::host::HostFacts;
use winsafe::{GlobalMemoryStatusEx, HKEY, RegistryValue, co, guard::RegCloseKeyGuard};

const VERSION: &str = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion";
/// Keys that are there while a reboot is due: after servicing, and after an update.
const DUE: [&str; 2] = [
    r"SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending",
    r"SOFTWARE\Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\RebootRequired",
];
/// Looked at so often, milliseconds.
const EVERY_MS: i64 = 600_000;
/// The first build of Windows 11, whose registry still says 10.
const WINDOWS_11: u32 = 22_000;

/// What the machine is.
pub(super) fn facts() -> HostFacts {
    let version = open(VERSION);
    let text = |name: &str| text(version.as_deref()?, name);
    let build = text("CurrentBuildNumber");
    let os = text("ProductName").map(|product| {
        let number = build.as_deref().and_then(|build| build.parse::<u32>().ok());
        let product = match number {
            Some(WINDOWS_11..) => product.replacen("Windows 10", "Windows 11", 1),
            _ => product,
        };
        match text("DisplayVersion") {
            Some(display) => format!("{product} {display}"),
            None => product,
        }
    });
    let kernel = build.map(|build| {
        let revision = version.as_deref().and_then(|key| number(key, "UBR"));
        let major = version
            .as_deref()
            .and_then(|key| number(key, "CurrentMajorVersionNumber"));
        match (major, revision) {
            (Some(major), Some(revision)) => format!("{major}.0.{build}.{revision}"),
            _ => build,
        }
    });
    let cpus = std::thread::available_parallelism().ok();
    HostFacts {
        os: Some(os.unwrap_or_else(|| "Windows".to_owned())),
        kernel,
        arch: Some(std::env::consts::ARCH.to_owned()),
        cpus: cpus.and_then(|n| u32::try_from(n.get()).ok()),
        memory_bytes: GlobalMemoryStatusEx()
            .ok()
            .map(|memory| memory.ullTotalPhys),
        ..HostFacts::default()
    }
}

/// Whether a reboot is due, looked up now and then.
#[derive(Debug, Default)]
pub(super) struct Reboot {
    last: Option<(i64, bool)>,
}

impl Reboot {
    /// 1 if it is. Files that are to be replaced at the next start do not count: nearly every
    /// installation leaves some.
    pub(super) fn is_due(&mut self, now_ms: i64) -> Option<f64> {
        let known = self.last.filter(|(at, _)| now_ms - at < EVERY_MS);
        let (at, due) =
            known.unwrap_or_else(|| (now_ms, DUE.iter().any(|key| open(key).is_some())));
        self.last = Some((at, due));
        Some(f64::from(u8::from(due)))
    }
}

fn open(key: &str) -> Option<RegCloseKeyGuard> {
    let options = co::REG_OPTION::default();
    let access = co::KEY::READ | co::KEY::WOW64_64KEY;
    HKEY::LOCAL_MACHINE
        .RegOpenKeyEx(Some(key), options, access)
        .ok()
}

fn text(key: &HKEY, name: &str) -> Option<String> {
    match key.RegQueryValueEx(Some(name)) {
        Ok(RegistryValue::Sz(text)) => Some(text),
        _ => None,
    }
}

fn number(key: &HKEY, name: &str) -> Option<u32> {
    match key.RegQueryValueEx(Some(name)) {
        Ok(RegistryValue::Dword(number)) => Some(number),
        _ => None,
    }
}
