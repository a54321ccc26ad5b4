//! Notices through the operating system that files of certificates may have changed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;

/// Watches the directories of files until it is dropped. Directories, since files are replaced by
/// renaming, and what an ACME client or a mounted secret replaces is a symbolic link beside them.
#[derive(Debug)]
pub struct FileWatch {
    _watcher: RecommendedWatcher,
}

impl FileWatch {
    /// Notifies `changed` after something in the directories of `files` was created, written, renamed
    /// or deleted. Fails if one of them cannot be watched.
    pub fn new(files: &[PathBuf], changed: Arc<Notify>) -> notify::Result<Self> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // After an error, as when events were lost, anything may have changed.
            if event.is_ok_and(|event| !is_change(event.kind)) {
                return;
            }
            changed.notify_one();
        })?;
        let directories: BTreeSet<&Path> = files.iter().map(|file| directory(file)).collect();
        for directory in directories {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher })
    }
}

fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The collector's own reading is none.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_is_noticed_and_one_that_is_read_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (file, new) = (dir.path().join("web.pem"), dir.path().join("new"));
        std::fs::write(&file, "first").unwrap();
        let changed = Arc::new(Notify::new());
        let _watch = FileWatch::new(std::slice::from_ref(&file), Arc::clone(&changed)).unwrap();
        std::fs::write(&new, "second").unwrap();
        changed.notified().await;
        std::fs::rename(&new, &file).unwrap();
        changed.notified().await;
        for kind in [AccessKind::Read, AccessKind::Open(AccessMode::Read)] {
            assert!(!is_change(EventKind::Access(kind)));
        }
    }

    #[test]
    fn a_file_without_a_directory_is_in_this_one() {
        assert_eq!(directory(Path::new("web.pem")), Path::new("."));
        assert_eq!(directory(Path::new("/etc/web.pem")), Path::new("/etc"));
    }
}
