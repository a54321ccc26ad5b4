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
pub(super) struct VirtualFile {
    path: PathBuf,
    file: Option<File>,
}

impl VirtualFile {
    /// Opens `path`, relative to `root`. An absent file reads as nothing until
    /// [`VirtualFile::open_if_absent`] finds it.
    pub(super) fn open(root: &Path, path: &str) -> Self {
        let path = root.join(path);
        Self {
            file: File::open(&path).ok(),
            path,
        }
    }

    /// Looks again for a file that comes with a kernel module.
    pub(super) fn open_if_absent(&mut self) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
    }

    /// Whether the machine has it.
    pub(super) const fn is_there(&self) -> bool {
        self.file.is_some()
    }

    /// Its text now, in `buffer`, which serves all files in turn.
    pub(super) fn read<'b>(&self, buffer: &'b mut Vec<u8>) -> Option<&'b str> {
        let file = self.file.as_ref()?;
        let filled = fill(file, buffer)?;
        let bytes = &mut buffer[..filled];
        make_text(bytes);
        std::str::from_utf8(bytes).ok()
    }
}

/// Puts `?` in place of bytes that are no UTF-8. All that is read here is ASCII but for names of devices,
/// which may have any bytes.
fn make_text(bytes: &mut [u8]) {
    let mut from = 0;
    while let Err(error) = std::str::from_utf8(&bytes[from..]) {
        let at = from + error.valid_up_to();
        let end = error.error_len().map_or(bytes.len(), |length| at + length);
        bytes[at..end].fill(b'?');
        from = end;
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

/// The text of an open file, from its start. Names in it may hold any bytes.
pub(super) fn text_of(file: &File) -> Option<String> {
    let mut buffer = Vec::new();
    let filled = fill(file, &mut buffer)?;
    Some(String::from_utf8_lossy(&buffer[..filled]).into_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_hide_nothing_behind_them() {
        let mut bytes = b"eth0: 1\nv\xff\xfelan\xc3: 2\n\xe2\x82\xac: 3\n\xe2\x82".to_vec();
        make_text(&mut bytes);
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(text, "eth0: 1\nv??lan?: 2\n\u{20ac}: 3\n??");
    }

    #[test]
    fn a_file_that_comes_later_is_found() {
        let root = tempfile::tempdir().unwrap();
        let mut file = VirtualFile::open(root.path(), "later");
        let mut buffer = Vec::new();
        assert_eq!(file.read(&mut buffer), None);
        std::fs::write(root.path().join("later"), "7\n").unwrap();
        file.open_if_absent();
        assert_eq!(file.read(&mut buffer), Some("7\n"));
    }
}
