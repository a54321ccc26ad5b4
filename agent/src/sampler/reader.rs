//! Reading `/proc` and `/sys`: small texts that the kernel makes at the moment of reading.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Room to begin with; most such files are smaller.
const ROOM_BYTES: usize = 8 << 10;
/// No such text is longer; what is beyond is not read.
const MAX_BYTES: usize = 4 << 20;

/// A file that is kept open and read again each cycle: opening one costs more than reading it.
#[derive(Debug)]
pub(super) struct VirtualFile(Option<File>);

impl VirtualFile {
    /// Opens `path`, relative to `root`. An absent file reads as nothing, for good.
    pub(super) fn open(root: &Path, path: &str) -> Self {
        Self(File::open(root.join(path)).ok())
    }

    /// Whether the machine has it.
    pub(super) const fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Its text now, in `buffer`, which serves all files in turn.
    pub(super) fn read<'b>(&self, buffer: &'b mut Vec<u8>) -> Option<&'b str> {
        let file = self.0.as_ref()?;
        let filled = fill(file, buffer)?;
        // All that is read in this way is ASCII but for names of devices, of which none is lost
        // when a machine has a strange one.
        match std::str::from_utf8(&buffer[..filled]) {
            Ok(text) => Some(text),
            Err(error) => std::str::from_utf8(&buffer[..error.valid_up_to()]).ok(),
        }
    }

    /// The open file.
    pub(super) const fn file(&self) -> Option<&File> {
        self.0.as_ref()
    }
}

fn fill(file: &File, buffer: &mut Vec<u8>) -> Option<usize> {
    if buffer.len() < ROOM_BYTES {
        buffer.resize(ROOM_BYTES, 0);
    }
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            if filled >= MAX_BYTES {
                return Some(filled);
            }
            buffer.resize(filled * 2, 0);
        }
        match file.read_at(&mut buffer[filled..], filled as u64).ok()? {
            0 => return Some(filled),
            n => filled += n,
        }
    }
}

/// The text of a file that is read rarely, without the white space around it; `None` where it
/// is absent, unreadable or no text.
pub(super) fn text(path: impl AsRef<Path>) -> Option<String> {
    let mut buffer = Vec::new();
    let file = File::open(path).ok()?;
    let filled = fill(&file, &mut buffer)?;
    buffer.truncate(filled);
    let text = String::from_utf8(buffer).ok()?;
    Some(text.trim().to_owned())
}

/// The number in a file that holds one.
pub(super) fn number(path: impl AsRef<Path>) -> Option<f64> {
    text(path)?.parse().ok()
}

/// The entries of a directory with their names, sorted; none if it can't be read.
pub(super) fn entries(path: impl AsRef<Path>) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    found.sort();
    found
}
