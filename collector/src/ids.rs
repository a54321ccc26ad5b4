//! Identifiers. Rows have numbers that grow with time: 42 bits of milliseconds since 2025, 15 bits of
//! a counter, 6 bits of the node. Everything else has a UUID of version 7 (RFC 9562). Both take their
//! time from the collector's clock, so a test that moves the clock gets the same ones each time.
//!
//! The node's bits only make a collision unlikely between a collector and the command line; they
//! are too few to tell several collectors on one database apart.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;
use watchkeep_shared::UnixMillis;

/// 2025-01-01T00:00:00Z.
const EPOCH_MS: i64 = 1_735_689_600_000;
const NODE_BITS: u32 = 6;
const COUNTER_BITS: u32 = 15;
/// Node of the command line's programs; collectors have 1 to 63.
const COMMAND_LINE: i64 = 0;
/// Half of a millisecond's counter.
const LEAD_MAX: i64 = 1 << (COUNTER_BITS - 1);

/// Gives identifiers; those of rows strictly increase within this process.
#[derive(Debug)]
pub struct RowIds {
    node: i64,
    /// Where in a millisecond the counter begins.
    lead: i64,
    last: AtomicI64,
    random: Mutex<StdRng>,
}

impl RowIds {
    /// Identifiers of a collector; `node` is any byte of its name.
    pub fn new(node: u8) -> Self {
        let nodes = (1 << NODE_BITS) - 1;
        Self::with(
            1 + i64::from(node) % nodes,
            StdRng::from_rng(&mut rand::rng()),
        )
    }

    /// Identifiers of a command that may run at the same time as a collector and other commands: its
    /// counter begins somewhere in the millisecond.
    pub fn for_command() -> Self {
        let lead = rand::random_range(0..LEAD_MAX);
        Self {
            lead,
            ..Self::with(COMMAND_LINE, StdRng::from_rng(&mut rand::rng()))
        }
    }

    /// Identifiers of a test, the same each time.
    pub fn reproducible(node: u8, seed: u64) -> Self {
        Self {
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            ..Self::new(node)
        }
    }

    const fn with(node: i64, random: StdRng) -> Self {
        Self {
            node,
            lead: 0,
            last: AtomicI64::new(0),
            random: Mutex::new(random),
        }
    }

    /// A new UUID of version 7.
    pub fn uuid(&self, now: UnixMillis) -> Uuid {
        let mut random = [0; 10];
        self.random
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(&mut random);
        version_7(now, &random)
    }

    /// The next row's identifier, at or after `now`.
    pub fn next(&self, now: UnixMillis) -> i64 {
        let floor = (Self::first_at(now) >> NODE_BITS) + self.lead;
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

    /// When the row with this identifier was recorded.
    pub const fn time_of(id: i64) -> UnixMillis {
        UnixMillis(EPOCH_MS + (id >> (NODE_BITS + COUNTER_BITS)))
    }

    /// Never gives an identifier at or below `id` again: the store already has it.
    pub fn skip_past(&self, id: i64) {
        self.last.fetch_max(id >> NODE_BITS, Ordering::SeqCst);
    }
}

/// A UUID of version 7 for a row of the fleet file, where no [`RowIds`] is at hand.
pub fn uuid_at(now: UnixMillis) -> Uuid {
    version_7(now, &rand::random())
}

fn version_7(now: UnixMillis, random: &[u8; 10]) -> Uuid {
    let ms = u64::try_from(now.0).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(ms, random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_increase_even_when_the_clock_steps_back() {
        let ids = RowIds::new(4);
        let mut last = 0;
        for now in [10, 10, 10, 5, 11, 3] {
            let id = ids.next(UnixMillis(EPOCH_MS + now));
            assert!(id > last, "{id} after {last}");
            assert_eq!(id & 63, 5);
            last = id;
        }
    }

    #[test]
    fn commands_and_collectors_differ() {
        let now = UnixMillis(EPOCH_MS + 10);
        for node in [0, 62, 63, 255] {
            assert_ne!(RowIds::new(node).next(now) & 63, COMMAND_LINE, "{node}");
        }
        let id = RowIds::for_command().next(now);
        assert_eq!(id & 63, COMMAND_LINE);
        assert!(id < RowIds::first_at(now + watchkeep_shared::DurationMs(1)));
    }

    #[test]
    fn uuids_carry_the_clocks_time_and_repeat_with_the_seed() {
        let at = UnixMillis(1_800_000_000_123);
        let [first, again] = [7, 7].map(|seed| RowIds::reproducible(1, seed));
        let id = first.uuid(at);
        assert_eq!(id, again.uuid(at));
        assert_ne!(id, first.uuid(at));
        assert_eq!(id.get_version_num(), 7);
        let (secs, nanos) = id.get_timestamp().unwrap().to_unix();
        assert_eq!((secs, nanos), (1_800_000_000, 123_000_000));
        assert_ne!(RowIds::new(1).uuid(at), RowIds::new(1).uuid(at));
    }

    #[test]
    fn first_at_is_a_lower_bound() {
        let at = UnixMillis(EPOCH_MS + 1_000_000);
        let ids = RowIds::new(0);
        assert!(ids.next(at) >= RowIds::first_at(at));
        assert!(RowIds::first_at(at + watchkeep_shared::DurationMs(1)) > RowIds::first_at(at));
    }
}
