//! Which of the mounted file systems are disks, under which name each is reported, and which are left
//! out when there are too many. Pure: the mount table comes in as a value.
//!
//! All mounts of one device are one disk, and so are all data sets of a ZFS pool: they fill up
//! together, which is one ticket. It has the name of its most telling mount point. File systems that
//! another machine or a program serves are watched for answering; how full they are is measured if
//! the settings say so.

use std::collections::{HashMap, HashSet};

use watchkeep_shared::metric;

use super::mounts::MountLine;
use crate::config::DiskSettings;

/// Most disks that are looked at for choosing those that are reported.
pub(super) const MAX_CANDIDATES: usize = 512;
/// Most mount points of one disk at which it is asked, in this order, until one answers.
const MAX_POINTS: usize = 4;
/// Most data sets of a pool that are added up.
const MAX_DATA_SETS: usize = 256;
/// File systems without a disk of their own.
const PSEUDO: [&str; 30] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.archivemount",
    "fuse.bindfs",
    "fuse.cryfs",
    "fuse.encfs",
    "fuse.gocryptfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tracefs",
];
/// Images: always full, which says nothing.
const IMAGES: [&str; 7] = [
    "cramfs",
    "erofs",
    "fuse.snapfuse",
    "fuse.squashfuse",
    "iso9660",
    "romfs",
    "squashfs",
];
/// A layer of a container; only the container's own root adds to the disk below it.
const LAYERS: [&str; 3] = ["aufs", "fuse.fuse-overlayfs", "overlay"];
/// FUSE in front of disks of this machine. `fuseblk`: NTFS and exFAT.
const LOCAL_FUSE: [&str; 5] = [
    "fuse.exfat",
    "fuse.mergerfs",
    "fuse.ntfs-3g",
    "fuse.shfs",
    "fuseblk",
];
/// Own disks without a block device in the table.
const LOCAL_WITHOUT_DEVICE: [&str; 3] = ["bcachefs", "btrfs", "zfs"];
/// Directories in which the system mounts for itself.
const SYSTEM_PLACES: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
/// Where container managers and log-ins mount what is theirs.
const PLACES_OF_CONTAINERS: [&str; 5] = [
    "/run/credentials",
    "/run/user",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
];

/// How a file system is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nature {
    /// On this machine.
    Local,
    /// In memory.
    Memory,
    /// Served by another machine or by a program.
    Served,
}

/// A disk that could be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// Its most telling mount point.
    pub(super) name: String,
    pub(super) nature: Nature,
    /// The mount of that name.
    pub(super) mount: MountLine,
    /// Where to ask how full it is.
    pub(super) points: Points,
    /// How full it is is reported; else only whether it answers.
    pub(super) is_measured: bool,
}

/// Where to ask how full a disk is. With each point: whether it may be a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Points {
    /// At the first of these that answers.
    First(Vec<(String, bool)>),
    /// At each of these; used space is added up.
    Sum(Vec<(String, bool)>),
}

