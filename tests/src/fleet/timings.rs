//! From a breach to its ticket: when each breaching frame was made, and when the ticket of its host
//! stood in the store for another connection to see.

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock},
};

use tokio::time::Instant;
use watchkeep_shared::HostId;

/// Breaches and their tickets.
#[derive(Debug, Default)]
pub struct BreachLog {
    begins: OnceLock<Instant>,
    hosts: Mutex<BTreeMap<HostId, Marks>>,
}

/// One host's breach.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// The first breaching frame was made.
    pub made: Instant,
    /// The ticket was seen in the store.
    pub ticket_seen: Option<Instant>,
}

impl BreachLog {
    /// Sets when agents begin to break the rule; later calls change nothing.
    pub fn begin_at(&self, at: Instant) {
        let _ = self.begins.set(at);
    }

    /// Whether the time has come.
    pub fn has_begun(&self, now: Instant) -> bool {
        self.begins.get().is_some_and(|begins| *begins <= now)
    }

    /// A breaching frame was made; only a host's first one counts.
    pub fn made(&self, host: HostId, at: Instant) {
        self.hosts
            .lock()
            .expect("no holder panics")
            .entry(host)
            .or_insert(Marks {
                made: at,
                ticket_seen: None,
            });
    }

    /// A host's ticket was seen; only the first sight counts.
    pub fn ticket_seen(&self, host: HostId, at: Instant) {
        if let Some(marks) = self.hosts.lock().expect("no holder panics").get_mut(&host) {
            marks.ticket_seen.get_or_insert(at);
        }
    }

    /// All breaches.
    pub fn marks(&self) -> Vec<Marks> {
        let hosts = self.hosts.lock().expect("no holder panics");
        hosts.values().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use watchkeep_shared::ids::random_uuid;

    use super::*;

    #[test]
    fn the_first_frame_and_the_first_sight_count() {
        let log = BreachLog::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let host = HostId(random_uuid());
        log.ticket_seen(host, at(1));
        log.made(host, at(2));
        log.made(host, at(3));
        log.ticket_seen(host, at(5));
        log.ticket_seen(host, at(9));
        let marks = log.marks()[0];
        assert_eq!(marks.made, at(2));
        assert_eq!(marks.ticket_seen, Some(at(5)));
    }
}
