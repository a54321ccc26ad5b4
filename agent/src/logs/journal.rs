//! The systemd journal as a log.
//!
//! It is read by `journalctl`, whose output is stable and which knows every journal format: the
//! agent starts that one program with arguments of its own, never with the policy's text; filters
//! are applied here. Position is the cursor of the last entry that was taken; it is committed with
//! what was found, like positions in files. Cursors hold over boots; where an entry at a cursor is
//! gone (vacuumed, or a journal that was only in memory), what came after it may be too: a gap.

mod entry;
mod feed;

use std::path::Path;

use watchkeep_shared::wire::{heartbeat::LogGapReason, policy::JournalFilter};

use self::feed::Item;
pub use self::feed::{Launcher, machine_id};
use super::{Reading, feed::Feed, framing::MAX_LINE_BYTES, rules::Rules};

/// The name used in place of a file's path.
pub(super) const PATH: &str = "journal";

/// Follows the journal for all checks that ask for it.
#[derive(Debug, Default)]
pub(super) struct Journal {
    launcher: Option<Launcher>,
    checks: Vec<(JournalFilter, Rules)>,
    feed: Option<Feed<Item>>,
    cursor: Option<String>,
    committed: Option<String>,
}

impl Journal {
    /// Reads on behind the entry at `cursor`, or from now on.
    pub(super) fn new(cursor: Option<String>) -> Self {
        Self {
            cursor: cursor.clone(),
            committed: cursor,
            ..Self::default()
        }
    }

    /// How it is read; without that nothing is.
    pub(super) fn launch_with(&mut self, launcher: Launcher) {
        self.launcher = Some(launcher);
        self.start_or_stop();
    }

    pub(super) fn set(&mut self, checks: Vec<(JournalFilter, Rules)>) {
        self.checks = checks;
        self.start_or_stop();
    }

    /// Everything that was read has been handed over.
    pub(super) fn commit(&mut self) {
        self.committed.clone_from(&self.cursor);
    }

    pub(super) fn committed(&self) -> Option<&str> {
        self.committed.as_deref()
    }

    pub(super) fn scan(&mut self, reading: &mut Reading<'_>) {
        while reading.budget > 0 && !reading.pending.is_full() {
            let Some(item) = self.feed.as_mut().and_then(Feed::next) else {
                return;
            };
            let mut gap = |reason, bytes| reading.pending.gap(Path::new(PATH), reason, bytes);
            match item {
                Item::At(cursor) => self.move_to(cursor, reading),
                Item::Lost => gap(LogGapReason::RotatedAway, None),
                Item::Failed => gap(LogGapReason::Unreadable, None),
                Item::TooLong(bytes) => gap(LogGapReason::LineTooLong, Some(bytes)),
                Item::Entry(entry) => {
                    reading.budget = reading.budget.saturating_sub(entry.message.len() + 1);
                    self.take(&entry, reading);
                    self.move_to(entry.cursor, reading);
                }
            }
        }
    }

    fn move_to(&mut self, cursor: String, reading: &mut Reading<'_>) {
        reading.structure_changed |= self.cursor.is_none();
        reading.moved = true;
        self.cursor = Some(cursor);
    }

    fn take(&self, entry: &entry::Entry, reading: &mut Reading<'_>) {
        let shown = entry.shown_path();
        let path = Path::new(&shown);
        let (message, rest) = match entry.message.split_at_checked(MAX_LINE_BYTES) {
            Some((message, rest)) => (message, rest.len() as u64),
            None => (entry.message.as_slice(), 0),
        };
        let mut looked_at = false;
        for (filter, rules) in &self.checks {
            if !entry.passes(filter) {
                continue;
            }
            looked_at = true;
            for rule in rules.matching(message) {
                reading.pending.matched(rule, path, message);
            }
        }
        if looked_at && rest > 0 {
            let reason = LogGapReason::LineTooLong;
            reading.pending.gap(path, reason, Some(rest));
        }
    }

    fn start_or_stop(&mut self) {
        if self.checks.is_empty() {
            self.feed = None;
        } else if self.feed.is_none()
            && let Some(launcher) = &self.launcher
        {
            self.feed = Some(launcher.start(self.cursor.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
