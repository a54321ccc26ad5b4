//! Counters that only mean something as a difference: CPU time, pressure, disk and network I/O.

use super::{Writer, proc, share};

/// Most block devices and most interfaces that are reported.
const MAX_INSTANCES: usize = 32;
/// Interfaces that exist once per container and come and go with it, and loopback.
const SKIPPED_INTERFACES: [&str; 6] = ["lo", "veth", "cali", "tap", "ifb", "dummy"];
/// Block devices that are not disks, or show another device's traffic again.
const SKIPPED_DEVICES: [&str; 6] = ["loop", "ram", "zram", "sr", "fd", "nbd"];
/// Bytes in a sector of `/proc/diskstats`, whatever the device says (`proc_diskstats(5)`).
const SECTOR_BYTES: f64 = 512.0;

/// One reading.
#[derive(Debug, Default)]
pub(super) struct Counters {
    cpu: Option<Cpu>,
    pressure_us: [Option<u64>; 5],
    disks: Vec<(String, DiskIo)>,
    interfaces: Vec<(String, [u64; 8])>,
}

/// Ticks per mode since boot.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    user: u64,
    nice: u64,
    system: u64,
    idle: u64,
    iowait: u64,
    irq: u64,
    steal: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct DiskIo {
    reads: u64,
    read_sectors: u64,
    writes: u64,
    written_sectors: u64,
    busy_ms: u64,
}

const PRESSURE_NAMES: [&str; 5] = [
    "psi.cpu_some_pct",
    "psi.memory_some_pct",
    "psi.memory_full_pct",
    "psi.io_some_pct",
    "psi.io_full_pct",
];

/// In the order of `Counters::interfaces`' values.
const NETWORK_FAMILIES: [&str; 8] = [
    "net.rx_bytes_per_s",
    "net.tx_bytes_per_s",
    "net.rx_packets_per_s",
    "net.tx_packets_per_s",
    "net.rx_errors_per_s",
    "net.tx_errors_per_s",
    "net.rx_drops_per_s",
    "net.tx_drops_per_s",
];

impl Counters {
    pub(super) fn read(with_pressure: bool) -> Self {
        Self {
            cpu: proc::read("/proc/stat").and_then(|text| parse_cpu(&text)),
            pressure_us: if with_pressure {
                read_pressure()
            } else {
                [None; 5]
            },
            disks: parse_disks(&proc::read("/proc/diskstats").unwrap_or_default()),
            interfaces: parse_interfaces(&proc::read("/proc/net/dev").unwrap_or_default()),
        }
    }

    pub(super) fn write_cpu(&self, before: Option<&Self>, writer: &mut Writer) {
        let difference = self
            .cpu
            .zip(before.and_then(|b| b.cpu))
            .and_then(|(now, before)| now.since(before));
        let mut put = |name: &str, part: fn(&Cpu) -> u64| {
            let value = difference.map(|cpu| share(part(&cpu) as f64, cpu.total() as f64));
            writer.put(name, value);
        };
        put("cpu.busy_pct", |cpu| cpu.total() - cpu.idle - cpu.iowait);
        put("cpu.user_pct", |cpu| cpu.user);
        put("cpu.system_pct", |cpu| cpu.system);
        put("cpu.nice_pct", |cpu| cpu.nice);
        put("cpu.iowait_pct", |cpu| cpu.iowait);
        put("cpu.irq_pct", |cpu| cpu.irq);
        put("cpu.steal_pct", |cpu| cpu.steal);
    }

    pub(super) fn write_pressure(
        &self,
        before: Option<&Self>,
        elapsed_s: f64,
        writer: &mut Writer,
    ) {
        for (at, name) in PRESSURE_NAMES.into_iter().enumerate() {
            let stalled_us = self.pressure_us[at]
                .zip(before.and_then(|b| b.pressure_us[at]))
                .and_then(|(now, before)| now.checked_sub(before));
            let value = stalled_us
                .filter(|_| elapsed_s > 0.0)
                .map(|us| share(us as f64 / 1e6, elapsed_s));
            writer.put(name, value);
        }
    }

