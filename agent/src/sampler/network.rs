//! Network: each interface's traffic, errors and drops; the machine's TCP and UDP; the table of
//! tracked connections: `/proc/net/dev`, `/proc/net/snmp`, `/proc/net/sockstat` and
//! `/proc/sys/net/netfilter` (`proc_net(5)`, the kernel's `Documentation/networking/`).

use std::path::{Path, PathBuf};

use super::{
    reader::{self, VirtualFile},
    writer::{Writer, find, share},
};

/// Most interfaces that are reported.
const MAX_INTERFACES: usize = 32;
/// Beginnings of the names of interfaces that exist once per container or virtual machine and come and
/// go with it: of Docker and Podman, Calico, libvirt, Proxmox, Cilium, Azure and Amazon.
const OF_GUESTS: [&str; 12] = [
    "veth", "cali", "tap", "vnet", "fwbr", "fwpr", "fwln", "lxc", "azv", "eni", "ifb", "dummy",
];

/// In the order of an interface's values.
const FAMILIES: [&str; 8] = [
    "net.rx_bytes_per_s",
    "net.tx_bytes_per_s",
    "net.rx_packets_per_s",
    "net.tx_packets_per_s",
    "net.rx_errors_per_s",
    "net.tx_errors_per_s",
    "net.rx_drops_per_s",
    "net.tx_drops_per_s",
];

/// Reads the network's counters.
#[derive(Debug)]
pub(super) struct Network {
    interfaces: VirtualFile,
    protocols: VirtualFile,
    sockets: VirtualFile,
    tracked: VirtualFile,
    most_tracked_file: PathBuf,
    most_tracked: Option<f64>,
    /// Where the kernel says of what kind an interface is.
    kinds: PathBuf,
    /// Interfaces that are reported, chosen out of so many.
    chosen: Vec<String>,
    chosen_of: Vec<String>,
    interfaces_before: Vec<(String, [u64; 8])>,
    protocols_before: Option<Protocols>,
}

/// Counters of `/proc/net/snmp` (RFC 4022, RFC 4113).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Protocols {
    opened: u64,
    accepted: u64,
    failed: u64,
    reset: u64,
    established: u64,
    sent: u64,
    sent_again: u64,
    udp_errors: u64,
}

impl Network {
    pub(super) fn new(root: &Path) -> Self {
        let netfilter = "proc/sys/net/netfilter/nf_conntrack";
        Self {
            interfaces: VirtualFile::open(root, "proc/net/dev"),
            protocols: VirtualFile::open(root, "proc/net/snmp"),
            sockets: VirtualFile::open(root, "proc/net/sockstat"),
            tracked: VirtualFile::open(root, &format!("{netfilter}_count")),
            most_tracked_file: root.join(format!("{netfilter}_max")),
            most_tracked: None,
            kinds: root.join("sys/class/net"),
            chosen: Vec::new(),
            chosen_of: Vec::new(),
            interfaces_before: Vec::new(),
            protocols_before: None,
        }
    }

    pub(super) fn write(&mut self, writer: &mut Writer) {
        let text = self.interfaces.read(&mut writer.buffer);
        let mut now = parse_interfaces(text.unwrap_or_default());
        self.choose(&now);
        let left_out = now.len() - self.chosen.len();
        now.retain(|(name, _)| self.chosen.contains(name));
        for (name, counts) in &now {
            let before = find(&self.interfaces_before, name);
            for (at, family) in FAMILIES.into_iter().enumerate() {
                let rate = writer.rate(counts[at], before.map(|counts| counts[at]));
                writer.put_of(family, name, rate);
            }
        }
        self.interfaces_before = now;
        if left_out > 0 {
            writer.put("net.left_out", Some(left_out as f64));
        }
        if self.protocols.is_there() {
            self.write_protocols(writer);
        }
        if writer.looks_again {
            // The kernel's module is loaded by the first rule that needs it.
            self.tracked.open_if_absent();
            self.most_tracked = reader::number(&self.most_tracked_file);
        }
        if let Some(most) = self.most_tracked {
            let tracked = self.tracked.read(&mut writer.buffer);
            let tracked = tracked.and_then(|text| text.trim().parse::<f64>().ok());
            writer.put("net.tracked_pct", tracked.map(|n| share(n, most)));
        }
    }

    /// Chooses which are reported when interfaces came or went: those with hardware first, then those
    /// made of others, then the rest.
    fn choose(&mut self, now: &[(String, [u64; 8])]) {
        if now.iter().map(|(name, _)| name).eq(&self.chosen_of) {
            return;
        }
        self.chosen_of = now.iter().map(|(name, _)| name.clone()).collect();
        self.chosen.clone_from(&self.chosen_of);
        if self.chosen.len() > MAX_INTERFACES {
            self.chosen.sort_by_key(|name| rank(&self.kinds.join(name)));
            self.chosen.truncate(MAX_INTERFACES);
        }
    }

