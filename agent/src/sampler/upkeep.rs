//! The state of the machine's upkeep: does it need a reboot, do updates wait. All from files that
//! others leave behind: the agent runs no package manager, takes no locks and asks no server. A fact that no file has is left out, not guessed.

use std::{os::unix::fs::MetadataExt, path::Path};

use super::{
    reader::{entries, text},
    slow::Named,
};

/// Reboot and updates.
pub(super) fn read(root: &Path, wall_s: i64) -> Vec<Named> {
    let mut values = Vec::new();
    if let Some(needed) = reboot_required(root) {
        values.push((
            "system.reboot_required".to_owned(),
            Some(f64::from(u8::from(needed))),
        ));
    }
    let waiting = text(root.join("var/lib/update-notifier/updates-available"));
    if let Some((all, security)) = waiting.as_deref().and_then(parse_updates) {
        values.push(("updates.waiting".to_owned(), Some(all)));
        values.push(("updates.waiting_security".to_owned(), security));
    }
    let stamp = root.join("var/lib/apt/periodic/update-success-stamp");
    if let Some(age_s) = age_s(&stamp, wall_s) {
        values.push(("updates.lists_age_s".to_owned(), Some(age_s as f64)));
    }
    values
}

/// Debian's and Ubuntu's packages leave a file. Elsewhere: the running kernel was replaced, or
/// another one came, after it had started. `None` where no kernel is installed, as in a container.
fn reboot_required(root: &Path) -> Option<bool> {
    let asked_for = ["run/reboot-required", "var/run/reboot-required"];
    if asked_for.iter().any(|path| root.join(path).exists()) {
        return Some(true);
    }
    let running = text(root.join("proc/sys/kernel/osrelease"))?;
    let kernels: Vec<_> = entries(root.join("boot"))
        .into_iter()
        .filter(|(name, _)| name.starts_with("vmlinuz-") && !name.contains("rescue"))
        .collect();
    let own = format!("vmlinuz-{running}");
    if !kernels.iter().any(|(name, _)| *name == own) {
        // Either none are kept there, or the running one was removed in favour of another.
        let modules = root.join("lib/modules");
        return (!kernels.is_empty() && modules.is_dir()).then(|| !modules.join(&running).is_dir());
    }
    // The change of status, since packages set the time of modification to that of their making.
    let booted_s = booted_s(root)?;
    Some(kernels.iter().any(|(_, path)| {
        path.metadata()
            .is_ok_and(|kernel| kernel.ctime() > booted_s)
    }))
}

/// When the kernel started, seconds since the Unix epoch (`proc_stat(5)`).
fn booted_s(root: &Path) -> Option<i64> {
    text(root.join("proc/stat"))?
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()
}

/// Ubuntu's update-notifier writes for people: the first number of a line is how many; the line
/// that speaks of security is about those alone.
fn parse_updates(text: &str) -> Option<(f64, Option<f64>)> {
    let number = |line: &str| {
        line.split(|c: char| !c.is_ascii_digit())
            .find(|digits| !digits.is_empty())?
            .parse::<f64>()
            .ok()
    };
    let about_updates = |line: &&str| line.contains("update") && !line.contains("ESM");
    let is_security = |line: &&str| line.contains("security");
    let mut lines = text.lines().filter(about_updates);
    let all = lines
        .clone()
        .find(|line| !is_security(line))
        .and_then(number);
    let security = lines.find(is_security).and_then(number);
    Some((all?, security.or(Some(0.0))))
}

/// Seconds since the file was changed; `None` if there is none.
fn age_s(path: &Path, wall_s: i64) -> Option<i64> {
    let modified_s = path.metadata().ok()?.mtime();
    Some((wall_s - modified_s).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn changed_s(path: &Path) -> i64 {
        path.metadata().unwrap().ctime()
    }

    #[test]
    fn a_reboot_is_needed_when_a_kernel_came_after_the_start() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(reboot_required(root), None);
        make(root, "proc/sys/kernel/osrelease", "6.1.0-9\n");
        assert_eq!(reboot_required(root), None);
        make(root, "boot/vmlinuz-6.1.0-9", "");
        let installed_s = changed_s(&root.join("boot/vmlinuz-6.1.0-9"));
        make(root, "proc/stat", &format!("cpu 1\nbtime {installed_s}\n"));
        assert_eq!(reboot_required(root), Some(false));
        make(root, "proc/stat", &format!("btime {}\n", installed_s - 1));
        assert_eq!(reboot_required(root), Some(true));
    }

    #[test]
    fn a_reboot_is_needed_when_the_running_kernel_is_gone_or_a_package_says_so() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        make(root, "proc/sys/kernel/osrelease", "6.1.0-9\n");
        make(root, "boot/vmlinuz-6.1.0-10", "");
        make(root, "lib/modules/6.1.0-10/modules.dep", "");
        assert_eq!(reboot_required(root), Some(true));
        make(root, "lib/modules/6.1.0-9/modules.dep", "");
        assert_eq!(reboot_required(root), Some(false));
        make(
            root,
            "run/reboot-required",
            "*** System restart required ***\n",
        );
        assert_eq!(reboot_required(root), Some(true));
    }

    #[test]
    fn waiting_updates_are_read_in_the_forms_that_are_about() {
        let newer = "Expanded Security Maintenance for Applications is not enabled.\n\n12 updates can be applied immediately.\n10 of these updates are standard security updates.\nTo see these additional updates run: apt list --upgradable\n\n5 additional security updates can be applied with ESM Apps.\n";
        assert_eq!(parse_updates(newer), Some((12.0, Some(10.0))));
        let older = "5 packages can be updated.\n3 updates are security updates.\n";
        assert_eq!(parse_updates(older), Some((5.0, Some(3.0))));
        let none = "0 updates can be applied immediately.\n";
        assert_eq!(parse_updates(none), Some((0.0, Some(0.0))));
        assert_eq!(parse_updates("nothing\n"), None);
    }
}
