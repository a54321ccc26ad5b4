//! Measures the machine: one list of named values each cycle.
//!
//! sysinfo answers for memory, load and the list of disks; `/proc` is read by hand where sysinfo
//! has no answer (CPU modes, pressure, drops) or would cost several times as much. A family that
//! the machine does not offer is left out; a reading that fails is `None`, so that the list of
//! names (the schema) changes only when disks or interfaces come or go. Rates are per second of
//! `CLOCK_BOOTTIME` between two cycles; the first cycle and a counter that went back have none.

mod counters;
mod disks;
mod proc;

use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use sysinfo::{MemoryRefreshKind, System};
use watchkeep_shared::{
    ids::SchemaId,
    metric::{self, round_to_hundredth},
    wire::{heartbeat::Clocks, limits::MAX_VALUES_PER_FRAME},
};

use self::{counters::Counters, disks::Disks};

/// A list of metric names and its identifier.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedSchema {
    /// Identifies the names.
    pub id: SchemaId,
    /// The names, in the order of a sample's values.
    pub names: Vec<String>,
}

/// The values of one cycle.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which names they belong to.
    pub schema: Arc<NamedSchema>,
    /// The values, rounded to hundredths; `None` where a reading failed.
    pub values: Vec<Option<f64>>,
}

/// Measures the machine; keeps the counters of the last cycle for rates.
#[derive(Debug)]
pub struct Sampler {
    system: Option<System>,
    disks: Disks,
    offered: Offered,
    before: Option<(Clocks, Counters)>,
    own_cpu_before_us: i64,
    cpus: f64,
    schema: Option<Arc<NamedSchema>>,
    /// The schema's names joined by newlines, to see whether they changed.
    joined: String,
}

/// What this machine offers, found out once.
#[derive(Clone, Copy, Debug)]
struct Offered {
    pressure: bool,
    network: bool,
    disk_io: bool,
}

/// Collects names and values.
struct Writer {
    joined: String,
    values: Vec<Option<f64>>,
}

impl Writer {
    fn put(&mut self, name: &str, value: Option<f64>) {
        self.start();
        self.joined.push_str(name);
        self.value(value);
    }

    /// A value of a family that exists once per `instance`.
    fn put_of(&mut self, family: &str, instance: &str, value: Option<f64>) {
        self.start();
        self.joined.push_str(family);
        self.joined.push(':');
        self.joined.push_str(instance);
        self.value(value);
    }

    fn start(&mut self) {
        if !self.values.is_empty() {
            self.joined.push('\n');
        }
    }

    fn value(&mut self, value: Option<f64>) {
        self.values
            .push(value.filter(|v| v.is_finite()).map(round_to_hundredth));
    }
}

