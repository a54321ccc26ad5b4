//! The units that are looked at and what is known of each: those that the policy names, and failed ones.
//! No I/O.

use std::collections::BTreeMap;

use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::{
    super::{Finding, restarts::Restarts},
    classify::{GRACE_MS, Look, STUCK_MS, classify},
    poll,
    query::Answer,
};

/// Most failed units beside those of the policy.
const MAX_FAILED: usize = 64;
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
}

/// All of them, by the name under which they are reported.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    units: BTreeMap<String, Unit>,
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
        }
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

    /// Takes the names of the units that are failed now, as far as they may be reported. Returns which
    /// units have to be looked at because of it.
    pub(super) fn failed(&mut self, names: &[String], now_ms: i64) -> Vec<String> {
        let mut extra = self.units.values().filter(|unit| !unit.asked).count();
        for name in names {
            if let Some(unit) = self.units.get_mut(name) {
                unit.failed_ms = now_ms;
            } else if extra < MAX_FAILED && !self.units.values().any(|unit| unit.id == *name) {
                extra += 1;
                let unit = Unit::new(false, name, now_ms);
                self.units.insert(name.clone(), unit);
            }
        }
        let unasked = self.units.iter().filter(|(_, unit)| !unit.asked);
        unasked.map(|(name, _)| name.clone()).collect()
    }

    /// Takes what systemd said of a unit.
    pub(super) fn take(&mut self, name: &str, answer: Result<Answer, String>, now_ms: i64) {
        let Some(unit) = self.units.get_mut(name) else {
            return;
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let mut text = error;
                text.truncate(text.floor_char_boundary(200));
                unit.settling = false;
                unit.shown = Finding {
                    status: ServiceStatus::Unknown,
                    detail: Some(text),
                };
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
        if !answer.id.is_empty() {
            unit.id = answer.id;
        }
        unit.control_group = answer.control_group;
        unit.had_processes = answer.facts.active == "active" && answer.facts.sub == "running";
        match classify(&answer.facts, &unit.restarts, now_ms) {
            Look::Settling => unit.settling = true,
            Look::Is(finding) => {
                unit.settling = false;
                unit.shown = finding;
            }
        }
        let is_over = now_ms - unit.failed_ms >= RECOVERED_MS || answer.facts.active == "inactive";
        if !unit.asked && !unit.shown.status.is_fault() && is_over {
            self.units.remove(name);
        }
    }

    /// Says of all of the policy's units that they are unknown, and why.
    pub(super) fn set_unknown(&mut self, why: &str) {
        self.units.retain(|_, unit| unit.asked);
        for unit in self.units.values_mut() {
            unit.settling = false;
            unit.shown = Finding {
                status: ServiceStatus::Unknown,
                detail: Some(why.to_owned()),
            };
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

    /// The names under which a unit is reported.
    pub(super) fn names_of(&self, id: &str) -> Vec<String> {
        let its = |(name, unit): &(&String, &Unit)| *name == id || unit.id == id;
        self.units
            .iter()
            .filter(its)
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.units.keys().cloned().collect()
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
        self.units
            .iter()
            .filter(|(_, unit)| unit.asked || unit.shown.status != ServiceStatus::Unknown)
            .map(|(name, unit)| (format!("systemd:{name}"), unit.shown.clone()))
            .collect()
    }
}
