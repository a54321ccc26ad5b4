//! Measures the machine: one list of named values each cycle.
//!
//! `/proc` and `/sys` are read by hand, since a heartbeat may cost next to nothing; sysinfo lists
//! the file systems and the addresses, and names the machine. What changes slowly is read each minute or each ten
//! (`slow`). A family that the machine does not offer is left out; a reading that fails is `None`,
//! so that the list of names (the schema) changes only when disks or interfaces come or go. Rates
//! are per second of `CLOCK_BOOTTIME` between two cycles; a counter that went back has none.
//! Nothing here runs a command or waits for anyone.

mod addresses;
mod block;
mod busiest;
mod container;
mod disks;
mod facts;
mod memory;
mod mounts;
mod network;
mod pressure;
mod processes;
mod processor;
mod raid;
mod reader;
mod sample;
mod sensors;
mod slow;
mod upkeep;
mod writer;

use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use sysinfo::System;
use watchkeep_shared::wire::heartbeat::Clocks;

use self::{
    block::BlockDevices,
    disks::Disks,
    memory::Memory,
    network::Network,
    pressure::Pressure,
    processor::Processor,
    reader::VirtualFile,
    sample::Names,
    slow::Slow,
    writer::{Writer, share},
};
pub use self::{
    busiest::Busiest,
    facts::Facts,
    sample::{NamedSchema, Sample},
};

/// Measures the machine; keeps the counters of the last cycle for rates.
#[derive(Debug)]
pub struct Sampler {
    processor: Processor,
    memory: Memory,
    pressure: Pressure,
    disks: Disks,
    devices: BlockDevices,
    network: Network,
    slow: Slow,
    files: Files,
    before: Option<(Clocks, i64)>,
    names: Names,
    buffer: Vec<u8>,
}

/// Single numbers that are read each cycle.
#[derive(Debug)]
struct Files {
    handles: VirtualFile,
    own_memory: VirtualFile,
}

impl Sampler {
    /// Takes the first reading of all counters.
    pub fn new(now: Clocks) -> Self {
        Self::of(Path::new("/"), now)
    }

    /// Measures the machine whose `/proc`, `/sys` and so on lie below `root`. Only which file
    /// systems are mounted comes from this machine all the same.
    pub fn of(root: &Path, now: Clocks) -> Self {
        let mut sampler = Self {
            processor: Processor::new(root),
            memory: Memory::new(root),
            pressure: Pressure::new(root),
            disks: Disks::new(root),
            devices: BlockDevices::new(root),
            network: Network::new(root),
            slow: Slow::new(root),
            files: Files::new(root),
            before: None,
            names: Names::default(),
            buffer: Vec::new(),
        };
        sampler.sample(now, 0);
        sampler
    }

    /// Measures. `spool_frames` is the number of unacknowledged frames.
    pub fn sample(&mut self, now: Clocks, spool_frames: usize) -> Sample {
        let own_cpu_us = own_cpu_us();
        let before = self.before.replace((now, own_cpu_us));
        let (bytes, values) = self.names.sizes();
        let mut writer = Writer {
            joined: String::with_capacity(bytes),
            values: Vec::with_capacity(values),
            elapsed_s: before
                .map(|(before, _)| (now.boot_ms - before.boot_ms) as f64 / 1_000.0)
                .filter(|seconds| *seconds > 0.0),
            buffer: std::mem::take(&mut self.buffer),
        };
        self.processor.write(&mut writer);
        self.memory.write(&mut writer);
        self.pressure.write(&mut writer);
        self.disks.write(now.boot_ms, &mut writer);
        self.devices.write(&mut writer);
        self.network.write(&mut writer);
        writer.put("system.uptime_s", Some(now.boot_ms as f64 / 1_000.0));
        self.files.write(&mut writer);
        let own_cpu = before
            .zip(writer.elapsed_s)
            .map(|((_, used_us), seconds)| (own_cpu_us - used_us) as f64 / 1e4 / seconds);
        writer.put("agent.cpu_pct", own_cpu);
        writer.put("agent.spool_frames", Some(spool_frames as f64));
        self.slow.write(now, &mut writer);
        self.buffer = writer.buffer;
        self.names.sample(writer.joined, writer.values)
    }
}

impl Files {
    fn new(root: &Path) -> Self {
        Self {
            handles: VirtualFile::open(root, "proc/sys/fs/file-nr"),
            own_memory: VirtualFile::open(root, "proc/self/statm"),
        }
    }

