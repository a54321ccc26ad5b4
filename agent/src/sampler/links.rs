//! Links of network interfaces: whether there is a carrier, how fast it is, and how many legs of a bond
//! are down: `/sys/class/net` (the kernel's `Documentation/ABI/testing/sysfs-class-net` and
//! `Documentation/networking/bonding.rst`). Only interfaces with hardware have a link of their own.

use std::path::Path;

use super::{
    network::is_skipped,
    reader::{entries, number, text},
    slow::Named,
};

/// Most interfaces that are reported.
const MAX_INTERFACES: usize = 32;
/// The interface is switched on (`IFF_UP` of `netdevice(7)`).
const IFF_UP: u32 = 1;

pub(super) fn read(root: &Path) -> Vec<Named> {
    let mut values = Vec::new();
    let interfaces = entries(root.join("sys/class/net"));
    let own = interfaces.iter().filter(|(name, _)| !is_skipped(name));
    for (name, interface) in own.take(MAX_INTERFACES) {
        if interface.join("device").exists() && is_switched_on(interface) {
            let is_up = number(interface.join("carrier"));
            values.push((format!("net.link_up:{name}"), is_up));
            // A virtual machine's interface says -1, or nothing.
            let speed = number(interface.join("speed")).filter(|speed| *speed > 0.0);
            if let Some(speed) = speed.filter(|_| is_up == Some(1.0)) {
                values.push((format!("net.link_mbit_per_s:{name}"), Some(speed)));
            }
        }
        if let Some(legs) = text(interface.join("bonding/slaves")) {
            let legs: Vec<&str> = legs.split_ascii_whitespace().collect();
            let down = legs
                .iter()
                .filter(|leg| is_leg_down(&root.join("sys/class/net").join(leg)));
            values.push((format!("bond.legs_down:{name}"), Some(down.count() as f64)));
            values.push((format!("bond.legs:{name}"), Some(legs.len() as f64)));
        }
    }
    values
}

fn is_switched_on(interface: &Path) -> bool {
    let flags = text(interface.join("flags")).unwrap_or_default();
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16);
    flags.is_ok_and(|flags| flags & IFF_UP != 0)
}

/// As the bond sees it, which may watch more than the carrier; kernels before 3.14 do not say.
fn is_leg_down(leg: &Path) -> bool {
    match text(leg.join("bonding_slave/mii_status")) {
        Some(status) => status != "up",
        None => number(leg.join("carrier")) != Some(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, interface: &str, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join("sys/class/net").join(interface).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn links_and_the_legs_of_a_bond_are_read() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let hardware = ("device/vendor", "0x8086\n");
        make(
            root,
            "eno1",
            &[
                hardware,
                ("flags", "0x1803\n"),
                ("carrier", "1\n"),
                ("speed", "10000\n"),
                ("bonding_slave/mii_status", "up\n"),
            ],
        );
        make(
            root,
            "eno2",
            &[
                hardware,
                ("flags", "0x1803\n"),
                ("carrier", "0\n"),
                ("speed", "-1\n"),
                ("bonding_slave/mii_status", "down\n"),
            ],
        );
        // Not switched on: `carrier` can't be read then.
        make(root, "eno3", &[hardware, ("flags", "0x1002\n")]);
        make(
            root,
            "bond0",
            &[
                ("flags", "0x1403\n"),
                ("carrier", "1\n"),
                ("bonding/slaves", "eno1 eno2\n"),
            ],
        );
        make(root, "vnet0", &[hardware, ("flags", "0x1003\n")]);
        // A list of bonds, not an interface.
        std::fs::write(root.join("sys/class/net/bonding_masters"), "bond0\n").unwrap();
        let expected = [
            ("bond.legs_down:bond0", 1.0),
            ("bond.legs:bond0", 2.0),
            ("net.link_up:eno1", 1.0),
            ("net.link_mbit_per_s:eno1", 10_000.0),
            ("net.link_up:eno2", 0.0),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), Some(value)));
        assert_eq!(read(root), expected);
        // An old kernel says less of a leg.
        let legs = root.join("sys/class/net/eno2/bonding_slave");
        std::fs::remove_dir_all(legs).unwrap();
        assert_eq!(read(root), expected);
    }
}
