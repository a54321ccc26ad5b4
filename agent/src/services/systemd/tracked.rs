//! The units that are looked at and what is known of each: those that the policy names, and failed ones.
//! No I/O.

use std::collections::{BTreeMap, BTreeSet};

use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::{
    super::{Finding, restarts::Restarts},
    answer::Answer,
    classify::{GRACE_MS, Look, STUCK_MS, classify},
    failed::FailedGroups,
    poll,
    query::Row,
    timer::Now,
};

/// What no signal tells (a restart that was missed, a timer that is late) is found by asking for
/// all properties this often, milliseconds.
const DETAILS_MS: i64 = 600_000;
/// A failed unit that runs again is shown for this long, so that its ticket sees it run.
const RECOVERED_MS: i64 = 120_000;
/// A unit with restarts of late is looked at again so often, milliseconds.
const RESTARTED_LOOK_MS: i64 = 5_000;

#[derive(Debug)]
struct Unit {
    asked: bool,
    /// Its own name; the policy may use an alias.
    id: String,
    restarts: Restarts,
    restart_count: Option<u32>,
    control_group: String,
    /// Whether it had processes when it was last seen.
    had_processes: bool,
    shown: Finding,
    settling: bool,
    failed_ms: i64,
    /// Its own row in systemd's table and those of its triggers, when it was last asked about.
    rows: BTreeMap<String, Option<Row>>,
    /// When its properties were last read.
    read_ms: Option<i64>,
    /// Its state, and since when it is known to be in it: for a systemd that does not tell.
    state: (String, String),
    state_ms: i64,
}

/// All of them, by the name under which they are reported.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    units: BTreeMap<String, Unit>,
    groups: FailedGroups,
}

impl Unit {
    fn new(asked: bool, name: &str, now_ms: i64) -> Self {
        Self {
            asked,
            id: name.to_owned(),
            restarts: Restarts::default(),
            restart_count: None,
            control_group: String::new(),
            had_processes: false,
            shown: Finding {
                status: ServiceStatus::Unknown,
                detail: Some("not looked at yet".to_owned()),
            },
            settling: false,
            failed_ms: now_ms,
            rows: BTreeMap::new(),
            read_ms: None,
            state: (String::new(), String::new()),
            state_ms: now_ms,
        }
    }

    /// Whether systemd's table says something else than its properties did.
    fn is_changed(&self, table: &BTreeMap<String, Row>) -> bool {
        let row = |id: &String| table.get(id).cloned().and_then(Row::unless_at_rest);
        self.rows.iter().any(|(id, known)| *known != row(id))
    }
}

impl Tracked {
    /// Names the units of the policy; others are kept only as long as they are failed.
    pub(super) fn want(&mut self, names: &[String], now_ms: i64) {
        for unit in self.units.values_mut() {
            unit.asked = false;
        }
        for name in names {
            let unit = self.units.entry(name.clone());
            unit.or_insert_with(|| Unit::new(true, name, now_ms)).asked = true;
        }
        self.units
            .retain(|_, unit| unit.asked || unit.shown.status == ServiceStatus::Failed);
    }

    /// Takes the names of the units that are failed now, as far as they may be reported.
    pub(super) fn failed(&mut self, failed: &BTreeSet<String>, now_ms: i64) {
        let mut unasked = failed.clone();
        for (name, unit) in self.units.iter_mut().filter(|(_, unit)| unit.asked) {
            unasked.remove(name);
            unasked.remove(&unit.id);
        }
        let alone = self.units.iter().filter(|(_, unit)| !unit.asked);
        let alone: BTreeSet<String> = alone.map(|(name, _)| name.clone()).collect();
        for name in self.groups.take(&unasked, &alone, now_ms) {
            let unit = self.units.entry(name.clone());
            let unit = unit.or_insert_with(|| Unit::new(false, &name, now_ms));
            unit.failed_ms = now_ms;
        }
    }

    /// The names of all units on which a state depends: for a look at systemd's table.
    pub(super) fn ids(&self) -> BTreeSet<String> {
        let units = self.units.values();
        units
            .flat_map(|unit| unit.rows.keys().chain([&unit.id]).cloned())
            .collect()
    }

    /// The names of the policy's units, as systemd calls them.
    pub(super) fn asked_ids(&self) -> BTreeSet<String> {
        let asked = self.units.values().filter(|unit| unit.asked);
        asked.map(|unit| unit.id.clone()).collect()
    }

    /// Takes systemd's table of the units in [`Self::ids`] that are loaded. Returns whose properties
    /// have to be read because of it.
    pub(super) fn take_table(&mut self, table: &BTreeMap<String, Row>, now_ms: i64) -> Vec<String> {
        // A failed unit that was reset is at rest, and reading it would load it again.
        self.units.retain(|_, unit| {
            let row = table.get(&unit.id).cloned();
            unit.asked || row.and_then(Row::unless_at_rest).is_some()
        });
        let is_due = |unit: &Unit| match unit.read_ms {
            Some(at) => unit.is_changed(table) || now_ms - at >= DETAILS_MS,
            None => true,
        };
        let due = self.units.iter().filter(|(_, unit)| is_due(unit));
        due.map(|(name, _)| name.clone()).collect()
    }

