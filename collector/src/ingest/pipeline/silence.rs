//! Which hosts are silent: deadlines that have passed, in bounded pieces.

use watchkeep_core::ids::AlertId;
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{Pipeline, Round, collect, queue_deadline};
use crate::ingest::decide::{Context, decide_deadline};

/// Most deadlines in one round: bounds the size of its transaction. The rest follows in the next
/// round, which begins at once.
const MAX_DUE: usize = 256;
/// Batches enter the queue at most this much later than others that arrived after them.
const QUEUE_DISORDER: DurationMs = DurationMs::from_secs(1);

impl Pipeline {
    /// The instant up to which everything that arrived has been taken in: now if the queue is
    /// empty, else the newest arrival of this round. Deadlines are judged by it, so that they
    /// neither overtake what waits in the queue nor wait for an empty one.
    fn drained_until(&self, round: &Round) -> Option<UnixMillis> {
        if self.queue.is_empty() {
            return Some(round.now);
        }
        let newest = round.newest_arrival?;
        Some(round.now.min(newest - QUEUE_DISORDER))
    }

    /// Decides on the hosts whose deadline has passed.
    pub(super) fn judge_silence(&mut self, round: &mut Round) {
        let Some(until) = self.drained_until(round) else {
            return;
        };
        for _ in 0..MAX_DUE {
            let Some((at, host)) = self.deadlines.pop_due(until) else {
                return;
            };
            let Some(entry) = self.hosts.get_mut(&host) else {
                continue;
            };
            if entry.wake_at != Some(at) {
                continue;
            }
            entry.wake_at = None;
            if let Some(at) = self.knocks.last(host) {
                entry.note_heard(at);
            }
            let app = &self.app;
            let silent = entry
                .silence_deadline(app.config.silence)
                .is_some_and(|deadline| deadline.max(self.grace_until) <= until);
            let mut context = Context {
                rules: &app.config.rules,
                schemas: &self.schemas,
                row_id: &mut || app.ids.next(round.now),
                alert_id: &mut || AlertId(app.ids.uuid(round.now)),
            };
            let decision = decide_deadline(entry, silent, round.now, &mut context);
            queue_deadline(&mut self.deadlines, entry, app, self.grace_until);
            if decision.durable {
                round.live.push(host);
            }
            collect(entry, decision, &mut round.writes);
        }
    }
}
