//! Frames that were made and not yet acknowledged. Like the agent's own spool, in memory only:
//! nothing leaves it but by an answer of the collector or by its limit.

use std::collections::{BTreeSet, VecDeque};

use tokio::time::Instant;
use watchkeep_shared::wire::heartbeat::Frame;

/// Most frames one agent keeps; beyond it the oldest go and are counted.
pub const MAX_OWED_FRAMES: usize = 20_000;
/// Most frames sent in one batch.
pub const MAX_BATCH_FRAMES: usize = 100;

/// A frame that is owed to the collector.
#[derive(Clone, Debug)]
pub struct Owed {
    /// The frame.
    pub frame: Frame,
    /// When it was made.
    pub made: Instant,
}

/// One agent's unacknowledged frames, oldest first.
#[derive(Debug, Default)]
pub struct Spool {
    owed: VecDeque<Owed>,
    /// Set after a failure: the newest frame goes alone before the rest, so that the collector
    /// learns the present state before the past.
    newest_first: bool,
    lost: u64,
}

impl Spool {
    /// Keeps a frame.
    pub fn push(&mut self, owed: Owed) {
        if self.owed.len() == MAX_OWED_FRAMES {
            self.owed.pop_front();
            self.lost += 1;
        }
        self.owed.push_back(owed);
    }

    /// How many frames are owed.
    pub fn len(&self) -> usize {
        self.owed.len()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// How many frames the limit took.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The next frames to send, oldest first; they stay owed.
    pub fn next_batch(&self) -> Vec<Owed> {
        if self.newest_first
            && let Some(newest) = self.owed.back()
        {
            return vec![newest.clone()];
        }
        self.owed.iter().take(MAX_BATCH_FRAMES).cloned().collect()
    }

    /// The frames with these sequence numbers were answered, whether taken or refused for good.
    pub fn settle(&mut self, seqs: &BTreeSet<u64>) {
        self.newest_first = false;
        self.owed.retain(|owed| !seqs.contains(&owed.frame.seq));
    }

    /// A send failed: nothing was settled.
    pub fn failed(&mut self) {
        self.newest_first = true;
    }
}

#[cfg(test)]
mod tests {
    use watchkeep_shared::{ids::SchemaId, wire::heartbeat::Clocks};

    use super::*;

    fn owed(seq: u64) -> Owed {
        let frame = Frame {
            boot: None,
            instance: None,
            seq,
            clocks: Clocks::default(),
            interval_ms: 1_000,
            schema: SchemaId(1),
            values: Vec::new(),
            services: None,
            events: Vec::new(),
        };
        Owed {
            frame,
            made: Instant::now(),
        }
    }

    fn seqs(batch: &[Owed]) -> Vec<u64> {
        batch.iter().map(|owed| owed.frame.seq).collect()
    }

    #[test]
    fn frames_stay_until_they_are_settled() {
        let mut spool = Spool::default();
        (1..=3).for_each(|seq| spool.push(owed(seq)));
        assert_eq!(seqs(&spool.next_batch()), [1, 2, 3]);
        assert_eq!(seqs(&spool.next_batch()), [1, 2, 3]);
        spool.settle(&BTreeSet::from([1, 3]));
        assert_eq!(seqs(&spool.next_batch()), [2]);
    }

    #[test]
    fn after_a_failure_the_newest_goes_alone_and_then_the_oldest() {
        let mut spool = Spool::default();
        (1..=300).for_each(|seq| spool.push(owed(seq)));
        spool.failed();
        assert_eq!(seqs(&spool.next_batch()), [300]);
        spool.settle(&BTreeSet::from([300]));
        let batch = seqs(&spool.next_batch());
        assert_eq!(batch, (1..=100).collect::<Vec<_>>());
    }

    #[test]
    fn the_limit_takes_the_oldest_and_counts_them() {
        let mut spool = Spool::default();
        (1..=MAX_OWED_FRAMES as u64 + 5).for_each(|seq| spool.push(owed(seq)));
        assert_eq!(spool.len(), MAX_OWED_FRAMES);
        assert_eq!(spool.lost(), 5);
        assert_eq!(spool.next_batch()[0].frame.seq, 6);
    }
}
