//! A stand-in for systemd on a real bus: answers as a version of it does, and sends its signals.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tokio::sync::mpsc;

use super::super::query::{MANAGER, MANAGER_PATH, SYSTEMD, UNIT, path_of, unit_of};
use crate::{
    clock,
    dbus::{Bus, BusError, Call, Kind, Message, PROPERTIES, testing::own},
    process::Tasks,
};

/// What the agent asks of a service.
pub(super) const PROPERTIES_OF_A_SERVICE: usize = 17;
const UNKNOWN_PROPERTY: &str = "org.freedesktop.DBus.Error.UnknownProperty";
const UNKNOWN_METHOD: &str = "org.freedesktop.DBus.Error.UnknownMethod";

/// What the stand-in says of a unit.
#[derive(Clone, Debug)]
pub(super) struct Fake {
    pub(super) load: &'static str,
    pub(super) active: &'static str,
    pub(super) sub: &'static str,
    pub(super) result: &'static str,
    pub(super) exit: (u32, u32),
    pub(super) restarts: u32,
    pub(super) triggered_by: &'static [&'static str],
    pub(super) has_job: bool,
}

pub(super) const RUNS: Fake = Fake {
    load: "loaded",
    active: "active",
    sub: "running",
    result: "success",
    exit: (0, 0),
    restarts: 0,
    triggered_by: &[],
    has_job: false,
};
pub(super) const KILLED: Fake = Fake {
    active: "failed",
    sub: "failed",
    result: "signal",
    exit: (2, 9),
    ..RUNS
};
const NOWHERE: Fake = Fake {
    load: "not-found",
    active: "inactive",
    sub: "dead",
    ..RUNS
};

/// What happens on the machine.
#[derive(Debug)]
pub(super) enum Change {
    /// These units are so now.
    Set(Vec<(String, Fake)>),
    /// `systemctl reset-failed`: what was failed is unloaded.
    ResetFailed,
    /// A unit is loaded, for whatever reason.
    Loaded(String),
    /// A unit that nobody watches is started.
    Elsewhere(String),
    /// Descriptions of units are so long from now on, bytes.
    Descriptions(usize),
}

/// The running stand-in; it ends with its bus.
pub(super) struct StandIn {
    changes: mpsc::Sender<Change>,
    calls: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl StandIn {
    pub(super) fn start(tasks: &Tasks, socket: PathBuf, version: u32) -> Self {
        let (changes, receiver) = mpsc::channel(8);
        let calls = Arc::new(Mutex::new(BTreeMap::new()));
        let systemd = Systemd {
            version,
            units: BTreeMap::new(),
            changed_ms: BTreeMap::new(),
            calls: calls.clone(),
            // Long enough for a table of 3,000 units to be longer than a MiB.
            description_bytes: 280,
        };
        let stop = tasks.stop_token();
        tasks.spawn("systemd-stand-in", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = systemd.run(socket, receiver) => {}
            }
        });
        Self { changes, calls }
    }

    pub(super) async fn set(&self, unit: &str, fake: Fake) {
        self.change(Change::Set(vec![(unit.to_owned(), fake)]))
            .await;
    }

    pub(super) async fn change(&self, change: Change) {
        self.changes.send(change).await.unwrap();
    }

    /// How often a method was called.
    pub(super) fn calls(&self, method: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.get(method).copied().unwrap_or(0)
    }
}

struct Systemd {
    version: u32,
    units: BTreeMap<String, Fake>,
    /// When each was set, milliseconds of `CLOCK_MONOTONIC`.
    changed_ms: BTreeMap<String, i64>,
    calls: Arc<Mutex<BTreeMap<String, usize>>>,
    description_bytes: usize,
}

impl Systemd {
    async fn run(
        mut self,
        socket: PathBuf,
        mut changes: mpsc::Receiver<Change>,
    ) -> Result<(), BusError> {
        let mut bus = Bus::connect(&socket).await?;
        own(&mut bus, SYSTEMD).await?;
        loop {
            tokio::select! {
                change = changes.recv() => {
                    let Some(change) = change else { return Ok(()) };
                    for signal in self.take(change) {
                        bus.send(&signal).await?;
                    }
                }
                message = bus.receive() => {
                    let message = message?;
                    if message.kind != Kind::Call {
                        continue;
                    }
                    for answer in self.answer(&message) {
                        bus.send(&answer).await?;
                    }
                }
            }
        }
    }

