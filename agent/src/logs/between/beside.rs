//! What lies beside a path, and which names rotation gives.

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::super::{find::is_archive, tail::FileId};

/// Names that one look passes by at most.
const MAX_NAMES: usize = 200_000;
/// Files of fitting names that one look asks about at most.
const MAX_FILES: usize = 4_096;
/// Words that stand for "the one before" at the end of a name.
const WORDS: [&[u8]; 4] = [b"old", b"bak", b"prev", b"last"];
/// Fewer digits inside a name may tell two logs apart (`worker-2.log`); so many are a time.
const TIME_DIGITS: usize = 6;

/// A file beside a path.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) bytes: u64,
    /// When it was written last, microseconds since the Unix epoch.
    pub(super) written_us: Option<i64>,
}

/// Files of one name but for its digits, in one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    dir: PathBuf,
    shape: Vec<u8>,
}

impl Series {
    /// The one that the file at `path` is of.
    pub(super) fn of(path: &Path) -> Option<Self> {
        Some(Self {
            dir: path.parent()?.to_owned(),
            shape: shape(path.file_name()?),
        })
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        path.parent() == Some(&self.dir)
            && path.file_name().map(shape).as_ref() == Some(&self.shape)
    }
}

/// The files that lie beside `places` under names that begin like theirs, and those of `series`,
/// archives too; and whether there are too many to see them all.
pub(super) fn list(places: &[PathBuf], series: &[Series]) -> (Vec<Beside>, bool) {
    let mut dirs: Vec<&Path> = places
        .iter()
        .filter_map(|place| place.parent())
        .chain(series.iter().map(|series| series.dir.as_path()))
        .collect();
    dirs.sort();
    dirs.dedup();
    let mut found = Vec::new();
    let mut names = MAX_NAMES;
    for dir in dirs {
        let here = places.iter().filter(|place| place.parent() == Some(dir));
        let stems: Vec<&[u8]> = here
            .filter_map(|place| Some(place.file_stem()?.as_encoded_bytes()))
            .collect();
        let series: Vec<&Series> = series.iter().filter(|series| series.dir == dir).collect();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if names == 0 || found.len() == MAX_FILES {
                return (found, true);
            }
            names -= 1;
            let name = entry.file_name();
            let begins_with = |stem: &&[u8]| name.as_encoded_bytes().starts_with(stem);
            let is_wanted = stems.iter().any(begins_with)
                || (!series.is_empty() && {
                    let shape = shape(&name);
                    series.iter().any(|series| series.shape == shape)
                });
            let path = is_wanted.then(|| dir.join(name));
            let metadata = path.as_ref().and_then(|path| fs::metadata(path).ok());
            if let Some((path, metadata)) = path.zip(metadata)
                && metadata.is_file()
            {
                found.push(Beside {
                    path,
                    id: FileId::of(&metadata),
                    bytes: metadata.len(),
                    written_us: written_us(&metadata),
                });
            }
        }
    }
    (found, false)
}

/// When a file was written last, microseconds since the Unix epoch.
pub(super) fn written_us(metadata: &Metadata) -> Option<i64> {
    micros(metadata.modified().ok()?)
}

fn micros(time: SystemTime) -> Option<i64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok()
}

/// The path without what says that it is compressed; `None` if nothing does.
pub(super) fn unpacked(path: &Path) -> Option<PathBuf> {
    is_archive(path).then(|| path.with_extension(""))
}

/// Whether rotation alone gives such a name to what was at `place`: `app.log` becomes `app.log.1`,
/// `app.log-20260101`, `app.log.old` or `app-20260101.log`. Not `app-errors.log`, which is another log,
/// nor `app-2.log`, which may be.
pub(super) fn is_rotation_of(place: &Path, path: &Path) -> bool {
    let parts = |path: &Path| {
        let of = |part: Option<&OsStr>| part.map(|part| part.as_encoded_bytes().to_vec());
        (of(path.file_name()), of(path.file_stem()))
    };
    let ((Some(whole), Some(stem)), (Some(name), _)) = (parts(place), parts(path)) else {
        return false;
    };
    if place.parent() != path.parent() {
        return false;
    }
    let added = name.strip_prefix(whole.as_slice());
    if added.is_some_and(|added| {
        added.split_first().is_some_and(|(separator, rest)| {
            b".-_".contains(separator) && (WORDS.contains(&rest) || is_stamp(rest))
        })
    }) {
        return true;
    }
    let end = &whole[stem.len()..];
    let inserted = name
        .strip_prefix(stem.as_slice())
        .and_then(|rest| rest.strip_suffix(end));
    inserted.is_some_and(|inserted| {
        let digits = inserted.iter().filter(|byte| byte.is_ascii_digit()).count();
        is_stamp(inserted) && digits >= TIME_DIGITS
    })
}

/// A counter or a time.
fn is_stamp(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_digit)
        && text
            .iter()
            .all(|byte| byte.is_ascii_digit() || b"-._:+TZ".contains(byte))
}

/// A name with its numbers made equal: counters whatever their length, times by theirs.
fn shape(name: &OsStr) -> Vec<u8> {
    let mut shape = Vec::new();
    let runs = name
        .as_encoded_bytes()
        .chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit());
    for run in runs {
        if run[0].is_ascii_digit() {
            let digits = if run.len() < TIME_DIGITS {
                1
            } else {
                run.len()
            };
            shape.resize(shape.len() + digits, b'0');
        } else {
            shape.extend_from_slice(run);
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rotation_are_told_from_other_logs() {
        let is = |place: &str, name: &str| {
            is_rotation_of(&Path::new("/l").join(place), &Path::new("/l").join(name))
        };
        for name in [
            "app.log.1",
            "app.log.0",
            "app.log-20260101",
            "app.log-2026-01-01T00:00:00Z",
            "app.log_2026.01.01",
            "app.log.old",
            "app-20260101.log",
            "app20260101_001.log",
            "app.2026-01-01.log",
        ] {
            assert!(is("app.log", name), "{name}");
        }
        for name in [
            "app.log",
            "app.log.",
            "app.log1x",
            "app-errors.log",
            "app-2.log",
            "app2.log",
            "app.log.conf",
            "app.log.1.gz",
            "application.log.1",
            "app.json.1",
        ] {
            assert!(!is("app.log", name), "{name}");
        }
        assert!(is("syslog", "syslog.1"));
        assert!(!is("syslog", "syslog-ng.1"));
        assert!(!is_rotation_of(
            Path::new("/l/a.log"),
            Path::new("/m/a.log.1")
        ));
    }

    #[test]
    fn a_series_has_names_that_differ_in_numbers() {
        let series = Series::of(Path::new("/l/worker-20260101.log")).unwrap();
        assert!(series.has(Path::new("/l/worker-20260102.log")));
        assert!(!series.has(Path::new("/l/worker-1.log")));
        assert!(!series.has(Path::new("/m/worker-20260102.log")));
        let counted = Series::of(Path::new("/l/app.log.9")).unwrap();
        assert!(counted.has(Path::new("/l/app.log.10")));
        assert!(!counted.has(Path::new("/l/app.log")));
    }
}
