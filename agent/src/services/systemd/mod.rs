//! Units of systemd, followed by its signals on the system bus.
//!
//! A signal only says "look now": the unit's properties are asked for each time, so that a signal that
//! was lost, doubled or forged changes nothing for longer than until the next resync. That compares
//! systemd's table of units each minute and asks for the properties of those that changed. While the
//! bus is away a service is judged by whether its control group has processes, and the bus is tried
//! again, at first after a second and at last each minute.
//!
//! Failed units are reported though nobody asked, unless the customer's settings forbid it. On a machine that
//! systemd did not boot, units are unknown.

mod answer;
mod classify;
mod failed;
mod poll;
mod query;
mod signals;
mod timer;
mod tracked;

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    query::Abilities,
    signals::{Due, Subscription},
    timer::Now,
    tracked::Tracked,
};
use super::{Found, ProbeResult};
use crate::{
    clock,
    config::AllowedPath,
    dbus::{self, Bus, BusError},
};

/// The table of units is compared so often, whatever the signals say.
const RESYNC: Duration = Duration::from_mins(1);
/// Looks are at least so far apart, so that a storm of signals costs little,
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// and after one that asked about many units at least so many times as long as it took.
const REST_AFTER_LOOK: u32 = 10;
/// After a look at no more units than these the next may follow soon: a death is to be known at once.
const FEW_UNITS: usize = 16;
/// The bus is read at most so often: on a machine that starts units all the time each read takes
/// many signals.
const BETWEEN_READS: Duration = Duration::from_millis(100);
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
        // Said once until the bus was there: a machine may have none.
        let mut is_away = false;
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
            let Err((error, was_there)) = self.connect_and_follow(&mut tracked).await else {
                return;
            };
            if connected.elapsed() > LAST_RETRY {
                retry = FIRST_RETRY;
            }
            if was_there || !is_away {
                tracing::info!(%error, "the system bus is away, polling services");
            }
            is_away = true;
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

    /// Follows one connection to its end. `Ok`: nobody wants anything any more. With the error
    /// goes whether there was a connection.
    async fn connect_and_follow(&mut self, tracked: &mut Tracked) -> Result<(), (BusError, bool)> {
        let connect = async {
            let mut bus = Bus::connect(&self.place.socket).await?;
            let subscription = Subscription::new(&mut bus).await?;
            Ok((bus, subscription))
        };
        let (bus, subscription) = connect.await.map_err(|error| (error, false))?;
        let follower = Follower {
            bus,
            subscription,
            abilities: Abilities::default(),
            due: Due::everything(),
            may_look: Instant::now(),
            again: None,
        };
        let followed = self.follow(follower, tracked).await;
        followed.map_err(|error| (error, true))
    }

    async fn follow(&mut self, mut on: Follower, tracked: &mut Tracked) -> Result<(), BusError> {
        let mut resync = Instant::now() + RESYNC;
        let mut may_read = Instant::now();
        loop {
            let now = Instant::now();
            if now >= resync {
                on.due.table = true;
                on.due.failed = true;
                resync = now + RESYNC;
            }
            if let Some((_, names)) = on.again.take_if(|(at, _)| now >= *at) {
                on.due.units.extend(names);
            }
            if on.bus.take_lost() {
                on.due = Due::everything();
            }
            if !on.due.is_empty() && now >= on.may_look {
                let wanted = self.wanted.borrow().clone();
                on.look(&wanted, tracked).await?;
                self.tell(tracked).await;
            }
            let mut wake = on.again.as_ref().map_or(resync, |(at, _)| resync.min(*at));
            if !on.due.is_empty() {
                wake = wake.min(on.may_look);
            }
            let pauses = Instant::now() < may_read;
            if pauses {
                wake = wake.min(may_read);
            }
            tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let wanted = self.wanted.borrow_and_update().clone();
                    tracked.want(&wanted.units, clock::now().mono_ms);
                    on.due = Due::everything();
                    on.may_look = Instant::now();
                }
                message = on.bus.receive(), if !pauses => {
                    on.due.note(&message?, tracked);
                    while let Some(message) = on.bus.received()? {
                        on.due.note(&message, tracked);
                    }
                    may_read = Instant::now() + BETWEEN_READS;
                }
                () = sleep_until(wake) => {}
            }
        }
    }
}

/// `None` for a list that is too long to be read, which is no reason to end the connection.
fn unless_too_long<T>(list: Result<T, BusError>) -> Result<Option<T>, BusError> {
    match list {
        Err(BusError::TooLong) => {
            tracing::warn!("systemd has more units than can be listed, failed ones may be missing");
            Ok(None)
        }
        list => list.map(Some),
    }
}

/// One connection and what is to be asked over it.
struct Follower {
    bus: Bus,
    subscription: Subscription,
    abilities: Abilities,
    due: Due,
    /// No look before this.
    may_look: Instant,
    /// Units that have to be looked at again without a signal, and when.
    again: Option<(Instant, Vec<String>)>,
}

impl Follower {
    /// Asks about everything that is due.
    async fn look(&mut self, wanted: &WatchedUnits, tracked: &mut Tracked) -> Result<(), BusError> {
        let begun = Instant::now();
        let due = std::mem::take(&mut self.due);
        let bus = &mut self.bus;
        let mut names = due.units;
        if due.all {
            names.extend(tracked.asked_names());
        }
        if due.failed
            && wanted.failed
            && let Some(mut failed) = unless_too_long(query::failed_units(bus).await)?
        {
            failed.retain(|unit| wanted.allows(unit));
            tracked.failed(&failed, clock::now().mono_ms);
        }
        if due.table || due.failed {
            let table = query::loaded(bus, &mut self.abilities, &tracked.ids()).await;
            match unless_too_long(table)? {
                Some(table) => names.extend(tracked.take_table(&table, clock::now().mono_ms)),
                None => names.extend(tracked.asked_names()),
            }
        }
        let is_small = !due.table && !due.failed && names.len() <= FEW_UNITS;
        let names: Vec<String> = names.into_iter().collect();
        let answers = query::units(bus, &names).await?;
        let clocks = clock::now();
        let now = Now {
            mono_ms: clocks.mono_ms,
            wall_ms: clocks.wall_ms,
        };
        for (name, answer) in names.iter().zip(answers) {
            tracked.take(name, answer, now);
        }
        self.subscription.follow(bus, &tracked.asked_ids()).await?;
        let ended = Instant::now();
        let rest = if is_small {
            BETWEEN_LOOKS
        } else {
            BETWEEN_LOOKS.max(begun.elapsed() * REST_AFTER_LOOK)
        };
        self.may_look = ended + rest;
        self.again = tracked.looks(now.mono_ms).map(|(wait_ms, names)| {
            let wait = Duration::from_millis(wait_ms as u64);
            (ended + wait, names)
        });
        Ok(())
    }
}
