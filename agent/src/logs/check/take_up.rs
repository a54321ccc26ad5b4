//! Beginning to follow a file: where it was left, from its beginning, or from its end.

use std::{
    collections::HashSet,
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
};

use watchkeep_shared::wire::heartbeat::LogGapReason;

use super::{
    super::{
        Reading,
        between::{Look, is_rotation_of},
        changes::Changes,
        remember::Remembered,
        replaced::{Replacement, compare, continued},
        rotation::{adopt_copy, open_allowed},
        tail::{FileId, Position, SETTLED, Stamp, Tail, written_us},
    },
    Check,
};

impl Check {
    /// Follows what is listed and not open, as far as there is room.
    pub(super) fn take_up_all(
        &mut self,
        listed: &[(PathBuf, Metadata)],
        was_crowded: bool,
        look: Look,
        reading: &mut Reading<'_>,
    ) {
        let open: HashSet<FileId> = self.tails.iter().map(Tail::id).collect();
        let idle = self.remembered.iter().filter_map(|known| {
            let stamp = known.idle?;
            Some((known.now.as_ref()?.id, stamp))
        });
        let idle: HashSet<(FileId, Stamp)> = idle.collect();
        let before_us = self.between.last().map(|last| last.seen_from(look));
        let began_us = self.began.map(|began| began.seen_from(look));
        let mut order: Vec<usize> = (0..listed.len()).collect();
        order.sort_by_key(|at| listed[*at].0.as_os_str().len());
        for at in order {
            let (path, metadata) = &listed[at];
            let id = FileId::of(metadata);
            // It may be listed under several names.
            let is_open = open.contains(&id) || self.tails.iter().rev().any(|tail| tail.id() == id);
            let is_full = self.tails.len() >= self.room.open;
            if is_open || (is_full && idle.contains(&(id, Stamp::of(metadata)))) {
                continue;
            }
            // What was put there is older than the check; of what was left out nothing is known.
            let is_put_there = written_us(metadata) < began_us;
            let was_left_out = was_crowded && (id.born_us().is_none() || id.born_us() < before_us);
            let is_old = is_put_there || was_left_out;
            self.take_up(path, (id, metadata.len()), is_old, reading);
        }
    }

    /// Opens files again that were closed to make room and have grown.
    pub(super) fn open_grown(&mut self, changes: &Changes, reading: &mut Reading<'_>) {
        let grown = self.remembered.iter().filter(|known| known.idle.is_some());
        let grown = grown.filter_map(|known| known.now.as_ref());
        let grown: Vec<(FileId, PathBuf)> = grown
            .filter(|position| changes.names(position.id))
            .map(|position| (position.id, position.path.clone()))
            .collect();
        for (id, path) in grown {
            match fs::metadata(&path) {
                Ok(metadata) if FileId::of(&metadata) == id => {
                    self.take_up(&path, (id, metadata.len()), false, reading);
                }
                // Rotated: the next look shows how.
                _ => self.must_look = true,
            }
        }
    }

    /// Begins to follow a file that is not open. `is_old`: if nothing is known of it, from its end.
    fn take_up(
        &mut self,
        path: &Path,
        (id, size): (FileId, u64),
        is_old: bool,
        reading: &mut Reading<'_>,
    ) {
        if self.tails.len() >= self.room.open.max(1) && !self.close_one(reading) {
            self.must_look = true;
            return;
        }
        let Some(file) = self.open_file(path, reading) else {
            return;
        };
        reading.structure_changed = true;
        let known = self
            .remembered
            .extract_if(.., |remembered| remembered.is(id));
        // Of a file that was empty nothing is known, and nothing was read.
        let known: Vec<(Position, Position)> = known
            .filter_map(|Remembered { now, committed, .. }| Some((now?, committed)))
            .filter(|(position, _)| !position.head.is_empty())
            .collect();
        let (mut fitting, others): (Vec<_>, Vec<_>) = known
            .into_iter()
            .partition(|(position, _)| position.head.fits(&file) && position.offset <= size);
        fitting.sort_by_key(|(position, _)| position.copy_of.is_none());
        let superseded = self.find_superseded(others, reading);
        let taken_up = match fitting.pop() {
            Some((position, committed)) => {
                let position = Position {
                    path: path.to_owned(),
                    done: false,
                    ..position
                };
                let copy_of = position.copy_of.filter(|content| self.knows(*content));
                let mut tail = Tail::at(file, position, reading.now_ms);
                tail.resume_from(&committed);
                tail.set_copy(copy_of);
                Ok(tail)
            }
            None => self.begin(file, path, (size, is_old), reading),
        };
        match taken_up {
            Ok(mut tail) => {
                for committed in superseded {
                    tail.supersede(committed);
                }
                self.tails.push(tail);
            }
            Err(error) => tracing::debug!(path = %path.display(), %error, "gone again"),
        }
    }

