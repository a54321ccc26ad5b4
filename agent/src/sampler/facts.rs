//! What the machine is: sent when the agent starts, when it has changed, and once a day.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use watchkeep_shared::wire::{
    heartbeat::{Clocks, Event},
    host::HostFacts,
};

use super::{addresses::addresses, container, reader::text};

const LOOK_EVERY_MS: i64 = 3_600_000;
const SEND_EVERY_MS: i64 = 86_400_000;
/// Longest text of a fact, bytes.
const MAX_FACT_BYTES: usize = 200;

/// Words in what the firmware says of the machine's maker and model, and the hypervisor they mean.
const HYPERVISORS: [(&str, &str); 12] = [
    ("KVM", "kvm"),
    ("QEMU", "kvm"),
    ("VMware", "vmware"),
    ("VirtualBox", "virtualbox"),
    ("innotek", "virtualbox"),
    ("Xen", "xen"),
    ("Microsoft Corporation Virtual", "hyper-v"),
    ("Amazon EC2", "amazon-ec2"),
    ("Google", "google-compute"),
    ("DigitalOcean", "kvm"),
    ("OpenStack", "kvm"),
    ("Parallels", "parallels"),
];

/// Remembers what was sent.
#[derive(Debug)]
pub struct Facts {
    root: PathBuf,
    /// Lists the machine's addresses.
    addresses: fn() -> Vec<IpAddr>,
    sent: Option<HostFacts>,
    look_boot_ms: i64,
    send_boot_ms: i64,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            addresses,
            sent: None,
            look_boot_ms: i64::MIN,
            send_boot_ms: i64::MIN,
        }
    }
}

impl Facts {
    /// What to send now, if anything.
    pub fn news(&mut self, now: Clocks) -> Option<Event> {
        if now.boot_ms < self.look_boot_ms {
            return None;
        }
        self.look_boot_ms = now.boot_ms + LOOK_EVERY_MS;
        let facts = HostFacts {
            addresses: (self.addresses)(),
            ..read(&self.root)
        };
        if self.sent.as_ref() == Some(&facts) && now.boot_ms < self.send_boot_ms {
            return None;
        }
        self.send_boot_ms = now.boot_ms + SEND_EVERY_MS;
        self.sent = Some(facts.clone());
        Some(Event::HostFacts(facts))
    }
}

fn read(root: &Path) -> HostFacts {
    let container = container::kind(root);
    HostFacts {
        os: os_name(root),
        kernel: text(root.join("proc/sys/kernel/osrelease")).and_then(fact),
        arch: Some(std::env::consts::ARCH.to_owned()),
        cpus: std::thread::available_parallelism()
            .ok()
            .and_then(|n| u32::try_from(n.get()).ok()),
        memory_bytes: memory_bytes(root),
        hypervisor: hypervisor(root),
        unseen: unseen(root, container.is_some()),
        container,
        ..HostFacts::default()
    }
}

fn fact(text: String) -> Option<String> {
    (!text.is_empty() && text.len() <= MAX_FACT_BYTES && !text.contains(char::is_control))
        .then_some(text)
}

/// `PRETTY_NAME` of `os-release(5)`.
fn os_name(root: &Path) -> Option<String> {
    let release =
        text(root.join("etc/os-release")).or_else(|| text(root.join("usr/lib/os-release")))?;
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    fact(name.trim_matches(['"', '\'']).to_owned())
}

fn memory_bytes(root: &Path) -> Option<u64> {
    let info = text(root.join("proc/meminfo"))?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// By what the firmware says; else by the processor's own word that it is not real.
fn hypervisor(root: &Path) -> Option<String> {
    let id = root.join("sys/class/dmi/id");
    let said = |name| text(id.join(name)).unwrap_or_default();
    let machine = format!("{} {}", said("sys_vendor"), said("product_name"));
    let known = HYPERVISORS.iter().find(|(word, _)| machine.contains(word));
    if let Some((_, name)) = known {
        return Some((*name).to_owned());
    }
    let processor = text(root.join("proc/cpuinfo")).unwrap_or_default();
    let flags = processor.lines().find(|line| line.starts_with("flags"))?;
    flags
        .split(' ')
        .any(|flag| flag == "hypervisor")
        .then(|| "unknown".to_owned())
}

/// What can't be seen from where the agent runs.
fn unseen(root: &Path, in_container: bool) -> Vec<String> {
    let mut unseen = Vec::new();
    if in_container {
        unseen.push(
            "the machine around the container: its disks, its services and logs, a due reboot"
                .to_owned(),
        );
    }
    if in_container && text(root.join("proc/2/comm")).as_deref() != Some("kthreadd") {
        unseen.push("processes outside of the container".to_owned());
    } else if !root.join("proc/1/stat").exists() {
        unseen.push("other users' processes".to_owned());
    }
    unseen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    const fn at(boot_ms: i64) -> Clocks {
        Clocks {
            wall_ms: 0,
            mono_ms: boot_ms,
            boot_ms,
        }
    }

    #[test]
    fn facts_are_told_at_first_when_they_change_and_once_a_day() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        make(
            root,
            "etc/os-release",
            "NAME=x\nPRETTY_NAME=\"Some OS 1\"\n",
        );
        make(root, "proc/sys/kernel/osrelease", "6.1.0\n");
        make(root, "proc/meminfo", "MemTotal:       1000 kB\n");
        make(root, "proc/1/stat", "");
        make(root, "sys/class/dmi/id/sys_vendor", "QEMU\n");
        let mut facts = Facts {
            root: root.to_owned(),
            addresses: || vec![IpAddr::from([192, 0, 2, 7])],
            ..Facts::default()
        };
        let Some(Event::HostFacts(sent)) = facts.news(at(0)) else {
            panic!("nothing sent");
        };
        assert_eq!(sent.os.as_deref(), Some("Some OS 1"));
        assert_eq!(sent.kernel.as_deref(), Some("6.1.0"));
        assert_eq!(sent.memory_bytes, Some(1_024_000));
        assert_eq!(sent.hypervisor.as_deref(), Some("kvm"));
        assert_eq!(sent.addresses, [IpAddr::from([192, 0, 2, 7])]);
        assert_eq!((sent.container, sent.unseen), (None, Vec::new()));
        let hour = LOOK_EVERY_MS;
        assert_eq!(facts.news(at(10_000)), None);
        assert_eq!(facts.news(at(hour)), None);
        make(root, "run/systemd/container", "lxc");
        assert_eq!(facts.news(at(hour + 10_000)), None, "not looked at yet");
        let Some(Event::HostFacts(sent)) = facts.news(at(2 * hour)) else {
            panic!("nothing sent");
        };
        assert_eq!(sent.container.as_deref(), Some("lxc"));
        assert_eq!(sent.unseen.len(), 2);
        let told_again: Vec<i64> = (3..60)
            .filter(|n| facts.news(at(n * hour)).is_some())
            .collect();
        assert_eq!(told_again, [26, 50]);
    }
}
