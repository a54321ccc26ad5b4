//! Follows log files and looks for lines that match the policy's rules.
//!
//! Reading is pulled by the loop ([`LogWatcher::scan`]); notices of changes only say when. What was
//! found is handed over together with the positions up to which it was read ([`LogWatcher::take`]),
//! so that both are committed at once: after a crash reading continues behind the last committed
//! match, and no line counts twice or not at all. Whatever could not be read is an event itself.
//! A whole line never leaves this machine before [`redact`] has been over it.

mod between;
mod check;
mod event_log;
mod feed;
mod find;
mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod journal;
mod pending;
mod redact;
mod remember;
mod rotation;
mod rules;
mod tail;
mod trial;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use watchkeep_shared::wire::{
    heartbeat::{Event, LogGapReason},
    policy::LogCheck,
};

use self::{
    check::Check,
    event_log::{Bookmarks, EventLogs},
    journal::Journal,
    pending::Pending,
    remember::SavedCheck,
    rules::Rules,
};
pub use self::{
    event_log::{EventLauncher, channel_of},
    journal::{Launcher, machine_id},
    redact::Redactor,
    rules::check_pattern,
    trial::{RuleTrial, Trial, try_rules},
};
use crate::config::AllowedPath;

/// Most bytes that one scan reads, so that the loop stays responsive.
const SCAN_BYTES: usize = 4 << 20;
/// Most directories that are worth watching for changes.
const MAX_DIRECTORIES: usize = 64;

/// The followed logs.
#[derive(Debug)]
pub struct LogWatcher {
    allowed: Vec<AllowedPath>,
    checks: Vec<Check>,
    journal: Journal,
    event_logs: EventLogs,
    /// Positions from before the restart of checks that the policy does not name (yet).
    saved: Vec<SavedCheck>,
    pending: Pending,
    /// Positions changed in a way that must be kept soon: a file came or went.
    structure_changed: bool,
    /// Positions moved since they were last handed out.
    moved: bool,
}

/// The positions as they are kept.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    checks: Vec<SavedCheck>,
    /// Cursor of the last entry of the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    journal: Option<String>,
    /// Bookmarks of channels of the Event Log.
    #[serde(default, skip_serializing_if = "Bookmarks::is_empty")]
    event_logs: Bookmarks,
}

/// What one check reads with: the scan's budget and the place where findings go.
struct Reading<'a> {
    allowed: &'a [AllowedPath],
    pending: &'a mut Pending,
    budget: usize,
    now_ms: i64,
    structure_changed: bool,
    moved: bool,
}

impl LogWatcher {
    /// Follows nothing yet. `saved` is what [`LogWatcher::take`] or [`LogWatcher::save`] gave before.
    pub fn new(saved: Option<&str>, allowed: Vec<AllowedPath>, redactor: Arc<Redactor>) -> Self {
        let saved = saved.map_or_else(Saved::default, |text| {
            serde_json::from_str(text).unwrap_or_else(|error| {
                tracing::warn!(%error, "the stored log positions can't be read");
                Saved::default()
            })
        });
        Self {
            allowed,
            checks: Vec::new(),
            journal: Journal::new(saved.journal),
            event_logs: EventLogs::new(saved.event_logs),
            saved: saved.checks,
            pending: Pending::new(redactor),
            structure_changed: false,
            moved: false,
        }
    }

    /// The customer allows these files and takes these texts out from now on. Every file is closed,
    /// as it may no longer be read. Call it when what was found has been taken, and follow with
    /// [`LogWatcher::set`].
    pub fn set_limits(&mut self, allowed: Vec<AllowedPath>, redactor: Arc<Redactor>) {
        self.allowed = allowed;
        self.pending.set_redactor(redactor);
        let closed = std::mem::take(&mut self.checks);
        self.saved.extend(closed.iter().map(Check::saved));
    }

    /// How the journal is read; without that it is not.
    pub fn read_journal_with(&mut self, launcher: Launcher) {
        self.journal.launch_with(launcher);
    }

    /// How the Event Log is read; without that it is not.
    pub fn read_event_log_with(&mut self, launcher: EventLauncher) {
        self.event_logs.launch_with(launcher);
    }

