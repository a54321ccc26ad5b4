//! Hosts whose requests arrived but could not be taken in: the queue was full, or the commit failed.
//! Such a host is not silent. Kept in memory, one entry a host.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use watchkeep_shared::{HostId, UnixMillis};

/// When each of these hosts was last answered "busy".
#[derive(Debug, Default)]
pub struct Knocks(Mutex<HashMap<HostId, UnixMillis>>);

impl Knocks {
    /// A request of the host arrived at `at` and was answered "busy".
    pub fn note(&self, host: HostId, at: UnixMillis) {
        let mut knocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = knocks.entry(host).or_insert(at);
        *last = (*last).max(at);
    }

    /// When the host was last answered "busy".
    pub fn last(&self, host: HostId) -> Option<UnixMillis> {
        let knocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        knocks.get(&host).copied()
    }
}
