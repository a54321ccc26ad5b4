//! Which files a path or glob means now.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher};

/// How deep `**` looks below the fixed part.
const MAX_DEPTH: usize = 8;
/// Directory entries that one look takes at most.
const MAX_ENTRIES: usize = 20_000;
/// A glob does not mean archives, whose bytes are no lines.
const ARCHIVES: [&str; 6] = ["gz", "xz", "zst", "bz2", "zip", "lz4"];
const META: [char; 5] = ['*', '?', '[', '{', '\\'];

/// A path or glob.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// Its longest directory without a wildcard; of a plain path its directory.
    base: PathBuf,
    /// `None` for a plain path.
    glob: Option<GlobMatcher>,
    depth: usize,
    path: PathBuf,
}

impl Pattern {
    /// Takes any text; one that is not a glob is a plain path.
    pub(super) fn new(text: &str) -> Self {
        // Windows takes both.
        let text = &if cfg!(windows) {
            text.replace('\\', "/")
        } else {
            text.to_owned()
        };
        let path = PathBuf::from(text);
        let glob = text
            .contains(META)
            .then(|| GlobBuilder::new(text).literal_separator(true).build().ok())
            .flatten()
            .map(|glob| glob.compile_matcher());
        let parts: Vec<&str> = text.split('/').collect();
        let fixed = parts
            .iter()
            .position(|part| part.contains(META))
            .unwrap_or(parts.len().saturating_sub(1));
        let mut base = parts[..fixed].join("/");
        if cfg!(windows) && base.ends_with(':') {
            // Without it, it would be whatever directory of the drive is the current one.
            base.push('/');
        }
        let depth = if text.contains("**") {
            MAX_DEPTH
        } else {
            parts.len() - fixed
        };
        Self {
            base: if base.is_empty() {
                PathBuf::from("/")
            } else {
                PathBuf::from(base)
            },
            glob,
            depth,
            path,
        }
    }

    /// The regular files that it means, in order of their paths.
    pub(super) fn files(&self) -> Vec<(PathBuf, fs::Metadata)> {
        let mut found = Vec::new();
        if let Some(glob) = &self.glob {
            let mut entries = MAX_ENTRIES;
            walk(&self.base, self.depth, glob, &mut entries, &mut found);
            found.sort_by(|a, b| a.0.cmp(&b.0));
        } else {
            match fs::metadata(&self.path) {
                Ok(metadata) if metadata.is_file() => found.push((self.path.clone(), metadata)),
                _ => {}
            }
        }
        found
    }

    /// The path, if it is one.
    pub(super) fn plain(&self) -> Option<&Path> {
        self.glob.is_none().then_some(&self.path)
    }

    /// The nearest existing directory at or above the fixed part.
    pub(super) fn base(&self) -> Option<&Path> {
        self.base.ancestors().find(|dir| dir.is_dir())
    }
}

fn walk(
    dir: &Path,
    depth: usize,
    glob: &GlobMatcher,
    entries: &mut usize,
    found: &mut Vec<(PathBuf, fs::Metadata)>,
) {
    let Ok(list) = fs::read_dir(dir) else { return };
    for entry in list.filter_map(io::Result::ok) {
        if *entries == 0 {
            return;
        }
        *entries -= 1;
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        // A link may lead to a directory, which is followed no deeper than one that is not a link.
        if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
            if depth > 1 {
                walk(&path, depth - 1, glob, entries, found);
            }
            continue;
        }
        if is_archive(&path) || !glob.is_match(&path) {
            continue;
        }
        if let Ok(metadata) = fs::metadata(&path)
            && metadata.is_file()
        {
            found.push((path, metadata));
        }
    }
}

/// Whether its name says that it is compressed.
pub(super) fn is_archive(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| ARCHIVES.contains(&extension))
}
