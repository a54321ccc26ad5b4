//! What changes slowly, or costs more to read than a heartbeat may cost: read once a minute or
//! once in ten, and sent as it was read last. What may block is read on a thread.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use watchkeep_shared::wire::heartbeat::Clocks;

use super::{container::Limits, links, processes, raid, sensors::Sensors, upkeep, writer::Writer};
use crate::blocking::{Blocking, Call};

const OFTEN_MS: i64 = 60_000;
const RARELY_MS: i64 = 600_000;
/// `/boot` may be mounted by the automounter, from a disk that hangs.
const UPKEEP_DEADLINE: Duration = Duration::from_secs(30);

/// A name and its value.
pub(super) type Named = (String, Option<f64>);

/// The values that were read last.
#[derive(Debug)]
pub(super) struct Slow {
    root: PathBuf,
    limits: Limits,
    blocking: Blocking,
    sensors: Sensors,
    upkeep: Option<Call<Vec<Named>>>,
    each_minute: Vec<Named>,
    each_ten_minutes: Vec<Named>,
    minute_boot_ms: i64,
    ten_minutes_boot_ms: i64,
}

impl Slow {
    pub(super) fn new(root: &Path, blocking: &Blocking) -> Self {
        Self {
            root: root.to_owned(),
            limits: Limits::new(root),
            blocking: blocking.clone(),
            sensors: Sensors::new(root, blocking),
            upkeep: None,
            each_minute: Vec::new(),
            each_ten_minutes: Vec::new(),
            minute_boot_ms: i64::MIN,
            ten_minutes_boot_ms: i64::MIN,
        }
    }

    /// Waits at most `patience` for sensors, and as long for the state of the upkeep.
    pub(super) fn write(&mut self, now: Clocks, patience: Duration, writer: &mut Writer) {
        let (now_boot_ms, wall_s) = (now.boot_ms, now.wall_ms / 1_000);
        if now_boot_ms >= self.minute_boot_ms {
            self.minute_boot_ms = now_boot_ms + OFTEN_MS;
            self.each_minute = self.read_each_minute(&mut writer.buffer);
            let asked = self.sensors.start();
            self.sensors.take(asked, patience);
        }
        self.sensors.take(0, Duration::ZERO);
        if now_boot_ms >= self.ten_minutes_boot_ms {
            self.ten_minutes_boot_ms = now_boot_ms + RARELY_MS;
            self.start_upkeep(wall_s, patience);
        }
        self.take_upkeep(Duration::ZERO);
        let heat = self.sensors.values();
        let read = self.each_minute.iter().chain(&heat);
        for (name, value) in read.chain(&self.each_ten_minutes) {
            writer.put(name, *value);
        }
    }

    /// Sensors that do not answer.
    pub(super) fn hung_sensors(&self) -> impl Iterator<Item = &str> {
        self.sensors.hung()
    }

    fn start_upkeep(&mut self, wall_s: i64, patience: Duration) {
        let root = self.root.clone();
        let read = move || upkeep::read(&root, wall_s);
        let call = self
            .blocking
            .call("files in /boot and /var/lib", UPKEEP_DEADLINE, read);
        self.upkeep = call.ok();
        if self.upkeep.is_none() {
            // Rather nothing than what was true some time ago.
            self.each_ten_minutes.clear();
        }
        self.take_upkeep(patience);
    }

    fn take_upkeep(&mut self, patience: Duration) {
        let read = self.upkeep.as_ref().and_then(|call| call.wait(patience));
        if let Some(values) = read {
            self.upkeep = None;
            self.each_ten_minutes = values;
        }
    }

    fn read_each_minute(&self, buffer: &mut Vec<u8>) -> Vec<Named> {
        let mut values = Vec::new();
        let counts = processes::count(&self.root, buffer);
        values.push(("system.processes".to_owned(), counts.map(|c| c.all)));
        values.push(("system.zombies".to_owned(), counts.map(|c| c.zombies)));
        values.extend(self.limits.read());
        values.extend(raid::read(&self.root));
        values.extend(links::read(&self.root));
        values
    }
}
