//! Network: each interface's traffic, errors and drops; the machine's TCP and UDP; the table of
//! tracked connections: `/proc/net/dev`, `/proc/net/snmp`, `/proc/net/sockstat` and
//! `/proc/sys/net/netfilter` (`proc_net(5)`, the kernel's `Documentation/networking/`).

use std::path::Path;

use super::{
    reader::{self, VirtualFile},
    writer::{Writer, find, share},
};

/// Most interfaces that are reported.
const MAX_INTERFACES: usize = 32;
/// Interfaces that exist once per container and come and go with it, and loopback.
const SKIPPED: [&str; 6] = ["lo", "veth", "cali", "tap", "ifb", "dummy"];

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
    most_tracked: Option<f64>,
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
            most_tracked: reader::number(root.join(format!("{netfilter}_max"))),
            interfaces_before: Vec::new(),
            protocols_before: None,
        }
    }

    pub(super) fn write(&mut self, writer: &mut Writer) {
        let text = self.interfaces.read(&mut writer.buffer);
        let now = parse_interfaces(text.unwrap_or_default());
        for (name, counts) in &now {
            let before = find(&self.interfaces_before, name);
            for (at, family) in FAMILIES.into_iter().enumerate() {
                let rate = writer.rate(counts[at], before.map(|counts| counts[at]));
                writer.put_of(family, name, rate);
            }
        }
        self.interfaces_before = now;
        if self.protocols.is_there() {
            self.write_protocols(writer);
        }
        if let Some(most) = self.most_tracked {
            let tracked = self.tracked.read(&mut writer.buffer);
            let tracked = tracked.and_then(|text| text.trim().parse::<f64>().ok());
            writer.put("net.tracked_pct", tracked.map(|n| share(n, most)));
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

/// Whether an interface belongs to a container, or is loopback.
pub(super) fn is_skipped(name: &str) -> bool {
    let mut skipped = SKIPPED.iter();
    skipped.any(|skip| name == *skip || (*skip != "lo" && name.starts_with(skip)))
}

/// `/proc/net/dev`: name, then 8 received and 8 transmitted counters.
fn parse_interfaces(text: &str) -> Vec<(String, [u64; 8])> {
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let name = name.trim();
            if is_skipped(name) {
                return None;
            }
            let mut fields = [0_u64; 12];
            let mut numbers = rest.split_ascii_whitespace();
            for field in &mut fields {
                *field = numbers.next()?.parse().ok()?;
            }
            // bytes, packets, errors and drops; received first, transmitted 8 columns on.
            let counts = [0, 8, 1, 9, 2, 10, 3, 11].map(|at| fields[at]);
            Some((name.to_owned(), counts))
        })
        .take(MAX_INTERFACES)
        .collect()
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
}