    /// Follows these from now on. A check that stays keeps its positions.
    pub fn set(&mut self, logs: &[LogCheck]) {
        let mut before = std::mem::take(&mut self.checks);
        let mut journal = Vec::new();
        let mut channels = Vec::new();
        for log in logs {
            let rules = match Rules::new(log) {
                Ok(rules) => rules,
                Err(error) => {
                    tracing::warn!(path = log.path, %error, "the log's rules can't be used together");
                    self.pending
                        .gap(Path::new(&log.path), LogGapReason::Unreadable, None);
                    continue;
                }
            };
            if let Some(filter) = &log.journal {
                journal.push((filter.clone(), rules));
                continue;
            }
            if let Some(filter) = &log.event_log {
                let channel = channel_of(&log.path).unwrap_or(&log.path);
                channels.push((channel.to_owned(), filter.clone(), rules));
                continue;
            }
            let kept = before.iter().position(|check| check.is_for(&log.path));
            let mut check = match kept {
                Some(at) => before.swap_remove(at),
                None => Check::new(&log.path, self.take_saved(&log.path)),
            };
            check.set_rules(rules);
            self.checks.push(check);
        }
        self.journal.set(journal);
        self.event_logs.set(channels);
        // A check may come back with a later policy.
        self.saved.extend(before.iter().map(Check::saved));
        self.saved.truncate(64);
        self.structure_changed = true;
    }

    /// Reads what is new. `now_ms` only has to run on. Returns whether there is more to read.
    pub fn scan(&mut self, now_ms: i64) -> bool {
        let mut reading = Reading {
            allowed: &self.allowed,
            pending: &mut self.pending,
            budget: SCAN_BYTES,
            now_ms,
            structure_changed: false,
            moved: false,
        };
        reading.pending.at(now_ms);
        for check in &mut self.checks {
            check.scan(&mut reading);
        }
        self.journal.scan(&mut reading);
        self.event_logs.scan(&mut reading);
        self.structure_changed |= reading.structure_changed;
        self.moved |= reading.moved;
        let more = reading.budget == 0;
        more && !self.pending.is_full()
    }

    /// Whether lines wait for the rest of their record: look again soon, even without a notice.
    pub fn record_waits(&self) -> bool {
        self.checks.iter().any(Check::record_waits)
    }

    /// Whether there is something to report.
    pub fn has_events(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What was found since the last call and, if anything was, the positions to commit with it.
    pub fn take(&mut self) -> (Vec<Event>, Option<String>) {
        if self.pending.is_empty() {
            return (Vec::new(), None);
        }
        let events = self.pending.take();
        self.commit();
        (events, Some(self.positions()))
    }

    /// The positions, if they are worth keeping now. `routine`: also if they only moved. While
    /// findings wait the positions stay before them, and only which files there are is worth it.
    pub fn save(&mut self, routine: bool) -> Option<String> {
        let settled = self.pending.is_empty();
        if settled {
            self.commit();
        }
        let due = self.structure_changed || (routine && settled && self.moved);
        due.then(|| self.positions())
    }

    /// Directories in which a change may concern a followed log.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let mut directories: BTreeSet<PathBuf> =
            self.checks.iter().flat_map(Check::directories).collect();
        while directories.len() > MAX_DIRECTORIES {
            directories.pop_last();
        }
        directories
    }

    /// Everything that was read counts as handed over.
    fn commit(&mut self) {
        for check in &mut self.checks {
            check.commit();
        }
        self.journal.commit();
        self.event_logs.commit();
    }

    /// The committed positions.
    fn positions(&mut self) -> String {
        self.structure_changed = false;
        self.moved &= !self.pending.is_empty();
        let checks = self.checks.iter().map(Check::saved);
        let saved = Saved {
            checks: checks.chain(self.saved.iter().cloned()).collect(),
            journal: self.journal.committed().map(str::to_owned),
            event_logs: self.event_logs.committed(),
        };
        serde_json::to_string(&saved).expect("positions have string keys only")
    }

    fn take_saved(&mut self, path: &str) -> Option<SavedCheck> {
        let at = self.saved.iter().position(|saved| saved.path == path)?;
        Some(self.saved.swap_remove(at))
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod torture;
