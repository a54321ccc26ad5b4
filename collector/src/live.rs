//! What is true now, for pages: each host's newest values and state, and a stream of hints that
//! something changed. The pipeline writes it after each commit.
//!
//! Readers and the writer never wait for each other: a host's state is an immutable value that is
//! replaced as a whole, and the map of hosts is replaced only when a host is added. A reader of many
//! hosts sees each host as of some instant, not all as of the same one. The store is the truth; this
//! is lost with the process and rebuilt at start.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::broadcast;
use uuid::Uuid;
use watchkeep_core::{
    evidence::Evidence, host::Quarantine, ids::AlertId, rules::Severity, series::Names,
};
use watchkeep_shared::{
    HostId, UnixMillis,
    wire::heartbeat::{GoodbyeReason, RejectReason, Service},
    wire::policy::{Refusal, Trouble},
};

/// Hints kept for a slow reader. One that misses some has to assume that everything changed.
const HINTS_KEPT: usize = 1_024;

/// A hint for open pages: what to fetch again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A heartbeat of a host came, and nothing but values changed.
    Values(HostId),
    /// A host's state changed.
    Host(HostId),
    /// A ticket was opened or changed.
    Ticket(Uuid),
}

/// An alert that fires now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiringAlert {
    pub id: AlertId,
    /// How bad it is.
    pub severity: Severity,
    /// It says that the host is silent.
    pub is_silence: bool,
    pub since: UnixMillis,
}

/// Heartbeats of a host that were rejected for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: RejectReason,
    /// How many.
    pub count: u64,
    /// When the last one was.
    pub last_at: UnixMillis,
}

/// One host, now.
#[derive(Clone, Debug)]
pub struct HostNow {
    /// Names of `values`.
    pub names: Names,
    /// Newest values.
    pub values: Arc<[Option<f64>]>,
    /// When they were measured, on the collector's time line.
    pub at: UnixMillis,
    /// Arrival of the newest heartbeat.
    pub last_seen_at: UnixMillis,
    /// The silence deadline has passed.
    pub silent: bool,
    /// State of every watched service.
    pub services: Arc<[Service]>,
    /// Keys of those that do not exist on this host, where nobody expects them to.
    pub not_here: Vec<String>,
    /// Alerts that fire now.
    pub firing: Arc<[FiringAlert]>,
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
    /// Heartbeats rejected since the collector started, an entry a reason.
    pub rejected: Vec<Rejection>,
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

    /// Whether a page that shows no values looks the same.
    fn is_like(&self, other: &Self) -> bool {
        self.silent == other.silent
            && self.firing == other.firing
            && self.services == other.services
            && self.not_here == other.not_here
            && self.goodbye == other.goodbye
            && self.quarantine.is_some() == other.quarantine.is_some()
            && self.policy_version == other.policy_version
            && self.refused.len() == other.refused.len()
            && self.troubles.len() == other.troubles.len()
    }

    /// The newest value of a metric by its full name.
    pub fn value(&self, name: &str) -> Option<f64> {
        let at = self.names.iter().position(|n| **n == *name)?;
        self.values.get(at).copied().flatten()
    }
}

type Slots = HashMap<HostId, Arc<ArcSwap<HostNow>>>;

/// The newest state of every host, and the stream of hints.
#[derive(Debug)]
pub struct Live {
    hosts: ArcSwap<Slots>,
    /// Held while hosts are added, so that two writers never lose one.
    adding: Mutex<()>,
    changes: AtomicU64,
    ticket_changes: AtomicU64,
    hints: broadcast::Sender<Hint>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            hosts: ArcSwap::default(),
            adding: Mutex::default(),
            changes: AtomicU64::new(0),
            ticket_changes: AtomicU64::new(0),
            hints: broadcast::Sender::new(HINTS_KEPT),
        }
    }
}

impl Live {
    /// Every host's state.
    pub fn hosts(&self) -> Vec<(HostId, Arc<HostNow>)> {
        let hosts = self.hosts.load();
        hosts
            .iter()
            .map(|(id, slot)| (*id, slot.load_full()))
            .collect()
    }

    /// One host's state.
    pub fn host(&self, id: HostId) -> Option<Arc<HostNow>> {
        let hosts = self.hosts.load();
        hosts.get(&id).map(|slot| slot.load_full())
    }

    /// Replaces the state of some hosts, and hints at each.
    pub fn update(&self, changed: impl IntoIterator<Item = (HostId, HostNow)>) {
        let known = self.hosts.load();
        let mut added = Vec::new();
        let mut hints = Vec::new();
        for (id, now) in changed {
            if let Some(slot) = known.get(&id) {
                let before = slot.swap(Arc::new(now));
                let is_same = slot.load().is_like(&before);
                hints.push(if is_same {
                    Hint::Values(id)
                } else {
                    Hint::Host(id)
                });
            } else {
                added.push((id, now));
                hints.push(Hint::Host(id));
            }
        }
        if !added.is_empty() {
            self.add(added);
        }
        // Before the hints: who reads the count after a hint must see the change in it.
        self.changes.fetch_add(1, Ordering::Release);
        for hint in hints {
            self.hint(hint);
        }
    }

    /// Forgets hosts that are no longer monitored.
    pub fn remove(&self, hosts: &[HostId]) {
        if hosts.is_empty() {
            return;
        }
        let _only_one = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slots = Slots::clone(&self.hosts.load());
        slots.retain(|id, _| !hosts.contains(id));
        self.hosts.store(Arc::new(slots));
        self.changes.fetch_add(1, Ordering::Release);
        for id in hosts {
            self.hint(Hint::Host(*id));
        }
    }

    fn add(&self, added: Vec<(HostId, HostNow)>) {
        let _only_one = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slots = Slots::clone(&self.hosts.load());
        for (id, now) in added {
            match slots.get(&id) {
                Some(slot) => slot.store(Arc::new(now)),
                None => {
                    slots.insert(id, Arc::new(ArcSwap::from_pointee(now)));
                }
            }
        }
        self.hosts.store(Arc::new(slots));
    }

    /// Grows with every update of hosts: two equal counts mean that nothing changed between them.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The same for tickets.
    pub fn ticket_changes(&self) -> u64 {
        self.ticket_changes.load(Ordering::Acquire)
    }

    /// Hints open pages that something changed.
    pub fn hint(&self, hint: Hint) {
        if matches!(hint, Hint::Ticket(_)) {
            self.ticket_changes.fetch_add(1, Ordering::Release);
        }
        // No page is open: nobody needs the hint.
        drop(self.hints.send(hint));
    }

    /// Hints from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }
}
