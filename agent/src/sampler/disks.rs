//! Mounted file systems: space, inodes, read-only, errors. sysinfo lists them (without network and
//! pseudo file systems, whose `statvfs` may hang or mean nothing) when the mount table changes; the
//! figures come from one `statvfs(3)` each, the state from the table itself.
//!
//! Read-only is what the *file system* says (the last field of `/proc/self/mountinfo`), not the
//! mount: within a hardened unit every mount is read-only. A kernel that turns a file system
//! read-only after an error reports it to nobody, so the table is read again every half minute.

use std::path::{Path, PathBuf};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::statvfs,
};
use sysinfo::DiskRefreshKind;
use watchkeep_shared::metric;

use super::{
    mounts::{self, MountLine},
    reader::{self, VirtualFile},
    writer::{Writer, share},
};

/// Most file systems that are reported.
const MAX_DISKS: usize = 32;
const REREAD_EVERY_MS: i64 = 30_000;
/// File systems without a disk of their own, beyond those that sysinfo leaves out.
const PSEUDO: [&str; 12] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "configfs",
    "debugfs",
    "efivarfs",
    "erofs",
    "fusectl",
    "nsfs",
    "ramfs",
    "securityfs",
    "tracefs",
];
/// Always read-only: that is no news.
const READ_ONLY_BY_NATURE: [&str; 4] = ["squashfs", "iso9660", "udf", "cramfs"];

/// The mounted file systems.
#[derive(Debug)]
pub(super) struct Disks {
    root: PathBuf,
    list: Option<sysinfo::Disks>,
    table: VirtualFile,
    mounted: Vec<Mounted>,
    reread_boot_ms: i64,
    listed_before: Vec<(String, PathBuf)>,
}

#[derive(Debug)]
struct Mounted {
    name: String,
    point: PathBuf,
    read_only: Option<ReadOnly>,
    /// Where the kernel counts its errors, if it does.
    error_counts: Vec<PathBuf>,
    errors: Option<f64>,
}

/// Whether a file system refuses writes, and whether it once took them or was meant to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReadOnly {
    now: bool,
    was_writable: bool,
    unasked: bool,
}

impl Disks {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            list: sysinfo::Disks::new()
                .inspect_err(|error| tracing::warn!(%error, "no disk readings"))
                .ok(),
            table: VirtualFile::open(root, "proc/self/mountinfo"),
            mounted: Vec::new(),
            reread_boot_ms: i64::MIN,
            listed_before: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, now_boot_ms: i64, writer: &mut Writer) {
        let changed = self.has_changed();
        if changed || now_boot_ms >= self.reread_boot_ms {
            self.reread_boot_ms = now_boot_ms + REREAD_EVERY_MS;
            let text = self.table.read(&mut writer.buffer).unwrap_or_default();
            let table = mounts::parse(text);
            if changed || self.mounted.is_empty() {
                self.relist(&table);
            }
            self.look_at(&table);
        }
        for mounted in &self.mounted {
            mounted.write(writer);
        }
    }

    /// Whether a file system was mounted or unmounted since the last call (`proc_pid_mountinfo(5)`).
    fn has_changed(&self) -> bool {
        let Some(file) = self.table.file() else {
            return false;
        };
        let mut watched = [PollFd::new(file, PollFlags::PRI)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut watched, Some(&at_once)).is_ok() && watched[0].revents().contains(PollFlags::PRI)
    }

    fn relist(&mut self, table: &[MountLine]) {
        let Some(list) = self.list.as_mut() else {
            return;
        };
        list.refresh_specifics(true, DiskRefreshKind::nothing());
        let found = select(list);
        if found == self.listed_before {
            return;
        }
        let mut before = std::mem::take(&mut self.mounted);
        for (device, point) in &found {
            let Some(name) = point.to_str() else { continue };
            if let Some(at) = before.iter().position(|mounted| mounted.point == *point) {
                self.mounted.push(before.swap_remove(at));
                continue;
            }
            let line = table.iter().rfind(|line| line.point == name);
            let error_counts =
                line.map_or_else(Vec::new, |line| error_counts(&self.root, line, device));
            self.mounted.push(Mounted {
                name: name.to_owned(),
                point: point.clone(),
                read_only: None,
                error_counts,
                errors: None,
            });
        }
        self.listed_before = found;
    }

    /// Takes over what changes slowly.
    fn look_at(&mut self, table: &[MountLine]) {
        let fstab = self
            .mounted
            .iter()
            .any(|mounted| mounted.read_only.is_none())
            .then(|| reader::text(self.root.join("etc/fstab")).unwrap_or_default());
        for mounted in &mut self.mounted {
            let line = table.iter().rfind(|line| line.point == mounted.name);
            if let Some(line) = line {
                let meant = || mounts::is_meant_writable(fstab.as_deref()?, &mounted.name);
                mounted.read_only = Some(ReadOnly::next(
                    mounted.read_only,
                    line,
                    meant().unwrap_or(false),
                ));
            }
            let errors: Vec<f64> = mounted
                .error_counts
                .iter()
                .filter_map(|path| reader::text(path).and_then(|text| count_errors(&text)))
                .collect();
            mounted.errors = (!errors.is_empty()).then(|| errors.iter().sum());
        }
    }
}

