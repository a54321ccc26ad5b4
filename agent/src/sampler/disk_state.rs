//! What changes slowly about a file system: whether it takes writes, and the errors that the kernel
//! counted.
//!
//! Read-only is what the *file system* says (the last field of `/proc/self/mountinfo`), not the
//! mount: within a hardened unit every mount is read-only.

use std::path::{Path, PathBuf};

use super::{mounts::MountLine, reader};

/// Always read-only: that is no news.
const READ_ONLY_BY_NATURE: [&str; 4] = ["squashfs", "iso9660", "udf", "cramfs"];

/// Whether a file system refuses writes, and whether it once took them or was meant to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadOnly {
    pub(super) now: bool,
    was_writable: bool,
    pub(super) unasked: bool,
}

impl ReadOnly {
    /// `meant`: `/etc/fstab` says that it shall be writable; asked for once, at the first look.
    pub(super) fn next(before: Option<Self>, line: &MountLine, meant: bool) -> Self {
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

/// The files in which the kernel counts a file system's errors, of those that anyone may read:
/// ext4's `errors_count` (the kernel's `Documentation/ABI/testing/sysfs-fs-ext4`) and the device
/// statistics of btrfs. XFS keeps no count.
pub(super) fn error_counts(root: &Path, line: &MountLine) -> Vec<PathBuf> {
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
            let Some(name) = block_name(root, &line.source) else {
                return Vec::new();
            };
            reader::entries(root.join("sys/fs/btrfs"))
                .into_iter()
                .filter(|(_, system)| system.join("devices").join(&name).exists())
                .flat_map(|(_, system)| reader::entries(system.join("devinfo")))
                .map(|(_, info)| info.join("error_stats"))
                .filter(|path| path.exists())
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The kernel's name of a block device: `sdb1`, `dm-3`. Found without `/dev`, of which a hardened unit
/// sees little: LVM and LUKS call their devices `/dev/mapper/NAME`.
fn block_name(root: &Path, device: &str) -> Option<String> {
    if let Some(mapped) = device.strip_prefix("/dev/mapper/") {
        let found = reader::entries(root.join("sys/block"))
            .into_iter()
            .filter(|(name, _)| name.starts_with("dm-"))
            .find(|(_, block)| reader::text(block.join("dm/name")).as_deref() == Some(mapped));
        return found.map(|(name, _)| name);
    }
    device.strip_prefix("/dev/").map(str::to_owned)
}

/// One number (ext4), or lines of a name and a number (btrfs).
pub(super) fn count_errors(text: &str) -> Option<f64> {
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
            ..MountLine::default()
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
        let ext4 = error_counts(root.path(), &line("ext4", "rw"));
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
        let on = |kind: &str, source: &str| MountLine {
            source: source.to_owned(),
            ..line(kind, "rw")
        };
        let btrfs = error_counts(root.path(), &on("btrfs", "/dev/sdb"));
        assert_eq!(read(btrfs), [3.0]);
        assert!(error_counts(root.path(), &on("xfs", "/dev/sdb")).is_empty());
        // On LUKS or LVM, whose names a unit with a `/dev` of its own can't look up there.
        make("sys/block/dm-0/dm/name", "other\n");
        make("sys/block/dm-7/dm/name", "vault\n");
        make("sys/fs/btrfs/third-uuid/devices/dm-7", "");
        make(
            "sys/fs/btrfs/third-uuid/devinfo/1/error_stats",
            "write_errs 4\n",
        );
        let mapped = error_counts(root.path(), &on("btrfs", "/dev/mapper/vault"));
        assert_eq!(read(mapped), [4.0]);
    }
}
