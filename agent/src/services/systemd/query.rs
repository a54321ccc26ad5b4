//! Questions to systemd over the bus, and what its answers say.
//!
//! The table of loaded units comes in one answer and loads nothing; the properties of a unit are
//! asked for one by one, which loads the unit if it is not. Versions differ: a property that systemd
//! does not know is absent, and without `ListUnitsByPatterns` (before 230) the whole table is read.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    answer::{Answer, Properties},
    timer::TimerFacts,
};
use crate::dbus::{Bus, BusError, Call, Message, PROPERTIES, Value};

pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
const UNIT_PATHS: &str = "/org/freedesktop/systemd1/unit/";

/// Calls that are sent at once: the bus lets a client wait for 128 answers.
const CALLS_AT_ONCE: usize = 120;
/// Most units that may start another and are looked at for it.
pub(super) const MAX_TRIGGERS: usize = 8;

/// What is asked of every unit, and of some kinds besides.
const OF_UNITS: [&str; 8] = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Job",
    "TriggeredBy",
    "StateChangeTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
];
const OF_SERVICES: [&str; 9] = [
    "Type",
    "Result",
    "RemainAfterExit",
    "ExecMainCode",
    "ExecMainStatus",
    "NRestarts",
    "ControlGroup",
    "TimeoutStartUSec",
    "TimeoutStopUSec",
];
const OF_MOUNTS: [&str; 2] = ["Result", "TimeoutUSec"];
const OF_TIMERS: [&str; 3] = ["LastTriggerUSec", "TimersCalendar", "TimersMonotonic"];
/// What is asked of a unit that starts another.
const OF_TRIGGERS: [&str; 4] = [
    "ActiveState",
    "SubState",
    "StateChangeTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
];

/// A unit's row in systemd's table, as far as it tells a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) load: String,
    pub(super) active: String,
    pub(super) sub: String,
    pub(super) has_job: bool,
}

impl Row {
    /// `None` for a unit at rest: systemd may unload it, and a question loads it again.
    pub(super) fn unless_at_rest(self) -> Option<Self> {
        (self.active != "inactive" || self.has_job).then_some(self)
    }
}

/// What this systemd can do, as learned from its answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Abilities {
    /// It does not know `ListUnitsByPatterns`.
    lists_only_all: bool,
}

/// Asks about units. The answers come in the order of `names`; an error is systemd's word on that
/// unit alone.
pub(super) async fn units(
    bus: &mut Bus,
    names: &[String],
) -> Result<Vec<Result<Answer, String>>, BusError> {
    let asked = properties(bus, names, asked_of).await?;
    let mut answers: Vec<Result<Answer, String>> = asked.iter().map(Answer::read).collect();
    let triggers: BTreeSet<String> = answers
        .iter()
        .flatten()
        .filter(|answer| answer.depends_on_triggers())
        .flat_map(|answer| answer.facts.triggers.keys().cloned())
        .collect();
    let triggers: Vec<String> = triggers.into_iter().collect();
    let asked = properties(bus, &triggers, asked_of_trigger).await?;
    let states: BTreeMap<String, TimerFacts> = triggers
        .into_iter()
        .zip(asked.iter().map(TimerFacts::read))
        .collect();
    for answer in answers.iter_mut().flatten() {
        for (name, trigger) in &mut answer.facts.triggers {
            if let Some(state) = states.get(name) {
                trigger.clone_from(state);
            }
        }
    }
    Ok(answers)
}

/// Reads properties of units, each unit's as `asked` says.
async fn properties(
    bus: &mut Bus,
    names: &[String],
    asked: fn(&str) -> Vec<(String, &'static str)>,
) -> Result<Vec<Properties>, BusError> {
    let mut all = Vec::with_capacity(names.len());
    let mut calls = Vec::new();
    let mut waiting: Vec<Vec<&'static str>> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let path = path_of(name);
        let of_unit = asked(name);
        waiting.push(of_unit.iter().map(|(_, property)| *property).collect());
        calls.extend(of_unit.iter().map(|(interface, property)| {
            Call::method(SYSTEMD, &path, PROPERTIES, "Get")
                .with_text(interface)
                .with_text(property)
        }));
        let next = names.get(i + 1).map_or(0, |next| asked(next).len());
        if next == 0 || calls.len() + next > CALLS_AT_ONCE {
            let mut answers = bus.call_all(&calls).await?.into_iter();
            calls.clear();
            for properties in waiting.drain(..) {
                let of_unit: Vec<Message> = answers.by_ref().take(properties.len()).collect();
                all.push(Properties::read(properties, of_unit));
            }
        }
    }
    Ok(all)
}

/// Whether a unit is a timer.
pub(super) fn is_timer(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, kind)| kind == "timer")
}

