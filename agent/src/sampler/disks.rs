//! Mounted file systems: space, inodes, read-only. sysinfo lists them (without network and pseudo
//! file systems, whose `statvfs` may hang or mean nothing) when the mount table changes; the
//! figures come from one `statvfs(3)` each.

use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};
use sysinfo::DiskRefreshKind;
use watchkeep_shared::metric;

use super::{Writer, proc, share};

/// Most file systems that are reported.
const MAX_DISKS: usize = 32;
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

/// The mounted file systems.
#[derive(Debug)]
pub(super) struct Disks {
    list: Option<sysinfo::Disks>,
    mounts: String,
    points: Vec<PathBuf>,
}

impl Disks {
    pub(super) fn new() -> Self {
        Self {
            list: sysinfo::Disks::new()
                .inspect_err(|error| tracing::warn!(%error, "no disk readings"))
                .ok(),
            mounts: String::new(),
            points: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, writer: &mut Writer) {
        self.relist_if_changed();
        for point in &self.points {
            let Some(name) = point.to_str() else { continue };
            let stat = statvfs(point).ok().filter(|stat| stat.f_blocks > 0);
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
            let read_only =
                stat.map(|s| f64::from(u8::from(s.f_flag.contains(StatVfsMountFlags::RDONLY))));
            writer.put_of("disk.total_bytes", name, total);
            writer.put_of("disk.used_bytes", name, used);
            writer.put_of("disk.used_pct", name, used_pct);
            writer.put_of("disk.inodes_used_pct", name, inodes_pct);
            writer.put_of("disk.readonly", name, read_only);
        }
    }

    fn relist_if_changed(&mut self) {
        let mounts = proc::read("/proc/self/mounts").unwrap_or_default();
        if mounts == self.mounts && !self.points.is_empty() {
            return;
        }
        let Some(list) = self.list.as_mut() else {
            return;
        };
        list.refresh_specifics(true, DiskRefreshKind::nothing());
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        for disk in list.iter() {
            let system = disk.file_system().to_string_lossy();
            let point = disk.mount_point();
            let known = PSEUDO.contains(&system.as_ref()) || system.starts_with("fuse");
            if known || !is_reportable(point) {
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
        self.points = found.into_iter().map(|(_, point)| point).collect();
        self.points.sort();
        self.points.dedup();
        self.points.truncate(MAX_DISKS);
        self.mounts = mounts;
    }
}

fn is_reportable(point: &Path) -> bool {
    point.is_dir()
        && point
            .to_str()
            .is_some_and(|name| metric::is_valid_name(&format!("disk.inodes_used_pct:{name}")))
}