    /// Takes what systemd said of a unit.
    pub(super) fn take(&mut self, name: &str, answer: Result<Answer, String>, now: Now) {
        let Some(unit) = self.units.get_mut(name) else {
            return;
        };
        let now_ms = now.mono_ms;
        unit.read_ms = Some(now_ms);
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                unit.settling = false;
                unit.shown = super::super::unknown(super::super::short(&error));
                return;
            }
        };
        match (unit.restart_count, answer.restarts) {
            (Some(before), Some(after)) if after > before => {
                unit.restarts.note(now_ms, after - before);
            }
            // Someone started it by hand or reset it: what was before is done with.
            (Some(before), Some(after)) if after < before => unit.restarts = Restarts::default(),
            _ => {}
        }
        unit.restart_count = answer.restarts;
        let row = answer.row();
        let depends_on_triggers = answer.depends_on_triggers();
        if !answer.id.is_empty() {
            unit.id = answer.id;
        }
        unit.rows.clear();
        if depends_on_triggers {
            for (name, trigger) in &answer.facts.triggers {
                unit.rows.insert(name.clone(), trigger.row());
            }
        }
        unit.rows.insert(unit.id.clone(), row.unless_at_rest());
        let state = (answer.facts.active.clone(), answer.facts.sub.clone());
        if unit.state != state {
            unit.state = state;
            unit.state_ms = now_ms;
        }
        answer.facts.changed_ms = answer.changed_ms.unwrap_or(unit.state_ms);
        unit.control_group = answer.control_group;
        unit.had_processes = answer.facts.active == "active" && answer.facts.sub == "running";
        match classify(&answer.facts, &unit.restarts, now) {
            Look::Settling => unit.settling = true,
            Look::Is(finding) => {
                unit.settling = false;
                unit.shown = finding;
            }
        }
        let is_at_rest = unit.rows.get(&unit.id).is_none_or(Option::is_none);
        let is_well = !unit.shown.status.is_fault() && now_ms - unit.failed_ms >= RECOVERED_MS;
        if !unit.asked && (is_at_rest || is_well) {
            self.units.remove(name);
        }
    }

    /// Says of all of the policy's units that they are unknown, and why.
    pub(super) fn set_unknown(&mut self, why: &str) {
        self.units.retain(|_, unit| unit.asked);
        self.groups = FailedGroups::default();
        for unit in self.units.values_mut() {
            unit.settling = false;
            unit.shown = super::super::unknown(why.to_owned());
        }
    }

    /// Takes what was seen without the bus.
    pub(super) fn polled(&mut self, look: impl Fn(&str, &poll::Before<'_>) -> Finding) {
        for (name, unit) in self.units.iter_mut().filter(|(_, unit)| unit.asked) {
            unit.settling = false;
            let before = poll::Before {
                group: &unit.control_group,
                had_processes: unit.had_processes,
                status: unit.shown.status,
            };
            unit.shown = look(name, &before);
        }
    }

    /// The names under which units are reported whose state depends on this one.
    pub(super) fn names_of(&self, id: &str) -> Vec<String> {
        let its = |(name, unit): &(&String, &Unit)| {
            *name == id || unit.id == id || unit.rows.contains_key(id)
        };
        self.units
            .iter()
            .filter(its)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether a unit is one of the failed ones that are reported together.
    pub(super) fn is_in_group(&self, id: &str) -> bool {
        self.groups.contains(id)
    }

    /// The names of the policy's units.
    pub(super) fn asked_names(&self) -> Vec<String> {
        let asked = self.units.iter().filter(|(_, unit)| unit.asked);
        asked.map(|(name, _)| name.clone()).collect()
    }

    /// Which units have to be looked at again without a signal, and after how many milliseconds.
    pub(super) fn looks(&self, now_ms: i64) -> Option<(i64, Vec<String>)> {
        let wait = |unit: &Unit| match unit.shown.status {
            _ if unit.settling => Some(GRACE_MS),
            ServiceStatus::Changing => Some(STUCK_MS / 8),
            _ if unit.restarts.recent(now_ms) > 0 => Some(RESTARTED_LOOK_MS),
            _ => None,
        };
        let waits = self
            .units
            .iter()
            .filter_map(|(name, unit)| Some((wait(unit)?, name.clone())));
        let waits: Vec<(i64, String)> = waits.collect();
        let shortest = waits.iter().map(|(wait, _)| *wait).min()?;
        let due = waits.into_iter().filter(|(wait, _)| *wait == shortest);
        Some((shortest, due.map(|(_, name)| name).collect()))
    }

    /// All states, with their keys.
    pub(super) fn snapshot(&self) -> Vec<(String, Finding)> {
        let units = self
            .units
            .iter()
            .filter(|(_, unit)| unit.asked || unit.shown.status != ServiceStatus::Unknown)
            .map(|(name, unit)| (format!("systemd:{name}"), unit.shown.clone()));
        let groups = self.groups.snapshot();
        let groups = groups.filter(|(name, _)| !self.units.contains_key(*name));
        let groups = groups.map(|(name, finding)| (format!("systemd:{name}"), finding));
        units.chain(groups).collect()
    }
}
