//! Finding a file's content again after it was renamed or copied, by what rotation does to names:
//! the successor of `app.log` is in the same directory and its name begins with `app`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    Reading,
    find::is_archive,
    tail::{FileId, Position, Tail},
};
use crate::platform;

/// The copy of a truncated file's old content, to be read on from where the original was left.
pub(super) fn adopt_copy(
    before: &Position,
    committed: &Position,
    reading: &mut Reading<'_>,
) -> Option<Tail> {
    let (file, path) = copied(before, reading)?;
    let id = FileId::of(&file.metadata().ok()?);
    let position = Position {
        path,
        id,
        done: false,
        copy_of: None,
        ..before.clone()
    };
    let mut tail = Tail::at(file, position, reading.now_ms);
    tail.resume_from(committed);
    tail.retired_ms = Some(reading.now_ms);
    Some(tail)
}

/// Whether `path` is a name that rotation gives to `original`: `app.log` becomes `app.log.1`,
/// `app.log-20260101`, or `app-20260101.log`.
pub(super) fn is_rotated_name(original: &Path, path: &Path) -> bool {
    let stem = original.file_stem().map(std::ffi::OsStr::as_encoded_bytes);
    let name = path.file_name().map(std::ffi::OsStr::as_encoded_bytes);
    original.parent() == path.parent()
        && original != path
        && stem
            .zip(name)
            .is_some_and(|(stem, name)| name.starts_with(stem))
}

/// Opens a regular file if the customer allows what the path leads to. That is asked of the open
/// file, so that a link which is switched in between leads nowhere else.
pub(super) fn open_allowed(path: &Path, reading: &Reading<'_>) -> io::Result<File> {
    let (file, target) = platform::open_to_read(path)?;
    if !reading
        .allowed
        .iter()
        .any(|allowed| allowed.allows(&target))
    {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "it leads to {}, outside of limits.log_paths",
                target.display()
            ),
        ));
    }
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

/// Where a position's file may be now: at its path, where the link at its path led, and beside both
/// under a name that rotation gives.
fn places(position: &Position) -> Vec<PathBuf> {
    let named: Vec<&PathBuf> = std::iter::once(&position.path)
        .chain(&position.target)
        .collect();
    let beside = named.iter().flat_map(|name| {
        let entries = name.parent().and_then(|dir| fs::read_dir(dir).ok());
        entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_rotated_name(name, path) && !is_archive(path))
    });
    let beside: Vec<PathBuf> = beside.collect();
    named.into_iter().cloned().chain(beside).collect()
}

/// The same file under another name.
pub(super) fn renamed(position: &Position, reading: &Reading<'_>) -> Option<(File, PathBuf)> {
    places(position).into_iter().find_map(|path| {
        let metadata = fs::metadata(&path).ok()?;
        if FileId::of(&metadata) != position.id || metadata.len() < position.offset {
            return None;
        }
        let file = open_allowed(&path, reading).ok()?;
        position.head.fits(&file).then_some((file, path))
    })
}

/// The same file under another name, but with other content: it was truncated and then renamed, or
/// deleted and its inode used again.
pub(super) fn reused(position: &Position, reading: &Reading<'_>) -> Option<(File, PathBuf)> {
    places(position).into_iter().find_map(|path| {
        let metadata = fs::metadata(&path).ok()?;
        let same = metadata.is_file() && FileId::of(&metadata) == position.id;
        same.then(|| open_allowed(&path, reading).ok().map(|file| (file, path)))?
    })
}

/// Another file with the same content up to the position; the newest, if there are several.
pub(super) fn copied(position: &Position, reading: &Reading<'_>) -> Option<(File, PathBuf)> {
    if position.head.is_empty() {
        return None;
    }
    let mut candidates: Vec<_> = places(position)
        .into_iter()
        .filter_map(|path| {
            let metadata = fs::metadata(&path).ok()?;
            let other = FileId::of(&metadata) != position.id;
            let fits = metadata.is_file() && other && metadata.len() >= position.offset;
            fits.then(|| (metadata.modified().ok(), path))
        })
        .collect();
    candidates.sort();
    candidates.into_iter().rev().find_map(|(_, path)| {
        let file = open_allowed(&path, reading).ok()?;
        position.head.fits(&file).then_some((file, path))
    })
}
