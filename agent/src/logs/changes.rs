//! What may have changed since the last scan, as notices of the kernel tell it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use super::tail::FileId;

/// More entries than this, and everything is looked at.
const MAX_ENTRIES: usize = 1_024;

/// What a scan has to look at.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    everything: bool,
    /// Whether each open file is read, notice or not.
    all_files: bool,
    files: HashSet<FileId>,
    /// Names that came or went, and whether they are directories.
    entries: Vec<(PathBuf, bool)>,
}

/// What notices are needed of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watches {
    /// Directories in which a name may come or go.
    pub directories: BTreeSet<PathBuf>,
    /// Files that may grow, and where they are.
    pub files: BTreeMap<FileId, PathBuf>,
}

impl Changes {
    /// Nothing is known: look at everything.
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Every open file is to be read as well.
    #[must_use]
    pub(super) const fn and_all_files(mut self) -> Self {
        self.all_files = true;
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.files.is_empty() && self.entries.is_empty()
    }

    /// A file was written.
    pub fn add_file(&mut self, file: FileId) {
        self.files.insert(file);
    }

    /// A name in a directory came or went.
    pub fn add_entry(&mut self, path: PathBuf, is_directory: bool) {
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push((path, is_directory));
        } else {
            self.everything = true;
        }
    }

    /// Whether everything is to be looked at.
    pub const fn is_everything(&self) -> bool {
        self.everything
    }

    /// Whether this file may have been written.
    pub(super) fn is_of(&self, file: FileId) -> bool {
        self.everything || self.all_files || self.files.contains(&file)
    }

    /// Whether a notice was about this file.
    pub fn names(&self, file: FileId) -> bool {
        self.files.contains(&file)
    }

    /// Names that came or went, and whether they are directories.
    pub fn entries(&self) -> impl Iterator<Item = (&Path, bool)> {
        let entries = self.entries.iter();
        entries.map(|(path, is_directory)| (path.as_path(), *is_directory))
    }
}
