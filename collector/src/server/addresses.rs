//! How many connections there are, in all and from one address. Pending ones (no handshake yet)
//! over the limit push out the oldest pending one; open ones over the limit refuse the new one.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::limit::source;

/// Connections of one port.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open at once, pending ones included.
    pub connections: usize,
    /// Open at once from one address (a /64 in IPv6).
    pub per_address: usize,
    /// Pending at once.
    pub pending: usize,
    /// Pending at once from one address.
    pub pending_per_address: usize,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// Of all.
    #[error("connection limit reached")]
    Port,
    /// Of one address.
    #[error("connection limit of one address reached")]
    Address,
}

/// The connections of a port; cheap to clone.
#[derive(Clone)]
pub(super) struct Addresses {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    next: u64,
    total: usize,
    by_address: HashMap<IpAddr, Address>,
    /// Oldest first.
    pending: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

#[derive(Default)]
struct Address {
    total: usize,
    pending: usize,
}

/// A connection that was let in; counted until it is dropped.
pub(super) struct Admitted {
    addresses: Addresses,
    id: u64,
    from: IpAddr,
    evicted: CancellationToken,
}

impl Addresses {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Arc::default(),
        }
    }

    /// Counts a new connection as pending, or says which limit it exceeds.
    pub(super) fn admit(&self, from: IpAddr) -> Result<Admitted, Full> {
        let from = source(from);
        let mut state = self.lock();
        let here = state.by_address.get(&from);
        let (total, pending) = here.map_or((0, 0), |here| (here.total, here.pending));
        if total - pending >= self.limits.per_address {
            return Err(Full::Address);
        }
        if pending >= self.limits.pending_per_address {
            state.evict(Some(from));
        } else if state.pending.len() >= self.limits.pending
            || state.total >= self.limits.connections
        {
            state.evict(None);
        }
        if state.total >= self.limits.connections {
            return Err(Full::Port);
        }
        let (id, evicted) = (state.next, CancellationToken::new());
        state.next += 1;
        state.total += 1;
        let here = state.by_address.entry(from).or_default();
        here.total += 1;
        here.pending += 1;
        state.pending.insert(id, (from, evicted.clone()));
        drop(state);
        Ok(Admitted {
            addresses: self.clone(),
            id,
            from,
            evicted,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Disconnects the oldest pending connection, of one address or of all, and counts it no more.
    fn evict(&mut self, from: Option<IpAddr>) {
        let oldest = self
            .pending
            .iter()
            .find(|(_, (address, _))| from.is_none_or(|from| from == *address));
        let Some(id) = oldest.map(|(id, _)| *id) else {
            return;
        };
        if let Some((address, evicted)) = self.pending.remove(&id) {
            evicted.cancel();
            self.total -= 1;
            self.leave(address, 1);
        }
    }

    fn leave(&mut self, address: IpAddr, pending: usize) {
        if let Some(here) = self.by_address.get_mut(&address) {
            here.total -= 1;
            here.pending -= pending;
            if here.total == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Admitted {
    /// Completes when the connection must go because it is the oldest pending one.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// The handshake is done.
    pub(super) fn open(&mut self) -> Result<(), Full> {
        let mut state = self.addresses.lock();
        if state.pending.remove(&self.id).is_none() {
            return Err(Full::Port);
        }
        if let Some(here) = state.by_address.get_mut(&self.from) {
            here.pending -= 1;
        }
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.addresses.lock();
        let was_pending = state.pending.remove(&self.id).is_some();
        // One that was evicted is counted no more already.
        if was_pending || !self.evicted.is_cancelled() {
            state.total -= 1;
            state.leave(self.from, usize::from(was_pending));
        }
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        connections: 10,
        per_address: 5,
        pending: 6,
        pending_per_address: 3,
    };

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn the_oldest_silent_connection_makes_room_for_a_new_one() {
        let addresses = Addresses::new(LIMITS);
        let silent: Vec<_> = (0..3)
            .map(|_| addresses.admit(address(1)).unwrap())
            .collect();
        let mut new = addresses.admit(address(1)).unwrap();
        let evicted = |one: &Admitted| one.evicted.is_cancelled();
        assert_eq!(
            silent.iter().map(evicted).collect::<Vec<_>>(),
            [true, false, false]
        );
        assert_eq!(new.open(), Ok(()));
        drop(silent);
        assert_eq!(addresses.lock().total, 1);
    }

    #[test]
    fn one_address_does_not_take_all_connections() {
        let addresses = Addresses::new(LIMITS);
        let mut open = Vec::new();
        for _ in 0..5 {
            let mut one = addresses.admit(address(1)).unwrap();
            one.open().unwrap();
            open.push(one);
        }
        assert_eq!(addresses.admit(address(1)).unwrap_err(), Full::Address);
        assert!(addresses.admit(address(2)).is_ok());
        open.pop();
        assert!(addresses.admit(address(1)).is_ok());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Connect(u8),
        Finish(usize),
        Leave(usize),
    }

    proptest! {
        /// Whatever happens, the counts are those of the connections that exist, and no limit is
        /// exceeded.
        #[test]
        fn counts_are_right(steps in proptest::collection::vec(prop_oneof![
            (0..4_u8).prop_map(Step::Connect),
            (0..12_usize).prop_map(Step::Finish),
            (0..12_usize).prop_map(Step::Leave),
        ], 0..200)) {
            let addresses = Addresses::new(LIMITS);
            let mut here: Vec<Admitted> = Vec::new();
            for step in steps {
                match step {
                    Step::Connect(n) => here.extend(addresses.admit(address(n))),
                    Step::Finish(n) if n < here.len() => drop(here[n].open()),
                    Step::Leave(n) if n < here.len() => drop(here.swap_remove(n)),
                    Step::Finish(_) | Step::Leave(_) => {}
                }
                let live = here.iter().filter(|one| !one.evicted.is_cancelled()).count();
                let state = addresses.lock();
                prop_assert_eq!(state.total, live);
                prop_assert!(state.total <= LIMITS.connections);
                prop_assert!(state.pending.len() <= LIMITS.pending);
                let sum: usize = state.by_address.values().map(|one| one.total).sum();
                prop_assert_eq!(sum, live);
                for one in state.by_address.values() {
                    prop_assert!(one.pending <= LIMITS.pending_per_address);
                }
            }
        }
    }
}
