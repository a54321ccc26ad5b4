//! Whether this machine is a container, and what its control group allows it.
//!
//! In a container most of `/proc` still speaks of the whole machine. What the container may have is
//! given by its control group (`cgroups(7)`, the kernel's `Documentation/admin-guide/cgroup-v2.rst`).

use std::path::{Path, PathBuf};

use super::{
    mounts,
    reader::{number, text},
    slow::Named,
    writer::share,
};

/// What `memory.limit_in_bytes` of version 1 says without a limit is about 2^63.
const NO_LIMIT_BYTES: f64 = (1_u64 << 60) as f64;

/// What kind of container this is, as in `docker`; `None` on a machine or a virtual machine.
pub(super) fn kind(root: &Path) -> Option<String> {
    // Files that container managers leave for the programs inside
    // (systemd's "Container Interface").
    for path in ["run/systemd/container", "run/host/container-manager"] {
        if let Some(kind) = text(root.join(path)).filter(|kind| is_word(kind)) {
            return Some(kind);
        }
    }
    let marks = [
        ("var/run/secrets/kubernetes.io", "kubernetes"),
        ("run/.containerenv", "podman"),
        (".dockerenv", "docker"),
    ];
    let (_, kind) = marks.iter().find(|(path, _)| root.join(path).exists())?;
    // An image of a container can also be a virtual machine's disk: there the kernel's own
    // threads are seen, and the root is no overlay.
    let whole_machine = text(root.join("proc/2/comm")).as_deref() == Some("kthreadd");
    let table = text(root.join("proc/self/mountinfo")).unwrap_or_default();
    let overlay = mounts::parse(&table)
        .iter()
        .any(|line| line.point == "/" && line.kind == "overlay");
    (!whole_machine || overlay).then(|| (*kind).to_owned())
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// What the control group of this container allows, if there is a limit.
#[derive(Debug)]
pub(super) struct Limits {
    memory: Option<Group>,
    cpus: Option<f64>,
}

/// Where a control group keeps its account of memory.
#[derive(Debug)]
struct Group {
    limit_bytes: f64,
    used: PathBuf,
    /// Part of `used` that the kernel gives up first when memory is short.
    reclaimable: (PathBuf, &'static str),
}

impl Limits {
    /// Looks once: a limit is part of how a container was started.
    pub(super) fn find(root: &Path) -> Self {
        if kind(root).is_none() {
            return Self {
                memory: None,
                cpus: None,
            };
        }
        let groups = root.join("sys/fs/cgroup");
        let memory = Group::version_2(&groups).or_else(|| Group::version_1(&groups.join("memory")));
        Self {
            memory,
            cpus: cpus(&groups),
        }
    }

    pub(super) fn read(&self) -> Vec<Named> {
        let mut values = Vec::new();
        if let Some(group) = &self.memory {
            let used = group.used_bytes();
            for (name, value) in [
                ("container.memory_limit_bytes", Some(group.limit_bytes)),
                ("container.memory_used_bytes", used),
                (
                    "container.memory_used_pct",
                    used.map(|used| share(used, group.limit_bytes)),
                ),
            ] {
                values.push((name.to_owned(), value));
            }
        }
        if let Some(cpus) = self.cpus {
            values.push(("container.cpu_limit".to_owned(), Some(cpus)));
        }
        values
    }
}

impl Group {
    fn version_2(group: &Path) -> Option<Self> {
        Some(Self {
            // Without a limit it says `max`.
            limit_bytes: number(group.join("memory.max"))?,
            used: group.join("memory.current"),
            reclaimable: (group.join("memory.stat"), "inactive_file "),
        })
    }

    fn version_1(group: &Path) -> Option<Self> {
        Some(Self {
            limit_bytes: number(group.join("memory.limit_in_bytes"))
                .filter(|limit| *limit < NO_LIMIT_BYTES)?,
            used: group.join("memory.usage_in_bytes"),
            reclaimable: (group.join("memory.stat"), "total_inactive_file "),
        })
    }

    fn used_bytes(&self) -> Option<f64> {
        let used = number(&self.used)?;
        let (path, key) = &self.reclaimable;
        let reclaimable = text(path)
            .and_then(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix(key))?;
                line.parse::<f64>().ok()
            })
            .unwrap_or(0.0);
        Some((used - reclaimable).max(0.0))
    }
}

/// How many processors' time the group may use.
fn cpus(groups: &Path) -> Option<f64> {
    let share = |quota: f64, period: f64| (quota > 0.0 && period > 0.0).then(|| quota / period);
    if let Some(limit) = text(groups.join("cpu.max")) {
        let (quota, period) = limit.split_once(' ')?;
        return share(quota.parse().ok()?, period.parse().ok()?);
    }
    share(
        number(groups.join("cpu/cpu.cfs_quota_us"))?,
        number(groups.join("cpu/cpu.cfs_period_us"))?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_container_is_told_from_a_machine_made_of_its_image() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(kind(root), None);
        make(root, ".dockerenv", "");
        assert_eq!(kind(root).as_deref(), Some("docker"));
        make(root, "proc/2/comm", "kthreadd\n");
        assert_eq!(kind(root), None);
        make(
            root,
            "proc/self/mountinfo",
            "27 1 0:50 / / rw - overlay overlay rw,lowerdir=/x\n",
        );
        assert_eq!(kind(root).as_deref(), Some("docker"));
        make(root, "run/systemd/container", "systemd-nspawn\n");
        assert_eq!(kind(root).as_deref(), Some("systemd-nspawn"));
    }

    #[test]
    fn limits_are_read_in_both_versions_of_control_groups() {
        for (files, expected) in [
            (
                &[
                    ("memory.max", "1000\n"),
                    ("memory.current", "700\n"),
                    ("memory.stat", "anon 1\ninactive_file 200\n"),
                    ("cpu.max", "150000 100000\n"),
                ][..],
                &[1000.0, 500.0, 50.0, 1.5][..],
            ),
            (
                &[
                    ("memory/memory.limit_in_bytes", "1000\n"),
                    ("memory/memory.usage_in_bytes", "700\n"),
                    (
                        "memory/memory.stat",
                        "inactive_file 9\ntotal_inactive_file 200\n",
                    ),
                    ("cpu/cpu.cfs_quota_us", "150000\n"),
                    ("cpu/cpu.cfs_period_us", "100000\n"),
                ][..],
                &[1000.0, 500.0, 50.0, 1.5][..],
            ),
            (
                &[
                    ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                    ("cpu/cpu.cfs_quota_us", "-1\n"),
                    ("cpu/cpu.cfs_period_us", "100000\n"),
                ][..],
                &[][..],
            ),
            (
                &[("memory.max", "max\n"), ("cpu.max", "max 100000\n")][..],
                &[][..],
            ),
        ] {
            let root = tempfile::tempdir().unwrap();
            make(root.path(), "run/systemd/container", "lxc");
            for (file, text) in files {
                make(root.path(), &format!("sys/fs/cgroup/{file}"), text);
            }
            let values = Limits::find(root.path()).read();
            let values: Vec<f64> = values.iter().map(|(_, value)| value.unwrap()).collect();
            assert_eq!(values, expected);
        }
    }
}
