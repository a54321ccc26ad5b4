//! Figures about stored history that could not be used, for `/metrics`: what sealing left out since
//! the start, and what is set aside now.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::store::{
    Store, StoreError,
    set_aside::{self, Part},
};

/// Rows that did not get into a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostRows {
    /// Left out evenly over time: the host sent more than a chunk holds.
    pub thinned: usize,
    /// Of lists of names that are not known, or too many.
    pub unnamed: usize,
    /// They, or the chunk they were in, can't be read; set aside.
    pub unreadable: usize,
}

impl LostRows {
    /// Adds what another host lost.
    pub const fn add(&mut self, other: Self) {
        self.thinned += other.thinned;
        self.unnamed += other.unnamed;
        self.unreadable += other.unreadable;
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

/// The figures; shared by the sealer and `/metrics`.
#[derive(Debug, Default)]
pub struct HistoryMetrics {
    lost: Family<ByReason, Counter<u64, AtomicU64>>,
    set_aside: Family<ByKind, Gauge<i64, AtomicI64>>,
}

impl HistoryMetrics {
    /// Puts the figures into a registry.
    pub fn register(&self, registry: &mut Registry) {
        // All are there from the start, so that an alert on a rise sees the first one.
        self.count_lost(LostRows::default());
        for part in Part::ALL {
            let kind = part.as_str();
            drop(self.set_aside.get_or_create(&ByKind { kind }));
        }
        registry.register(
            "history_rows_lost",
            "Heartbeats whose values are not in the stored history",
            self.lost.clone(),
        );
        registry.register(
            "history_set_aside",
            "Damaged parts of hosts' history that are kept for support",
            self.set_aside.clone(),
        );
    }

    /// Counts what one chunk lacks.
    pub fn count_lost(&self, lost: LostRows) {
        for (reason, rows) in [
            ("thinned", lost.thinned),
            ("unnamed", lost.unnamed),
            ("unreadable", lost.unreadable),
        ] {
            self.lost
                .get_or_create(&ByReason { reason })
                .inc_by(rows as u64);
        }
    }

    /// Counts what is set aside in the store now.
    pub async fn refresh(&self, store: &Store) -> Result<(), StoreError> {
        let counts = set_aside::counts(store).await?;
        for part in Part::ALL {
            let kind = part.as_str();
            let count = counts.iter().find(|one| one.kind == kind);
            let count = count.map_or(0, |one| one.count);
            self.set_aside.get_or_create(&ByKind { kind }).set(count);
        }
        Ok(())
    }
}
