//! Looking at what there is: which files came, left, were renamed or truncated.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use watchkeep_shared::wire::heartbeat::LogGapReason;

use super::{
    super::{
        Reading,
        between::{Followed, Look},
        remember::{Remembered, find_content, find_renamed},
        rotation::{adopt_copy, archive_of},
        rules::Sink,
        tail::{FileId, Tail},
    },
    Check,
};

impl Check {
    pub(super) fn look(&mut self, reading: &mut Reading<'_>) {
        let look = Look::now();
        self.must_look = false;
        reading.has_looked = true;
        let listing = self.pattern.list();
        let mut listed = listing.files;
        self.directories = listing.directories.into_iter().collect();
        if listing.is_cut {
            self.tell_left_out("more entries than are looked through lie below it", reading);
        }
        let was_crowded = self.is_crowded;
        self.is_crowded = listed.len() > self.room.files;
        if self.is_crowded {
            let known = self.known_ids();
            listed.sort_by_key(|(_, metadata)| {
                let is_new = !known.contains(&FileId::of(metadata));
                (is_new, std::cmp::Reverse(metadata.modified().ok()))
            });
            listed.truncate(self.room.files);
            self.tell_left_out(
                "more files than are followed: the oldest are left out",
                reading,
            );
        }
        self.follow_renames(&listed, reading.now_ms);
        if !self.first_scan_ever {
            self.find_remembered(&listed, reading);
        }
        // Before new files are taken up: a copy must be known as one.
        let mut changes = self.handle_truncations(reading);
        changes.extend(self.changes(&listed));
        self.take_up_all(&listed, was_crowded, look, reading);
        if self.is_crowded {
            // What is not followed can't be distinguished from what was not seen.
            self.between.looked(look, Vec::new(), &listed);
        } else {
            self.look_between(look, changes, &listed, reading);
        }
        self.began.get_or_insert(look);
        self.looked_ms = Some(reading.now_ms);
        self.first_scan_ever = false;
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

    /// The files that are followed.
    fn known_ids(&self) -> HashSet<FileId> {
        let closed = self
            .remembered
            .iter()
            .filter_map(|known| known.now.as_ref());
        let closed = closed
            .filter(|position| !position.done)
            .map(|position| position.id);
        self.tails.iter().map(Tail::id).chain(closed).collect()
    }

    /// Reports once that not all can be followed.
    fn tell_left_out(&mut self, why: &'static str, reading: &mut Reading<'_>) {
        if self.unreadable.insert(PathBuf::from(&self.path)) {
            tracing::warn!(path = self.path, "{why}");
            reading
                .pending
                .gap(Path::new(&self.path), LogGapReason::Unreadable, None);
        }
    }

    fn follow_renames(&mut self, listed: &[(PathBuf, fs::Metadata)], now_ms: i64) {
        let mut paths: HashMap<FileId, &PathBuf> = HashMap::new();
        for (path, metadata) in listed {
            paths.entry(FileId::of(metadata)).or_insert(path);
        }
        for tail in &mut self.tails {
            match paths.get(&tail.id()) {
                Some(path) => {
                    tail.set_path(path);
                    tail.retired_ms = None;
                    tail.is_drained = false;
                }
                None => {
                    tail.retired_ms.get_or_insert(now_ms);
                }
            }
        }
    }

    /// Files that were closed, or followed before a restart, and are no longer at a followed path are
    /// looked for beside it.
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
        let mut at = 0;
        while at < self.tails.len() {
            let tail = &mut self.tails[at];
            at += 1;
            if tail.position().copy_of.is_some() || !tail.was_truncated().unwrap_or(false) {
                continue;
            }
            reading.structure_changed = true;
            let before = tail.position().clone();
            // Made since the last look: another may have the same time by chance.
            let last_us = self.between.last().map(Look::file_us);
            let archive = archive_of(tail).filter(|archive| archive.born_us() >= last_us);
            let is_lost = tail.is_unlinked();
            if is_lost && (tail.is_drained || archive.is_some()) {
                if let Some(archive) = archive {
                    self.between.explain(archive);
                }
                // Overwritten before it was deleted (shred), after all of it was read.
                tail.set_done();
                at -= 1;
                let done = self.tails.swap_remove(at);
                self.remember(&done, None);
                continue;
            }
            truncated.push(before.path.clone());
            let committed = tail.committed().clone();
            let mut copy = adopt_copy(&before, &committed, reading);
            let mut sink = Sink {
                rules: &self.rules,
                pending: reading.pending,
                path: &before.path,
            };
            let restarted = tail.restart(&mut |found| copy.is_some() || sink.take(&found));
            if let Err(error) = restarted {
                tracing::debug!(path = %before.path.display(), %error, "truncated and not readable");
            }
            if let Some(copy) = copy.take() {
                self.push_instead_of_its_like(copy);
                continue;
            }
            if let Some(archive) = archive {
                // Copied and compressed after all of it was read.
                self.between.explain(archive);
                continue;
            }
            tail.supersede(committed);
            reading
                .pending
                .gap(&before.path, LogGapReason::Truncated, None);
        }
        truncated
    }

    /// A copy that was left alone so far is now followed. The file that it is a copy of keeps its
    /// place in the list.
    pub(super) fn push_instead_of_its_like(&mut self, copy: Tail) {
        let id = copy.id();
        self.remembered.retain(|remembered| !remembered.is(id));
        match self.tails.iter_mut().find(|tail| tail.id() == id) {
            Some(tail) => *tail = copy,
            None => self.tails.push(copy),
        }
    }
}