    pub(super) fn write_disk_io(&self, before: Option<&Self>, elapsed_s: f64, writer: &mut Writer) {
        for (name, now) in &self.disks {
            let before = before.and_then(|b| find(&b.disks, name));
            let mut put = |family: &str, unit: f64, part: fn(&DiskIo) -> u64| {
                let value = rate(part(now), before.as_ref().map(part), elapsed_s).map(|r| r * unit);
                writer.put_of(family, name, value);
            };
            put("diskio.read_bytes_per_s", SECTOR_BYTES, |d| d.read_sectors);
            put("diskio.write_bytes_per_s", SECTOR_BYTES, |d| {
                d.written_sectors
            });
            put("diskio.reads_per_s", 1.0, |d| d.reads);
            put("diskio.writes_per_s", 1.0, |d| d.writes);
            let busy = rate(now.busy_ms, before.as_ref().map(|d| d.busy_ms), elapsed_s);
            let busy_pct = busy.map(|ms_per_s| (ms_per_s / 10.0).min(100.0));
            writer.put_of("diskio.busy_pct", name, busy_pct);
        }
    }

    pub(super) fn write_network(&self, before: Option<&Self>, elapsed_s: f64, writer: &mut Writer) {
        for (name, now) in &self.interfaces {
            let before = before.and_then(|b| find(&b.interfaces, name));
            for (at, family) in NETWORK_FAMILIES.into_iter().enumerate() {
                let value = rate(now[at], before.map(|values| values[at]), elapsed_s);
                writer.put_of(family, name, value);
            }
        }
    }
}

impl Cpu {
    fn total(&self) -> u64 {
        self.user + self.nice + self.system + self.idle + self.iowait + self.irq + self.steal
    }

    /// `None` when no tick passed. A mode's counter may go back a little (`proc_stat(5)`: iowait
    /// is not reliable), which counts as no change.
    fn since(self, before: Self) -> Option<Self> {
        let difference = Self {
            user: self.user.saturating_sub(before.user),
            nice: self.nice.saturating_sub(before.nice),
            system: self.system.saturating_sub(before.system),
            idle: self.idle.saturating_sub(before.idle),
            iowait: self.iowait.saturating_sub(before.iowait),
            irq: self.irq.saturating_sub(before.irq),
            steal: self.steal.saturating_sub(before.steal),
        };
        (difference.total() > 0).then_some(difference)
    }
}

fn find<T: Copy>(list: &[(String, T)], name: &str) -> Option<T> {
    list.iter()
        .find(|(n, _)| n == name)
        .map(|(_, value)| *value)
}

/// Change per second; `None` without a reading before, and after a counter's reset.
fn rate(now: u64, before: Option<u64>, elapsed_s: f64) -> Option<f64> {
    let change = now.checked_sub(before?)?;
    (elapsed_s > 0.0).then(|| change as f64 / elapsed_s)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn parse_cpu(text: &str) -> Option<Cpu> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let mut fields = line
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0));
    let mut next = || fields.next().unwrap_or(0);
    let (user, nice, system, idle, iowait) = (next(), next(), next(), next(), next());
    let irq = next() + next();
    Some(Cpu {
        user,
        nice,
        system,
        idle,
        iowait,
        irq,
        steal: next(),
    })
}

/// Stall time since boot, microseconds, in the order of [`PRESSURE_NAMES`].
fn read_pressure() -> [Option<u64>; 5] {
    let total = |text: &Option<String>, kind: &str| {
        text.as_deref()?
            .lines()
            .find(|line| line.starts_with(kind))?
            .rsplit_once("total=")?
            .1
            .trim()
            .parse()
            .ok()
    };
    let cpu = proc::read("/proc/pressure/cpu");
    let memory = proc::read("/proc/pressure/memory");
    let io = proc::read("/proc/pressure/io");
    [
        total(&cpu, "some"),
        total(&memory, "some"),
        total(&memory, "full"),
        total(&io, "some"),
        total(&io, "full"),
    ]
}

