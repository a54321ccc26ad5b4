//! Rates of network interfaces and volumes, from counters of Windows.

use watchkeep_windows::counters::{self, Interface, Volume};

use super::writer::{Writer, find};

/// Most interfaces that are reported.
const MAX_INTERFACES: usize = 32;
/// `ifType` of interfaces that are not reported: loopback and tunnels (IANA).
const SKIPPED: [u32; 2] = [24, 131];
/// Units of 100 ns in a millisecond.
const TICKS_PER_MS: f64 = 1e4;

/// The counters of the cycle before.
#[derive(Debug, Default)]
pub(super) struct Counters {
    interfaces: Vec<(String, Flow)>,
    volumes: Vec<(String, Volume)>,
}

/// In the order of [`FAMILIES`].
type Flow = [u64; 8];

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

impl Counters {
    pub(super) fn write(&mut self, drives: &[String], writer: &mut Writer) {
        let now: Vec<(String, Flow)> = counters::interfaces()
            .unwrap_or_default()
            .into_iter()
            .filter(is_reported)
            .take(MAX_INTERFACES)
            .map(|one| (one.name.clone(), flow(&one)))
            .collect();
        for (name, counts) in &now {
            let before = find(&self.interfaces, name);
            for (at, family) in FAMILIES.into_iter().enumerate() {
                let rate = writer.rate(counts[at], before.map(|counts| counts[at]));
                writer.put_of(family, name, rate);
            }
        }
        self.interfaces = now;
        // A volume that does not count is left out.
        let read = |drive: &String| Some((drive.clone(), counters::volume(drive).ok()?));
        let now: Vec<(String, Volume)> = drives.iter().filter_map(read).collect();
        for (name, volume) in &now {
            write_volume(name, *volume, find(&self.volumes, name), writer);
        }
        self.volumes = now;
    }
}

/// One that carries traffic or could, and is counted nowhere else.
fn is_reported(one: &Interface) -> bool {
    let is_used = one.is_up || one.bytes.0 > 0;
    is_used && !one.is_filter && !SKIPPED.contains(&one.kind) && !one.name.is_empty()
}

fn flow(one: &Interface) -> Flow {
    let Interface {
        bytes,
        packets,
        errors,
        drops,
        ..
    } = one;
    [
        bytes.0, bytes.1, packets.0, packets.1, errors.0, errors.1, drops.0, drops.1,
    ]
}

fn write_volume(name: &str, now: Volume, before: Option<Volume>, writer: &mut Writer) {
    let bytes = |of: fn(Volume) -> u64| writer.rate(of(now), before.map(of));
    let read = bytes(|volume| volume.bytes.0);
    let written = bytes(|volume| volume.bytes.1);
    // These numbers are of 32 bits and wrap around.
    let operations = |of: fn(Volume) -> u32| Some(of(now).wrapping_sub(of(before?)));
    let reads = operations(|volume| volume.operations.0);
    let writes = operations(|volume| volume.operations.1);
    let per_second = |count: Option<u32>| Some(f64::from(count?) / writer.elapsed_s?);
    let (reads_per_s, writes_per_s) = (per_second(reads), per_second(writes));
    let mean = |count: Option<u32>, of: fn(Volume) -> u64| {
        let spent = of(now).checked_sub(of(before?))? as f64 / TICKS_PER_MS;
        Some(match count? {
            0 => 0.0,
            count => spent / f64::from(count),
        })
    };
    let read_ms = mean(reads, |volume| volume.times.0);
    let write_ms = mean(writes, |volume| volume.times.1);
    let busy = before.and_then(|before| {
        let passed = now.at.checked_sub(before.at).filter(|passed| *passed > 0)? as f64;
        let idle = now.idle.checked_sub(before.idle)? as f64;
        Some((100.0 - idle / passed * 100.0).clamp(0.0, 100.0))
    });
    writer.put_of("diskio.read_bytes_per_s", name, read);
    writer.put_of("diskio.write_bytes_per_s", name, written);
    writer.put_of("diskio.reads_per_s", name, reads_per_s);
    writer.put_of("diskio.writes_per_s", name, writes_per_s);
    writer.put_of("diskio.read_latency_ms", name, read_ms);
    writer.put_of("diskio.write_latency_ms", name, write_ms);
    let under_way = Some(f64::from(now.under_way));
    writer.put_of("diskio.operations_under_way", name, under_way);
    writer.put_of("diskio.busy_pct", name, busy);
}
