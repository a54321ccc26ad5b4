//! Reading what a check follows, and closing what nothing more comes of.

use watchkeep_shared::wire::heartbeat::LogGapReason;

use super::{
    super::{Reading, remember::Remembered, rules::Sink},
    Check,
};

/// A file that left its path is closed when it has not grown for this long: its writer has moved on.
const RETIRED_FOR_MS: i64 = 60_000;

impl Check {
    pub(super) fn read_all(&mut self, reading: &mut Reading<'_>) {
        // What left its path first: its lines are older.
        let mut order: Vec<usize> = (0..self.tails.len()).collect();
        order.sort_by_key(|at| self.tails[*at].retired_ms.is_none());
        for at in order {
            let tail = &mut self.tails[at];
            if reading.budget == 0 || reading.pending.is_full() {
                return;
            }
            if tail.position().copy_of.is_some() {
                continue;
            }
            let path = tail.position().path.clone();
            let head = tail.position().head;
            let mut sink = Sink {
                rules: &self.rules,
                pending: reading.pending,
                path: &path,
            };
            let start = self.rules.record_start.as_ref();
            match tail.read(reading.budget, start, reading.now_ms, &mut |found| {
                sink.take(&found)
            }) {
                Ok(0) => {}
                Ok(bytes) => {
                    reading.budget -= bytes;
                    reading.moved = true;
                    // Without its first bytes it could not be distinguished from a successor.
                    reading.structure_changed |= tail.position().head != head;
                }
                Err(error) => {
                    if self.unreadable.insert(path.clone()) {
                        tracing::warn!(path = %path.display(), %error, "a log can't be read");
                        reading.pending.gap(&path, LogGapReason::Unreadable, None);
                    }
                }
            }
        }
    }

    pub(super) fn close_retired(&mut self, reading: &mut Reading<'_>) {
        let (budget, now_ms) = (reading.budget, reading.now_ms);
        let mut at = 0;
        while at < self.tails.len() {
            let tail = &mut self.tails[at];
            let over = budget > 0
                && !reading.pending.is_full()
                && tail
                    .retired_ms
                    .is_some_and(|at| now_ms - at.max(tail.grown_ms) >= RETIRED_FOR_MS);
            if !over {
                at += 1;
                continue;
            }
            let mut tail = self.tails.swap_remove(at);
            let path = tail.position().path.clone();
            let mut sink = Sink {
                rules: &self.rules,
                pending: reading.pending,
                path: &path,
            };
            tail.finish(&mut |found| sink.take(&found));
            let mut kept = tail.kept().cloned();
            let now = Some(tail.position().clone());
            self.remembered
                .extend(kept.next().map(|committed| Remembered { now, committed }));
            // Until the gaps are handed over.
            self.remembered.extend(kept.map(|committed| Remembered {
                now: None,
                committed,
            }));
            reading.structure_changed = true;
        }
    }
}
