//! Positions of files that are not open: from before a restart, and of files that were closed because
//! nothing more came. Finds such files again.

use std::{collections::HashSet, fs::File, path::PathBuf};

use serde::{Deserialize, Serialize};
use watchkeep_shared::wire::heartbeat::LogGapReason;

use super::{
    Reading,
    between::ScanProgress,
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
    #[serde(default)]
    pub(super) between: ScanProgress,
}

/// The file under another name.
pub(super) fn find_renamed(known: &Remembered, reading: &Reading<'_>) -> Option<Tail> {
    let before = known.now.as_ref()?;
    let found = renamed(before, reading)?;
    let mut tail = again(before, &known.committed, found, reading.now_ms);
    tail.set_copy(before.copy_of);
    Some(tail)
}

/// What became of the content of a file that was not found: copied, with the file truncated and
/// perhaps renamed then; or it is gone, which is a gap. `claimed`: these are others.
pub(super) fn find_content(
    known: &Remembered,
    claimed: &HashSet<FileId>,
    reading: &mut Reading<'_>,
) -> Vec<Tail> {
    let now_ms = reading.now_ms;
    let Some(before) = known.now.as_ref().filter(|now| now.copy_of.is_none()) else {
        return Vec::new();
    };
    let copy = copied(before, reading)
        .map(|found| again(before, &known.committed, found, now_ms))
        .filter(|tail| !claimed.contains(&tail.id()));
    let anew = reused(before, reading)
        .filter(|_| !claimed.contains(&before.id))
        .and_then(|(file, path)| Tail::new(file, path, 0, now_ms).ok())
        .map(|mut tail| {
            if copy.is_none() {
                tail.supersede(known.committed.clone());
            }
            tail.retired_ms = Some(now_ms);
            tail
        });
    if copy.is_none() {
        let reason = match anew {
            Some(_) => LogGapReason::Truncated,
            None => LogGapReason::RotatedAway,
        };
        reading.pending.gap(&before.path, reason, None);
    }
    copy.into_iter().chain(anew).collect()
}

/// Follows a file on from where its content was left.
fn again(
    before: &Position,
    committed: &Position,
    (file, path): (File, PathBuf),
    now_ms: i64,
) -> Tail {
    let id = file.metadata().map_or(before.id, |m| FileId::of(&m));
    let position = Position {
        path,
        id,
        ..before.clone()
    };
    let mut tail = Tail::at(file, position, now_ms);
    tail.resume_from(committed);
    tail.retired_ms = Some(now_ms);
    tail
}
