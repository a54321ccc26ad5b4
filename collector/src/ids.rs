//! Row identifiers that grow with time: 42 bits of milliseconds since 2025, 6 bits of the node,
//! 15 bits of a counter. So rows of one collector are appended in order, and two collectors on one
//! database never meet.

use std::sync::atomic::{AtomicI64, Ordering};

use watchkeep_shared::UnixMillis;

/// 2025-01-01T00:00:00Z.
const EPOCH_MS: i64 = 1_735_689_600_000;
const NODE_BITS: u32 = 6;
const COUNTER_BITS: u32 = 15;

/// Hands out identifiers, strictly increasing within this process even when the clock steps back.
#[derive(Debug)]
pub struct RowIds {
    node: i64,
    last: AtomicI64,
}

impl RowIds {
    /// `node` tells collectors on one database apart, 0 to 63.
    pub const fn new(node: u8) -> Self {
        Self {
            node: (node as i64) & ((1 << NODE_BITS) - 1),
            last: AtomicI64::new(0),
        }
    }

    /// The next identifier, at or after `now`.
    pub fn next(&self, now: UnixMillis) -> i64 {
        let floor = Self::first_at(now) >> NODE_BITS;
        let update = |last: i64| Some((last + 1).max(floor));
        let before = self
            .last
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, update)
            .unwrap_or_else(|last| last);
        let tick = (before + 1).max(floor);
        // The node's bits are the lowest, so that plain counting carries into the milliseconds.
        (tick << NODE_BITS) | self.node
    }

    /// The smallest identifier that a row recorded at `at` can have.
    pub const fn first_at(at: UnixMillis) -> i64 {
        let ms = at.0 - EPOCH_MS;
        (if ms < 0 { 0 } else { ms }) << (NODE_BITS + COUNTER_BITS)
    }

    /// Never hand out an identifier at or below `id` again: the store already has it.
    pub fn skip_past(&self, id: i64) {
        self.last.fetch_max(id >> NODE_BITS, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_increase_even_when_the_clock_steps_back() {
        let ids = RowIds::new(5);
        let mut last = 0;
        for now in [10, 10, 10, 5, 11, 3] {
            let id = ids.next(UnixMillis(EPOCH_MS + now));
            assert!(id > last, "{id} after {last}");
            assert_eq!(id & 63, 5);
            last = id;
        }
    }

    #[test]
    fn first_at_is_a_lower_bound() {
        let at = UnixMillis(EPOCH_MS + 1_000_000);
        let ids = RowIds::new(0);
        assert!(ids.next(at) >= RowIds::first_at(at));
        assert!(RowIds::first_at(at + watchkeep_shared::DurationMs(1)) > RowIds::first_at(at));
    }
}
