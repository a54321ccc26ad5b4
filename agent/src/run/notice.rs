//! Notices of changed files from the kernel, through `notify`. They only say "look now": where they
//! fail or are missing (network file systems, no watches left) the polling of [`super::wake`] sees
//! the same change a little later.

use std::{collections::BTreeSet, path::PathBuf};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(super) struct LogNotice {
    changes: mpsc::Sender<()>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    failed: bool,
}

impl LogNotice {
    /// Watches nothing yet; each change after a read leaves one message at the receiver.
    pub(super) fn new() -> (Self, mpsc::Receiver<()>) {
        let (changes, receiver) = mpsc::channel(1);
        let notice = Self {
            changes,
            watcher: None,
            watched: BTreeSet::new(),
            failed: false,
        };
        (notice, receiver)
    }

    /// Whether all directories are watched.
    pub(super) fn is_live(&self) -> bool {
        self.watcher.is_some() && !self.failed
    }

    /// Watches these directories from now on, not what is below them.
    pub(super) fn watch(&mut self, directories: BTreeSet<PathBuf>) {
        if directories == self.watched {
            return;
        }
        if directories.is_empty() {
            self.watcher = None;
            self.watched = directories;
            return;
        }
        if self.watcher.is_none() {
            self.watcher = self.start();
            self.watched.clear();
        }
        let Some(watcher) = self.watcher.as_mut() else {
            return;
        };
        self.failed = false;
        for gone in self.watched.difference(&directories) {
            // It may have been deleted, which ends the watch by itself.
            let _ = watcher.unwatch(gone);
        }
        for directory in directories.difference(&self.watched) {
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::info!(path = %directory.display(), %error, "polled instead of watched");
                self.failed = true;
            }
        }
        self.watched = directories;
    }

    fn start(&mut self) -> Option<RecommendedWatcher> {
        let changes = self.changes.clone();
        let created = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // A full channel already says what this event would.
            if event.map_or(true, |event| is_change(event.kind)) {
                let _ = changes.try_send(());
            }
        });
        match created {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                if !self.failed {
                    tracing::warn!(%error, "log files are polled: no change notices");
                }
                self.failed = true;
                None
            }
        }
    }
}

/// Opening and reading a file, which this agent does itself, is no change.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
