//! Disk I/O: traffic, operations, how long one took, how busy the device was: `/proc/diskstats`
//! (the kernel's `Documentation/admin-guide/iostats.rst`).

use std::path::Path;

use super::{
    reader::VirtualFile,
    writer::{Writer, find},
};

/// Most block devices that are reported.
const MAX_DEVICES: usize = 32;
/// Block devices that are not disks, or show another device's traffic again.
const SKIPPED: [&str; 6] = ["loop", "ram", "zram", "sr", "fd", "nbd"];
/// Bytes in a sector of `/proc/diskstats`, whatever the device says (`proc_diskstats(5)`).
const SECTOR_BYTES: f64 = 512.0;

/// Reads the block devices' counters.
#[derive(Debug)]
pub(super) struct BlockDevices {
    stats: VirtualFile,
    before: Vec<(String, Counts)>,
}

/// Counters of one device since it appeared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    reads: u64,
    read_sectors: u64,
    read_ms: u64,
    writes: u64,
    written_sectors: u64,
    write_ms: u64,
    busy_ms: u64,
    /// Grows by the number of operations under way each millisecond.
    waited_ms: u64,
}

impl BlockDevices {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            stats: VirtualFile::open(root, "proc/diskstats"),
            before: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, writer: &mut Writer) {
        let now = parse(self.stats.read(&mut writer.buffer).unwrap_or_default());
        for (name, counts) in &now {
            write_one(name, *counts, find(&self.before, name), writer);
        }
        self.before = now;
    }
}

fn write_one(name: &str, now: Counts, before: Option<Counts>, writer: &mut Writer) {
    let rate = |writer: &Writer, part: fn(&Counts) -> u64| {
        writer.rate(part(&now), before.as_ref().map(part))
    };
    let reads = rate(writer, |d| d.reads);
    let writes = rate(writer, |d| d.writes);
    let read_ms = rate(writer, |d| d.read_ms);
    let write_ms = rate(writer, |d| d.write_ms);
    let sectors_read = rate(writer, |d| d.read_sectors);
    let sectors_written = rate(writer, |d| d.written_sectors);
    let busy_ms = rate(writer, |d| d.busy_ms);
    let waited_ms = rate(writer, |d| d.waited_ms);
    let bytes = |sectors: Option<f64>| sectors.map(|s| s * SECTOR_BYTES);
    writer.put_of("diskio.read_bytes_per_s", name, bytes(sectors_read));
    writer.put_of("diskio.write_bytes_per_s", name, bytes(sectors_written));
    writer.put_of("diskio.reads_per_s", name, reads);
    writer.put_of("diskio.writes_per_s", name, writes);
    writer.put_of("diskio.read_latency_ms", name, mean(read_ms, reads));
    writer.put_of("diskio.write_latency_ms", name, mean(write_ms, writes));
    let under_way = waited_ms.map(|ms_per_s| ms_per_s / 1_000.0);
    writer.put_of("diskio.operations_under_way", name, under_way);
    let busy = busy_ms.map(|ms_per_s| (ms_per_s / 10.0).min(100.0));
    writer.put_of("diskio.busy_pct", name, busy);
}

/// Milliseconds an operation took; 0 if there was none, as `iostat(1)` has it.
fn mean(ms_per_s: Option<f64>, per_s: Option<f64>) -> Option<f64> {
    ms_per_s
        .zip(per_s)
        .map(|(ms, count)| if count > 0.0 { ms / count } else { 0.0 })
}

fn parse(text: &str) -> Vec<(String, Counts)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(2);
            let name = fields.next()?;
            if SKIPPED.iter().any(|prefix| name.starts_with(prefix)) || is_partition(name) {
                return None;
            }
            let mut numbers = [0_u64; 11];
            for number in &mut numbers {
                *number = fields.next()?.parse().ok()?;
            }
            let counts = Counts {
                reads: numbers[0],
                read_sectors: numbers[2],
                read_ms: numbers[3],
                writes: numbers[4],
                written_sectors: numbers[6],
                write_ms: numbers[7],
                busy_ms: numbers[9],
                waited_ms: numbers[10],
            };
            Some((name.to_owned(), counts))
        })
        .take(MAX_DEVICES)
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn devices_are_read_by_column() {
        let disks = parse(
            "   7       0 loop0 9 0 9 9 0 0 0 0 0 9 9\n 254       0 vda 10 1 20 3 30 2 40 5 0 60 70 0 0\n 254       1 vda1 1 1 1 1 1 1 1 1 1 1 1\n",
        );
        let counts = Counts {
            reads: 10,
            read_sectors: 20,
            read_ms: 3,
            writes: 30,
            written_sectors: 40,
            write_ms: 5,
            busy_ms: 60,
            waited_ms: 70,
        };
        assert_eq!(disks, [("vda".to_owned(), counts)]);
    }

    #[test]
    fn latency_is_per_operation() {
        assert_eq!(mean(Some(30.0), Some(10.0)), Some(3.0));
        assert_eq!(mean(Some(0.0), Some(0.0)), Some(0.0));
        assert_eq!(mean(None, Some(1.0)), None);
    }
}
