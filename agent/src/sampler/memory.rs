//! Memory and swap: `/proc/meminfo` and `/proc/vmstat` (`proc_meminfo(5)`, `proc_vmstat(5)`).

use std::path::Path;

use super::{
    reader::VirtualFile,
    writer::{Writer, share},
};

const KIB: f64 = 1_024.0;

/// Reads memory's state and counters.
#[derive(Debug)]
pub(super) struct Memory {
    info: VirtualFile,
    events: VirtualFile,
    before: Option<Events>,
    page_bytes: f64,
}

/// What is read of `/proc/meminfo`, bytes.
#[derive(Debug, Default)]
struct Info {
    total: f64,
    free: f64,
    available: Option<f64>,
    buffers: f64,
    cached: f64,
    dirty: f64,
    writeback: f64,
    shared: f64,
    slab_unreclaimable: f64,
    committed: f64,
    swap_total: f64,
    swap_free: f64,
}

/// Counters since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Events {
    swapped_in_pages: u64,
    swapped_out_pages: u64,
    major_faults: u64,
    oom_kills: u64,
}

impl Memory {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            info: VirtualFile::open(root, "proc/meminfo"),
            events: VirtualFile::open(root, "proc/vmstat"),
            before: None,
            page_bytes: rustix::param::page_size() as f64,
        }
    }

    pub(super) fn write(&mut self, writer: &mut Writer) {
        let info = self.info.read(&mut writer.buffer).map(Info::parse);
        let mut put = |name, value: fn(&Info) -> f64| writer.put(name, info.as_ref().map(value));
        put("mem.total_bytes", |m| m.total);
        put("mem.used_bytes", Info::used);
        put("mem.available_bytes", Info::available);
        put("mem.used_pct", |m| share(m.used(), m.total));
        put("mem.cached_bytes", |m| m.cached);
        put("mem.buffers_bytes", |m| m.buffers);
        put("mem.shared_bytes", |m| m.shared);
        put("mem.slab_unreclaimable_bytes", |m| m.slab_unreclaimable);
        put("mem.dirty_bytes", |m| m.dirty);
        put("mem.writeback_bytes", |m| m.writeback);
        put("mem.committed_bytes", |m| m.committed);
        put("swap.total_bytes", |m| m.swap_total);
        put("swap.used_bytes", Info::swap_used);
        put("swap.used_pct", |m| share(m.swap_used(), m.swap_total));
        self.write_events(writer);
    }

    fn write_events(&mut self, writer: &mut Writer) {
        let now = self.events.read(&mut writer.buffer).map(Events::parse);
        let before = self.before;
        let rate = |writer: &mut Writer, name, unit: f64, part: fn(&Events) -> u64| {
            let rate =
                now.and_then(|now| writer.rate(part(&now), before.map(|before| part(&before))));
            writer.put(name, rate.map(|rate| rate * unit));
        };
        let page = self.page_bytes;
        rate(writer, "swap.in_bytes_per_s", page, |e| e.swapped_in_pages);
        rate(writer, "swap.out_bytes_per_s", page, |e| {
            e.swapped_out_pages
        });
        rate(writer, "mem.major_faults_per_s", 1.0, |e| e.major_faults);
        // A count, not a rate: one in a long interval would round to none.
        let kills = now
            .zip(before)
            .map(|(now, before)| now.oom_kills.saturating_sub(before.oom_kills) as f64);
        writer.put("mem.oom_kills", kills);
        self.before = now;
    }
}

impl Info {
    fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for line in text.lines() {
            let Some((key, rest)) = line.split_once(':') else {
                continue;
            };
            let field = match key {
                "MemTotal" => &mut info.total,
                "MemFree" => &mut info.free,
                "MemAvailable" => info.available.insert(0.0),
                "Buffers" => &mut info.buffers,
                "Cached" => &mut info.cached,
                "Dirty" => &mut info.dirty,
                "Writeback" => &mut info.writeback,
                "Shmem" => &mut info.shared,
                "SUnreclaim" => &mut info.slab_unreclaimable,
                "Committed_AS" => &mut info.committed,
                "SwapTotal" => &mut info.swap_total,
                "SwapFree" => &mut info.swap_free,
                _ => continue,
            };
            let number = rest.trim_start().split(' ').next().unwrap_or_default();
            *field = number.parse().unwrap_or(0.0) * KIB;
        }
        info
    }

    /// What programs can still have; kernels before 3.14 don't say, then what is free or cached.
    fn available(&self) -> f64 {
        self.available
            .unwrap_or(self.free + self.buffers + self.cached)
    }

    fn used(&self) -> f64 {
        (self.total - self.available()).max(0.0)
    }

    fn swap_used(&self) -> f64 {
        (self.swap_total - self.swap_free).max(0.0)
    }
}

impl Events {
    fn parse(text: &str) -> Self {
        let mut events = Self::default();
        for line in text.lines() {
            let Some((key, number)) = line.split_once(' ') else {
                continue;
            };
            let field = match key {
                "pswpin" => &mut events.swapped_in_pages,
                "pswpout" => &mut events.swapped_out_pages,
                "pgmajfault" => &mut events.major_faults,
                "oom_kill" => &mut events.oom_kills,
                _ => continue,
            };
            *field = number.parse().unwrap_or(0);
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_name_in_bytes() {
        let info = Info::parse(
            "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\nBuffers:           7 kB\nCached:           30 kB\nSwapCached:        9 kB\nSwapTotal:        50 kB\nSwapFree:         20 kB\nDirty:             3 kB\nHugePages_Total:   2\n",
        );
        assert_eq!(info.used() as u64, 600 * 1_024);
        assert_eq!(info.swap_used() as u64, 30 * 1_024);
        assert_eq!((info.cached as u64, info.dirty as u64), (30_720, 3_072));
        let old = Info::parse("MemTotal: 10 kB\nMemFree: 1 kB\nBuffers: 2 kB\nCached: 3 kB\n");
        assert_eq!(old.available() as u64, 6 * 1_024);
    }

    #[test]
    fn counters_are_read_by_name() {
        let events = Events::parse("pswpin 1\npswpout 2\npgfault 9\npgmajfault 3\noom_kill 4\n");
        assert_eq!(
            events,
            Events {
                swapped_in_pages: 1,
                swapped_out_pages: 2,
                major_faults: 3,
                oom_kills: 4
            }
        );
    }
}