    fn write(&self, writer: &mut Writer) {
        let handles = self
            .handles
            .read(&mut writer.buffer)
            .and_then(parse_handles);
        writer.put("system.fds_used", handles.map(|(used, _)| used));
        let used_pct = handles.map(|(used, most)| share(used, most));
        writer.put("system.fds_used_pct", used_pct);
        let own_pages = self.own_memory.read(&mut writer.buffer).and_then(|text| {
            let resident = text.split(' ').nth(1)?;
            resident.parse::<f64>().ok()
        });
        let page_bytes = rustix::param::page_size() as f64;
        writer.put("agent.rss_bytes", own_pages.map(|n| n * page_bytes));
    }
}

/// `/proc/sys/fs/file-nr`: allocated, of these free, most (`proc_sys_fs(5)`).
fn parse_handles(text: &str) -> Option<(f64, f64)> {
    let mut fields = text.split_ascii_whitespace().map(str::parse::<f64>);
    let mut next = || fields.next()?.ok();
    let (allocated, free, most) = (next()?, next()?, next()?);
    Some((allocated - free, most))
}

/// CPU time that this process used, microseconds.
fn own_cpu_us() -> i64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

/// The machine's host name.
pub fn host_name() -> String {
    System::host_name().unwrap_or_else(|_| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use watchkeep_shared::metric;

    use super::*;
    use crate::clock;

    fn later(now: Clocks, ms: i64) -> Clocks {
        Clocks {
            wall_ms: now.wall_ms + ms,
            mono_ms: now.mono_ms + ms,
            boot_ms: now.boot_ms + ms,
        }
    }

    #[test]
    fn this_machine_gives_plausible_values_under_a_steady_schema() {
        let start = clock::now();
        let mut sampler = Sampler::new(start);
        let first = sampler.sample(later(start, 1_000), 0);
        let second = sampler.sample(later(start, 2_000), 3);
        assert!(Arc::ptr_eq(&first.schema, &second.schema));
        assert_eq!(second.schema.names.len(), second.values.len());
        assert_eq!(second.schema.id, metric::schema_id(&second.schema.names));
        assert!(second.schema.names.iter().all(|n| metric::is_valid_name(n)));
        let mut unique = second.schema.names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), second.schema.names.len());
        for (name, value) in second.schema.names.iter().zip(&second.values) {
            if metric::split(name).0.ends_with("_pct")
                && name != "agent.cpu_pct"
                && let Some(value) = value
            {
                assert!((0.0..=100.0).contains(value), "{name} = {value}");
            }
        }
        let value = |name: &str| {
            let at = second.schema.names.iter().position(|n| n == name).unwrap();
            second.values[at].unwrap()
        };
        // A plain machine with one disk and one interface.
        assert!(second.values.len() >= 70, "{:?}", second.schema.names);
        let missing = second.schema.names.iter().zip(&second.values);
        let missing: Vec<&String> = missing
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name)
            .collect();
        // Within a second no tick may pass from which one processor's share follows.
        assert!(
            missing.iter().all(|name| name.starts_with("cpu.")),
            "{missing:?}"
        );
        assert!(value("mem.total_bytes") > 1e6);
        assert!(value("mem.used_bytes") < value("mem.total_bytes"));
        assert!(value("system.processes") >= 1.0);
        assert!(value("agent.rss_bytes") > 100_000.0);
        assert!((value("agent.spool_frames") - 3.0).abs() < f64::EPSILON);
        assert!((value("system.uptime_s") - (start.boot_ms + 2_000) as f64 / 1e3).abs() < 0.01);
    }

    #[test]
    fn the_documentation_names_each_family() {
        let document = include_str!("../../../docs/metrics.md");
        let start = clock::now();
        let sample = Sampler::new(start).sample(later(start, 1_000), 0);
        for name in &sample.schema.names {
            let family = metric::split(name).0;
            // One of the interfaces' counts represents all.
            let family =
                ["packets", "errors", "drops"]
                    .iter()
                    .fold(family.to_owned(), |family, word| {
                        match family.strip_prefix("net.") {
                            Some(_) => family.replace(&format!("x_{word}_"), "x_bytes_"),
                            None => family,
                        }
                    });
            assert!(document.contains(&format!("`{family}`")), "{family}");
        }
    }
}
