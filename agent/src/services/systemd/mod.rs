//! Units of systemd, followed by its signals on the system bus.
//!
//! A signal only says "look now": the unit's properties are asked for each time, so that a signal that
//! was lost, doubled or forged changes nothing for longer than until the next look, which comes each
//! minute by itself. While the bus is away a service is judged by whether its control group has
//! processes, and the bus is tried again, at first after a second and at last each minute.
//!
//! Failed units are reported though nobody asked, unless the customer's settings forbid it. On a machine that
//! systemd did not boot, units are unknown.

mod classify;
mod poll;
mod query;
mod tracked;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    query::{MANAGER, MANAGER_PATH, SYSTEMD, UNIT, unit_of},
    tracked::Tracked,
};
use super::{Found, ProbeResult};
use crate::{
    clock,
    config::AllowedPath,
    dbus::{self, Bus, BusError, Call, Message, PROPERTIES, Value},
};

/// All units are looked at so often, whatever the signals say.
const RESYNC: Duration = Duration::from_mins(1);
/// Looks are at least so far apart, so that a storm of signals costs little.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// While the bus is away, services are polled so often.
const POLL: Duration = Duration::from_secs(5);
/// The bus is tried again after so long, which doubles,
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// up to this.
const LAST_RETRY: Duration = Duration::from_mins(1);
/// A machine that systemd booted has this directory (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

/// What to look at.
#[derive(Clone, Debug, Default)]
pub(super) struct WatchedUnits {
    pub(super) generation: u64,
    /// The policy's units.
    pub(super) units: Vec<String>,
    /// Whether failed units are reported,
    pub(super) failed: bool,
    /// and of which names; `None`: any.
    pub(super) allowed: Option<Vec<AllowedPath>>,
}

impl WatchedUnits {
    fn is_nothing(&self) -> bool {
        self.units.is_empty() && !self.failed
    }

    fn allows(&self, unit: &str) -> bool {
        let allowed = self.allowed.as_ref();
        allowed.is_none_or(|list| list.iter().any(|one| one.allows(Path::new(unit))))
    }
}

/// Where systemd is found.
#[derive(Clone, Debug)]
pub struct SystemdPaths {
    /// The bus's socket.
    pub socket: PathBuf,
    /// A directory that is there if systemd booted the machine.
    pub booted: PathBuf,
}

impl SystemdPaths {
    /// This machine's.
    pub fn system() -> Self {
        Self {
            socket: dbus::system_bus(),
            booted: BOOTED.into(),
        }
    }
}

/// Looks at units until it is stopped.
pub(super) struct Watch {
    pub(super) place: SystemdPaths,
    pub(super) wanted: watch::Receiver<WatchedUnits>,
    pub(super) results: mpsc::Sender<ProbeResult>,
    pub(super) stop: CancellationToken,
}

/// What one connection has to look at.
#[derive(Debug, Default)]
struct Due {
    units: BTreeSet<String>,
    failed: bool,
    /// Units that were loaded again: looked at only if they are not inactive, for the question itself
    /// loads a unit, which would cause another signal.
    loaded: BTreeSet<String>,
}

impl Due {
    fn is_empty(&self) -> bool {
        self.units.is_empty() && !self.failed && self.loaded.is_empty()
    }
}

