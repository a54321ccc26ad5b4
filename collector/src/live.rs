//! What is true now, for pages: each host's newest values and state, and a stream of hints that
//! something changed. Written by the pipeline after each commit; a reader never waits for it long.
//! It can be lost and rebuilt: the store is the truth.

use std::{
    collections::HashMap,
    sync::{RwLock, RwLockReadGuard},
};

use tokio::sync::broadcast;
use uuid::Uuid;
use watchkeep_core::{evidence::Evidence, host::Quarantine, series::Names};
use watchkeep_shared::{
    HostId, UnixMillis,
    wire::heartbeat::{GoodbyeReason, Service},
    wire::policy::{Refusal, Trouble},
};

/// Hints that a slow page may miss; it then reloads the whole.
const HINTS_KEPT: usize = 256;

/// A hint for open pages: what to fetch again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A host's values or state changed.
    Host(HostId),
    /// A ticket was opened or changed.
    Ticket(Uuid),
}

/// One host, now.
#[derive(Clone, Debug)]
pub struct HostNow {
    /// Names of `values`.
    pub names: Names,
    /// Newest values.
    pub values: Vec<Option<f64>>,
    /// When they were measured, on the collector's time line.
    pub at: UnixMillis,
    /// Arrival of the newest heartbeat.
    pub last_seen_at: UnixMillis,
    /// The silence deadline has passed.
    pub silent: bool,
    /// State of every watched service.
    pub services: Vec<Service>,
    /// Keys of those that do not exist on this host, where nobody expects them to.
    pub not_here: Vec<String>,
    /// Alerts that fire now.
    pub firing: u32,
    /// The agent's wall clock minus ours, milliseconds.
    pub skew_ms: i64,
    /// Policy the agent runs.
    pub policy_version: u64,
    /// Policy items that the customer's configuration refuses.
    pub refused: Vec<Refusal>,
    /// What keeps the agent from doing all that it should.
    pub troubles: Vec<Trouble>,
    /// The agent's goodbye, if nothing came after it.
    pub goodbye: Option<GoodbyeReason>,
    /// Two machines use its identity.
    pub quarantine: Option<Quarantine>,
    /// Frames refused since the collector started.
    pub rejected: u64,
    /// The host's newest heartbeat row.
    pub last_id: i64,
    /// The chain of heartbeats that is still growing, for reports up to now.
    pub open_chain: Option<Evidence>,
    /// The host beats every so many milliseconds.
    pub interval_ms: u32,
}

impl HostNow {
    /// Services that are there, or should be.
    pub fn services_here(&self) -> impl Iterator<Item = &Service> {
        let is_here = |service: &&Service| !self.not_here.contains(&service.key);
        self.services.iter().filter(is_here)
    }

    /// The newest value of a metric by its full name.
    pub fn value(&self, name: &str) -> Option<f64> {
        let at = self.names.iter().position(|n| **n == *name)?;
        self.values.get(at).copied().flatten()
    }
}

/// The map and the stream.
#[derive(Debug)]
pub struct Live {
    hosts: RwLock<HashMap<HostId, HostNow>>,
    hints: broadcast::Sender<Hint>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            hosts: RwLock::default(),
            hints: broadcast::Sender::new(HINTS_KEPT),
        }
    }
}

impl Live {
    /// Reads many hosts; hold the guard briefly and never across an await.
    pub fn hosts(&self) -> RwLockReadGuard<'_, HashMap<HostId, HostNow>> {
        self.hosts
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One host.
    pub fn host(&self, id: HostId) -> Option<HostNow> {
        self.hosts().get(&id).cloned()
    }

    /// Replaces what is known of some hosts, and tells open pages.
    pub fn update(&self, changed: impl IntoIterator<Item = (HostId, HostNow)>) {
        let mut hosts = self
            .hosts
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for (id, now) in changed {
            hosts.insert(id, now);
            self.hint(Hint::Host(id));
        }
    }

    /// Removes hosts that were retired, and tells open pages.
    pub fn remove(&self, gone: &[HostId]) {
        let mut hosts = self
            .hosts
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for id in gone {
            hosts.remove(id);
            self.hint(Hint::Host(*id));
        }
    }

    /// Tells open pages that something changed.
    pub fn hint(&self, hint: Hint) {
        // No page is open: nobody needs the hint.
        drop(self.hints.send(hint));
    }

    /// Hints from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }
}
