//! Which segments go: those that are finished, and the oldest when a limit is reached.

use std::{fs, io};

use watchkeep_shared::wire::heartbeat::Clocks;

use super::{
    CHECKPOINT, Checkpoint, RESERVE_BYTES, Spool, StoredFrame,
    segment::{self, Note},
};
use crate::files::{self, Durability};

impl Spool {
    pub(super) fn must_evict(&self, now: Clocks) -> bool {
        let Some(oldest) = self.segments.front() else {
            return false;
        };
        if self.bytes() + RESERVE_BYTES > self.limits.max_bytes {
            return true;
        }
        let max_age_ms = i64::from(self.limits.max_age_hours) * 3_600_000;
        oldest.live > 0
            && oldest.newest.is_some_and(|(run, clocks)| {
                let same_boot = self.runs[run as usize].boot == self.runs[0].boot;
                let age_ms = if same_boot {
                    now.boot_ms.saturating_sub(clocks.boot_ms)
                } else {
                    now.wall_ms.saturating_sub(clocks.wall_ms)
                };
                age_ms > max_age_ms
            })
    }

    /// Gives up the oldest segment. Its file goes when the loss is on disk.
    pub(super) fn evict_oldest_segment(&mut self) {
        let Some(segment) = self.segments.pop_front() else {
            return;
        };
        if self.segments.is_empty() {
            self.writer = None;
        }
        let number = segment.number;
        self.damaged.retain(|(damaged, _)| *damaged != number);
        self.keep_note(segment.note);
        let losses = &mut self.losses;
        self.index.retain(|entry| {
            let kept =
                !matches!(entry.stored, StoredFrame::Disk { segment, .. } if segment == number);
            if !kept {
                losses.full += 1 + u64::from(entry.carried);
            }
            kept
        });
        self.pending_delete.push(number);
    }

    pub(super) fn acknowledge_on_disk(&mut self, number: u32, ordinals: &[u32]) {
        let Some(segment) = self.segments.iter_mut().find(|s| s.number == number) else {
            return;
        };
        segment.live -= ordinals.len();
        if let Err(error) = segment::append_acks(&self.dir, number, segment.nonce, ordinals) {
            // The frames would be sent again after a restart, which does no harm.
            tracing::debug!(%error, "an acknowledgement could not be noted");
        }
        self.drop_finished_segments();
    }

    /// Deletes segments without unacknowledged frames, but for the one that is written.
    pub(super) fn drop_finished_segments(&mut self) {
        let active = self.writer.is_some().then(|| self.next_segment - 1);
        let finished: Vec<(u32, u64)> = self
            .segments
            .iter()
            .filter(|segment| segment.live == 0 && Some(segment.number) != active)
            .map(|segment| (segment.number, segment.note))
            .collect();
        for (number, note) in finished {
            if !self.keep_note(note) {
                return;
            }
            self.segments.retain(|segment| segment.number != number);
            self.delete_files(number);
        }
    }

    /// Called before a segment goes whose newest note is `note`: the newest of all must not go
    /// with it. Returns whether that is so.
    pub(super) fn keep_note(&mut self, note: u64) -> bool {
        // A later one in another segment makes it obsolete, so that a full disk can be emptied.
        if note <= self.checkpoint || self.segments.iter().any(|other| other.note > note) {
            return true;
        }
        let Some(newest) = self.note.clone() else {
            return true;
        };
        match self.write_checkpoint(&newest, Durability::Synced) {
            Ok(()) => true,
            Err(error) => {
                self.refused(&error);
                false
            }
        }
    }

    pub(super) fn write_checkpoint(
        &mut self,
        note: &Note,
        durability: Durability,
    ) -> io::Result<()> {
        let checkpoint = Checkpoint { note: note.clone() };
        files::write_json(&self.dir.join(CHECKPOINT), &checkpoint, durability)?;
        if durability == Durability::Synced {
            self.checkpoint = note.number;
        }
        Ok(())
    }

    pub(super) fn next_note(&self, text: String) -> Note {
        Note {
            number: self.note.as_ref().map_or(0, |note| note.number) + 1,
            text,
        }
    }

    pub(super) fn delete_doomed(&mut self) {
        for number in std::mem::take(&mut self.pending_delete) {
            self.delete_files(number);
        }
    }

    pub(super) fn delete_files(&mut self, number: u32) {
        if self.reader.as_ref().is_some_and(|(n, _)| *n == number) {
            self.reader = None;
        }
        for path in [
            segment::segment_path(&self.dir, number),
            segment::ack_path(&self.dir, number),
        ] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a spool file can't be deleted");
                }
                _ => {}
            }
        }
    }
}
