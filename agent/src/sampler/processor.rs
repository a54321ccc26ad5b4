//! CPU time per mode, load, and the kernel's counts of running and blocked threads: `/proc/stat`
//! and `/proc/loadavg` (`proc_stat(5)`, `proc_loadavg(5)`).

use std::path::Path;

use super::{
    reader::{self, VirtualFile},
    writer::{Writer, share},
};

/// Reads the processors' counters.
#[derive(Debug)]
pub(super) struct Processor {
    stat: VirtualFile,
    load: VirtualFile,
    /// Each thread has a number, of which there are so many.
    most_threads: Option<f64>,
    before: Reading,
    now: Reading,
}

/// One reading of `/proc/stat`.
#[derive(Debug, Default)]
struct Reading {
    all: Option<Modes>,
    /// Number, busy ticks and all ticks of each processor that is online.
    cores: Vec<(u32, u64, u64)>,
    context_switches: Option<u64>,
    forks: Option<u64>,
    interrupts: Option<u64>,
    running: Option<f64>,
    blocked: Option<f64>,
}

/// Ticks per mode since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Modes {
    user: u64,
    nice: u64,
    system: u64,
    idle: u64,
    iowait: u64,
    irq: u64,
    softirq: u64,
    steal: u64,
}

impl Processor {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            stat: VirtualFile::open(root, "proc/stat"),
            load: VirtualFile::open(root, "proc/loadavg"),
            most_threads: reader::number(root.join("proc/sys/kernel/pid_max")),
            before: Reading::default(),
            now: Reading::default(),
        }
    }

    pub(super) fn write(&mut self, writer: &mut Writer) {
        std::mem::swap(&mut self.before, &mut self.now);
        self.now.take(self.stat.read(&mut writer.buffer));
        let cpus = self.now.cores.len().max(1) as f64;
        self.write_modes(writer);
        writer.put("cpu.count", Some(cpus));
        self.write_load(writer, cpus);
        let (before, now) = (&self.before, &self.now);
        writer.put("system.threads_running", now.running);
        writer.put("system.threads_blocked", now.blocked);
        let mut rate = |name, part: fn(&Reading) -> Option<u64>| {
            let value = part(now).and_then(|count| writer.rate(count, part(before)));
            writer.put(name, value);
        };
        rate("system.context_switches_per_s", |r| r.context_switches);
        rate("system.interrupts_per_s", |r| r.interrupts);
        rate("system.forks_per_s", |r| r.forks);
    }

    fn write_modes(&self, writer: &mut Writer) {
        let difference = self
            .now
            .all
            .zip(self.before.all)
            .and_then(|(now, before)| now.since(before));
        let mut put = |name: &str, part: fn(&Modes) -> u64| {
            let value = difference.map(|cpu| share(part(&cpu) as f64, cpu.total() as f64));
            writer.put(name, value);
        };
        put("cpu.busy_pct", Modes::busy);
        put("cpu.user_pct", |cpu| cpu.user);
        put("cpu.system_pct", |cpu| cpu.system);
        put("cpu.nice_pct", |cpu| cpu.nice);
        put("cpu.iowait_pct", |cpu| cpu.iowait);
        put("cpu.irq_pct", |cpu| cpu.irq);
        put("cpu.softirq_pct", |cpu| cpu.softirq);
        put("cpu.steal_pct", |cpu| cpu.steal);
        let busiest = difference.and_then(|_| self.now.busiest_core(&self.before));
        writer.put("cpu.busiest_core_pct", busiest);
    }

    fn write_load(&self, writer: &mut Writer, cpus: f64) {
        let load = self.load.read(&mut writer.buffer).and_then(parse_load);
        let mut put = |name, value: fn(&Load) -> f64| writer.put(name, load.as_ref().map(value));
        put("load.1m", |load| load.minutes[0]);
        put("load.5m", |load| load.minutes[1]);
        put("load.15m", |load| load.minutes[2]);
        let per_cpu = load.as_ref().map(|load| load.minutes[1] / cpus);
        writer.put("load.5m_per_cpu", per_cpu);
        let threads = load.as_ref().map(|load| load.threads);
        writer.put("system.threads", threads);
        let used_pct = threads
            .zip(self.most_threads)
            .map(|(threads, most)| share(threads, most));
        writer.put("system.threads_used_pct", used_pct);
    }
}

