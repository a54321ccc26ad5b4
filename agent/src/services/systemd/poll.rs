//! How a service is without the bus: whether its control group has processes (`cgroups(7)`).

use std::{fs, path::Path};

use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::super::Finding;

/// Where the groups that systemd makes are: unified, hybrid, version 1.
const ROOTS: [&str; 3] = [
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/systemd",
];

/// Looks at a unit. `group` is its control group as systemd named it, if it did.
pub(super) fn look(unit: &str, group: &str, before: &Finding, why: &str) -> Finding {
    let usual = format!("/system.slice/{unit}");
    let group = if group.is_empty() { &usual } else { group };
    let ran = before.status == ServiceStatus::Running;
    let (status, seen) = match has_processes(group) {
        Some(true) => (ServiceStatus::Running, "it has processes"),
        Some(false) if unit.ends_with(".service") && ran => {
            (ServiceStatus::Stopped, "it has no processes any more")
        }
        Some(false) | None => (ServiceStatus::Unknown, "not told by its processes"),
    };
    Finding {
        status,
        detail: Some(format!("{seen}; polled, since {why}")),
    }
}

/// Whether a control group has processes; a group that is gone has none. `None` without groups.
fn has_processes(group: &str) -> Option<bool> {
    let root = ROOTS
        .iter()
        .find(|root| Path::new(root).join("system.slice").is_dir())?;
    let group = Path::new(root).join(group.trim_start_matches('/'));
    if let Ok(events) = fs::read_to_string(group.join("cgroup.events")) {
        return Some(events.lines().any(|line| line == "populated 1"));
    }
    let processes = fs::read_to_string(group.join("cgroup.procs"));
    Some(processes.is_ok_and(|text| !text.trim().is_empty()))
}
