//! The busiest processes, between the moment at which the collector asked and the next heartbeat.
//! Two passes over the table of processes, and only when asked: see `processes`.

use std::{cmp::Reverse, collections::HashMap, path::PathBuf};

use watchkeep_shared::{
    metric::round_to_hundredth,
    wire::{
        heartbeat::{Clocks, Event},
        host::{Process, Processes},
        limits::MAX_PROCESSES_LISTED,
    },
};

use super::processes;

/// Over less time a share says little.
const SHORTEST_MS: i64 = 500;

/// Waits for being asked.
#[derive(Debug)]
pub struct Busiest {
    root: PathBuf,
    asked: Option<Request>,
}

#[derive(Debug)]
enum Request {
    /// Processor time of each process then, by its number and when it started.
    At {
        boot_ms: i64,
        ticks: HashMap<(u32, u64), u64>,
    },
    /// The customer's configuration says no.
    Refused,
}

impl Default for Busiest {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            asked: None,
        }
    }
}

impl Busiest {
    /// The collector asks; `allowed` by the customer or not.
    pub fn ask(&mut self, now: Clocks, allowed: bool) {
        if !allowed {
            self.asked = Some(Request::Refused);
            return;
        }
        let mut ticks = HashMap::new();
        processes::for_each(&self.root, &mut Vec::new(), |process| {
            ticks.insert((process.pid, process.started_ticks), process.cpu_ticks);
        });
        self.asked = Some(Request::At {
            boot_ms: now.boot_ms,
            ticks,
        });
    }

    /// What was asked for, once.
    pub fn answer(&mut self, now: Clocks) -> Option<Event> {
        let processes = match self.asked.as_ref()? {
            Request::At { boot_ms, .. } if now.boot_ms - boot_ms < SHORTEST_MS => return None,
            Request::At { boot_ms, ticks } => self.measure(ticks, now.boot_ms - boot_ms),
            Request::Refused => Processes {
                refused: true,
                ..Processes::default()
            },
        };
        self.asked = None;
        Some(Event::Processes(processes))
    }

    fn measure(&self, before: &HashMap<(u32, u64), u64>, elapsed_ms: i64) -> Processes {
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        let page_bytes = rustix::param::page_size() as u64;
        let mut all = Vec::with_capacity(before.len() + 16);
        processes::for_each(&self.root, &mut Vec::new(), |process| {
            // One that is new has used all its time since.
            let known = before.get(&(process.pid, process.started_ticks));
            let used = process
                .cpu_ticks
                .saturating_sub(known.copied().unwrap_or(0));
            let seconds = used as f64 / ticks_per_s;
            all.push(Process {
                pid: process.pid,
                name: process.name.to_owned(),
                cpu_pct: round_to_hundredth(seconds * 100_000.0 / elapsed_ms as f64),
                rss_bytes: process.resident_pages * page_bytes,
            });
        });
        let first = |all: &[Process]| all.iter().take(MAX_PROCESSES_LISTED).cloned().collect();
        all.sort_by(|a, b| b.cpu_pct.total_cmp(&a.cpu_pct).then(a.pid.cmp(&b.pid)));
        let by_cpu = first(&all);
        all.sort_by_key(|process| (Reverse(process.rss_bytes), process.pid));
        Processes {
            by_cpu,
            by_memory: first(&all),
            refused: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(root: &std::path::Path, pid: u32, started: u64, ticks: u64, pages: u64) {
        let directory = root.join(format!("proc/{pid}"));
        std::fs::create_dir_all(&directory).unwrap();
        let text = format!(
            "{pid} (p{pid}) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {started} 0 {pages} 1\n"
        );
        std::fs::write(directory.join("stat"), text).unwrap();
    }

    const fn at(boot_ms: i64) -> Clocks {
        Clocks {
            wall_ms: 0,
            mono_ms: boot_ms,
            boot_ms,
        }
    }

    #[test]
    fn the_busiest_of_the_time_between_are_told_once() {
        let root = tempfile::tempdir().unwrap();
        let mut busiest = Busiest {
            root: root.path().to_owned(),
            asked: None,
        };
        assert_eq!(busiest.answer(at(0)), None);
        for pid in 1..=9 {
            stat(root.path(), pid, 5, 10_000, u64::from(pid));
        }
        busiest.ask(at(1_000), true);
        stat(root.path(), 3, 5, 10_500, 3);
        // Another process under the same number, and one that is new.
        stat(root.path(), 4, 900, 1_000, 4);
        stat(root.path(), 77, 900, 200, 1);
        assert_eq!(busiest.answer(at(1_100)), None, "too soon");
        let Some(Event::Processes(processes)) = busiest.answer(at(11_000)) else {
            panic!("no answer");
        };
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        let pct = |ticks: f64| round_to_hundredth(ticks / ticks_per_s * 10.0);
        let by_cpu: Vec<(u32, f64)> = processes
            .by_cpu
            .iter()
            .map(|p| (p.pid, p.cpu_pct))
            .collect();
        assert_eq!(
            by_cpu[..3],
            [(4, pct(1_000.0)), (3, pct(500.0)), (77, pct(200.0))]
        );
        let by_memory: Vec<u32> = processes.by_memory.iter().map(|p| p.pid).collect();
        assert_eq!(by_memory, [9, 8, 7, 6, 5]);
        assert_eq!(processes.by_memory[0].name, "p9");
        assert_eq!(busiest.answer(at(21_000)), None);
    }

    #[test]
    fn what_the_customer_refuses_is_not_read_but_said() {
        let mut busiest = Busiest::default();
        busiest.ask(at(0), false);
        let Some(Event::Processes(processes)) = busiest.answer(at(10_000)) else {
            panic!("no answer");
        };
        assert!(processes.refused && processes.by_cpu.is_empty() && processes.by_memory.is_empty());
    }
}