impl Reading {
    /// Takes over what `text` says, in the room of the reading before the last.
    fn take(&mut self, text: Option<&str>) {
        let mut cores = std::mem::take(&mut self.cores);
        cores.clear();
        *self = Self {
            cores,
            ..Self::default()
        };
        for line in text.unwrap_or_default().lines() {
            let Some((key, rest)) = line.split_once(' ') else {
                continue;
            };
            // The first number; the line of interrupts continues with one for each kind.
            let first = || rest.split(' ').next()?.parse::<u64>().ok();
            match key {
                "cpu" => self.all = Some(Modes::parse(rest)),
                "intr" => self.interrupts = first(),
                "ctxt" => self.context_switches = first(),
                "processes" => self.forks = first(),
                "procs_running" => self.running = first().map(|n| n as f64),
                "procs_blocked" => self.blocked = first().map(|n| n as f64),
                _ => {
                    if let Some(number) = key.strip_prefix("cpu").and_then(|n| n.parse().ok()) {
                        let modes = Modes::parse(rest);
                        self.cores.push((number, modes.busy(), modes.total()));
                    }
                }
            }
        }
    }

    /// How busy the busiest processor was: one thread that spins shows here, not in the mean.
    fn busiest_core(&self, before: &Self) -> Option<f64> {
        self.cores
            .iter()
            .filter_map(|&(number, busy, total)| {
                let &(_, busy_before, total_before) =
                    before.cores.iter().find(|core| core.0 == number)?;
                let ticks = total.checked_sub(total_before).filter(|t| *t > 0)?;
                Some(share(busy.saturating_sub(busy_before) as f64, ticks as f64))
            })
            .reduce(f64::max)
    }
}

impl Modes {
    /// user, nice, system, idle, iowait, irq, softirq, steal; user and nice include guests.
    fn parse(fields: &str) -> Self {
        let mut fields = fields
            .split_ascii_whitespace()
            .map(|field| field.parse().unwrap_or(0));
        let mut next = || fields.next().unwrap_or(0);
        Self {
            user: next(),
            nice: next(),
            system: next(),
            idle: next(),
            iowait: next(),
            irq: next(),
            softirq: next(),
            steal: next(),
        }
    }

    const fn total(&self) -> u64 {
        self.busy() + self.idle + self.iowait
    }

    const fn busy(&self) -> u64 {
        self.user + self.nice + self.system + self.irq + self.softirq + self.steal
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
            softirq: self.softirq.saturating_sub(before.softirq),
            steal: self.steal.saturating_sub(before.steal),
        };
        (difference.total() > 0).then_some(difference)
    }
}

struct Load {
    minutes: [f64; 3],
    threads: f64,
}

/// `0.20 0.18 0.12 1/80 11206`: the averages, runnable and all threads, the newest process.
fn parse_load(text: &str) -> Option<Load> {
    let mut fields = text.split_ascii_whitespace();
    let mut next = || fields.next()?.parse::<f64>().ok();
    let minutes = [next()?, next()?, next()?];
    let threads = fields.next()?.split_once('/')?.1.parse().ok()?;
    Some(Load { minutes, threads })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_shares_are_of_the_time_between_two_readings() {
        let before = Modes::parse(" 100 10 50 800 40 1 2 3 0 0");
        let now = Modes::parse(" 150 10 70 820 45 2 4 3 0 0");
        let difference = now.since(before).unwrap();
        assert_eq!(difference.total(), 98);
        assert_eq!(
            (difference.user, difference.irq, difference.softirq),
            (50, 1, 2)
        );
        assert!(now.since(now).is_none());
    }

    #[test]
    fn the_busiest_core_is_found_even_if_one_came_or_went() {
        let mut before = Reading::default();
        before.take(Some("cpu  0 0 0 0\ncpu0 10 0 0 10\ncpu2 0 0 0 0\n"));
        let mut now = Reading::default();
        now.take(Some(
            "cpu  0 0 0 0\ncpu0 20 0 0 40\ncpu1 99 0 0 0\ncpu2 30 0 0 10\nintr 70 1 2\nctxt 5\nprocesses 6\nprocs_running 2\nprocs_blocked 1\n",
        ));
        assert_eq!(now.busiest_core(&before), Some(75.0));
        assert_eq!(
            (now.interrupts, now.context_switches, now.forks),
            (Some(70), Some(5), Some(6))
        );
        assert_eq!((now.running, now.blocked), (Some(2.0), Some(1.0)));
    }

    #[test]
    fn the_load_line_is_read() {
        let load = parse_load("0.20 1.18 2.12 3/345 11206\n").unwrap();
        assert!((load.minutes[1] - 1.18).abs() < f64::EPSILON);
        assert!((load.threads - 345.0).abs() < f64::EPSILON);
        assert!(parse_load("0.20 1.18").is_none());
    }
}
