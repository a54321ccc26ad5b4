//! Reading what a check follows, and closing what nothing more comes of.

use watchkeep_shared::wire::heartbeat::LogGapReason;

use super::{
    super::{
        Reading,
        changes::Changes,
        remember::Remembered,
        rules::Sink,
        tail::{Stamp, Tail},
    },
    Check,
};

/// A file that left its path is closed when it has not grown for this long: its writer has moved on.
const RETIRED_FOR_MS: i64 = 60_000;

impl Check {
    /// Reads what was written; `changes`: to these files alone, and where something waits.
    pub(super) fn read_all(&mut self, changes: Option<&Changes>, reading: &mut Reading<'_>) {
        // What left its path first: its lines are older.
        let mut order: Vec<usize> = (0..self.tails.len()).collect();
        order.sort_by_key(|at| self.tails[*at].retired_ms.is_none());
        for at in order {
            let tail = &mut self.tails[at];
            let is_wanted = changes.is_none_or(|changes| {
                changes.is_of(tail.id()) || tail.must_be_read() || tail.retired_ms.is_some()
            });
            if !is_wanted || tail.position().copy_of.is_some() {
                continue;
            }
            if reading.budget == 0 || reading.pending.is_full() {
                // There may be no other notice of what was written.
                tail.set_unread();
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
            let limits = (reading.budget, reading.now_ms);
            match tail.read(limits, start, reading.buffer, &mut |found| {
                sink.take(&found)
            }) {
                Ok(0) => {}
                Ok(bytes) => {
                    reading.budget = reading.budget.saturating_sub(bytes);
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
            self.remember(&tail, None);
            reading.structure_changed = true;
        }
    }

    /// Closes files that were read to their end, those first that have not grown for longest, until no
    /// more are open than there is room for.
    pub(super) fn close_idle(&mut self, reading: &mut Reading<'_>) {
        while self.tails.len() > self.room.open.max(1) && self.close_one(reading) {}
    }

    /// Closes the file that has not grown for longest, if one was read to its end.
    pub(super) fn close_one(&mut self, reading: &mut Reading<'_>) -> bool {
        let can_close = |tail: &Tail| {
            let position = tail.position();
            // Copies are known by the originals that are open, and lost files by their handles.
            let is_needed = tail.retired_ms.is_some() || position.copy_of.is_some();
            !is_needed && !tail.is_unread() && tail.read_whole.is_some()
        };
        let idle = (0..self.tails.len()).filter(|at| can_close(&self.tails[*at]));
        let Some(at) = idle.min_by_key(|at| self.tails[*at].grown_ms) else {
            return false;
        };
        let tail = self.tails.swap_remove(at);
        // If it has another stamp by now it has grown, and the next look opens it again.
        let idle = tail.read_whole;
        self.remember(&tail, idle);
        reading.structure_changed = true;
        true
    }

    /// Keeps the position of a file that is closed.
    pub(super) fn remember(&mut self, tail: &Tail, idle: Option<Stamp>) {
        let mut kept = tail.kept().cloned();
        let now = Some(tail.position().clone());
        self.remembered
            .extend(kept.next().map(|committed| Remembered {
                now,
                committed,
                idle,
            }));
        // Until the gaps are handed over.
        self.remembered.extend(kept.map(|committed| Remembered {
            now: None,
            committed,
            idle: None,
        }));
    }
}