fn asked_of(name: &str) -> Vec<(String, &'static str)> {
    let (_, kind) = name.rsplit_once('.').unwrap_or_default();
    let of_kind: &[&str] = match kind {
        "service" => &OF_SERVICES,
        "mount" | "socket" | "swap" => &OF_MOUNTS,
        "timer" => &OF_TIMERS,
        _ => &[],
    };
    let mut asked: Vec<(String, &'static str)> = OF_UNITS.map(|one| (UNIT.to_owned(), one)).into();
    asked.extend(of_kind.iter().map(|one| (interface_of(kind), *one)));
    asked
}

fn asked_of_trigger(name: &str) -> Vec<(String, &'static str)> {
    let mut asked: Vec<(String, &'static str)> =
        OF_TRIGGERS.map(|one| (UNIT.to_owned(), one)).into();
    if is_timer(name) {
        asked.extend(OF_TIMERS.map(|one| (interface_of("timer"), one)));
    }
    asked
}

/// The interface of a kind of unit, as in `org.freedesktop.systemd1.Service`.
fn interface_of(kind: &str) -> String {
    let (first, rest) = kind.split_at(kind.len().min(1));
    format!("{SYSTEMD}.{}{rest}", first.to_ascii_uppercase())
}

/// The rows of those units that are loaded; asking loads none.
pub(super) async fn loaded(
    bus: &mut Bus,
    abilities: &mut Abilities,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, Row>, BusError> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    if !abilities.lists_only_all {
        // A pattern is that of fnmatch(3), where a backslash escapes.
        let patterns: Vec<String> = names.iter().map(|one| one.replace('\\', r"\\")).collect();
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let call = Call::method(SYSTEMD, MANAGER_PATH, MANAGER, "ListUnitsByPatterns")
            .with("as", |body| body.texts(&[]))
            .with("as", |body| body.texts(&patterns));
        let answer = bus.call(&call).await?;
        if !answer.is_unknown_method() {
            return rows(&answer, names);
        }
        abilities.lists_only_all = true;
    }
    let call = Call::method(SYSTEMD, MANAGER_PATH, MANAGER, "ListUnits");
    rows(&bus.call(&call).await?, names)
}

fn rows(answer: &Message, names: &BTreeSet<String>) -> Result<BTreeMap<String, Row>, BusError> {
    let mut rows = BTreeMap::new();
    answer.each_row(&mut |row| {
        let text = |at: usize| row.get(at).and_then(Value::text).unwrap_or_default();
        let name = text(0);
        if names.contains(name) {
            let row_of = Row {
                load: text(2).to_owned(),
                active: text(3).to_owned(),
                sub: text(4).to_owned(),
                has_job: row.get(7).and_then(Value::number).unwrap_or(0) != 0,
            };
            rows.insert(name.to_owned(), row_of);
        }
    })?;
    Ok(rows)
}

/// The names of all failed units.
pub(super) async fn failed_units(bus: &mut Bus) -> Result<BTreeSet<String>, BusError> {
    let call = Call::method(SYSTEMD, MANAGER_PATH, MANAGER, "ListUnitsFiltered")
        .with("as", |body| body.texts(&["failed"]));
    let mut names = BTreeSet::new();
    let answer = bus.call(&call).await?;
    answer.each_row(&mut |row| {
        if let Some(name) = row.first().and_then(Value::text) {
            names.insert(name.to_owned());
        }
    })?;
    Ok(names)
}

/// The object path of a unit: what is no letter or digit becomes `_` and two hexadecimal digits, and so
/// does a digit at the start (`sd_bus_path_encode(3)`).
pub(super) fn path_of(name: &str) -> String {
    use std::fmt::Write as _;
    let mut path = UNIT_PATHS.to_owned();
    for (i, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (i > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

/// The unit of an object path.
pub(super) fn unit_of(path: &str) -> Option<String> {
    let mut rest = path.strip_prefix(UNIT_PATHS)?.bytes();
    let mut name = Vec::new();
    while let Some(byte) = rest.next() {
        if byte == b'_' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            name.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            name.push(byte);
        }
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_those_of_systemd() {
        assert_eq!(
            path_of("systemd-journald.service"),
            "/org/freedesktop/systemd1/unit/systemd_2djournald_2eservice"
        );
        assert_eq!(
            path_of("3proxy.service"),
            "/org/freedesktop/systemd1/unit/_33proxy_2eservice"
        );
    }

    proptest! {
        #[test]
        fn a_path_leads_back_to_its_unit(name in "[a-zA-Z0-9@._:\\\\-]{1,40}") {
            prop_assert_eq!(unit_of(&path_of(&name)), Some(name));
        }

        #[test]
        fn no_path_makes_it_fall(path in "/org/freedesktop/systemd1/unit/[_a-f0-9é]{0,12}") {
            let _ = unit_of(&path);
        }
    }
}
