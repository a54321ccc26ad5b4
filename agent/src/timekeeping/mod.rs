//! How the machine's clock is kept: whether it is synchronised and how far it is off, by the word of
//! the program that keeps it.
//!
//! chronyd is asked over UDP on the loopback interface (`chrony`), systemd-timesyncd by the file that
//! it touches and on the system bus (`timesyncd`). Both tell every user. The kernel's own flag needs
//! `adjtimex(2)`, for which there is no safe call and which a hardened unit may not make. Other
//! programs, as ntpd, are not asked: where neither of the two is there, nothing is said. Asking starts
//! nothing and sets nothing.
//!
//! A task of its own asks each minute, with a deadline, so that a bus or a program that hangs holds up
//! no heartbeat. What keeps the clock and then answers no more leaves missing values.

mod chrony;
#[cfg(test)]
mod tests;
mod timesyncd;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use tokio::{sync::watch, time};

use self::{chrony::Chronyd, timesyncd::Timesyncd};
use crate::{clock, dbus, process::Tasks};

/// How often is asked.
const EVERY: Duration = Duration::from_mins(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where chronyd takes questions: `cmdport` in `chrony.conf(5)`.
const CHRONYD_PORT: u16 = 323;
/// Both programs compare the clock with their servers at least every 34 minutes, if nobody asked for
/// rarer looks. After so long without one the clock counts as not synchronised.
const SYNCHRONISED_FOR_S: i64 = 3 * 3_600;

/// A metric's name and its value.
pub type Named = (String, Option<f64>);

/// Where the programs are found, and how long they may take.
#[derive(Clone, Debug)]
struct ClockSources {
    chronyd: SocketAddr,
    /// The directory that systemd-timesyncd has while it runs.
    timesyncd: PathBuf,
    bus: PathBuf,
    patience: Duration,
}

impl ClockSources {
    /// This machine's.
    fn system() -> Self {
        Self {
            chronyd: (Ipv4Addr::LOCALHOST, CHRONYD_PORT).into(),
            timesyncd: "/run/systemd/timesync".into(),
            bus: dbus::system_bus(),
            patience: PATIENCE,
        }
    }
}

/// What is known of the clock. Missing: what keeps it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Reading {
    synchronised: Option<bool>,
    /// How far the clock is ahead of the right time; negative: behind.
    ahead_ms: Option<f64>,
}

impl Reading {
    const UNSYNCHRONISED: Self = Self {
        synchronised: Some(false),
        ahead_ms: None,
    };

    fn values(self) -> Vec<Named> {
        let synchronised = self.synchronised.map(|is| f64::from(u8::from(is)));
        vec![
            ("clock.synchronised".to_owned(), synchronised),
            ("clock.offset_ms".to_owned(), self.ahead_ms),
        ]
    }
}

/// What was learnt last, kept up by a task.
#[derive(Debug)]
pub struct Timekeeping(watch::Receiver<Option<Reading>>);

impl Timekeeping {
    /// Asks from now on until the tasks are stopped. On Windows nothing is asked.
    pub fn start(tasks: &Tasks) -> Self {
        let (learnt, receiver) = watch::channel(None);
        if cfg!(unix) {
            let stop = tasks.stop_token();
            tasks.spawn("timekeeping", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = ask_for_ever(learnt) => {}
                }
            });
        }
        Self(receiver)
    }

    /// As if this had been learnt.
    #[cfg(test)]
    pub fn reported(synchronised: bool, ahead_ms: f64) -> Self {
        let (_, receiver) = watch::channel(Some(Reading {
            synchronised: Some(synchronised),
            ahead_ms: Some(ahead_ms),
        }));
        Self(receiver)
    }

    /// The metrics; none while nothing was found that keeps the clock.
    pub fn values(&self) -> Vec<Named> {
        self.0.borrow().map(Reading::values).unwrap_or_default()
    }
}

/// Asks once; on Windows nothing.
pub async fn look() -> Vec<Named> {
    if cfg!(windows) {
        return Vec::new();
    }
    let reading = Asker::new(&ClockSources::system()).look().await;
    reading.map(Reading::values).unwrap_or_default()
}

async fn ask_for_ever(learnt: watch::Sender<Option<Reading>>) {
    let mut asker = Asker::new(&ClockSources::system());
    let mut ticks = time::interval(EVERY);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        learnt.send_replace(asker.look().await);
    }
}

#[derive(Debug)]
struct Asker {
    chronyd: Chronyd,
    timesyncd: Timesyncd,
    /// Something that keeps the clock was found once.
    found: bool,
}

impl Asker {
    fn new(place: &ClockSources) -> Self {
        Self {
            chronyd: Chronyd::new(place),
            timesyncd: Timesyncd::new(place),
            found: false,
        }
    }

    /// chronyd goes first: its answer is of this moment, and it may run beside the other.
    async fn look(&mut self) -> Option<Reading> {
        let wall_ms = clock::now().wall_ms;
        let reading = match self.chronyd.ask(wall_ms).await {
            None => self.timesyncd.look(wall_ms).await,
            known => known,
        };
        self.found |= reading.is_some();
        reading.or_else(|| self.found.then(Reading::default))
    }
}