impl Watch {
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&mut self) {
        let mut tracked = Tracked::default();
        let mut retry = FIRST_RETRY;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            tracked.want(&wanted.units, clock::now().mono_ms);
            if wanted.is_nothing() || !self.place.booted.is_dir() {
                tracked.set_unknown("systemd did not boot this machine");
                self.tell(&tracked).await;
                if self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let connected = Instant::now();
            let Err(error) = self.follow(&mut tracked).await else {
                return;
            };
            if connected.elapsed() > LAST_RETRY {
                retry = FIRST_RETRY;
            }
            tracing::info!(%error, "the system bus is away: services are polled");
            self.poll(&mut tracked, Instant::now() + retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Tells what is tracked now.
    async fn tell(&self, tracked: &Tracked) {
        let result = ProbeResult {
            generation: self.wanted.borrow().generation,
            found: Found::Units(tracked.snapshot()),
        };
        // The loop is gone only when all ends.
        let _ = self.results.send(result).await;
    }

    /// Looks at control groups until the bus is to be tried again or something else is wanted.
    async fn poll(&mut self, tracked: &mut Tracked, until: Instant) {
        loop {
            tracked.polled(|unit, before| poll::look(unit, before, "the system bus is away"));
            self.tell(tracked).await;
            let next = until.min(Instant::now() + POLL);
            tokio::select! {
                _ = self.wanted.changed() => {
                    // Seen again by the caller.
                    self.wanted.mark_changed();
                    return;
                }
                () = sleep_until(next) => {}
            }
            if next == until {
                return;
            }
        }
    }

    /// Follows one connection to its end. `Ok`: nobody wants anything any more.
    async fn follow(&mut self, tracked: &mut Tracked) -> Result<(), BusError> {
        let mut bus = Bus::connect(&self.place.socket).await?;
        subscribe(&mut bus).await?;
        let mut due = everything(tracked);
        let mut resync = Instant::now() + RESYNC;
        let mut may_look = Instant::now();
        loop {
            let now = Instant::now();
            if now >= resync {
                due = everything(tracked);
                resync = now + RESYNC;
            }
            if !due.is_empty() && now >= may_look {
                self.look(&mut bus, tracked, std::mem::take(&mut due))
                    .await?;
                may_look = Instant::now() + BETWEEN_LOOKS;
            }
            let again = tracked.looks(clock::now().mono_ms);
            let again_at = again
                .as_ref()
                .map(|(wait, _)| Instant::now() + Duration::from_millis(*wait as u64));
            let mut wake = again_at.map_or(resync, |at| at.min(resync));
            if !due.is_empty() {
                wake = wake.min(may_look);
            }
            tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let wanted = self.wanted.borrow_and_update().clone();
                    tracked.want(&wanted.units, clock::now().mono_ms);
                    due = everything(tracked);
                    may_look = Instant::now();
                }
                message = bus.receive() => note(&message?, tracked, &mut due),
                () = sleep_until(wake) => {
                    if again_at == Some(wake) && let Some((_, names)) = again {
                        due.units.extend(names);
                    }
                }
            }
        }
    }

    async fn look(&self, bus: &mut Bus, tracked: &mut Tracked, due: Due) -> Result<(), BusError> {
        let mut names = due.units;
        for loaded in due.loaded {
            if !names.contains(&loaded) && query::is_alive(bus, &loaded).await? {
                names.extend(tracked.names_of(&loaded));
            }
        }
        let wanted = self.wanted.borrow().clone();
        if due.failed && wanted.failed {
            let mut failed = query::failed_units(bus).await?;
            failed.retain(|unit| wanted.allows(unit));
            names.extend(tracked.failed(&failed, clock::now().mono_ms));
        }
        let names: Vec<String> = names.into_iter().collect();
        let answers = query::units(bus, &names).await?;
        let now_ms = clock::now().mono_ms;
        for (name, answer) in names.iter().zip(answers) {
            tracked.take(name, answer, now_ms);
        }
        self.tell(tracked).await;
        Ok(())
    }
}

fn everything(tracked: &Tracked) -> Due {
    Due {
        units: tracked.names().into_iter().collect(),
        failed: true,
        loaded: BTreeSet::new(),
    }
}

async fn subscribe(bus: &mut Bus) -> Result<(), BusError> {
    let rules = [
        format!(
            "type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',member='PropertiesChanged',\
             path_namespace='{MANAGER_PATH}/unit',arg0='{UNIT}'"
        ),
        format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='UnitNew'"),
        format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='UnitRemoved'"),
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
    bus.call(&call).await?.into_result().map(drop)
}

/// What a signal asks to be looked at.
fn note(message: &Message, tracked: &Tracked, due: &mut Due) {
    match message.member.as_str() {
        "PropertiesChanged" => {
            let Some(unit) = unit_of(&message.path) else {
                return;
            };
            let names = tracked.names_of(&unit);
            if names.is_empty() {
                due.failed |= says_failed(message);
            }
            due.units.extend(names);
        }
        "UnitNew" | "UnitRemoved" => {
            let values = message.values().unwrap_or_default();
            let unit = values.first().and_then(Value::text).unwrap_or_default();
            if !tracked.names_of(unit).is_empty() {
                due.loaded.insert(unit.to_owned());
            }
        }
        // systemd was restarted or has read its files again. Subscriptions outlive both.
        "Reloading" | "NameOwnerChanged" => *due = everything(tracked),
        _ => {}
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
