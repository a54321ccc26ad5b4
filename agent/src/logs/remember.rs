//! Positions of files that are not open: from before a restart, and of files that were closed because
//! nothing more came. Finds such files again.

use std::{fs::File, path::PathBuf};

use serde::{Deserialize, Serialize};
use watchkeep_shared::wire::heartbeat::LogGapReason;

use super::{
    Reading,
    rotation::{copied, renamed, reused},
    tail::{FileId, Position, Tail},
};

/// A position without an open file.
#[derive(Debug)]
pub(super) struct Remembered {
    /// `None`: it is lost, and forgotten when that has been handed over.
    pub(super) now: Option<Position>,
    pub(super) committed: Position,
}

impl Remembered {
    pub(super) fn is(&self, id: FileId) -> bool {
        self.now.as_ref().is_some_and(|position| position.id == id)
    }
}

/// A check's positions as they are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SavedCheck {
    pub(super) path: String,
    pub(super) files: Vec<Position>,
}

/// What became of a file that is no longer at a followed path: renamed, copied and truncated and
/// perhaps renamed then, or gone, which is a gap.
pub(super) fn find_again(
    before: &Position,
    committed: &Position,
    reading: &mut Reading<'_>,
) -> Vec<Tail> {
    let now_ms = reading.now_ms;
    let again = |(file, path): (File, PathBuf)| {
        let id = file.metadata().map_or(before.id, |m| FileId::of(&m));
        let position = Position {
            path,
            id,
            ..before.clone()
        };
        let mut tail = Tail::at(file, position, now_ms);
        tail.resume_from(committed);
        tail
    };
    let mut found: Vec<Tail> = Vec::new();
    if let Some(file) = renamed(before, reading) {
        found.push(again(file));
    } else if before.copy_of.is_none() {
        let copy = copied(before, reading).map(again);
        let anew = reused(before, reading)
            .and_then(|(file, path)| Tail::new(file, path, 0, now_ms).ok())
            .map(|mut tail| {
                if copy.is_none() {
                    tail.keep_committed(committed.clone());
                }
                tail
            });
        if copy.is_none() {
            let reason = match anew {
                Some(_) => LogGapReason::Truncated,
                None => LogGapReason::RotatedAway,
            };
            reading.pending.gap(&before.path, reason, None);
        }
        found.extend(copy.into_iter().chain(anew));
    }
    for tail in &mut found {
        tail.retired_ms = Some(now_ms);
    }
    found
}
