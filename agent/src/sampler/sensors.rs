//! Temperatures: the hottest sensor of each chip that the kernel knows (`/sys/class/hwmon`, the
//! kernel's `Documentation/hwmon/sysfs-interface.rst`), or of the firmware's thermal zones where there
//! is no chip. Virtual machines have neither, and then there are no such values.
//!
//! Reading a disk's sensor sends the disk a command and waits for its answer, so chips are read on a
//! thread; one that does not answer is left alone until it does.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    reader::{entries, number, text},
    slow::Named,
};
use crate::blocking::{Blocking, Rounds};

/// Most chips or zones that are reported.
const MAX_CHIPS: usize = 32;
/// What a sensor that works can show, degrees Celsius. Unconnected ones show -128, 0 or 255.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 1.0..=150.0;
/// Where hardware can shut off, degrees Celsius. Firmware that names a lower point makes it up, and
/// the reading that goes with it.
const PLAUSIBLE_CRITICAL: std::ops::RangeInclusive<f64> = 45.0..=150.0;
/// A chip that takes longer is reported as hung.
const DEADLINE: Duration = Duration::from_secs(10);
/// Sensors within or beside processors: reported first.
const PROCESSORS: [&str; 7] = [
    "coretemp",
    "cpu_thermal",
    "k10temp",
    "k8temp",
    "via_cputemp",
    "x86_pkg_temp",
    "zenpower",
];
/// Sensors of disks: reported last, as there can be many.
const DISKS: [&str; 2] = ["drivetemp", "nvme"];

/// A reading and the temperature at which the hardware shuts off or slows down, degrees Celsius.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Heat {
    now: f64,
    critical: Option<f64>,
}

/// A chip, or a zone of the firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chip {
    /// Unique: the second of two equal ones has a number.
    name: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Chip(PathBuf),
    Zone(PathBuf),
}

/// All chips and their last readings.
#[derive(Debug)]
pub(super) struct Sensors {
    root: PathBuf,
    rounds: Rounds<Chip, Vec<Heat>>,
    chips: Vec<(Chip, Option<Vec<Heat>>)>,
    left_out: usize,
}

impl Sensors {
    pub(super) fn new(root: &Path, blocking: &Blocking) -> Self {
        Self {
            root: root.to_owned(),
            rounds: Rounds::new(blocking.clone(), DEADLINE, read),
            chips: Vec::new(),
            left_out: 0,
        }
    }

    /// Starts to read all chips that do not hang. Returns how many.
    pub(super) fn start(&mut self) -> usize {
        if self.rounds.is_under_way() {
            return 0;
        }
        let mut found = find(&self.root);
        self.left_out = found.len().saturating_sub(MAX_CHIPS);
        found.truncate(MAX_CHIPS);
        let mut before = std::mem::take(&mut self.chips);
        for chip in found {
            let known = before.iter().position(|(other, _)| *other == chip);
            let heats = known.and_then(|at| before.swap_remove(at).1);
            self.chips.push((chip, heats));
        }
        let asked: Vec<Chip> = self
            .chips
            .iter()
            .map(|(chip, _)| chip.clone())
            .filter(|chip| self.rounds.hung().all(|hung| hung != chip))
            .collect();
        let count = asked.len();
        if count > 0 && !self.rounds.start(asked) {
            for (_, heats) in &mut self.chips {
                *heats = None;
            }
        }
        count
    }

    /// Takes readings that have come. Waits at most `patience` for the first `promised`.
    pub(super) fn take(&mut self, promised: usize, patience: Duration) {
        for (chip, read, _) in self.rounds.take(promised, patience) {
            if let Some((_, heats)) = self.chips.iter_mut().find(|(one, _)| *one == chip) {
                *heats = Some(read);
            }
        }
        for (chip, heats) in &mut self.chips {
            if self.rounds.hung().any(|hung| hung == chip) {
                *heats = None;
            }
        }
    }

    /// Names of chips that do not answer.
    pub(super) fn hung(&self) -> impl Iterator<Item = &str> {
        self.rounds.hung().map(|chip| chip.name.as_str())
    }

    pub(super) fn values(&self) -> Vec<Named> {
        let mut values: Vec<Named> = Vec::new();
        for (chip, heats) in &self.chips {
            let Some(heats) = heats else {
                values.push((format!("sensor.temperature_celsius:{}", chip.name), None));
                continue;
            };
            // A chip without a sensor that works.
            let Some(hottest) = heats.iter().map(|heat| heat.now).reduce(f64::max) else {
                continue;
            };
            let name = format!("sensor.temperature_celsius:{}", chip.name);
            values.push((name, Some(hottest)));
            let margins = heats
                .iter()
                .filter_map(|heat| Some(heat.critical? - heat.now));
            if let Some(margin) = margins.reduce(f64::min) {
                let name = format!("sensor.below_critical_celsius:{}", chip.name);
                values.push((name, Some(margin)));
            }
        }
        if self.left_out > 0 {
            values.push(("sensor.left_out".to_owned(), Some(self.left_out as f64)));
        }
        values
    }
}

