//! Memory does not grow: thousands of cycles under churn, as fast as they go, and what is allocated
//! afterwards is what was allocated before. Disks, interfaces and sensors come and go, logs grow, rotate
//! and vanish, the policy changes, the collector is away for a while. An hour of a real agent has 360 cycles.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    alloc::System,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tempfile::TempDir;
use watchkeep_agent::{
    config::{AllowedPath, SpoolLimits},
    logs::{LogWatcher, Redactor},
    sampler::{Busiest, Facts, Sampler},
    spool::{FrameId, Keep, Run, Spool},
};
use watchkeep_shared::{
    BootId, InstanceId, ids,
    wire::{
        heartbeat::{Clocks, Frame},
        policy::{LogCheck, LogRule},
    },
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// After so many cycles all churn starts again: its steps divide this.
const PERIOD: usize = 240;
const PERIODS: usize = 9;
/// By then all that is bounded has reached its bound.
const SETTLED: usize = 4;
/// Maps and buffers keep some room that depends on hashes drawn at random; 4 bytes a cycle.
const ROOM_BYTES: isize = 4 << 10;

fn live_bytes() -> isize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

/// The parts of the agent that hold state from cycle to cycle.
struct Agent {
    dir: TempDir,
    sampler: Sampler,
    facts: Facts,
    busiest: Busiest,
    logs: LogWatcher,
    spool: Spool,
    unsent: Vec<FrameId>,
}

const fn clocks(cycle: usize) -> Clocks {
    let ms = 1_000_000 + cycle as i64 * 10_000;
    Clocks {
        wall_ms: ms,
        mono_ms: ms,
        boot_ms: ms,
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A machine on which things come and go.
fn change_machine(root: &Path, cycle: usize) {
    let count = cycle as u64 * 100;
    write(
        root,
        "proc/stat",
        &format!("cpu  {count} 0 0 {count}\ncpu0 {count} 0 0 {count}\nctxt {count}\n"),
    );
    let mut interfaces = String::from("Inter-|\n face |\n");
    for n in (0..6).filter(|n| !(cycle / 8 + n).is_multiple_of(3)) {
        let line = format!("  eth{n}: {count} 2 3 4 5 6 7 8 {count} 10 11 12 13 14 15 16\n");
        interfaces.push_str(&line);
    }
    write(root, "proc/net/dev", &interfaces);
    let mut devices = String::new();
    for n in (0..6).filter(|n| !(cycle / 5 + n).is_multiple_of(4)) {
        let line = format!(
            "   8 {n} sd{} {count} 0 1 2 {count} 0 3 4 0 5 6\n",
            char::from(b'a' + n as u8)
        );
        devices.push_str(&line);
    }
    write(root, "proc/diskstats", &devices);
    let mut arrays = String::new();
    for n in 0..cycle / 20 % 3 {
        let line = format!("md{n} : active raid1 sda[0] sdb[1]\n      1 blocks [2/1] [U_]\n");
        arrays.push_str(&line);
    }
    write(root, "proc/mdstat", &arrays);
    write(
        root,
        "run/systemd/container",
        if cycle % 240 < 120 { "lxc" } else { "docker" },
    );
    for n in 0..20 {
        let directory = root.join(format!("proc/{}", 100 + n));
        if (cycle + n) % 20 < 10 {
            let text =
                format!("1 (p) S 1 1 1 0 -1 0 0 0 0 0 {count} 0 0 0 20 0 1 0 {cycle} 0 7 1\n");
            write(&directory, "stat", &text);
        } else {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Lines of which one in five matches; rotation by renaming, by truncation, and logs that vanish.
fn change_logs(directory: &Path, cycle: usize) {
    let path = directory.join(format!("app{}.log", cycle / 20 % 3));
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .unwrap();
    for n in 0..10 {
        let word = if n % 5 == 0 { "ERROR" } else { "fine" };
        writeln!(log, "{word} number {n} of {cycle}: password=hunter2").unwrap();
    }
    match cycle % 20 {
        3 => fs::rename(&path, directory.join("app.log.1")).unwrap(),
        8 => log.set_len(0).unwrap(),
        19 => fs::remove_file(&path).unwrap(),
        _ => {}
    }
}

fn log_policy(directory: &Path, cycle: usize) -> Vec<LogCheck> {
    let rules = if cycle % 120 < 60 { 1 } else { 3 };
    let rules = (0..rules).map(|n| LogRule {
        name: format!("rule{n}"),
        pattern: format!("ERROR number {n}|(?i)fault{n}"),
        lines_per_minute: None,
    });
    vec![LogCheck {
        path: directory.join("*.log").to_str().unwrap().to_owned(),
        rules: rules.collect(),
        record_start: None,
        journal: None,
        event_log: None,
    }]
}

impl Agent {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("logs")).unwrap();
        change_machine(root, 0);
        let run = Run {
            boot: BootId(ids::random_uuid()),
            instance: InstanceId(ids::random_uuid()),
        };
        let limits = SpoolLimits {
            max_bytes: 64 << 20,
            max_age_hours: 168,
            memory_frames: 1_000,
        };
        let allowed = AllowedPath::new(&format!("{}/**", root.display())).unwrap();
        Self {
            sampler: Sampler::of(root, clocks(0)),
            facts: Facts::default(),
            busiest: Busiest::default(),
            logs: LogWatcher::new(None, vec![allowed], Arc::new(Redactor::new(Vec::new()))),
            spool: Spool::open(&root.join("spool"), limits, run),
            unsent: Vec::new(),
            dir,
        }
    }

    fn log_directory(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    fn cycle(&mut self, cycle: usize) {
        let now = clocks(cycle);
        change_machine(self.dir.path(), cycle);
        change_logs(&self.log_directory(), cycle);
        if cycle % 60 == 1 {
            self.logs.set(&log_policy(&self.log_directory(), cycle));
        }
        if cycle % 30 == 1 {
            self.busiest.ask(now, cycle % 60 == 1);
        }
        while self.logs.scan(now.boot_ms) {}
        let sample = self.sampler.sample(now, self.spool.len());
        let mut events = self.spool.make_room(now);
        let (matches, positions) = self.logs.take();
        events.extend(matches);
        events.extend(self.facts.news(now));
        events.extend(self.busiest.answer(now));
        let frame = Frame {
            boot: None,
            instance: None,
            seq: cycle as u64,
            clocks: now,
            interval_ms: 10_000,
            schema: sample.schema.id,
            values: sample.values,
            services: None,
            events,
        };
        let keep = match positions {
            Some(note) => Keep::Disk { note: Some(note) },
            None => Keep::Memory,
        };
        self.unsent
            .push(self.spool.push(frame, &sample.schema.names, keep));
        // The collector is away for 25 cycles now and then.
        if cycle % 120 == 25 {
            self.spool.persist();
        }
        if cycle % 120 >= 25 {
            self.spool.acknowledge(&self.unsent);
            self.unsent.clear();
        }
    }
}

#[test]
fn memory_stays_as_it_is_over_thousands_of_cycles_of_churn() {
    let mut agent = Agent::new();
    let mut ends = Vec::new();
    for period in 0..PERIODS {
        for step in 1..=PERIOD {
            agent.cycle(period * PERIOD + step);
        }
        ends.push(live_bytes());
    }
    let (settled, last) = (ends[SETTLED - 1], ends[PERIODS - 1]);
    let bytes_per_cycle = (last - settled) as f64 / (PERIOD * (PERIODS - SETTLED)) as f64;
    assert!(
        last - settled < ROOM_BYTES,
        "{bytes_per_cycle:.1} bytes a cycle: {ends:?}"
    );
}
