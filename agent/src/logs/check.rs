//! One path or glob of the policy with its rules: which files it follows, what becomes of them when
//! they are renamed, copied, truncated or deleted, and how that survives a restart.
//!
//! A file is known by device, inode and its first bytes, not by its name. A renamed file is read to
//! its end through the open handle while its successor is read from the beginning. When a file was
//! truncated, a copy of its old content is looked for in the same directory under a name that begins
//! with its own (copytruncate), and read on from where the original was left. What can't be found is
//! reported as a gap.

mod read;

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use watchkeep_shared::wire::heartbeat::LogGapReason;

use super::{
    Reading,
    between::{Between, Followed, Look, ScanProgress},
    find::Pattern,
    framing::{Found, without_end},
    remember::{Remembered, SavedCheck, find_content, find_renamed},
    rotation::{adopt_copy, is_rotated_name, open_allowed},
    rules::{Rules, Sink},
    tail::{FileId, Position, SETTLED, Tail},
};

/// Most files that one check follows at once.
const MAX_FILES: usize = 64;
/// Files that were closed and are remembered, in case they come back.
const MAX_REMEMBERED: usize = 64;

#[derive(Debug)]
pub(super) struct Check {
    path: String,
    pattern: Pattern,
    rules: Rules,
    tails: Vec<Tail>,
    remembered: Vec<Remembered>,
    /// Before its first scan ever: files that exist are followed from their end.
    first_scan_ever: bool,
    /// Before the first scan of this process: remembered files must be found again.
    first_scan: bool,
    between: Between,
    unreadable: HashSet<PathBuf>,
    /// Could not be read when the check was new; followed from their end once they can.
    old_unreadable: HashSet<PathBuf>,
}

