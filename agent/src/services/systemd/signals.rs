//! What systemd's signals ask to be looked at, and which of them are asked for.

use std::collections::BTreeSet;

use super::{
    query::{MANAGER, MANAGER_PATH, SYSTEMD, UNIT, unit_of},
    tracked::Tracked,
};
use crate::dbus::{self, Bus, BusError, Call, Message, PROPERTIES, Value};

/// What one connection has to look at.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Units whose properties have to be read.
    pub(super) units: BTreeSet<String>,
    /// All units of the policy, whatever the table says.
    pub(super) all: bool,
    /// The table of loaded units.
    pub(super) table: bool,
    /// The list of failed units.
    pub(super) failed: bool,
}

impl Due {
    pub(super) fn everything() -> Self {
        Self {
            units: BTreeSet::new(),
            all: true,
            table: true,
            failed: true,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty() && !self.all && !self.table && !self.failed
    }

    /// Adds what a signal asks to be looked at.
    pub(super) fn note(&mut self, message: &Message, tracked: &Tracked) {
        match message.member.as_str() {
            "PropertiesChanged" => {
                let Some(unit) = unit_of(&message.path) else {
                    return;
                };
                let names = tracked.names_of(&unit);
                if names.is_empty() {
                    self.failed |= tracked.is_in_group(&unit) || says_failed(message);
                }
                self.units.extend(names);
            }
            // Not its properties: the question loads a unit, which would cause another signal.
            "UnitNew" | "UnitRemoved" => self.table = true,
            // systemd was restarted or has read its files again. Subscriptions outlive both.
            "Reloading" | "NameOwnerChanged" => *self = Self::everything(),
            _ => {}
        }
    }
}

/// Whether a change of properties is one to the state `failed`.
fn says_failed(message: &Message) -> bool {
    let values = message.values().unwrap_or_default();
    let changed = values.get(1).map_or(&[][..], Value::list);
    changed.iter().any(|entry| match entry.list() {
        [name, state] => name.text() == Some("ActiveState") && state.text() == Some("failed"),
        _ => false,
    })
}

/// The signals that the bus passes on.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Units whose loading and unloading is passed on.
    units: BTreeSet<String>,
}

impl Subscription {
    /// Asks for changes of any unit, which tell a failure that nobody waits for.
    pub(super) async fn new(bus: &mut Bus) -> Result<Self, BusError> {
        let rules = [
            format!(
                "type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',member='PropertiesChanged',\
                 path_namespace='{MANAGER_PATH}/unit',arg0='{UNIT}'"
            ),
            format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='Reloading'"),
            format!(
                "type='signal',sender='{}',member='NameOwnerChanged',arg0='{SYSTEMD}'",
                dbus::BUS
            ),
        ];
        for rule in rules {
            bus.add_match(&rule).await?;
        }
        let call = Call::method(SYSTEMD, MANAGER_PATH, MANAGER, "Subscribe");
        bus.call(&call).await?.into_result()?;
        Ok(Self {
            units: BTreeSet::new(),
        })
    }

    /// Asks for the loading (`UnitNew`) and unloading (`UnitRemoved`) of these units and no others:
    /// a machine may start thousands in an hour.
    pub(super) async fn follow(
        &mut self,
        bus: &mut Bus,
        units: &BTreeSet<String>,
    ) -> Result<(), BusError> {
        let rule = |unit: &String| {
            format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',arg0='{unit}'")
        };
        let old: Vec<String> = self.units.difference(units).cloned().collect();
        for unit in old {
            bus.remove_match(&rule(&unit)).await?;
            self.units.remove(&unit);
        }
        let new: Vec<String> = units.difference(&self.units).cloned().collect();
        for unit in new {
            bus.add_match(&rule(&unit)).await?;
            self.units.insert(unit);
        }
        Ok(())
    }
}
