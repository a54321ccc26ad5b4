//! One state of the whole fleet: a compact row a host, and sums over them.

use std::{collections::HashMap, sync::Arc};

use watchkeep_core::ids::AlertId;
use watchkeep_shared::{HostId, UnixMillis, metric};

use super::{Directory, Host};
use crate::{
    health::{Health, Signals},
    live::HostNow,
};

/// What a list shows of a host's newest heartbeat. All absent while no heartbeats arrive: what a
/// host last said is not how it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Percent.
    pub cpu: Option<f64>,
    /// Percent.
    pub memory: Option<f64>,
    /// Of the fullest disk: its column in the host's metrics, percent.
    pub disk: Option<(usize, f64)>,
    /// Services that are there, or should be.
    pub services: u32,
    /// Those of them that are down.
    pub services_down: u32,
}

/// One host.
#[derive(Clone, Debug)]
pub struct Row {
    /// As the store records it.
    pub host: Arc<Host>,
    /// Its newest state; `None` before its first heartbeat.
    pub now: Option<Arc<HostNow>>,
    /// How it is.
    pub health: Health,
    /// Its values.
    pub figures: Figures,
    /// Its open tickets.
    pub tickets: u32,
}

impl Row {
    /// When its newest heartbeat arrived; its enrolment before the first one.
    pub fn last_heartbeat_at(&self) -> UnixMillis {
        let enrolled = UnixMillis(self.host.view.enrolled_at);
        self.now.as_ref().map_or(enrolled, |now| now.last_seen_at)
    }

    /// Alerts that fire.
    pub fn firing(&self) -> usize {
        self.now.as_ref().map_or(0, |now| now.firing.len())
    }

    /// The alert that says that it is silent.
    pub fn silence(&self) -> Option<AlertId> {
        let now = self.now.as_ref()?;
        let alert = now.firing.iter().find(|alert| alert.is_silence)?;
        Some(alert.id)
    }

    /// Mount point and fill of the fullest disk, percent.
    pub fn worst_disk(&self) -> Option<(&str, f64)> {
        let (column, value) = self.figures.disk?;
        let name = self.now.as_ref()?.names.get(column)?;
        Some((metric::split(name).1.unwrap_or_default(), value))
    }
}

/// Sums over some hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub hosts: usize,
    /// From which heartbeats arrive.
    pub up: usize,
    /// From which none arrive.
    pub silent: usize,
    /// Whose heartbeats are rejected: quarantined or revoked.
    pub rejected: usize,
    /// Which have not sent any.
    pub waiting: usize,
    /// Alerts that fire.
    pub firing: usize,
    /// Services that are down.
    pub services_down: usize,
    /// Open tickets.
    pub tickets: usize,
}

/// The fleet at one time.
#[derive(Debug)]
pub struct Snapshot {
    /// Names.
    pub directory: Arc<Directory>,
    /// In the order of the directory: by folded name.
    rows: Vec<Row>,
}

impl Snapshot {
    pub(super) fn new(
        directory: Arc<Directory>,
        mut live: HashMap<HostId, Arc<HostNow>>,
        tickets: &HashMap<HostId, u32>,
        before: Option<&Self>,
    ) -> Self {
        // Rows of the same directory are at the same places.
        let before = before.filter(|before| Arc::ptr_eq(&before.directory, &directory));
        let rows = directory.hosts.iter().enumerate().map(|(i, host)| {
            let now = live.remove(&host.id());
            let tickets = tickets.get(&host.id()).copied().unwrap_or_default();
            if let (Some(before), Some(now)) = (before.map(|before| &before.rows[i]), &now)
                && before
                    .now
                    .as_ref()
                    .is_some_and(|same| Arc::ptr_eq(same, now))
            {
                return Row {
                    tickets,
                    ..before.clone()
                };
            }
            row(host, now, tickets)
        });
        Self {
            rows: rows.collect(),
            directory,
        }
    }

    /// All hosts, by folded name.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Sums over all hosts.
    pub fn totals(&self) -> Totals {
        Totals::of(&self.rows)
    }
}

fn row(host: &Arc<Host>, now: Option<Arc<HostNow>>, tickets: u32) -> Row {
    let health = Health::of(host.recorded, now.as_deref().map(Signals::from));
    let current = now.as_deref().filter(|_| health.is_up());
    Row {
        host: Arc::clone(host),
        health,
        figures: current.map(figures).unwrap_or_default(),
        now,
        tickets,
    }
}

fn figures(now: &HostNow) -> Figures {
    let mut figures = Figures::default();
    for (column, (name, value)) in now.names.iter().zip(now.values.iter()).enumerate() {
        let Some(value) = *value else { continue };
        match &**name {
            "cpu.busy_pct" => figures.cpu = Some(value),
            "mem.used_pct" => figures.memory = Some(value),
            name if name.starts_with("disk.used_pct:")
                && figures.disk.is_none_or(|(_, most)| value > most) =>
            {
                figures.disk = Some((column, value));
            }
            _ => {}
        }
    }
    for service in now.services_here() {
        figures.services += 1;
        figures.services_down += u32::from(service.status.is_fault());
    }
    figures
}

impl Totals {
    /// Sums over these hosts.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut totals = Self::default();
        for row in rows {
            totals.hosts += 1;
            totals.up += usize::from(row.health.is_up());
            totals.silent += usize::from(row.health == Health::Silent);
            totals.rejected +=
                usize::from(matches!(row.health, Health::Quarantined | Health::Revoked));
            totals.waiting += usize::from(row.health == Health::Waiting);
            totals.firing += row.firing();
            totals.services_down += row.figures.services_down as usize;
            totals.tickets += row.tickets as usize;
        }
        totals
    }
}