fn parse_disks(text: &str) -> Vec<(String, DiskIo)> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let name = *fields.get(2)?;
            let skipped = SKIPPED_DEVICES
                .iter()
                .any(|prefix| name.starts_with(prefix));
            if skipped || is_partition(name) {
                return None;
            }
            let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
            let io = DiskIo {
                reads: number(3)?,
                read_sectors: number(5)?,
                writes: number(7)?,
                written_sectors: number(9)?,
                busy_ms: number(12)?,
            };
            Some((name.to_owned(), io))
        })
        .take(MAX_INSTANCES)
        .collect()
}

/// Whether a device of `/proc/diskstats` is part of another one: `sda1`, `nvme0n1p1`, `mmcblk0p1`.
fn is_partition(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() {
        return false;
    }
    let plain = ["sd", "hd", "vd", "xvd"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let numbered = name.starts_with("nvme") || name.starts_with("mmcblk");
    plain || (numbered && stem.ends_with('p'))
}

/// `/proc/net/dev`: name, then 8 received and 8 transmitted counters.
fn parse_interfaces(text: &str) -> Vec<(String, [u64; 8])> {
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let name = name.trim();
            let skipped = SKIPPED_INTERFACES
                .iter()
                .any(|skip| name == *skip || (*skip != "lo" && name.starts_with(skip)));
            if skipped {
                return None;
            }
            let fields: Vec<u64> = rest
                .split_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()
                .ok()?;
            let values = [0, 8, 1, 9, 2, 10, 3, 11].map(|at| fields.get(at).copied());
            let mut complete = [0; 8];
            for (target, value) in complete.iter_mut().zip(values) {
                *target = value?;
            }
            Some((name.to_owned(), complete))
        })
        .take(MAX_INSTANCES)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_shares_are_of_the_time_between_two_readings() {
        let before = parse_cpu("cpu  100 10 50 800 40 1 2 3 0 0\ncpu0 1 1").unwrap();
        let now = parse_cpu("cpu  150 10 70 820 45 2 4 3 0 0\n").unwrap();
        let difference = now.since(before).unwrap();
        assert_eq!(difference.total(), 98);
        assert_eq!((difference.user, difference.irq), (50, 3));
        assert!(now.since(now).is_none());
    }

    #[test]
    fn partitions_are_told_from_disks() {
        for disk in ["sda", "vda", "nvme0n1", "mmcblk0", "dm-0", "md127"] {
            assert!(!is_partition(disk), "{disk}");
        }
        for part in ["sda1", "vda15", "nvme0n1p2", "mmcblk0p1"] {
            assert!(is_partition(part), "{part}");
        }
    }

    #[test]
    fn disks_and_interfaces_are_read_by_column() {
        let disks = parse_disks(
            "   7       0 loop0 9 0 9 9 0 0 0 0 0 9 9\n 254       0 vda 10 1 20 3 30 2 40 5 0 60 70 0 0\n 254       1 vda1 1 1 1 1 1 1 1 1 1 1 1\n",
        );
        assert_eq!(disks.len(), 1);
        let io = disks[0].1;
        assert_eq!(
            (
                io.reads,
                io.read_sectors,
                io.writes,
                io.written_sectors,
                io.busy_ms
            ),
            (10, 20, 30, 40, 60)
        );
        let interfaces = parse_interfaces(
            "Inter-|   Receive\n face |bytes    packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
        );
        assert_eq!(
            interfaces,
            [("eth0".to_owned(), [1, 9, 2, 10, 3, 11, 4, 12])]
        );
    }

    #[test]
    fn a_counter_that_went_back_has_no_rate() {
        assert_eq!(rate(5, Some(9), 1.0), None);
        assert_eq!(rate(5, None, 1.0), None);
        assert_eq!(rate(9, Some(5), 2.0), Some(2.0));
    }
}
