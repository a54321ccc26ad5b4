//! Measures Windows, under the names that the same things have on Linux: processors, memory, commit
//! charge, volumes, network, disk operations, processes, handles, uptime, and whether a reboot is due.
//! A reading that fails is `None`. Not measured: load (which Windows does not have), temperatures,
//! waiting updates (asking for them takes the update service minutes).

#[path = "counters.rs"]
mod counters;
#[path = "registry.rs"]
mod registry;
#[path = "../../sampler/sample.rs"]
mod sample;
#[expect(dead_code, reason = "the sampler of Linux uses more of it")]
#[path = "../../sampler/writer.rs"]
mod writer;

use watchkeep_shared::wire::heartbeat::{Clocks, Event};
use winsafe::{
    FILETIME, GetComputerName, GetDiskFreeSpaceEx, GetDriveType, GetLogicalDriveStrings,
    GetPerformanceInfo, GetSystemTimes, GlobalMemoryStatusEx, HPROCESS, co,
};

pub use self::sample::{NamedSchema, Sample};
use self::{
    sample::Names,
    writer::{Writer, share},
};

/// Tells what the machine is, once a process.
#[derive(Debug, Default)]
pub struct Facts {
    is_reported: bool,
}

impl Facts {
    /// What to report now, if anything.
    pub fn news(&mut self, _: Clocks) -> Option<Event> {
        let first = !std::mem::replace(&mut self.is_reported, true);
        first.then(|| Event::HostFacts(registry::facts()))
    }
}

/// The busiest processes: not reported on Windows yet; a request stays without an answer.
#[derive(Debug, Default)]
pub struct Busiest;

impl Busiest {
    /// The collector asks.
    pub fn ask(&mut self, _: Clocks, _allowed: bool) {}

    /// Nothing.
    pub fn answer(&mut self, _: Clocks) -> Option<Event> {
        None
    }
}

/// Ticks of 100 ns in a second.
const TICKS_PER_S: f64 = 1e7;

/// Measures the machine; keeps the counters of the last cycle for rates.
#[derive(Debug)]
pub struct Sampler {
    before: Option<Before>,
    counters: counters::Counters,
    reboot: registry::Reboot,
    names: Names,
}

/// Counters of a cycle, in ticks.
#[derive(Clone, Copy, Debug)]
struct Before {
    boot_ms: i64,
    processor: Option<Processor>,
    own: Option<u64>,
}

/// Time since the boot, summed over all processors, in ticks.
#[derive(Clone, Copy, Debug)]
struct Processor {
    idle: u64,
    /// Idle time included, as Windows counts.
    kernel: u64,
    user: u64,
}

impl Sampler {
    /// Takes the first reading of all counters.
    pub fn new(now: Clocks) -> Self {
        let mut sampler = Self {
            before: None,
            counters: counters::Counters::default(),
            reboot: registry::Reboot::default(),
            names: Names::default(),
        };
        sampler.sample(now, 0);
        sampler
    }

    /// Measures. `spool_frames` is the number of unacknowledged frames.
    pub fn sample(&mut self, now: Clocks, spool_frames: usize) -> Sample {
        let reading = Before {
            boot_ms: now.boot_ms,
            processor: Processor::read(),
            own: own_ticks(),
        };
        let before = self.before.replace(reading);
        let (bytes, values) = self.names.sizes();
        let mut writer = Writer {
            joined: String::with_capacity(bytes),
            values: Vec::with_capacity(values),
            elapsed_s: before
                .map(|before| (now.boot_ms - before.boot_ms) as f64 / 1_000.0)
                .filter(|seconds| *seconds > 0.0),
            buffer: Vec::new(),
        };
        processor(before, reading, &mut writer);
        memory(&mut writer);
        let drives = volumes(&mut writer);
        self.counters.write(&drives, &mut writer);
        system(&mut writer);
        writer.put("system.reboot_required", self.reboot.is_due(now.mono_ms));
        writer.put("system.uptime_s", Some(now.boot_ms as f64 / 1_000.0));
        let own = before
            .and_then(|before| writer.rate(reading.own?, before.own))
            .map(|ticks| ticks / TICKS_PER_S * 100.0);
        writer.put("agent.cpu_pct", own);
        let resident = HPROCESS::GetCurrentProcess().GetProcessMemoryInfo();
        let resident = resident.map(|memory| memory.WorkingSetSize as f64);
        writer.put("agent.rss_bytes", resident.ok());
        writer.put("agent.spool_frames", Some(spool_frames as f64));
        self.names.sample(writer.joined, writer.values)
    }
}

