//! One path or glob of the policy with its rules: which files it follows, what becomes of them when
//! they are renamed, copied, replaced, truncated or deleted, and how that survives a restart.
//!
//! A file is known by device, inode and its first bytes, not by its name. A renamed file is read to
//! its end through the open handle while its successor is read from the beginning. When a file was
//! truncated, a copy of its old content is looked for in the same directory under a name that begins
//! with its own (copytruncate), and read on from where the original was left. What can't be found is
//! reported as a gap.
//!
//! Every file that was seen keeps its position. So many of them are open as the check's share allows;
//! the others, which have not grown for longest, are closed and opened again when they grow. A *look*
//! lists what there is; most scans only read what was written since.

mod look;
mod read;
mod take_up;

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use super::{
    Reading,
    between::{Between, Look, ScanProgress},
    changes::{Changes, Watches},
    find::Pattern,
    remember::{Remembered, SavedCheck},
    rotation::is_rotated_name,
    rules::Rules,
    tail::{Position, SETTLED, Tail},
};

/// Files that were read to their end and left their paths, and are remembered in case they come back.
const MAX_REMEMBERED: usize = 64;
/// How often what there is is listed without a notice.
const LOOK_EVERY_MS: i64 = 30_000;

/// How much a check may have of what all share.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// Most files that it may have open.
    pub(super) open: usize,
    /// Most files that it may know.
    pub(super) files: usize,
}

#[derive(Debug)]
pub(super) struct Check {
    path: String,
    pattern: Pattern,
    rules: Rules,
    tails: Vec<Tail>,
    remembered: Vec<Remembered>,
    /// Before its first scan ever: files that exist are followed from their end.
    first_scan_ever: bool,
    /// The first look of all.
    began: Option<Look>,
    /// When this process looked last.
    looked_ms: Option<i64>,
    /// More files than are known were there at the last look.
    is_crowded: bool,
    /// A file was not opened, for lack of room or because it changed just then: look again soon.
    must_look: bool,
    /// Directories that were looked through.
    directories: BTreeSet<PathBuf>,
    room: Room,
    between: Between,
    unreadable: HashSet<PathBuf>,
    /// Could not be read when the check was new; followed from their end once they can.
    old_unreadable: HashSet<PathBuf>,
}

impl Check {
    pub(super) fn new(path: &str, saved: Option<&SavedCheck>) -> Self {
        let remembered = |position: &Position| Remembered {
            now: Some(position.clone()),
            committed: position.clone(),
            idle: None,
        };
        let files = saved.map(|saved| saved.files.as_slice());
        Self {
            path: path.to_owned(),
            pattern: Pattern::new(path),
            rules: Rules::default(),
            tails: Vec::new(),
            remembered: files.unwrap_or_default().iter().map(remembered).collect(),
            first_scan_ever: saved.is_none(),
            began: saved.and_then(|saved| saved.began_us.map(Look::of_another)),
            looked_ms: None,
            is_crowded: saved.is_some_and(|saved| saved.is_crowded),
            must_look: false,
            directories: BTreeSet::new(),
            room: Room::default(),
            between: Between::new(
                saved.map_or_else(ScanProgress::default, |saved| saved.between.clone()),
            ),
            unreadable: HashSet::new(),
            old_unreadable: HashSet::new(),
        }
    }

    pub(super) fn is_for(&self, path: &str) -> bool {
        self.path == path
    }

    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Whether lines wait for the rest of their record, which may never come.
    pub(super) fn record_waits(&self) -> bool {
        self.must_look || self.tails.iter().any(Tail::record_waits)
    }

    pub(super) fn saved(&self) -> SavedCheck {
        let open = self.tails.iter().flat_map(Tail::kept);
        let closed = self
            .remembered
            .iter()
            .map(|remembered| &remembered.committed);
        SavedCheck {
            path: self.path.clone(),
            files: open.chain(closed).cloned().collect(),
            began_us: self.began.map(Look::file_us),
            is_crowded: self.is_crowded,
            between: self.between.committed().clone(),
        }
    }

