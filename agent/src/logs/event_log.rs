//! Channels of the Windows Event Log as logs.
//!
//! Position is the bookmark of the last record that was taken; it is committed with what was found, like
//! positions in files. A channel that was never followed is followed from its newest record on. Where
//! the record at a bookmark is gone (overwritten, or the log was cleared), what came after it may be
//! too: a gap, and reading continues with the oldest record there is.

mod feed;
mod record;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path};

use watchkeep_shared::wire::{heartbeat::LogGapReason, policy::EventLogFilter};

pub use self::feed::EventLauncher;
use self::{feed::Item, record::Record};
use super::{Reading, feed::Feed, framing::MAX_LINE_BYTES, rules::Rules};

/// The prefix of the channel's name, used in place of a file's path.
const PREFIX: &str = "eventlog:";
/// Longest name of a channel (`wevtutil`, `EvtOpenChannelConfig`), characters.
const MAX_CHANNEL: usize = 255;
/// Most channels whose positions are kept though nobody asks for them.
const MAX_SAVED: usize = 64;

/// The channel that a log's path names.
pub fn channel_of(path: &str) -> Option<&str> {
    let channel = path.strip_prefix(PREFIX)?;
    let is_plain = !channel.contains(char::is_control);
    (is_plain && (1..=MAX_CHANNEL).contains(&channel.chars().count())).then_some(channel)
}

/// Bookmarks by channel.
pub(super) type Bookmarks = BTreeMap<String, String>;

/// Follows all channels that checks ask for.
#[derive(Debug, Default)]
pub(super) struct EventLogs {
    launcher: Option<EventLauncher>,
    channels: Vec<Channel>,
    /// Of channels that no check asks for (yet).
    saved: Bookmarks,
}

#[derive(Debug)]
struct Channel {
    name: String,
    checks: Vec<(EventLogFilter, Rules)>,
    feed: Option<Feed<Item>>,
    bookmark: Option<String>,
    committed: Option<String>,
}

impl EventLogs {
    /// Reads on behind these records; other channels from now on.
    pub(super) fn new(saved: Bookmarks) -> Self {
        Self {
            saved,
            ..Self::default()
        }
    }

    /// How they are read; without that they are not.
    pub(super) fn launch_with(&mut self, launcher: EventLauncher) {
        self.launcher = Some(launcher);
        self.start();
    }

    /// Follows these from now on, each with its channel's name.
    pub(super) fn set(&mut self, checks: Vec<(String, EventLogFilter, Rules)>) {
        for channel in &mut self.channels {
            channel.checks.clear();
        }
        for (name, filter, rules) in checks {
            let is_it = |channel: &Channel| channel.name.eq_ignore_ascii_case(&name);
            let at = self.channels.iter().position(is_it).unwrap_or_else(|| {
                let bookmark = self.saved.remove(&name);
                self.channels.push(Channel {
                    name,
                    checks: Vec::new(),
                    feed: None,
                    committed: bookmark.clone(),
                    bookmark,
                });
                self.channels.len() - 1
            });
            self.channels[at].checks.push((filter, rules));
        }
        for gone in self.channels.extract_if(.., |one| one.checks.is_empty()) {
            self.saved
                .extend(gone.committed.map(|bookmark| (gone.name, bookmark)));
        }
        while self.saved.len() > MAX_SAVED {
            self.saved.pop_first();
        }
        self.start();
    }

    /// Everything that was read has been handed over.
    pub(super) fn commit(&mut self) {
        for channel in &mut self.channels {
            channel.committed.clone_from(&channel.bookmark);
        }
    }

    pub(super) fn committed(&self) -> Bookmarks {
        let followed = self.channels.iter().filter_map(|channel| {
            let bookmark = channel.committed.clone()?;
            Some((channel.name.clone(), bookmark))
        });
        self.saved.clone().into_iter().chain(followed).collect()
    }

    pub(super) fn scan(&mut self, reading: &mut Reading<'_>) {
        for channel in &mut self.channels {
            channel.scan(reading);
        }
    }

    fn start(&mut self) {
        let Some(launcher) = &self.launcher else {
            return;
        };
        for channel in &mut self.channels {
            if channel.feed.is_none() {
                channel.feed = Some(launcher.start(&channel.name, channel.bookmark.clone()));
            }
        }
    }
}

impl Channel {
    fn scan(&mut self, reading: &mut Reading<'_>) {
        let path = format!("{PREFIX}{}", self.name);
        while reading.budget > 0 && !reading.pending.is_full() {
            let Some(item) = self.feed.as_mut().and_then(Feed::next) else {
                return;
            };
            let mut gap = |reason, bytes| reading.pending.gap(Path::new(&path), reason, bytes);
            match item {
                Item::At(bookmark) => self.move_to(bookmark, reading),
                Item::Lost => gap(LogGapReason::RotatedAway, None),
                Item::Failed => gap(LogGapReason::Unreadable, None),
                Item::Record(raw) => {
                    reading.budget = reading.budget.saturating_sub(raw.xml.len() + 1);
                    match Record::parse(&raw.xml) {
                        Some(record) => self.take(&record, reading),
                        None => gap(LogGapReason::Unreadable, Some(raw.xml.len() as u64)),
                    }
                    self.move_to(raw.bookmark, reading);
                }
            }
        }
    }

    fn move_to(&mut self, bookmark: String, reading: &mut Reading<'_>) {
        reading.structure_changed |= self.bookmark.is_none();
        reading.moved = true;
        self.bookmark = Some(bookmark);
    }

    fn take(&self, record: &Record, reading: &mut Reading<'_>) {
        let asked: Vec<&Rules> = self
            .checks
            .iter()
            .filter_map(|(filter, rules)| record.passes(filter).then_some(rules))
            .collect();
        if asked.is_empty() {
            return;
        }
        let shown = format!("{PREFIX}{}:{}", self.name, record.provider);
        let (path, line) = (Path::new(&shown), record.line());
        let (line, rest) = line.split_at(line.floor_char_boundary(MAX_LINE_BYTES));
        for rules in asked {
            for rule in rules.matching(line.as_bytes()) {
                reading.pending.matched(rule, path, line.as_bytes());
            }
        }
        if !rest.is_empty() {
            let reason = LogGapReason::LineTooLong;
            reading.pending.gap(path, reason, Some(rest.len() as u64));
        }
    }
}
