//! Finding a file's content again after it was renamed or copied, by what rotation does to names:
//! the successor of `app.log` is in the same directory and its name begins with `app`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    Reading,
    tail::{FileId, Position, Tail},
};

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
        copy: false,
        ..before.clone()
    };
    let mut tail = Tail::at(file, position, reading.now_ms);
    tail.resume_from(committed);
    tail.retired = true;
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

pub(super) fn open_allowed(path: &Path, reading: &Reading<'_>) -> io::Result<File> {
    let target = path.canonicalize()?;
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
    File::open(target)
}

/// Files beside a position's path under a name that rotation gives.
fn rotated_siblings(position: &Position) -> Vec<PathBuf> {
    let Some(entries) = position
        .path
        .parent()
        .and_then(|dir| fs::read_dir(dir).ok())
    else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| is_rotated_name(&position.path, path))
        .collect()
}

/// The same file under another name.
pub(super) fn renamed(position: &Position, reading: &Reading<'_>) -> Option<(File, PathBuf)> {
    let own = std::iter::once(position.path.clone());
    own.chain(rotated_siblings(position)).find_map(|path| {
        let metadata = fs::metadata(&path).ok()?;
        if FileId::of(&metadata) != position.id || metadata.len() < position.offset {
            return None;
        }
        let file = open_allowed(&path, reading).ok()?;
        position.head.fits(&file).then_some((file, path))
    })
}

/// Another file with the same content up to the position; the newest, if there are several.
pub(super) fn copied(position: &Position, reading: &Reading<'_>) -> Option<(File, PathBuf)> {
    if position.head.is_empty() {
        return None;
    }
    let mut candidates: Vec<_> = rotated_siblings(position)
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
