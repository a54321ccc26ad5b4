//! Notices through the crate `notify`: of Windows. They say that something has changed, not what.

use std::{collections::BTreeSet, path::Path};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::{Mutex, mpsc};

use crate::logs::{Changes, Watches};

#[derive(Debug)]
pub(super) struct Source {
    watcher: RecommendedWatcher,
    /// Paths that changed; when it is full the last of them say what the next would.
    events: Mutex<mpsc::Receiver<()>>,
    config_events: mpsc::Receiver<()>,
    watched: BTreeSet<std::path::PathBuf>,
    is_incomplete: bool,
}

impl Source {
    pub(super) fn new(config: &Path) -> notify::Result<Self> {
        let (changes, events) = mpsc::channel(1);
        let (config_changes, config_events) = mpsc::channel(1);
        let config = config.to_owned();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().is_ok_and(|event| !is_change(event.kind)) {
                return;
            }
            if event.is_ok_and(|event| event.paths.contains(&config)) {
                drop(config_changes.try_send(()));
            }
            drop(changes.try_send(()));
        })?;
        Ok(Self {
            watcher,
            events: Mutex::new(events),
            config_events,
            watched: BTreeSet::new(),
            is_incomplete: false,
        })
    }

    pub(super) const fn is_complete(&self) -> bool {
        !self.is_incomplete
    }

    pub(super) fn watch(&mut self, watches: Watches, config: &Path) {
        let mut directories = watches.directories;
        directories.extend(
            config
                .parent()
                .filter(|dir| dir.is_dir())
                .map(Path::to_owned),
        );
        self.is_incomplete = false;
        for gone in self.watched.difference(&directories) {
            // It may have been deleted, which ends the watch by itself.
            drop(self.watcher.unwatch(gone));
        }
        for directory in directories.difference(&self.watched) {
            if let Err(error) = self.watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::info!(path = %directory.display(), %error, "polled instead of watched");
                self.is_incomplete = true;
            }
        }
        self.watched = directories;
    }

    pub(super) async fn wait(&self) {
        if self.events.lock().await.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Adds to `noticed` that something changed. Returns whether the configuration file did.
    pub(super) fn take_in(&mut self, _config: &Path, noticed: &mut Changes) -> bool {
        *noticed = Changes::everything();
        self.config_events.try_recv().is_ok()
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
