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

/// What was known of a unit before.
pub(super) struct Before<'a> {
    /// Its control group as systemd named it; empty if it did not.
    pub(super) group: &'a str,
    /// Whether it had processes while systemd could be asked.
    pub(super) had_processes: bool,
    pub(super) status: ServiceStatus,
}

/// Looks at a unit.
pub(super) fn look(unit: &str, before: &Before<'_>, why: &str) -> Finding {
    let usual = format!("/system.slice/{unit}");
    let group = if before.group.is_empty() {
        &usual
    } else {
        before.group
    };
    finding(has_processes(group), before, why)
}

fn finding(has_processes: Option<bool>, before: &Before<'_>, why: &str) -> Finding {
    let (status, seen) = match has_processes {
        Some(true) => (ServiceStatus::Running, "it has processes"),
        // A fault that systemd reported stays one while nothing runs.
        Some(false) if before.status.is_fault() => (before.status, "it has no processes"),
        Some(false) if before.had_processes => {
            (ServiceStatus::Stopped, "it has no processes any more")
        }
        // A job between its runs has none either.
        Some(false) | None => (ServiceStatus::Unknown, "not known from its processes"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_had_processes_is_stopped_for_lack_of_them() {
        use ServiceStatus::{Failed, Running, Stopped, Unknown};
        let cases = [
            (Some(true), false, Failed, Running),
            (Some(false), true, Running, Stopped),
            (Some(false), true, Stopped, Stopped),
            (Some(false), false, Running, Unknown),
            (Some(false), false, Failed, Failed),
            (None, true, Running, Unknown),
        ];
        for (has_processes, had_processes, status, expected) in cases {
            let before = Before {
                group: "",
                had_processes,
                status,
            };
            let finding = finding(has_processes, &before, "x");
            assert_eq!(finding.status, expected, "{has_processes:?} {status:?}");
        }
    }
}
