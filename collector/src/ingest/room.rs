//! The memory that batches in the queue may take: so many bytes in all, and a share of them for each
//! host, so that one host that sends large batches leaves room for the others.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use watchkeep_shared::{HostId, wire::limits::MAX_DECODED_BODY_BYTES};

/// Most bytes of one host in the queue: an honest agent waits for each answer, so it has one batch
/// there, or two if it connected again.
const MAX_BYTES_PER_HOST: usize = 2 * MAX_DECODED_BODY_BYTES;

/// The room for batches in the queue.
#[derive(Debug)]
pub struct Room {
    max_bytes: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    by_host: HashMap<HostId, usize>,
}

/// A batch's place in the room; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    host: HostId,
    bytes: usize,
}

impl Room {
    /// An empty room.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            used: Mutex::default(),
        }
    }

    /// Room for a batch of a host, if there is any: a batch larger than all of it has none.
    pub fn take(self: &Arc<Self>, host: HostId, bytes: usize) -> Option<Place> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let of_host = used.by_host.get(&host).copied().unwrap_or(0) + bytes;
        if used.bytes + bytes > self.max_bytes || of_host > MAX_BYTES_PER_HOST {
            return None;
        }
        used.bytes += bytes;
        used.by_host.insert(host, of_host);
        drop(used);
        Some(Place {
            room: Arc::clone(self),
            host,
            bytes,
        })
    }

    /// Bytes in the queue.
    pub fn bytes(&self) -> usize {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.bytes
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut used = self
            .room
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        used.bytes -= self.bytes;
        if let Entry::Occupied(mut of_host) = used.by_host.entry(self.host) {
            *of_host.get_mut() -= self.bytes;
            if *of_host.get() == 0 {
                of_host.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn host(n: u128) -> HostId {
        HostId(Uuid::from_u128(n))
    }

    #[test]
    fn one_host_has_a_share_and_all_have_a_bound() {
        let room = Arc::new(Room::new(12 * MIB));
        let first = room.take(host(1), 4 * MIB).unwrap();
        let second = room.take(host(1), 4 * MIB).unwrap();
        assert!(room.take(host(1), 1).is_none(), "more than its share");
        let other = room.take(host(2), 4 * MIB).unwrap();
        assert!(room.take(host(3), 1).is_none(), "all is taken");
        assert_eq!(room.bytes(), 12 * MIB);
        drop(first);
        assert!(room.take(host(3), 4 * MIB).is_some());
        drop((second, other));
        assert_eq!(room.bytes(), 0);
        assert!(room.used.lock().unwrap().by_host.is_empty());
    }
}
