//! Temperatures: the hottest sensor of each chip that the kernel knows (`/sys/class/hwmon`, the
//! kernel's `Documentation/hwmon/sysfs-interface.rst`), or of the firmware's thermal zones where there
//! is no chip. Virtual machines have neither, and then there are no such values.

use std::path::Path;

use super::{
    reader::{entries, number, text},
    slow::Named,
};

/// Most chips or zones that are reported.
const MAX_CHIPS: usize = 16;
/// What a sensor that works can show, degrees Celsius. Unconnected ones show -128, 0 or 255.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 1.0..=150.0;

/// A reading and the temperature at which the hardware shuts off or slows down, degrees Celsius.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Heat {
    now: f64,
    critical: Option<f64>,
}

pub(super) fn read(root: &Path) -> Vec<Named> {
    let mut found = chips(root);
    if found.is_empty() {
        found = zones(root);
    }
    let mut values: Vec<Named> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for (name, heats) in found.iter().take(MAX_CHIPS) {
        // The second of two equal chips gets a name of its own by a number.
        let same = names.iter().filter(|n| *n == name).count();
        names.push(name);
        let name = match same {
            0 => name.clone(),
            n => format!("{name}-{}", n + 1),
        };
        let hottest = heats.iter().map(|heat| heat.now).reduce(f64::max);
        values.push((format!("sensor.temperature_celsius:{name}"), hottest));
        let margin = heats
            .iter()
            .filter_map(|heat| Some(heat.critical? - heat.now))
            .reduce(f64::min);
        if heats.iter().any(|heat| heat.critical.is_some()) {
            values.push((format!("sensor.below_critical_celsius:{name}"), margin));
        }
    }
    values
}

fn chips(root: &Path) -> Vec<(String, Vec<Heat>)> {
    entries(root.join("sys/class/hwmon"))
        .into_iter()
        .filter_map(|(_, chip)| {
            let name = text(chip.join("name"))?;
            let heats: Vec<Heat> = entries(&chip)
                .into_iter()
                .filter_map(|(file, path)| {
                    let sensor = file.strip_suffix("_input")?;
                    sensor.strip_prefix("temp")?;
                    heat(&path, &chip.join(format!("{sensor}_crit")))
                })
                .collect();
            (!heats.is_empty()).then_some((name, heats))
        })
        .collect()
}

fn zones(root: &Path) -> Vec<(String, Vec<Heat>)> {
    entries(root.join("sys/class/thermal"))
        .into_iter()
        .filter(|(name, _)| name.starts_with("thermal_zone"))
        .filter_map(|(_, zone)| {
            let name = text(zone.join("type"))?;
            let critical = (0..12).find(|n| {
                text(zone.join(format!("trip_point_{n}_type"))).as_deref() == Some("critical")
            });
            let limit = critical.map_or_else(
                || zone.join("none"),
                |n| zone.join(format!("trip_point_{n}_temp")),
            );
            let heat = heat(&zone.join("temp"), &limit)?;
            Some((name, vec![heat]))
        })
        .collect()
}

/// Both files hold thousandths of a degree.
fn heat(now: &Path, critical: &Path) -> Option<Heat> {
    let celsius = |path| {
        number(path)
            .map(|thousandths| thousandths / 1e3)
            .filter(|celsius| PLAUSIBLE.contains(celsius))
    };
    Some(Heat {
        now: celsius(now)?,
        critical: celsius(critical),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(read(root), expected);
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
        assert_eq!(read(root), expected);
        assert_eq!(read(Path::new("/nowhere")), []);
    }
}