impl Processor {
    fn read() -> Option<Self> {
        let (idle, kernel, user) = GetSystemTimes().ok()?;
        Some(Self {
            idle: idle.into(),
            kernel: kernel.into(),
            user: user.into(),
        })
    }
}

fn processor(before: Option<Before>, now: Before, writer: &mut Writer) {
    let spent = before
        .and_then(|before| before.processor)
        .zip(now.processor)
        .and_then(|(before, now)| {
            let idle = now.idle.checked_sub(before.idle)?;
            let system = now.kernel.checked_sub(before.kernel)?.checked_sub(idle)?;
            let user = now.user.checked_sub(before.user)?;
            Some((idle as f64, system as f64, user as f64))
        })
        .filter(|(idle, system, user)| idle + system + user > 0.0);
    let part = |of: fn((f64, f64, f64)) -> f64| {
        spent.map(|(idle, system, user)| share(of((idle, system, user)), idle + system + user))
    };
    writer.put("cpu.busy_pct", part(|(_, system, user)| system + user));
    writer.put("cpu.user_pct", part(|(_, _, user)| user));
    writer.put("cpu.system_pct", part(|(_, system, _)| system));
    let count = std::thread::available_parallelism();
    writer.put("cpu.count", count.ok().map(|n| n.get() as f64));
}

fn memory(writer: &mut Writer) {
    let memory = GlobalMemoryStatusEx().ok();
    let of = |read: fn(&winsafe::MEMORYSTATUSEX) -> f64| memory.as_ref().map(read);
    let total = of(|m| m.ullTotalPhys as f64);
    let available = of(|m| m.ullAvailPhys as f64);
    let used = total.zip(available).map(|(total, free)| total - free);
    writer.put("mem.total_bytes", total);
    writer.put("mem.available_bytes", available);
    writer.put("mem.used_bytes", used);
    let used_pct = used.zip(total).map(|(used, total)| share(used, total));
    writer.put("mem.used_pct", used_pct);
    // The commit limit is memory and page files together.
    let swap = of(|m| m.ullTotalPageFile.saturating_sub(m.ullTotalPhys) as f64);
    writer.put("swap.total_bytes", swap);
}

/// Local volumes with a drive letter; which these are, as in `C:`.
fn volumes(writer: &mut Writer) -> Vec<String> {
    let mut found = Vec::new();
    for drive in GetLogicalDriveStrings().unwrap_or_default() {
        if GetDriveType(Some(&drive)) != co::DRIVE::FIXED {
            continue;
        }
        let (mut free, mut total) = (0, 0);
        let read = GetDiskFreeSpaceEx(Some(&drive), None, Some(&mut total), Some(&mut free));
        let name = drive.trim_end_matches('\\');
        let sizes = read.ok().map(|()| (total as f64, free as f64));
        writer.put_of("disk.total_bytes", name, sizes.map(|(total, _)| total));
        writer.put_of(
            "disk.used_bytes",
            name,
            sizes.map(|(total, free)| total - free),
        );
        let used = sizes.map(|(total, free)| share(total - free, total));
        writer.put_of("disk.used_pct", name, used);
        found.push(name.to_owned());
    }
    found
}

fn system(writer: &mut Writer) {
    let system = GetPerformanceInfo().ok();
    let processes = system.as_ref().map(|s| f64::from(s.ProcessCount));
    writer.put("system.processes", processes);
    let handles = system.as_ref().map(|s| f64::from(s.HandleCount));
    writer.put("system.fds_used", handles);
}

/// CPU time that this process used.
fn own_ticks() -> Option<u64> {
    let times = HPROCESS::GetCurrentProcess().GetProcessTimes();
    let (_, _, kernel, user): (FILETIME, FILETIME, FILETIME, FILETIME) = times.ok()?;
    Some(u64::from(kernel) + u64::from(user))
}

/// The machine's host name.
pub fn host_name() -> String {
    GetComputerName().unwrap_or_else(|_| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn this_machine_gives_plausible_values() {
        let start = clock::now();
        let mut sampler = Sampler::new(start);
        let later = Clocks {
            boot_ms: start.boot_ms + 1_000,
            ..start
        };
        let sample = sampler.sample(later, 3);
        let value = |name: &str| {
            let at = sample.schema.names.iter().position(|n| n == name);
            at.and_then(|at| sample.values[at])
        };
        assert!(value("mem.total_bytes").is_some_and(|bytes| bytes > 1e6));
        assert!(value("system.uptime_s").is_some_and(|seconds| seconds > 0.0));
        assert!(value("agent.rss_bytes").is_some_and(|bytes| bytes > 1e5));
    }
}