    fn write_protocols(&mut self, writer: &mut Writer) {
        let now = self
            .protocols
            .read(&mut writer.buffer)
            .and_then(parse_protocols);
        let before = self.protocols_before;
        let rate = |writer: &Writer, part: fn(&Protocols) -> u64| {
            now.and_then(|now| writer.rate(part(&now), before.map(|before| part(&before))))
        };
        writer.put("tcp.established", now.map(|now| now.established as f64));
        let waiting = self
            .sockets
            .read(&mut writer.buffer)
            .and_then(parse_time_wait);
        writer.put("tcp.time_wait", waiting);
        for (name, part) in [
            ("tcp.opened_per_s", (|p| p.opened) as fn(&Protocols) -> u64),
            ("tcp.accepted_per_s", |p| p.accepted),
            ("tcp.failed_per_s", |p| p.failed),
            ("tcp.reset_per_s", |p| p.reset),
            ("tcp.retransmits_per_s", |p| p.sent_again),
        ] {
            let value = rate(writer, part);
            writer.put(name, value);
        }
        let (sent, again) = (rate(writer, |p| p.sent), rate(writer, |p| p.sent_again));
        let retransmitted = sent.zip(again).map(|(sent, again)| share(again, sent));
        writer.put("tcp.retransmitted_pct", retransmitted);
        let errors = rate(writer, |p| p.udp_errors);
        writer.put("udp.errors_per_s", errors);
        self.protocols_before = now;
    }
}

/// How early an interface is reported if there are too many. `kind` is its directory in
/// `/sys/class/net`.
fn rank(kind: &Path) -> u8 {
    let has = |name: &str| kind.join(name).exists();
    if has("device") {
        0
    } else if has("bonding") || has("bridge") {
        1
    } else {
        2
    }
}

/// Whether an interface belongs to a container or a virtual machine, or is loopback.
pub(super) fn is_skipped(name: &str) -> bool {
    // `tap0` is a tunnel of a VPN, `lxcbr0` the bridge that containers share.
    let is_numbered = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
    name == "lo"
        || OF_GUESTS.iter().any(|guest| {
            name.strip_prefix(guest).is_some_and(|rest| match *guest {
                "tap" => !is_numbered(rest),
                "lxc" => !rest.starts_with("br"),
                _ => true,
            })
        })
}

/// `/proc/net/dev`: name, then 8 received and 8 transmitted counters. A name may hold a colon.
fn parse_interfaces(text: &str) -> Vec<(String, [u64; 8])> {
    let mut found: Vec<(String, [u64; 8])> = Vec::new();
    for line in text.lines() {
        let Some((name, rest)) = line.rsplit_once(':') else {
            continue;
        };
        let name = name.trim();
        let mut fields = [0_u64; 12];
        let mut numbers = rest.split_ascii_whitespace();
        let mut read = || {
            for field in &mut fields {
                *field = numbers.next()?.parse().ok()?;
            }
            Some(())
        };
        if is_skipped(name) || read().is_none() || found.iter().any(|(other, _)| other == name) {
            continue;
        }
        // bytes, packets, errors and drops; received first, transmitted 8 columns on.
        let counts = [0, 8, 1, 9, 2, 10, 3, 11].map(|at| fields[at]);
        found.push((name.to_owned(), counts));
    }
    found
}

/// `/proc/net/snmp`: for each protocol a line of names and one of values. The columns' places are
/// those of the kernel's `snmp4_tcp_list` and `snmp4_udp_list`, which only grow at their ends.
fn parse_protocols(text: &str) -> Option<Protocols> {
    let numbers = |protocol: &str| -> Option<[u64; 12]> {
        let line = text
            .lines()
            .filter_map(|line| line.strip_prefix(protocol))
            .nth(1)?;
        let mut numbers = [0_u64; 12];
        for (number, field) in numbers.iter_mut().zip(line.split_ascii_whitespace()) {
            // One of them, the greatest number of connections, may be -1.
            *number = field.parse().unwrap_or(0);
        }
        Some(numbers)
    };
    let tcp = numbers("Tcp: ")?;
    let udp = numbers("Udp: ").unwrap_or_default();
    Some(Protocols {
        opened: tcp[4],
        accepted: tcp[5],
        failed: tcp[6],
        reset: tcp[7],
        established: tcp[8],
        sent: tcp[10],
        sent_again: tcp[11],
        // Of what was received wrong and of full buffers, either way.
        udp_errors: udp[2] + udp[5],
    })
}

