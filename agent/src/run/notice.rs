//! Notices of changed files from the kernel, through `notify`: logs, and the agent's own
//! configuration file. They only say "look now": where they
//! fail or are missing (network file systems, no watches left) the polling of [`super::wake`] sees
//! the same change a little later.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(super) struct LogNotice {
    changes: mpsc::Sender<()>,
    /// The configuration file, and where its changes are reported.
    config: (PathBuf, mpsc::Sender<()>),
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    failed: bool,
}

impl LogNotice {
    /// Watches nothing yet; each change after a read leaves one message at the first receiver, one
    /// of the configuration file at the second.
    pub(super) fn new(config: &Path) -> (Self, mpsc::Receiver<()>, mpsc::Receiver<()>) {
        let (changes, receiver) = mpsc::channel(1);
        let (changed, config_receiver) = mpsc::channel(1);
        // The kernel's notices name files as they were asked for.
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let notice = Self {
            changes,
            config: (config, changed),
            watcher: None,
            watched: BTreeSet::new(),
            failed: false,
        };
        (notice, receiver, config_receiver)
    }

    /// Where others that follow logs say that there is something to read.
    pub(super) fn changes(&self) -> mpsc::Sender<()> {
        self.changes.clone()
    }

    /// Whether all directories are watched.
    pub(super) fn is_live(&self) -> bool {
        self.watcher.is_some() && !self.failed
    }

    /// Watches these directories from now on, not what is below them.
    pub(super) fn watch(&mut self, mut directories: BTreeSet<PathBuf>) {
        // The directory, as editors and package managers put a new file in the old one's place.
        directories.extend(
            self.config
                .0
                .parent()
                .filter(|dir| dir.is_dir())
                .map(Path::to_owned),
        );
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
        let (config, changed) = self.config.clone();
        let created = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().is_ok_and(|event| !is_change(event.kind)) {
                return;
            }
            let is_config = event.is_ok_and(|event| event.paths.contains(&config));
            // A full channel already says what this event would.
            let _ = if is_config { &changed } else { &changes }.try_send(());
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
