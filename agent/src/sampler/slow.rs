//! What changes slowly, or costs more to read than a heartbeat may cost: read once a minute or
//! once in ten, and sent as it was read last.

use std::path::{Path, PathBuf};

use watchkeep_shared::wire::heartbeat::Clocks;

use super::{container::Limits, processes, raid, sensors, upkeep, writer::Writer};

const OFTEN_MS: i64 = 60_000;
const RARELY_MS: i64 = 600_000;

/// A name and its value.
pub(super) type Named = (String, Option<f64>);

/// The values that were read last.
#[derive(Debug)]
pub(super) struct Slow {
    root: PathBuf,
    limits: Limits,
    each_minute: Vec<Named>,
    each_ten_minutes: Vec<Named>,
    minute_boot_ms: i64,
    ten_minutes_boot_ms: i64,
}

impl Slow {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            limits: Limits::find(root),
            each_minute: Vec::new(),
            each_ten_minutes: Vec::new(),
            minute_boot_ms: i64::MIN,
            ten_minutes_boot_ms: i64::MIN,
        }
    }

    pub(super) fn write(&mut self, now: Clocks, writer: &mut Writer) {
        let (now_boot_ms, wall_s) = (now.boot_ms, now.wall_ms / 1_000);
        if now_boot_ms >= self.minute_boot_ms {
            self.minute_boot_ms = now_boot_ms + OFTEN_MS;
            self.each_minute = self.read_each_minute(&mut writer.buffer);
        }
        if now_boot_ms >= self.ten_minutes_boot_ms {
            self.ten_minutes_boot_ms = now_boot_ms + RARELY_MS;
            self.each_ten_minutes = upkeep::read(&self.root, wall_s);
        }
        for (name, value) in self.each_minute.iter().chain(&self.each_ten_minutes) {
            writer.put(name, *value);
        }
    }

    fn read_each_minute(&self, buffer: &mut Vec<u8>) -> Vec<Named> {
        let mut values = Vec::new();
        let counts = processes::count(&self.root, buffer);
        values.push(("system.processes".to_owned(), counts.map(|c| c.all)));
        values.push(("system.zombies".to_owned(), counts.map(|c| c.zombies)));
        values.extend(self.limits.read());
        values.extend(sensors::read(&self.root));
        values.extend(raid::read(&self.root));
        values
    }
}