    /// Everything that was read has been handed over.
    pub(super) fn commit(&mut self) {
        self.between.commit();
        let before = self.contents();
        for tail in &mut self.tails {
            tail.commit();
        }
        self.remembered.retain_mut(|remembered| {
            let kept = remembered.now.is_some();
            if let Some(now) = &remembered.now {
                remembered.committed.clone_from(now);
            }
            kept
        });
        let is_done = |remembered: &Remembered| remembered.committed.done;
        let done = self
            .remembered
            .iter()
            .filter(|known| is_done(known))
            .count();
        let mut surplus = done.saturating_sub(MAX_REMEMBERED);
        self.remembered.retain(|remembered| {
            let is_kept = surplus == 0 || !is_done(remembered);
            surplus -= usize::from(!is_kept);
            is_kept
        });
        let after = self.contents();
        let over = |copy_of: Option<u64>| {
            copy_of.is_some_and(|content| before.contains(&content) && !after.contains(&content))
        };
        for tail in &mut self.tails {
            if over(tail.position().copy_of) {
                tail.set_copy(Some(SETTLED));
            }
        }
        for remembered in &mut self.remembered {
            if over(remembered.committed.copy_of) {
                remembered.committed.copy_of = Some(SETTLED);
                remembered.now = Some(remembered.committed.clone());
            }
        }
    }

    /// The contents that a restart would know.
    fn contents(&self) -> HashSet<u64> {
        let open = self.tails.iter().flat_map(Tail::kept);
        let closed = self.remembered.iter().map(|known| &known.committed);
        open.chain(closed)
            .filter(|position| position.copy_of.is_none())
            .map(|position| position.content)
            .collect()
    }

    /// How many files are open.
    pub(super) fn open(&self) -> usize {
        self.tails.len()
    }

    /// How many files it follows, open or not.
    pub(super) fn wants(&self) -> usize {
        let is_followed = |known: &&Remembered| known.now.as_ref().is_some_and(|now| !now.done);
        self.tails.len() + self.remembered.iter().filter(is_followed).count()
    }

    /// Adds what notices are needed of.
    pub(super) fn add_watches(&self, watches: &mut Watches) {
        let parents = self
            .tails
            .iter()
            .filter_map(|tail| tail.position().path.parent());
        let base = self.pattern.base();
        let directories = base.into_iter().chain(parents).map(Path::to_owned);
        watches.directories.extend(directories);
        watches.directories.extend(self.directories.iter().cloned());
        let open = self.tails.iter().map(Tail::position);
        let idle = self.remembered.iter().filter(|known| known.idle.is_some());
        let idle = idle.filter_map(|known| known.now.as_ref());
        let files = open.chain(idle).map(|known| (known.id, known.path.clone()));
        watches.files.extend(files);
    }

    /// Reads what is new.
    pub(super) fn scan(&mut self, changes: &Changes, room: Room, reading: &mut Reading<'_>) {
        self.room = room;
        let looks = self.needs_look(changes, reading.now_ms);
        if looks {
            self.look(reading);
        } else {
            self.open_grown(changes, reading);
        }
        self.read_all((!looks).then_some(changes), reading);
        self.close_retired(reading);
        self.close_idle(reading);
    }

    fn needs_look(&self, changes: &Changes, now_ms: i64) -> bool {
        let is_due = self
            .looked_ms
            .is_none_or(|looked_ms| now_ms - looked_ms >= LOOK_EVERY_MS);
        is_due
            || self.must_look
            || changes.is_everything()
            || changes.entries().any(|entry| self.concerns(entry))
            || self.tails.iter().any(|tail| {
                let is_written = changes.is_of(tail.id()) || tail.must_be_read();
                is_written && !tail.is_as_expected()
            })
    }

    /// Whether a name that came or went may be of a file that is followed.
    fn concerns(&self, (entry, is_directory): (&Path, bool)) -> bool {
        self.pattern.concerns(entry, is_directory)
            || self.tails.iter().any(|tail| {
                let position = tail.position();
                let mut names = std::iter::once(&position.path).chain(&position.target);
                names.any(|name| name == entry || is_rotated_name(name, entry))
            })
    }
}
