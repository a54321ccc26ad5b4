//! Which certificates must be refused now. Kept in memory and checked on every request, not only
//! at the handshake, so that a revocation bites on the next request of an open connection.

use std::{collections::HashSet, sync::Arc};

use arc_swap::ArcSwap;

/// Serial numbers of revoked certificates that have not expired.
#[derive(Debug, Default)]
pub struct Revoked(ArcSwap<HashSet<String>>);

impl Revoked {
    /// Replaces the whole list.
    pub fn set(&self, serials: impl IntoIterator<Item = String>) {
        self.0.store(Arc::new(serials.into_iter().collect()));
    }

    /// Whether a certificate is revoked.
    pub fn contains(&self, serial: &str) -> bool {
        self.0.load().contains(serial)
    }
}