    /// The signals of a change.
    fn take(&mut self, change: Change) -> Vec<Call> {
        match change {
            Change::Set(fakes) => {
                let signals = fakes.iter().map(|(unit, fake)| changed(unit, fake.active));
                let signals = signals.collect();
                let now_ms = clock::now().mono_ms;
                let times = fakes.iter().map(|(unit, _)| (unit.clone(), now_ms));
                self.changed_ms.extend(times);
                self.units.extend(fakes);
                signals
            }
            Change::ResetFailed => {
                let failed = |(unit, fake): (&String, &Fake)| {
                    (fake.active == "failed").then(|| unit.clone())
                };
                let failed: Vec<String> = self.units.iter().filter_map(failed).collect();
                let signals = failed.iter().flat_map(|unit| {
                    self.units.remove(unit);
                    [changed(unit, "inactive"), loading("UnitRemoved", unit)]
                });
                signals.collect()
            }
            Change::Descriptions(bytes) => {
                self.description_bytes = bytes;
                Vec::new()
            }
            Change::Loaded(unit) => vec![loading("UnitNew", &unit)],
            Change::Elsewhere(unit) => {
                let running = changed(&unit, "active");
                vec![loading("UnitNew", &unit), running]
            }
        }
    }

    fn answer(&self, message: &Message) -> Vec<Call> {
        let mut calls = self.calls.lock().unwrap();
        *calls.entry(message.member.clone()).or_default() += 1;
        drop(calls);
        match message.member.as_str() {
            "Get" => {
                let unit = unit_of(&message.path).unwrap();
                let mut answers = vec![self.property(message, &unit)];
                // The question loads a unit that is not, and then it goes again.
                if !self.units.contains_key(&unit) {
                    answers.push(loading("UnitNew", &unit));
                    answers.push(loading("UnitRemoved", &unit));
                }
                answers
            }
            "ListUnitsFiltered" => vec![self.table(message, &|_, fake| fake.active == "failed")],
            "ListUnits" => vec![self.table(message, &|_, _| true)],
            "ListUnitsByPatterns" if self.version < 230 => {
                vec![Call::error(message, UNKNOWN_METHOD)]
            }
            "ListUnitsByPatterns" => {
                let values = message.values().unwrap();
                let patterns: Vec<&str> =
                    values[1].list().iter().filter_map(|v| v.text()).collect();
                vec![self.table(message, &|unit, _| patterns.contains(&unit))]
            }
            _ => vec![Call::answer(message)],
        }
    }

    fn property(&self, message: &Message, unit: &str) -> Call {
        let values = message.values().unwrap();
        let name = values[1].text().unwrap();
        let since = match name {
            "StateChangeTimestampMonotonic" => 228,
            "NRestarts" => 235,
            _ => 0,
        };
        if self.version < since {
            return Call::error(message, UNKNOWN_PROPERTY);
        }
        let fake = self.units.get(unit).unwrap_or(&NOWHERE);
        Call::answer(message).with("v", |body| match name {
            "TriggeredBy" => {
                body.signature("as");
                body.texts(fake.triggered_by);
            }
            "Job" => {
                body.signature("(uo)");
                body.align(8);
                body.number(u32::from(fake.has_job));
                body.text("/");
            }
            "StateChangeTimestampMonotonic" => {
                body.signature("t");
                let changed_ms = self.changed_ms.get(unit).copied().unwrap_or(0);
                body.long(changed_ms as u64 * 1_000);
            }
            "InactiveExitTimestampMonotonic" | "TimeoutStartUSec" | "TimeoutStopUSec" => {
                body.signature("t");
                body.long(1);
            }
            "RemainAfterExit" | "ExecMainCode" | "ExecMainStatus" | "NRestarts" => {
                body.signature("u");
                body.number(match name {
                    "ExecMainCode" => fake.exit.0,
                    "ExecMainStatus" => fake.exit.1,
                    "NRestarts" => fake.restarts,
                    _ => 0,
                });
            }
            _ => {
                body.signature("s");
                body.text(match name {
                    "Id" => unit,
                    "LoadState" => fake.load,
                    "ActiveState" => fake.active,
                    "SubState" => fake.sub,
                    "Result" => fake.result,
                    "Type" => "simple",
                    _ => "",
                });
            }
        })
    }

    fn table(&self, message: &Message, is_meant: &dyn Fn(&str, &Fake) -> bool) -> Call {
        let rows = self
            .units
            .iter()
            .filter(|(unit, fake)| is_meant(unit, fake));
        let about = "x".repeat(self.description_bytes);
        Call::answer(message).with("a(ssssssouso)", |body| {
            body.array(8, |body| {
                for (unit, fake) in rows {
                    body.align(8);
                    for text in [unit, &about, fake.load, fake.active, fake.sub, "", "/"] {
                        body.text(text);
                    }
                    body.number(0);
                    body.text("");
                    body.text("/");
                }
            });
        })
    }
}

fn changed(unit: &str, active: &str) -> Call {
    Call::signal(&path_of(unit), PROPERTIES, "PropertiesChanged")
        .with_text(UNIT)
        .with("a{sv}", |body| {
            body.array(8, |body| {
                body.align(8);
                body.text("ActiveState");
                body.signature("s");
                body.text(active);
            });
        })
        .with("as", |body| body.texts(&[]))
}

/// `UnitNew` or `UnitRemoved`.
fn loading(signal: &str, unit: &str) -> Call {
    Call::signal(MANAGER_PATH, MANAGER, signal)
        .with_text(unit)
        .with("o", |body| body.text(&path_of(unit)))
}
