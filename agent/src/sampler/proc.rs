//! Single values out of `/proc`. Each is `None` where the file is absent or unreadable.

use std::fs;

use crate::files;

/// Memory figures that sysinfo does not give.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryDetails {
    pub(super) cached_bytes: f64,
    pub(super) buffers_bytes: f64,
}

pub(super) fn read(path: &str) -> Option<String> {
    files::read_virtual(path).ok()
}

/// `Cached` and `Buffers` of `/proc/meminfo` (`proc_meminfo(5)`).
pub(super) fn memory_details() -> Option<MemoryDetails> {
    let text = read("/proc/meminfo")?;
    let kib = |key: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(key)?
                    .trim()
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .map(|kib: f64| kib * 1_024.0)
    };
    Some(MemoryDetails {
        cached_bytes: kib("Cached:")?,
        buffers_bytes: kib("Buffers:")?,
    })
}

/// How many processes there are.
pub(super) fn process_count() -> Option<f64> {
    let count = fs::read_dir("/proc")
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes()
                .first()
                .is_some_and(u8::is_ascii_digit)
        })
        .count();
    Some(count as f64)
}

/// Open file handles of the whole machine (`/proc/sys/fs/file-nr`: allocated, free, maximum).
pub(super) fn file_handles() -> Option<f64> {
    let text = read("/proc/sys/fs/file-nr")?;
    let mut fields = text.split_whitespace().map(str::parse::<f64>);
    let allocated = fields.next()?.ok()?;
    let free = fields.next()?.ok()?;
    Some(allocated - free)
}

/// Resident memory of this process.
pub(super) fn own_rss_bytes() -> Option<f64> {
    let text = read("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().split(' ').next()?.parse().ok()?;
    Some(kib * 1_024.0)
}