/// The disks of a mount table, ordered by name.
pub(super) fn find(table: &[MountLine], settings: DiskSettings) -> Vec<FileSystem> {
    let by_id: HashMap<u64, &MountLine> = table.iter().map(|line| (line.id, line)).collect();
    let parent_of = |line: &MountLine| by_id.get(&line.parent).copied();
    let covered: HashSet<u64> = table
        .iter()
        .filter_map(|line| Some((line, parent_of(line)?)))
        .filter(|(line, parent)| line.point == parent.point)
        .map(|(_, parent)| parent.id)
        .collect();
    let mut groups: HashMap<String, Vec<(&MountLine, Nature)>> = HashMap::new();
    for line in table {
        // Asking would keep the automounter from ever unmounting it.
        let is_temporary = parent_of(line).is_some_and(|parent| {
            parent.kind == "autofs"
                && !parent.has("timeout=0")
                && parent.options.contains("timeout=")
        });
        if covered.contains(&line.id) || is_temporary {
            continue;
        }
        if let Some(nature) = nature(line, settings) {
            groups.entry(key(line)).or_default().push((line, nature));
        }
    }
    let mut found: Vec<FileSystem> = groups
        .into_values()
        .filter_map(|mounts| describe(mounts, settings))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// What the mounts of one disk have in common.
fn key(line: &MountLine) -> String {
    if line.kind == "zfs" {
        let pool = line.source.split(['/', '@']).next().unwrap_or_default();
        return format!("zfs {pool}");
    }
    line.device.clone()
}

fn describe(mut mounts: Vec<(&MountLine, Nature)>, settings: DiskSettings) -> Option<FileSystem> {
    mounts.sort_by_key(|(line, _)| {
        (
            line.point != "/",
            line.root != "/",
            line.point.len(),
            line.point.clone(),
        )
    });
    let (mount, nature) = *mounts.first()?;
    let may_be_file = |line: &MountLine| line.root != "/";
    let points = if mount.kind == "zfs" {
        let mut devices = HashSet::new();
        let data_sets = mounts
            .iter()
            .filter(|(line, _)| devices.insert(&line.device));
        let points = data_sets.map(|(line, _)| (line.point.clone(), may_be_file(line)));
        Points::Sum(points.take(MAX_DATA_SETS).collect())
    } else {
        let points = mounts
            .iter()
            .map(|(line, _)| (line.point.clone(), may_be_file(line)));
        Points::First(points.take(MAX_POINTS).collect())
    };
    Some(FileSystem {
        name: mount.point.clone(),
        nature,
        mount: mount.clone(),
        points,
        is_measured: nature != Nature::Served || settings.network,
    })
}

/// `None`: it is no disk.
fn nature(line: &MountLine, settings: DiskSettings) -> Option<Nature> {
    let (kind, point) = (line.kind.as_str(), line.point.as_str());
    let is_image = IMAGES.contains(&kind) || (kind == "udf" && line.is_read_only());
    if PSEUDO.contains(&kind) || is_image || (LAYERS.contains(&kind) && point != "/") {
        return None;
    }
    if kind == "tmpfs" {
        let is_private = point == "/dev" || is_below(point, &["/proc", "/sys"]);
        let is_shared = !is_private && !is_below(point, &PLACES_OF_CONTAINERS);
        return (point == "/" || (settings.tmpfs && is_shared)).then_some(Nature::Memory);
    }
    // Programs that are one file mount themselves.
    let is_removable = is_below(point, &["/run/media"]);
    if (is_below(point, &SYSTEM_PLACES) && !is_removable) || point.starts_with("/tmp/.mount_") {
        return None;
    }
    let has_device = !line.device.starts_with("0:");
    let is_local = point == "/"
        || has_device
        || LOCAL_WITHOUT_DEVICE.contains(&kind)
        || LOCAL_FUSE.contains(&kind);
    Some(if is_local {
        Nature::Local
    } else {
        Nature::Served
    })
}

fn is_below(point: &str, directories: &[&str]) -> bool {
    directories.iter().any(|directory| {
        point
            .strip_prefix(directory)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Which of `found` are reported, at most `most` of those that are measured and as many of the others:
/// the most important first, then the largest. `size` is of a name. A name that can't be sent is never
/// reported.
pub(super) fn select(
    found: &[FileSystem],
    most: usize,
    size: &dyn Fn(&str) -> f64,
) -> HashSet<String> {
    let mut order: Vec<&FileSystem> = found
        .iter()
        .filter(|system| metric::is_valid_name(&format!("disk.inodes_used_pct:{}", system.name)))
        .collect();
    order.sort_by(|a, b| {
        (a.nature, rank(&a.name))
            .cmp(&(b.nature, rank(&b.name)))
            .then(size(&b.name).total_cmp(&size(&a.name)))
            .then(a.name.cmp(&b.name))
    });
    let (measured, watched): (Vec<&FileSystem>, Vec<&FileSystem>) =
        order.into_iter().partition(|system| system.is_measured);
    let chosen = measured.into_iter().take(most);
    chosen
        .chain(watched.into_iter().take(most))
        .map(|system| system.name.clone())
        .collect()
}

/// The lower, the more important.
fn rank(name: &str) -> u8 {
    if is_below(name, &PLACES_OF_CONTAINERS) {
        return 5;
    }
    let places = ["/boot", "/var", "/home"];
    match places.iter().position(|place| is_below(name, &[*place])) {
        _ if name == "/" => 0,
        Some(at) => 1 + at as u8,
        None => 4,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::sampler::mounts::parse;

    const NOTHING_MORE: DiskSettings = DiskSettings {
        network: false,
        tmpfs: false,
    };
    const ALL: DiskSettings = DiskSettings {
        network: true,
        tmpfs: true,
    };

    fn names(text: &str, settings: DiskSettings) -> Vec<String> {
        let names = find(&parse(text), settings).into_iter();
        names.map(|system| system.name).collect()
    }

    /// What a hardened unit sees: its own bind mounts of what is mounted already.
    #[test]
    fn binds_of_the_unit_itself_are_no_disks() {
        let table = "\
21 1 254:1 / / ro,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
22 21 0:20 / /proc rw - proc proc rw
23 21 0:21 / /sys ro - sysfs sysfs rw
24 21 0:5 / /dev ro - tmpfs tmpfs rw
30 21 254:15 / /boot/efi rw - vfat /dev/vda15 rw
31 21 0:24 / /run rw - tmpfs tmpfs rw,size=400k
32 31 0:24 /systemd/propagate /run/systemd/incoming ro - tmpfs tmpfs rw
40 21 254:1 /home /home ro - ext4 /dev/vda1 rw,errors=remount-ro
41 21 254:1 /root /root ro - ext4 /dev/vda1 rw,errors=remount-ro
42 21 254:1 /tmp/systemd-private-a/tmp /tmp rw - ext4 /dev/vda1 rw,errors=remount-ro
43 21 254:1 /var/lib/watchkeep-agent /var/lib/watchkeep-agent rw - ext4 /dev/vda1 rw
";
        assert_eq!(names(table, NOTHING_MORE), ["/", "/boot/efi"]);
        assert_eq!(names(table, ALL), ["/", "/boot/efi", "/run"]);
    }

    #[test]
    fn all_data_sets_of_a_pool_are_one_disk_and_all_subvolumes_are() {
        let mut table = "\
21 1 0:25 / / rw - zfs rpool/ROOT/debian rw,xattr
22 21 0:26 / /home rw - zfs rpool/home rw
23 21 0:26 / /srv/home rw - zfs rpool/home rw
24 21 0:40 / /tank rw - zfs tank rw
25 21 0:50 /@data /data rw - btrfs /dev/sdb1 rw,subvol=/@data
26 21 0:50 /@logs /logs rw - btrfs /dev/sdb1 rw,subvol=/@logs
"
        .to_owned();
        for n in 0..60 {
            writeln!(
                table,
                "{} 24 0:{} / /tank/d{n} rw - zfs tank/d{n} rw",
                100 + n,
                100 + n
            )
            .unwrap();
        }
        assert_eq!(names(&table, NOTHING_MORE), ["/", "/data", "/tank"]);
        let found = find(&parse(&table), NOTHING_MORE);
        let points = |at: usize| match &found[at].points {
            Points::Sum(points) | Points::First(points) => points.len(),
        };
        // A data set that is mounted twice counts once.
        assert_eq!((points(0), points(1), points(2)), (2, 2, 61));
    }

    #[test]
    fn images_layers_and_what_programs_mount_for_themselves_are_left_out() {
        let table = "\
21 1 0:30 / / rw - overlay overlay rw,lowerdir=/a
22 21 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro
23 21 11:0 / /media/cd ro - iso9660 /dev/sr0 ro
24 21 11:1 / /media/dvd ro - udf /dev/sr1 ro
25 21 8:33 / /media/udf rw - udf /dev/sdc1 rw
26 21 0:44 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
27 21 0:45 / /run/user/1000/gvfs rw - fuse.gvfsd-fuse gvfsd-fuse rw
28 21 0:46 / /var/lib/lxcfs rw - fuse.lxcfs lxcfs rw
29 21 0:47 / /tmp/.mount_appXYZ ro - fuse.app.AppImage app ro
30 21 8:49 / /mnt/usb rw - fuseblk /dev/sdd1 rw
31 21 0:48 / /srv/pool rw - fuse.mergerfs a:b rw
32 21 8:65 / /run/media/me/stick rw - exfat /dev/sde1 rw
33 21 8:1 /var/lib/docker/volumes/x/_data /data rw - ext4 /dev/sda1 rw
34 21 8:1 /var/lib/docker/containers/x/hosts /etc/hosts rw - ext4 /dev/sda1 rw
";
        let expected = [
            "/",
            "/data",
            "/media/udf",
            "/mnt/usb",
            "/run/media/me/stick",
            "/srv/pool",
        ];
        assert_eq!(names(table, NOTHING_MORE), expected);
    }

    #[test]
    fn what_others_serve_is_watched_and_measured_if_that_is_wanted() {
        let table = "\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 0:50 / /mnt/nfs rw - nfs4 nas:/a rw,vers=4.2
23 21 0:50 /b /mnt/nfs-b rw - nfs4 nas:/a rw,vers=4.2
24 21 0:51 / /mnt/s3 rw - fuse.s3fs s3fs rw
25 21 0:52 / /auto rw - autofs systemd-1 rw,fd=1,timeout=60,direct
26 25 0:53 / /auto rw - nfs4 nas:/c rw
27 21 0:54 / /kept rw - autofs systemd-1 rw,fd=1,timeout=0,direct
28 27 0:55 / /kept rw - nfs4 nas:/d rw
";
        let watched = ["/", "/kept", "/mnt/nfs", "/mnt/s3"];
        assert_eq!(names(table, NOTHING_MORE), watched);
        let measured = |settings| {
            let found = find(&parse(table), settings).into_iter();
            let measured = found.filter(|system| system.is_measured);
            measured.map(|system| system.name).collect::<Vec<_>>()
        };
        assert_eq!(measured(NOTHING_MORE), ["/"]);
        assert_eq!(measured(ALL), watched);
    }

    #[test]
    fn a_mount_that_lies_below_another_one_can_not_be_asked() {
        let table = "\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 8:2 / /home rw - ext4 /dev/sda2 rw
23 22 0:60 / /home rw - tmpfs tmpfs rw
";
        assert_eq!(names(table, NOTHING_MORE), ["/"]);
    }

    #[test]
    fn the_most_important_are_reported_and_then_the_largest() {
        let mut table = String::new();
        let mut add = |point: &str| {
            let n = table.lines().count();
            writeln!(table, "{} 1 8:{n} / {point} rw - xfs /dev/x{n} rw", n + 9).unwrap();
        };
        for n in 0..40 {
            add(&format!("/backup/{n:02}"));
            add(&format!("/var/lib/kubelet/pods/{n}/volume"));
        }
        for point in ["/", "/boot", "/var/log", "/home", "/srv"] {
            add(point);
        }
        let found = find(&parse(&table), NOTHING_MORE);
        let size = |name: &str| if name == "/srv" { 2.0 } else { 1.0 };
        let mut chosen: Vec<String> = select(&found, 7, &size).into_iter().collect();
        chosen.sort();
        let expected = [
            "/",
            "/backup/00",
            "/backup/01",
            "/boot",
            "/home",
            "/srv",
            "/var/log",
        ];
        assert_eq!(chosen, expected);
    }
}
