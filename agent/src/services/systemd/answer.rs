//! What systemd's properties of a unit say. Pure.

use std::collections::BTreeMap;

use super::{
    classify::UnitFacts,
    query::{MAX_TRIGGERS, Row, is_timer},
    timer::TimerFacts,
};
use crate::dbus::{Message, Value};

/// A time span without an end (`USEC_INFINITY`).
const FOR_EVER_US: u64 = u64::MAX;

/// Values of properties, by name. One that this systemd does not know is absent.
#[derive(Clone, Debug)]
pub(super) struct Properties {
    values: BTreeMap<&'static str, Value>,
    /// Why the first absent one is absent.
    error: Option<String>,
}

impl Properties {
    /// Reads the answers to `Get`, in the order of `names`.
    pub(super) fn read(names: Vec<&'static str>, answers: Vec<Message>) -> Self {
        let mut values = BTreeMap::new();
        let mut error = None;
        for (name, answer) in names.into_iter().zip(answers) {
            match answer.into_result() {
                Ok(answer) => {
                    values.extend(answer.into_iter().next().map(|value| (name, value)));
                }
                Err(refused) => {
                    error.get_or_insert(refused.to_string());
                }
            }
        }
        Self { values, error }
    }

    pub(super) fn text(&self, name: &str) -> String {
        let text = self.values.get(name).and_then(Value::text);
        text.unwrap_or_default().to_owned()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.values.get(name).and_then(Value::number)
    }

    pub(super) fn list(&self, name: &str) -> &[Value] {
        self.values.get(name).map_or(&[], Value::list)
    }

    /// Microseconds as milliseconds.
    pub(super) fn millis(&self, name: &str) -> Option<i64> {
        self.number(name).map(|us| us / 1_000)
    }

    /// A time limit; `None` where the unit has none or does not say.
    fn limit_ms(&self, name: &str) -> Option<TimeLimit> {
        Some(match self.values.get(name)? {
            Value::Unsigned(0 | FOR_EVER_US) => TimeLimit::None,
            value => TimeLimit::Millis(value.number()? / 1_000),
        })
    }
}

/// How long a unit may take to start or to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeLimit {
    Millis(i64),
    /// For ever.
    None,
}

/// What is known of a unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Its own name, where it was asked for by another.
    pub(super) id: String,
    /// Without the times that this systemd does not tell.
    pub(super) facts: UnitFacts,
    /// `StateChangeTimestampMonotonic`, milliseconds; absent before systemd 228.
    pub(super) changed_ms: Option<i64>,
    /// `NRestarts`, for services; absent before systemd 235.
    pub(super) restarts: Option<u32>,
    /// `ControlGroup`, for services.
    pub(super) control_group: String,
}

impl Answer {
    /// The error is why systemd says nothing of the unit.
    pub(super) fn read(properties: &Properties) -> Result<Self, String> {
        if !properties.values.contains_key("ActiveState") {
            let error = properties.error.clone();
            return Err(error.unwrap_or_else(|| "systemd does not tell its state".to_owned()));
        }
        let number = |name: &str| properties.number(name).unwrap_or(0);
        let triggers = properties.list("TriggeredBy").iter();
        let triggers = triggers.filter_map(Value::text).take(MAX_TRIGGERS);
        let id = properties.text("Id");
        let timer = is_timer(&id);
        Ok(Self {
            facts: UnitFacts {
                load: properties.text("LoadState"),
                active: properties.text("ActiveState"),
                sub: properties.text("SubState"),
                has_job: properties
                    .list("Job")
                    .first()
                    .and_then(Value::number)
                    .unwrap_or(0)
                    != 0,
                triggers: triggers
                    .map(|name| (name.to_owned(), TimerFacts::default()))
                    .collect(),
                changed_ms: 0,
                left_inactive_ms: number("InactiveExitTimestampMonotonic") / 1_000,
                kind: properties.text("Type"),
                result: properties.text("Result"),
                remain_after_exit: number("RemainAfterExit") != 0,
                exit_code: number("ExecMainCode"),
                exit_status: number("ExecMainStatus"),
                start_limit: properties
                    .limit_ms("TimeoutStartUSec")
                    .or_else(|| properties.limit_ms("TimeoutUSec")),
                stop_limit: properties
                    .limit_ms("TimeoutStopUSec")
                    .or_else(|| properties.limit_ms("TimeoutUSec")),
                timer: timer.then(|| TimerFacts::read(properties)),
            },
            id,
            changed_ms: properties.millis("StateChangeTimestampMonotonic"),
            restarts: properties
                .number("NRestarts")
                .and_then(|count| u32::try_from(count).ok()),
            control_group: properties.text("ControlGroup"),
        })
    }

    /// Whether it is judged by the units that may start it.
    pub(super) fn depends_on_triggers(&self) -> bool {
        let is_idle = self.facts.active == "inactive";
        (is_idle || self.facts.kind == "oneshot") && !self.facts.triggers.is_empty()
    }

    /// Its row in systemd's table of units.
    pub(super) fn row(&self) -> Row {
        Row {
            load: self.facts.load.clone(),
            active: self.facts.active.clone(),
            sub: self.facts.sub.clone(),
            has_job: self.facts.has_job,
        }
    }
}