impl Mounted {
    fn write(&self, writer: &mut Writer) {
        let name = &self.name;
        let stat = statvfs(&self.point).ok().filter(|stat| stat.f_blocks > 0);
        let stat = stat.as_ref();
        let total = stat.map(|s| (s.f_blocks * s.f_frsize) as f64);
        let used = stat.map(|s| (s.f_blocks.saturating_sub(s.f_bfree) * s.f_frsize) as f64);
        // As df(1): what root alone may use counts as neither used nor free.
        let used_pct = stat.map(|s| {
            let used = s.f_blocks.saturating_sub(s.f_bfree) as f64;
            share(used, used + s.f_bavail as f64)
        });
        let inodes_pct = stat.map(|s| {
            let used = s.f_files.saturating_sub(s.f_ffree) as f64;
            share(used, s.f_files as f64)
        });
        let yes = |value: fn(ReadOnly) -> bool| {
            self.read_only
                .map(|state| f64::from(u8::from(value(state))))
        };
        writer.put_of("disk.total_bytes", name, total);
        writer.put_of("disk.used_bytes", name, used);
        writer.put_of("disk.used_pct", name, used_pct);
        writer.put_of("disk.inodes_used_pct", name, inodes_pct);
        writer.put_of("disk.readonly", name, yes(|state| state.now));
        writer.put_of("disk.turned_readonly", name, yes(|state| state.unasked));
        if !self.error_counts.is_empty() {
            writer.put_of("disk.errors", name, self.errors);
        }
    }
}

impl ReadOnly {
    /// `meant`: `/etc/fstab` says that it shall be writable; asked for once, at the first look.
    fn next(before: Option<Self>, line: &MountLine, meant: bool) -> Self {
        let now = line.is_read_only();
        let by_nature = READ_ONLY_BY_NATURE.contains(&line.kind.as_str());
        let was_writable = before.map_or(meant, |before| before.was_writable) || !now;
        Self {
            now,
            was_writable,
            unasked: now && !by_nature && (was_writable || line.is_emergency()),
        }
    }
}