/// `TCP: inuse 4 orphan 0 tw 2 alloc 6 mem 1`.
fn parse_time_wait(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    let (_, rest) = line.split_once("tw ")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_by_column() {
        let interfaces = parse_interfaces(
            "Inter-|   Receive\n face |bytes    packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
        );
        assert_eq!(
            interfaces,
            [("eth0".to_owned(), [1, 9, 2, 10, 3, 11, 4, 12])]
        );
    }

    #[test]
    fn protocols_are_read_by_column() {
        let protocols = parse_protocols(
            "Ip: Forwarding\nIp: 2\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs\nTcp: 1 200 120000 -1 5 6 7 8 9 10 11 12 13\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\nUdp: 1 2 3 4 5 6 0\n",
        )
        .unwrap();
        let expected = Protocols {
            opened: 5,
            accepted: 6,
            failed: 7,
            reset: 8,
            established: 9,
            sent: 11,
            sent_again: 12,
            udp_errors: 9,
        };
        assert_eq!(protocols, expected);
        assert_eq!(
            parse_time_wait(
                "sockets: used 9\nTCP: inuse 4 orphan 0 tw 2 alloc 6 mem 1\nUDP: inuse 1\n"
            ),
            Some(2.0)
        );
    }

    #[test]
    fn interfaces_of_guests_are_left_out_and_tunnels_and_bridges_are_not() {
        for guest in [
            "lo",
            "veth1a2b3c",
            "cali0123456789a",
            "tap100i0",
            "tap3f2c1d0e-9a",
            "vnet3",
            "fwbr100i0",
            "fwpr100p0",
            "fwln100i0",
            "lxc1a2b3c4d5e6f",
            "azv1234567890a",
            "eni1234567890a",
        ] {
            assert!(is_skipped(guest), "{guest}");
        }
        for own in [
            "eth0", "lo0", "tap0", "tun0", "lxcbr0", "br0", "bond0", "eno1", "wg0",
        ] {
            assert!(!is_skipped(own), "{own}");
        }
    }

    #[test]
    fn of_too_many_interfaces_those_with_hardware_are_reported_and_the_rest_is_counted() {
        use std::fmt::Write as _;

        let root = tempfile::tempdir().unwrap();
        let make = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let counts = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
        let mut text = String::from("Inter-|\n face |\n");
        for n in 0..45 {
            writeln!(text, "vlan{n}: {counts}").unwrap();
        }
        writeln!(text, "  eno1: {counts}\n bond0: {counts}").unwrap();
        make("proc/net/dev", &text);
        make("sys/class/net/eno1/device/vendor", "0x8086\n");
        make("sys/class/net/bond0/bonding/slaves", "eno1\n");
        let mut writer = Writer::for_tests();
        Network::new(root.path()).write(&mut writer);
        let has = |name: &str| writer.joined.lines().position(|other| other == name);
        assert!(has("net.rx_bytes_per_s:eno1").is_some());
        assert!(has("net.rx_bytes_per_s:bond0").is_some());
        assert!(has("net.rx_bytes_per_s:vlan29").is_some());
        assert!(has("net.rx_bytes_per_s:vlan30").is_none());
        let left_out = writer.values[has("net.left_out").unwrap()];
        assert_eq!(left_out, Some(15.0));
    }

    #[test]
    fn a_name_that_is_no_text_hides_no_interface_behind_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("proc/net/dev");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = b"  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13\n v\xfftun: 1 2 3 4 5 6 7 8 9 10 11 12 13\n  eth1: 1 2 3 4 5 6 7 8 9 10 11 12 13\n";
        std::fs::write(path, text).unwrap();
        let mut writer = Writer::for_tests();
        Network::new(root.path()).write(&mut writer);
        for name in ["eth0", "v?tun", "eth1"] {
            let name = format!("net.rx_bytes_per_s:{name}");
            assert!(writer.joined.lines().any(|other| other == name), "{name}");
        }
    }

    #[test]
    fn a_table_of_tracked_connections_that_comes_later_is_found() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, text: &str| {
            let path = root.path().join("proc/sys/net/netfilter").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let mut network = Network::new(root.path());
        let mut used_pct = || {
            let mut writer = Writer::for_tests();
            network.write(&mut writer);
            let mut names = writer.joined.lines();
            let at = names.position(|name| name == "net.tracked_pct")?;
            writer.values[at]
        };
        assert_eq!(used_pct(), None);
        make("nf_conntrack_count", "50\n");
        make("nf_conntrack_max", "200\n");
        assert_eq!(used_pct(), Some(25.0));
        make("nf_conntrack_max", "100\n");
        assert_eq!(used_pct(), Some(50.0));
    }
}