impl Check {
    pub(super) fn new(path: &str, saved: Option<SavedCheck>) -> Self {
        Self {
            path: path.to_owned(),
            pattern: Pattern::new(path),
            rules: Rules::default(),
            tails: Vec::new(),
            first_scan_ever: saved.is_none(),
            first_scan: true,
            between: Between::new(
                saved
                    .as_ref()
                    .map_or_else(ScanProgress::default, |saved| saved.between.clone()),
            ),
            remembered: saved
                .map(|saved| saved.files)
                .unwrap_or_default()
                .into_iter()
                .map(|position| Remembered {
                    now: Some(position.clone()),
                    committed: position,
                })
                .collect(),
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
        self.tails.iter().any(Tail::record_waits)
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
        let surplus = self.remembered.len().saturating_sub(MAX_REMEMBERED);
        self.remembered.drain(..surplus);
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

    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let parents = self
            .tails
            .iter()
            .filter_map(|tail| tail.position().path.parent());
        self.pattern
            .base()
            .into_iter()
            .chain(parents)
            .map(Path::to_owned)
            .collect()
    }

    pub(super) fn scan(&mut self, reading: &mut Reading<'_>) {
        let look = Look::now();
        let mut listed = self.pattern.files();
        let is_crowded = listed.len() > MAX_FILES;
        if is_crowded {
            self.leave_out_oldest(&mut listed, reading);
        }
        self.follow_renames(&listed, reading.now_ms);
        if self.first_scan && !self.first_scan_ever {
            self.find_remembered(&listed, reading);
        }
        // Before new files are taken up: a copy must be known as one.
        let mut changes = self.handle_truncations(reading);
        changes.extend(self.changes(&listed));
        let mut order: Vec<usize> = (0..listed.len()).collect();
        order.sort_by_key(|at| listed[*at].0.as_os_str().len());
        for at in order {
            let (path, metadata) = &listed[at];
            let id = FileId::of(metadata);
            if !self.tails.iter().any(|tail| tail.id() == id) {
                self.take_up(path, id, metadata.len(), reading);
            }
        }
        if is_crowded {
            // What is not followed can't be distinguished from what was not seen.
            self.between.looked(look, Vec::new(), &listed);
        } else {
            self.look_between(look, changes, &listed, reading);
        }
        self.first_scan = false;
        self.first_scan_ever = false;
        self.read_all(reading);
        self.close_retired(reading);
    }

    /// Where something came or went.
    fn changes(&mut self, listed: &[(PathBuf, fs::Metadata)]) -> Vec<PathBuf> {
        let known = Followed {
            listed,
            tails: &mut self.tails,
            remembered: &self.remembered,
        };
        self.between.changes(&known, self.pattern.plain())
    }

    /// What came and went again.
    fn look_between(
        &mut self,
        look: Look,
        changes: Vec<PathBuf>,
        listed: &[(PathBuf, fs::Metadata)],
        reading: &mut Reading<'_>,
    ) {
        let mut known = Followed {
            listed,
            tails: &mut self.tails,
            remembered: &self.remembered,
        };
        self.between.look(look, changes, &mut known, reading);
    }

    fn leave_out_oldest(
        &mut self,
        listed: &mut Vec<(PathBuf, fs::Metadata)>,
        reading: &mut Reading<'_>,
    ) {
        listed.sort_by_key(|(_, metadata)| std::cmp::Reverse(metadata.modified().ok()));
        listed.truncate(MAX_FILES);
        if self.unreadable.insert(PathBuf::from(&self.path)) {
            tracing::warn!(
                path = self.path,
                "more than {MAX_FILES} files: the oldest are left out"
            );
            reading
                .pending
                .gap(Path::new(&self.path), LogGapReason::Unreadable, None);
        }
    }

    fn follow_renames(&mut self, listed: &[(PathBuf, fs::Metadata)], now_ms: i64) {
        for tail in &mut self.tails {
            let id = tail.id();
            match listed
                .iter()
                .find(|(_, metadata)| FileId::of(metadata) == id)
            {
                Some((path, _)) => {
                    tail.set_path(path);
                    tail.retired_ms = None;
                }
                None => {
                    tail.retired_ms.get_or_insert(now_ms);
                }
            }
        }
    }

    /// After a restart: files that are no longer at a followed path are looked for beside it.
    fn find_remembered(&mut self, listed: &[(PathBuf, fs::Metadata)], reading: &mut Reading<'_>) {
        let there: HashSet<FileId> = listed.iter().map(|(_, m)| FileId::of(m)).collect();
        let expected = |known: &mut Remembered| {
            let position = known.now.as_ref();
            position.is_some_and(|position| !position.done && !there.contains(&position.id))
        };
        let away: Vec<Remembered> = self.remembered.extract_if(.., expected).collect();
        reading.structure_changed |= !away.is_empty();
        let mut gone = Vec::new();
        for known in away {
            match find_renamed(&known, reading) {
                Some(tail) => self.tails.push(tail),
                None => gone.push(known),
            }
        }
        for mut known in gone {
            let others = self
                .tails
                .iter()
                .filter(|tail| tail.position().copy_of.is_none());
            let claimed: HashSet<FileId> = others.map(Tail::id).collect();
            let found = find_content(&known, &claimed, reading);
            if found.is_empty() {
                // Kept until the gap is handed over.
                known.now = None;
                self.remembered.push(known);
            }
            for tail in found {
                self.push_instead_of_its_like(tail);
            }
        }
        for at in 0..self.tails.len() {
            let copy_of = self.tails[at].position().copy_of;
            if copy_of.is_some_and(|content| !self.knows(content)) {
                self.tails[at].set_copy(None);
            }
        }
    }

    /// Returns the paths at which files were truncated.
    fn handle_truncations(&mut self, reading: &mut Reading<'_>) -> Vec<PathBuf> {
        let mut truncated = Vec::new();
        for at in 0..self.tails.len() {
            if self.tails[at].position().copy_of.is_some()
                || !self.tails[at].was_truncated().unwrap_or(false)
            {
                continue;
            }
            reading.structure_changed = true;
            let before = self.tails[at].position().clone();
            truncated.push(before.path.clone());
            let committed = self.tails[at].committed().clone();
            let rest = self.tails[at].restart().unwrap_or_default();
            if let Some(copy) = adopt_copy(&before, &committed, reading) {
                self.push_instead_of_its_like(copy);
                continue;
            }
            self.tails[at].supersede(committed);
            let mut sink = Sink {
                rules: &self.rules,
                pending: reading.pending,
                path: &before.path,
            };
            if let Some(skipped) = before.skipping {
                sink.take(&Found::Skipped(skipped));
            } else if !rest.is_empty() {
                sink.take(&Found::Text(without_end(&rest)));
            }
            reading
                .pending
                .gap(&before.path, LogGapReason::Truncated, None);
        }
        truncated
    }

    /// A copy that was left alone so far is now followed. The file that it is a copy of keeps its
    /// place in the list.
    fn push_instead_of_its_like(&mut self, copy: Tail) {
        let id = copy.id();
        self.remembered.retain(|remembered| !remembered.is(id));
        match self.tails.iter_mut().find(|tail| tail.id() == id) {
            Some(tail) => *tail = copy,
            None => self.tails.push(copy),
        }
    }

    /// Begins to follow a file that is listed and not open.
    fn take_up(&mut self, path: &Path, id: FileId, size: u64, reading: &mut Reading<'_>) {
        let Some(file) = self.open(path, reading) else {
            return;
        };
        reading.structure_changed = true;
        let known = self
            .remembered
            .extract_if(.., |remembered| remembered.is(id));
        // Of a file that was empty nothing is known, and nothing was read.
        let known: Vec<(Position, Position)> = known
            .filter_map(|Remembered { now, committed }| Some((now?, committed)))
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
            None => self.begin(file, path, size, reading.now_ms),
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
    fn knows(&self, content: u64) -> bool {
        let now = self.tails.iter().map(Tail::position);
        content == SETTLED
            || self.contents().contains(&content)
            || now
                .into_iter()
                .any(|position| position.copy_of.is_none() && position.content == content)
    }

    /// A file that was never followed: from its end if it is older than the check, else from its
    /// beginning; a copy of a followed file is left alone until that one is truncated.
    fn begin(&mut self, file: File, path: &Path, size: u64, now_ms: i64) -> io::Result<Tail> {
        let old = self.first_scan_ever || self.old_unreadable.remove(path);
        let original = self.tails.iter().find(|tail| {
            let original = tail.position();
            original.copy_of.is_none()
                && is_rotated_name(&original.path, path)
                && tail
                    .head_now()
                    .is_ok_and(|head| !head.is_empty() && head.fits(&file))
        });
        let copy_of = original
            .filter(|_| !old)
            .map(|tail| tail.position().content);
        let start = if old { size } else { 0 };
        let mut tail = Tail::new(file, path.to_owned(), start, now_ms)?;
        tail.set_copy(copy_of);
        Ok(tail)
    }

    /// Opens a file if the customer allows what the path leads to; a failure is a gap, said once.
    fn open(&mut self, path: &Path, reading: &mut Reading<'_>) -> Option<File> {
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