/// Devices and mount points that are reported.
fn select(list: &sysinfo::Disks) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for disk in list {
        let system = disk.file_system().to_string_lossy();
        let point = disk.mount_point();
        let known = PSEUDO.contains(&system.as_ref()) || system.starts_with("fuse");
        // Of a container's file system only its own root adds to the disk below it.
        let layer = system == "overlay" && point != Path::new("/");
        if known || layer || !is_reportable(point) {
            continue;
        }
        let device = disk.name().to_string_lossy().into_owned();
        // A bind mount shows a device again: the shortest mount point speaks for it.
        match found
            .iter_mut()
            .find(|(d, _)| *d == device && d.starts_with('/'))
        {
            Some((_, kept)) if point.as_os_str().len() < kept.as_os_str().len() => {
                point.clone_into(kept);
            }
            Some(_) => {}
            None => found.push((device, point.to_owned())),
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    found.dedup_by(|a, b| a.1 == b.1);
    found.truncate(MAX_DISKS);
    found
}

fn is_reportable(point: &Path) -> bool {
    point.is_dir()
        && point
            .to_str()
            .is_some_and(|name| metric::is_valid_name(&format!("disk.inodes_used_pct:{name}")))
}

/// The files in which the kernel counts a file system's errors, of those that anyone may read:
/// ext4's `errors_count` (the kernel's `Documentation/ABI/testing/sysfs-fs-ext4`) and the device
/// statistics of btrfs. XFS keeps no count.
fn error_counts(root: &Path, line: &MountLine, device: &str) -> Vec<PathBuf> {
    match line.kind.as_str() {
        "ext4" | "ext3" | "ext2" => {
            let link = root.join("sys/dev/block").join(&line.device);
            let Ok(target) = std::fs::read_link(link) else {
                return Vec::new();
            };
            let Some(name) = target.file_name() else {
                return Vec::new();
            };
            let path = root.join("sys/fs/ext4").join(name).join("errors_count");
            path.exists().then_some(path).into_iter().collect()
        }
        "btrfs" => {
            let real = std::fs::canonicalize(device).unwrap_or_else(|_| PathBuf::from(device));
            let Some(name) = real.file_name() else {
                return Vec::new();
            };
            reader::entries(root.join("sys/fs/btrfs"))
                .into_iter()
                .filter(|(_, system)| system.join("devices").join(name).exists())
                .flat_map(|(_, system)| reader::entries(system.join("devinfo")))
                .map(|(_, info)| info.join("error_stats"))
                .filter(|path| path.exists())
                .collect()
        }
        _ => Vec::new(),
    }
}

/// One number (ext4), or lines of a name and a number (btrfs).
fn count_errors(text: &str) -> Option<f64> {
    if let Ok(count) = text.parse() {
        return Some(count);
    }
    text.lines()
        .map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, options: &str) -> MountLine {
        MountLine {
            device: "254:0".to_owned(),
            point: "/data".to_owned(),
            kind: kind.to_owned(),
            options: options.to_owned(),
        }
    }

    #[test]
    fn a_file_system_that_stops_taking_writes_is_told_from_one_that_never_did() {
        let writable = ReadOnly::next(None, &line("ext4", "rw,errors=remount-ro"), false);
        assert!(!writable.now && !writable.unasked);
        let turned = ReadOnly::next(Some(writable), &line("ext4", "ro,errors=remount-ro"), false);
        assert!(turned.now && turned.unasked);
        assert!(ReadOnly::next(Some(turned), &line("ext4", "ro"), false).unasked);
        assert!(!ReadOnly::next(Some(turned), &line("ext4", "rw"), false).unasked);
        // Read-only from the start: as it was meant, against what fstab says, after an error.
        let from_the_start = ReadOnly::next(None, &line("ext4", "ro"), false);
        assert!(from_the_start.now && !from_the_start.unasked);
        assert!(ReadOnly::next(None, &line("ext4", "ro"), true).unasked);
        assert!(ReadOnly::next(None, &line("ext4", "rw,emergency_ro"), false).unasked);
        assert!(!ReadOnly::next(None, &line("squashfs", "ro"), true).unasked);
    }

    #[test]
    fn errors_are_found_where_the_kernel_counts_them() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        make("sys/fs/ext4/dm-3/errors_count", "7\n");
        std::fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
        std::os::unix::fs::symlink(
            "../../devices/virtual/block/dm-3",
            root.path().join("sys/dev/block/254:0"),
        )
        .unwrap();
        let read = |paths: Vec<PathBuf>| {
            let counts = paths
                .iter()
                .map(|p| count_errors(&reader::text(p).unwrap()).unwrap());
            counts.collect::<Vec<_>>()
        };
        let ext4 = error_counts(root.path(), &line("ext4", "rw"), "/dev/mapper/data");
        assert_eq!(read(ext4), [7.0]);
        make("sys/fs/btrfs/some-uuid/devices/sdb", "");
        make(
            "sys/fs/btrfs/some-uuid/devinfo/1/error_stats",
            "write_errs 1\nread_errs 2\nflush_errs 0\n",
        );
        make("sys/fs/btrfs/other-uuid/devices/sdc", "");
        make(
            "sys/fs/btrfs/other-uuid/devinfo/1/error_stats",
            "write_errs 9\n",
        );
        let btrfs = error_counts(root.path(), &line("btrfs", "rw"), "/nowhere/sdb");
        assert_eq!(read(btrfs), [3.0]);
        assert!(error_counts(root.path(), &line("xfs", "rw"), "/dev/sdb").is_empty());
    }
}