    /// The same inode had other contents: it was truncated, or deleted and used again. Copies are
    /// followed; returns those that are gone, which is a gap.
    fn find_superseded(
        &mut self,
        others: Vec<(Position, Position)>,
        reading: &mut Reading<'_>,
    ) -> Vec<Position> {
        let mut gone = Vec::new();
        for (position, committed) in others {
            if position.done || position.copy_of.is_some() {
                continue;
            }
            if let Some(copy) = adopt_copy(&position, &committed, reading) {
                self.push_instead_of_its_like(copy);
            } else {
                let reason = LogGapReason::Truncated;
                reading.pending.gap(&position.path, reason, None);
                gone.push(committed);
            }
        }
        gone
    }

    /// Whether a content is known still, so that a copy of it need not be read. If not, a crash
    /// lost what was known about it, and nothing of it was handed over.
    pub(super) fn knows(&self, content: u64) -> bool {
        let now = self.tails.iter().map(Tail::position);
        content == SETTLED
            || self.contents().contains(&content)
            || now
                .into_iter()
                .any(|position| position.copy_of.is_none() && position.content == content)
    }

    /// A file that was never followed: from its end if it is older than the check, else from its
    /// beginning; a copy of a followed file is left alone until that one is truncated. One that was
    /// put in the place of a followed file goes on where that was left.
    fn begin(
        &mut self,
        file: File,
        path: &Path,
        (size, is_old): (u64, bool),
        reading: &mut Reading<'_>,
    ) -> io::Result<Tail> {
        let is_old = self.first_scan_ever || self.old_unreadable.remove(path) || is_old;
        let replaced = self
            .tails
            .iter()
            .position(|tail| tail.position().path == path && tail.is_unlinked())
            .filter(|at| self.tails[*at].position().copy_of.is_none());
        if let Some(at) = replaced {
            match compare(&self.tails[at], &file, size)? {
                // It may still be a copy of another.
                Replacement::Another => {}
                replacement => return self.replace((at, replacement), file, size, reading),
            }
        }
        let original = self.tails.iter().find(|tail| {
            let original = tail.position();
            original.copy_of.is_none()
                && is_copy_name(&original.path, path)
                && tail
                    .head_now()
                    .is_ok_and(|head| !head.is_empty() && head.fits(&file))
        });
        let copy_of = original
            .filter(|_| !is_old)
            .map(|tail| tail.position().content);
        let start = if is_old { size } else { 0 };
        let mut tail = Tail::new(file, path.to_owned(), start, reading.now_ms)?;
        if is_old {
            tail.read_whole = tail.stamp_of_size(size);
        }
        tail.set_copy(copy_of);
        Ok(tail)
    }

    /// Follows a file that was put in the place of a followed one.
    fn replace(
        &mut self,
        (at, replacement): (usize, Replacement),
        file: File,
        size: u64,
        reading: &mut Reading<'_>,
    ) -> io::Result<Tail> {
        let path = self.tails[at].position().path.clone();
        let tail = Tail::new(file, path.clone(), 0, reading.now_ms)?;
        let anew = |offset: u64, before: &Tail, mut tail: Tail| {
            let new = tail.position().clone();
            tail.begin_at(continued(before.position(), offset, new.clone()));
            // As far as it is the same file.
            let is_same = offset == before.position().offset;
            let committed = if is_same {
                before.committed().offset
            } else {
                offset
            };
            tail.resume_from(&continued(before.committed(), committed, new));
            tail
        };
        Ok(match replacement {
            Replacement::Another => tail,
            Replacement::Continued(offset) => {
                let before = self.tails.swap_remove(at);
                anew(offset, &before, tail)
            }
            Replacement::TooLong => {
                let before = self.tails.swap_remove(at);
                let reason = LogGapReason::Truncated;
                reading.pending.gap(&path, reason, None);
                anew(size, &before, tail)
            }
            Replacement::Rewritten(known) => {
                self.tails.swap_remove(at);
                let mut tail = tail;
                tail.skip_known(known);
                tail
            }
        })
    }

    /// Opens a file if the customer allows what the path leads to; a failure is a gap, said once.
    fn open_file(&mut self, path: &Path, reading: &mut Reading<'_>) -> Option<File> {
        let opened = open_allowed(path, reading);
        match opened {
            Ok(file) => {
                self.unreadable.remove(path);
                Some(file)
            }
            Err(error) => {
                if self.unreadable.insert(path.to_owned()) {
                    tracing::warn!(path = %path.display(), %error, "a log can't be read");
                    reading.pending.gap(path, LogGapReason::Unreadable, None);
                    if self.first_scan_ever {
                        self.old_unreadable.insert(path.to_owned());
                    }
                }
                None
            }
        }
    }
}

/// Whether a copy of what is at `original` may have such a name. Not `10.log` of `1.log`: logs that begin
/// alike are not copies.
fn is_copy_name(original: &Path, path: &Path) -> bool {
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.as_encoded_bytes().to_vec())
    };
    let is_longer = || {
        let (original, path) = (name(original), name(path));
        original.zip(path).is_some_and(|(original, path)| {
            path.len() > original.len() && path.starts_with(&original)
        })
    };
    is_rotation_of(original, path) || (original.parent() == path.parent() && is_longer())
}