/// The chips, or the zones if there is no chip with a sensor: processors first, disks last.
fn find(root: &Path) -> Vec<Chip> {
    let chips = entries(root.join("sys/class/hwmon"))
        .into_iter()
        .filter(|(_, chip)| has_sensor(chip))
        .filter_map(|(_, chip)| Some((text(chip.join("name"))?, Place::Chip(chip))));
    let mut found: Vec<(String, Place)> = chips.collect();
    if found.is_empty() {
        let zones = entries(root.join("sys/class/thermal"))
            .into_iter()
            .filter(|(name, _)| name.starts_with("thermal_zone"))
            .filter_map(|(_, zone)| Some((text(zone.join("type"))?, Place::Zone(zone))));
        found = zones.collect();
    }
    let mut chips: Vec<Chip> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (name, place) in found {
        let same = names.iter().filter(|other| **other == name).count();
        names.push(name.clone());
        let name = match same {
            0 => name,
            n => format!("{name}-{}", n + 1),
        };
        chips.push(Chip { name, place });
    }
    chips.sort_by_key(|chip| rank(&chip.name));
    chips
}

fn has_sensor(chip: &Path) -> bool {
    entries(chip)
        .iter()
        .any(|(file, _)| sensor_of(file).is_some())
}

/// `temp1` of `temp1_input`.
fn sensor_of(file: &str) -> Option<&str> {
    let sensor = file.strip_suffix("_input")?;
    sensor.starts_with("temp").then_some(sensor)
}