impl Sampler {
    /// Takes the first reading of all counters.
    pub fn new(now: Clocks) -> Self {
        let mut sampler = Self {
            system: System::new()
                .inspect_err(|error| tracing::warn!(%error, "no memory readings"))
                .ok(),
            disks: Disks::new(),
            offered: Offered {
                pressure: proc::read("/proc/pressure/cpu").is_some(),
                network: proc::read("/proc/net/dev").is_some(),
                disk_io: proc::read("/proc/diskstats").is_some(),
            },
            before: None,
            own_cpu_before_us: own_cpu_us(),
            cpus: std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64),
            schema: None,
            joined: String::new(),
        };
        sampler.before = Some((now, sampler.read_counters()));
        sampler
    }

    /// Measures. `spool_frames` is the number of unacknowledged frames.
    pub fn sample(&mut self, now: Clocks, spool_frames: usize) -> Sample {
        let counters = self.read_counters();
        let own_cpu_us = own_cpu_us();
        let before = self.before.take();
        let elapsed_s = before.as_ref().map_or(0.0, |(before, _)| {
            (now.boot_ms - before.boot_ms) as f64 / 1_000.0
        });
        let mut writer = Writer {
            joined: String::with_capacity(self.joined.len()),
            values: Vec::with_capacity(80),
        };
        let previous = before.as_ref().map(|(_, counters)| counters);
        counters.write_cpu(previous, &mut writer);
        writer.put("cpu.count", Some(self.cpus));
        self.write_load(&mut writer);
        self.write_memory(&mut writer);
        if self.offered.pressure {
            counters.write_pressure(previous, elapsed_s, &mut writer);
        }
        self.disks.write(&mut writer);
        if self.offered.disk_io {
            counters.write_disk_io(previous, elapsed_s, &mut writer);
        }
        if self.offered.network {
            counters.write_network(previous, elapsed_s, &mut writer);
        }
        writer.put("system.uptime_s", Some(now.boot_ms as f64 / 1_000.0));
        writer.put("system.processes", proc::process_count());
        writer.put("system.fds_used", proc::file_handles());
        writer.put("agent.rss_bytes", proc::own_rss_bytes());
        let own_cpu = (elapsed_s > 0.0)
            .then(|| (own_cpu_us - self.own_cpu_before_us) as f64 / 1e6 / elapsed_s * 100.0);
        writer.put("agent.cpu_pct", own_cpu);
        writer.put("agent.spool_frames", Some(spool_frames as f64));
        self.before = Some((now, counters));
        self.own_cpu_before_us = own_cpu_us;
        self.finish(writer)
    }

    fn read_counters(&self) -> Counters {
        Counters::read(self.offered.pressure)
    }

    fn write_load(&self, writer: &mut Writer) {
        let load = System::load_average().ok();
        writer.put("load.1m", load.as_ref().map(|load| load.one));
        writer.put("load.5m", load.as_ref().map(|load| load.five));
        writer.put("load.15m", load.as_ref().map(|load| load.fifteen));
        let per_cpu = load.map(|load| load.five / self.cpus);
        writer.put("load.5m_per_cpu", per_cpu);
    }

    fn write_memory(&mut self, writer: &mut Writer) {
        let Some(system) = self.system.as_mut() else {
            return;
        };
        system.refresh_memory_specifics(MemoryRefreshKind::everything());
        let total = system.total_memory() as f64;
        let available = system.available_memory() as f64;
        let used = (total - available).max(0.0);
        let details = proc::memory_details();
        writer.put("mem.total_bytes", Some(total));
        writer.put("mem.used_bytes", Some(used));
        writer.put("mem.available_bytes", Some(available));
        writer.put("mem.used_pct", Some(share(used, total)));
        writer.put("mem.cached_bytes", details.map(|d| d.cached_bytes));
        writer.put("mem.buffers_bytes", details.map(|d| d.buffers_bytes));
        let (total, used) = (system.total_swap() as f64, system.used_swap() as f64);
        writer.put("swap.total_bytes", Some(total));
        writer.put("swap.used_bytes", Some(used));
        writer.put("swap.used_pct", Some(share(used, total)));
    }

    fn finish(&mut self, writer: Writer) -> Sample {
        let Writer { joined, mut values } = writer;
        if self.schema.is_none() || joined != self.joined {
            let names: Vec<String> = joined
                .split('\n')
                .take(MAX_VALUES_PER_FRAME)
                .map(str::to_owned)
                .collect();
            self.schema = Some(Arc::new(NamedSchema {
                id: metric::schema_id(&names),
                names,
            }));
            self.joined = joined;
        }
        values.truncate(MAX_VALUES_PER_FRAME);
        Sample {
            schema: self.schema.clone().expect("it was just set"),
            values,
        }
    }
}

/// `part` of `whole` in percent; 0 of nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        (part / whole * 100.0).clamp(0.0, 100.0)
    } else {
        0.0
    }
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
        assert!(value("mem.total_bytes") > 1e6);
        assert!(value("mem.used_bytes") < value("mem.total_bytes"));
        assert!(value("system.processes") >= 1.0);
        assert!(value("agent.rss_bytes") > 100_000.0);
        assert!((value("agent.spool_frames") - 3.0).abs() < f64::EPSILON);
        assert!((value("system.uptime_s") - (start.boot_ms + 2_000) as f64 / 1e3).abs() < 0.01);
    }
}
