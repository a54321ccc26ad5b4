//! Notices of changed files from the kernel: logs, and the agent's own configuration file. They only say
//! where to look: where they fail or are missing (network file systems, no watches left) the polling of
//! [`super::wake`] sees the same change a little later.
//!
//! Notices are gathered until the loop has scanned. A file that is written all the time wakes it once a
//! scan, and one that no check follows not at all.

#[cfg(unix)]
mod inotify;
#[cfg(windows)]
mod portable;

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

#[cfg(unix)]
use self::inotify::Source;
#[cfg(windows)]
use self::portable::Source;
use crate::logs::{Changes, Watches};

#[derive(Debug)]
pub(super) struct LogNotice {
    changes: mpsc::Sender<()>,
    config: PathBuf,
    source: Option<Source>,
    /// What was noticed since the last scan.
    noticed: Changes,
    /// Notices can't be had; said once.
    failed: bool,
}

impl LogNotice {
    /// Watches nothing but the directory of the configuration file yet. The receiver is for what others
    /// that follow logs say at [`LogNotice::changes`].
    pub(super) fn new(config: &Path) -> (Self, mpsc::Receiver<()>) {
        let (changes, receiver) = mpsc::channel(1);
        // The kernel's notices name files as they were asked for.
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let notice = Self {
            changes,
            config,
            source: None,
            noticed: Changes::everything(),
            failed: false,
        };
        (notice, receiver)
    }

    /// Where others that follow logs say that there is something to read.
    pub(super) fn changes(&self) -> mpsc::Sender<()> {
        self.changes.clone()
    }

    /// Whether there is a notice of each change.
    pub(super) fn is_live(&self) -> bool {
        self.source.as_ref().is_some_and(Source::is_complete)
    }

    /// Watches these from now on, not what is below the directories.
    pub(super) fn watch(&mut self, watches: Watches) {
        if self.source.is_none() {
            self.source = match Source::new(&self.config) {
                Ok(source) => Some(source),
                Err(error) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        tracing::warn!(%error, "log files are polled: no change notices");
                    }
                    return;
                }
            };
        }
        if let Some(source) = &mut self.source {
            source.watch(watches, &self.config);
        }
    }

    /// Waits for a notice; for ever while there are some that no scan has taken.
    pub(super) async fn wait(&self) {
        match &self.source {
            Some(source) if self.noticed.is_empty() => source.wait().await,
            _ => std::future::pending().await,
        }
    }

    /// Takes in what the kernel has noticed. Returns whether the configuration file changed.
    pub(super) fn take_in(&mut self) -> bool {
        let source = self.source.as_mut();
        source.is_some_and(|source| source.take_in(&self.config, &mut self.noticed))
    }

    /// Whether there is something to scan for.
    pub(super) fn has_changes(&self) -> bool {
        !self.noticed.is_empty()
    }

    /// What was noticed since the last call.
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.noticed)
    }
}