/// The lower, the more important.
fn rank(name: &str) -> u8 {
    let is_of = |family: &&str| -> bool {
        name.strip_prefix(*family)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    if PROCESSORS.iter().any(is_of) {
        0
    } else if DISKS.iter().any(is_of) {
        2
    } else {
        1
    }
}

/// May block as long as the hardware does.
fn read(chip: &Chip) -> Vec<Heat> {
    match &chip.place {
        Place::Chip(chip) => entries(chip)
            .into_iter()
            .filter_map(|(file, path)| {
                let sensor = sensor_of(&file)?;
                // 1: the chip itself says that the reading means nothing.
                if number(chip.join(format!("{sensor}_fault"))) == Some(1.0) {
                    return None;
                }
                heat(&path, &chip.join(format!("{sensor}_crit")))
            })
            .collect(),
        Place::Zone(zone) => {
            let is_critical = |n: &i32| {
                text(zone.join(format!("trip_point_{n}_type"))).as_deref() == Some("critical")
            };
            let limit = (0..12).find(is_critical).map_or_else(
                || zone.join("none"),
                |n| zone.join(format!("trip_point_{n}_temp")),
            );
            heat(&zone.join("temp"), &limit).into_iter().collect()
        }
    }
}

/// Both files hold thousandths of a degree.
fn heat(now: &Path, critical: &Path) -> Option<Heat> {
    let celsius = |path| number(path).map(|thousandths| thousandths / 1e3);
    let now = celsius(now).filter(|now| PLAUSIBLE.contains(now))?;
    // Zero and what is out of every range mean that there is none.
    let critical = celsius(critical).filter(|critical| PLAUSIBLE.contains(critical));
    match critical {
        Some(critical) if !PLAUSIBLE_CRITICAL.contains(&critical) => None,
        critical => Some(Heat { now, critical }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    /// Values that are there at once, as they are of files.
    fn values(root: &Path) -> Vec<Named> {
        let mut sensors = Sensors::new(root, &Blocking::default());
        let asked = sensors.start();
        sensors.take(asked, LONG);
        sensors.values()
    }

    fn make(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn each_chip_shows_its_hottest_sensor_and_its_smallest_margin() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for (file, text) in [
            ("hwmon0/name", "coretemp\n"),
            ("hwmon0/temp1_input", "40000\n"),
            ("hwmon0/temp1_crit", "100000\n"),
            ("hwmon0/temp2_input", "62500\n"),
            ("hwmon0/temp2_crit", "90000\n"),
            ("hwmon0/temp3_input", "-128000\n"),
            ("hwmon0/fan1_input", "99999\n"),
            ("hwmon1/name", "nvme"),
            ("hwmon1/temp1_input", "35850"),
            ("hwmon2/name", "nvme"),
            ("hwmon2/temp1_input", "36850"),
            ("hwmon3/name", "acpitz"),
            ("hwmon3/temp1_input", "255000"),
        ] {
            make(root, &format!("sys/class/hwmon/{file}"), text);
        }
        let expected = [
            ("sensor.temperature_celsius:coretemp", 62.5),
            ("sensor.below_critical_celsius:coretemp", 27.5),
            ("sensor.temperature_celsius:nvme", 35.85),
            ("sensor.temperature_celsius:nvme-2", 36.85),
        ]
        .map(|(name, value)| (name.to_owned(), Some(value)));
        assert_eq!(values(root), expected);
    }

    #[test]
    fn zones_speak_where_there_is_no_chip() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for (file, text) in [
            ("thermal_zone0/type", "x86_pkg_temp\n"),
            ("thermal_zone0/temp", "50000\n"),
            ("thermal_zone0/trip_point_0_type", "passive\n"),
            ("thermal_zone0/trip_point_0_temp", "60000\n"),
            ("thermal_zone0/trip_point_1_type", "critical\n"),
            ("thermal_zone0/trip_point_1_temp", "90000\n"),
        ] {
            make(root, &format!("sys/class/thermal/{file}"), text);
        }
        let expected = [
            ("sensor.temperature_celsius:x86_pkg_temp", 50.0),
            ("sensor.below_critical_celsius:x86_pkg_temp", 40.0),
        ]
        .map(|(name, value)| (name.to_owned(), Some(value)));
        assert_eq!(values(root), expected);
        assert_eq!(values(Path::new("/nowhere")), []);
    }

    #[test]
    fn a_reading_that_the_chip_or_common_sense_disowns_is_none() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for (file, text) in [
            ("hwmon0/name", "acpitz\n"),
            ("hwmon0/temp1_input", "16800\n"),
            ("hwmon0/temp1_crit", "20800\n"),
            ("hwmon1/name", "nct6775\n"),
            ("hwmon1/temp1_input", "97000\n"),
            ("hwmon1/temp1_crit", "100000\n"),
            ("hwmon1/temp1_fault", "1\n"),
            ("hwmon1/temp2_input", "31000\n"),
            ("hwmon1/temp2_fault", "0\n"),
        ] {
            make(root, &format!("sys/class/hwmon/{file}"), text);
        }
        let board = ("sensor.temperature_celsius:nct6775".to_owned(), Some(31.0));
        assert_eq!(values(root), [board]);
    }

    #[test]
    fn processors_come_before_any_number_of_disks() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let chip = |n: usize, name: &str| {
            make(root, &format!("sys/class/hwmon/hwmon{n:02}/name"), name);
            let input = format!("sys/class/hwmon/hwmon{n:02}/temp1_input");
            make(root, &input, "40000\n");
        };
        for n in 0..40 {
            chip(n, "nvme");
        }
        chip(40, "coretemp");
        chip(41, "coretemp");
        chip(42, "acpitz");
        let values = values(root);
        let names: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
        let first = ["coretemp", "coretemp-2", "acpitz", "nvme", "nvme-2"]
            .map(|name| format!("sensor.temperature_celsius:{name}"));
        assert_eq!(names[..5], first);
        assert_eq!(names.len(), MAX_CHIPS + 1);
        let left_out = ("sensor.left_out".to_owned(), Some(43.0 - MAX_CHIPS as f64));
        assert_eq!(values.last(), Some(&left_out));
    }

    /// A named pipe without a writer: opening it blocks, as reading a disk's sensor can.
    #[test]
    fn a_sensor_that_hangs_costs_its_own_reading_alone() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        make(root, "sys/class/hwmon/hwmon0/name", "coretemp");
        make(root, "sys/class/hwmon/hwmon0/temp1_input", "40000\n");
        make(root, "sys/class/hwmon/hwmon1/name", "drivetemp");
        let pipe = root.join("sys/class/hwmon/hwmon1/temp1_input");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let mut sensors = Sensors::new(root, &Blocking::default());
        sensors.rounds = Rounds::new(Blocking::default(), Duration::ZERO, read);
        assert_eq!(sensors.start(), 2);
        sensors.take(1, LONG);
        let hung: Vec<&str> = sensors.hung().collect();
        assert_eq!(hung, ["drivetemp"]);
        let of = |name: &str, value| (format!("sensor.temperature_celsius:{name}"), value);
        let expected = [of("coretemp", Some(40.0)), of("drivetemp", None)];
        assert_eq!(sensors.values(), expected);
        // The hung one is left alone, the other one is read.
        assert_eq!(sensors.start(), 1);
        sensors.take(1, LONG);
        assert_eq!(sensors.values(), expected);
        std::fs::write(&pipe, "").unwrap();
        while sensors.hung().next().is_some() {
            sensors.take(0, Duration::ZERO);
        }
        // A pipe is no sensor that works.
        assert_eq!(sensors.values(), expected[..1]);
    }
}
