//! What a check knows already, and what becomes of a file that it does not.

use std::{
    fs::{File, Metadata},
    io,
    path::{Path, PathBuf},
};

use watchkeep_shared::wire::heartbeat::LogGapReason;

use super::{
    super::{
        Reading,
        remember::Remembered,
        rotation::{is_rotated_name, open_allowed},
        tail::{FileId, Tail},
    },
    Age,
    beside::{Beside, Series, written_us},
};

/// Most files that are open at once for one more to be taken up.
const MAX_TAILS: usize = 128;

/// What the check follows and knows.
pub(in super::super) struct Followed<'a> {
    pub(in super::super) listed: &'a [(PathBuf, Metadata)],
    pub(in super::super) tails: &'a mut Vec<Tail>,
    pub(in super::super) remembered: &'a [Remembered],
}

impl Followed<'_> {
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let remembered = self.remembered.iter().map(|known| &known.committed);
        let tails = self.tails.iter().map(Tail::position);
        tails
            .chain(remembered)
            .map(|position| position.path.as_path())
    }

    /// Where files that were empty at the last look have content, or had: they were written since.
    pub(super) fn began(&self, last_us: i64) -> Vec<PathBuf> {
        let was_empty = |tail: &&Tail| tail.retired_ms.is_none() && tail.position().head.is_empty();
        let now = self.tails.iter().filter(was_empty).filter_map(|tail| {
            let of = |(_, metadata): &&(PathBuf, Metadata)| FileId::of(metadata) == tail.id();
            self.listed.iter().find(of)
        });
        now.filter(|(_, now)| now.len() > 0 || written_us(now) >= Some(last_us))
            .map(|(path, _)| path.clone())
            .collect()
    }

    pub(super) fn has(&self, file: &Beside) -> bool {
        self.tails.iter().any(|tail| tail.id() == file.id)
            || self.remembered.iter().any(|known| known.is(file.id))
            || self.listed.iter().any(|(path, _)| *path == file.path)
    }

    /// Where links at `places` led; and where they were switched to another file of a series, that.
    pub(super) fn led_to(&self, places: &[PathBuf]) -> (Vec<Series>, Vec<PathBuf>) {
        let mut targets: Vec<(&PathBuf, bool)> = Vec::new();
        for tail in &*self.tails {
            let position = tail.position();
            if let Some(target) = &position.target
                && places.contains(&position.path)
            {
                targets.push((target, tail.retired_ms.is_some()));
            }
        }
        let of = |is_left: bool| {
            let series = targets.iter().filter(move |(_, left)| *left == is_left);
            series.filter_map(|(target, _)| Series::of(target))
        };
        let series = of(true).filter(|left| of(false).any(|now| now == *left));
        let paths = targets.iter().map(|(target, _)| (*target).clone());
        (series.collect(), paths.collect())
    }

    /// The series of the names that files have which left their paths.
    pub(super) fn renamed_into(&self, lying: &[Beside]) -> Vec<Series> {
        let left = self.tails.iter().filter(|tail| tail.retired_ms.is_some());
        left.filter_map(|tail| {
            let file = lying.iter().find(|file| file.id == tail.id())?;
            // A link that was switched renamed nothing.
            let is_renamed = Some(&file.path) != tail.position().target.as_ref();
            is_renamed.then(|| Series::of(&file.path)).flatten()
        })
        .collect()
    }

    /// Follows a file that was not seen yet from its beginning; a copy of a known content is left
    /// alone until that one is truncated.
    pub(super) fn take_up(
        &mut self,
        file: &Beside,
        age: Age,
        reading: &mut Reading<'_>,
    ) -> io::Result<()> {
        let opened = open_allowed(&file.path, reading)?;
        if FileId::of(&opened.metadata()?) != file.id {
            return Err(io::ErrorKind::NotFound.into());
        }
        if file.bytes == 0 && (age == Age::Unknown || self.may_be_begun_copy(file)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let copy_of = self.copied_content(&opened, file.bytes);
        let is_crowded = self.tails.len() >= MAX_TAILS;
        if copy_of.is_none() && (age == Age::Unknown || is_crowded) {
            let reason = LogGapReason::RotatedAway;
            reading.pending.gap(&file.path, reason, Some(file.bytes));
            return Ok(());
        }
        let mut tail = Tail::new(opened, file.path.clone(), 0, reading.now_ms)?;
        tail.set_copy(copy_of);
        tail.retired_ms = Some(reading.now_ms);
        self.tails.push(tail);
        reading.structure_changed = true;
        Ok(())
    }

    /// Whether an empty file may be a copy that only begins, of a followed file that was made before.
    /// Else its writer may still have it.
    fn may_be_begun_copy(&self, file: &Beside) -> bool {
        self.tails.iter().any(|tail| {
            let position = tail.position();
            let mut names = std::iter::once(&position.path).chain(&position.target);
            tail.retired_ms.is_none()
                && names.any(|name| is_rotated_name(name, &file.path))
                && tail.id().born_us() < file.id.born_us()
                && tail.metadata().is_ok_and(|now| now.len() > 0)
        })
    }

    fn copied_content(&self, file: &File, bytes: u64) -> Option<u64> {
        let open = self
            .tails
            .iter()
            .filter(|tail| tail.is_copied_by(file, bytes));
        let closed = self.remembered.iter().filter_map(|known| {
            let position = known.now.as_ref()?;
            let may_be = if position.done {
                bytes == position.offset
            } else {
                bytes >= position.offset
            };
            let is_copied = may_be && !position.head.is_empty() && position.head.fits(file);
            is_copied.then_some(position)
        });
        let mut all = open.map(Tail::position).chain(closed);
        let original = all.next()?;
        Some(original.copy_of.unwrap_or(original.content))
    }
}
