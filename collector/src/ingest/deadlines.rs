//! When each host is due, without scanning all of them: a heap with one entry
//! that counts a host. A heartbeat only moves a host's deadline back, so nothing is pushed for it;
//! an entry that comes up too early is pushed again at the later time.

use std::{cmp::Reverse, collections::BinaryHeap};

use watchkeep_shared::{HostId, UnixMillis};

/// The heap.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<(UnixMillis, HostId)>>);

impl Deadlines {
    /// Asks to look at `host` at `at`. `wake_at` is the host's entry that counts.
    pub(super) fn want(&mut self, host: HostId, at: UnixMillis, wake_at: &mut Option<UnixMillis>) {
        if wake_at.is_none_or(|queued| at < queued) {
            *wake_at = Some(at);
            self.0.push(Reverse((at, host)));
        }
    }

    /// The earliest entry.
    pub(super) fn next(&self) -> Option<UnixMillis> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes an entry that is due.
    pub(super) fn pop_due(&mut self, now: UnixMillis) -> Option<(UnixMillis, HostId)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u128) -> HostId {
        HostId(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn only_an_earlier_wish_is_queued() {
        let mut deadlines = Deadlines::default();
        let mut wake_at = None;
        deadlines.want(host(1), UnixMillis(20), &mut wake_at);
        deadlines.want(host(1), UnixMillis(30), &mut wake_at);
        assert_eq!(wake_at, Some(UnixMillis(20)));
        deadlines.want(host(1), UnixMillis(10), &mut wake_at);
        assert_eq!(wake_at, Some(UnixMillis(10)));
        assert_eq!(deadlines.pop_due(UnixMillis(9)), None);
        assert_eq!(
            deadlines.pop_due(UnixMillis(10)),
            Some((UnixMillis(10), host(1)))
        );
        // The superseded entry still comes; its time shows the owner that it does not count.
        assert_eq!(
            deadlines.pop_due(UnixMillis(50)),
            Some((UnixMillis(20), host(1)))
        );
        assert_eq!(deadlines.pop_due(UnixMillis(50)), None);
    }
}
