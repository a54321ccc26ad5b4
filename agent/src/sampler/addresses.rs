//! The addresses under which others can reach the machine, as sysinfo lists them.

use std::net::IpAddr;

use sysinfo::Networks;
use watchkeep_shared::wire::limits::MAX_ADDRESSES;

use super::network;

/// Bridges to containers; their addresses are the same on many machines.
const CONTAINER_BRIDGES: [&str; 3] = ["docker", "br-", "cni"];

/// The machine's addresses, in order; none if they can't be listed.
pub(super) fn addresses() -> Vec<IpAddr> {
    let Ok(networks) = Networks::new_with_refreshed_list() else {
        return Vec::new();
    };
    let used = networks
        .iter()
        .filter(|(name, _)| is_used(&name.to_string_lossy()));
    let found = used.flat_map(|(_, interface)| interface.ip_networks());
    select(found.map(|network| network.addr))
}

fn is_used(interface: &str) -> bool {
    let is_bridge = CONTAINER_BRIDGES
        .iter()
        .any(|prefix| interface.starts_with(prefix));
    !is_bridge && !network::is_skipped(interface)
}

fn select(found: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let is_link_local = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let mut found: Vec<IpAddr> = found
        .filter(|one| !one.is_loopback() && !one.is_unspecified() && !is_link_local(one))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MAX_ADDRESSES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_not_reach_is_left_out() {
        let found = [
            "2001:db8::7",
            "127.0.0.1",
            "::1",
            "fe80::1",
            "169.254.3.4",
            "10.0.0.7",
            "0.0.0.0",
            "192.0.2.7",
            "10.0.0.7",
        ];
        let found = found.iter().map(|text| text.parse().unwrap());
        let expected = ["10.0.0.7", "192.0.2.7", "2001:db8::7"];
        let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(select(found), expected);
        for (interface, used) in [
            ("eth0", true),
            ("vmbr0", true),
            ("wg0", true),
            ("docker0", false),
            ("br-0a1b2c3d4e5f", false),
            ("veth12", false),
            ("lo", false),
        ] {
            assert_eq!(is_used(interface), used, "{interface}");
        }
        let many = (0..200).map(|n| IpAddr::from([10, 0, 0, n]));
        assert_eq!(select(many).len(), MAX_ADDRESSES);
    }

    #[test]
    fn this_machine_has_no_loopback_among_its_addresses() {
        assert!(addresses().iter().all(|one| !one.is_loopback()));
    }
}
