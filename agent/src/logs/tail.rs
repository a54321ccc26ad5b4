//! One followed file: who it is, how far it was read, and the lines that came since.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// First bytes of a file that tell it from another with the same inode.
const HEAD_BYTES: u64 = 1_024;
/// Longest line that is matched whole, bytes.
pub(super) const MAX_LINE_BYTES: usize = 16 << 10;
/// In place of the content that a copy is of: it was handed over, and need not be known any more.
pub(super) const SETTLED: u64 = 0;
const CHUNK_BYTES: usize = 64 << 10;

/// A file's place in the file system, and when it was made where the file system tells: by that an
/// inode that was used again differs, even while the file is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
    /// Microseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born_us: Option<i64>,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok();
        let since = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            born_us: since.and_then(|since| i64::try_from(since.as_micros()).ok()),
        }
    }
}

/// A hash of a file's first bytes, up to 1 KiB, growing with the file until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    bytes: u64,
    hash: u64,
}

/// How far a file was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) path: PathBuf,
    /// Where a symbolic link at `path` led.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<PathBuf>,
    pub(super) id: FileId,
    pub(super) head: Head,
    /// Names the file's present content, so that a copy can be told from the content after it.
    pub(super) content: u64,
    /// Start of the first line that was not taken yet.
    pub(super) offset: u64,
    /// Bytes of an overlong line that were skipped so far; `None` outside of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) skipping: Option<u64>,
    /// Everything that was there was read, and nothing is expected any more: it may vanish.
    #[serde(default)]
    pub(super) done: bool,
    /// It is a copy of this content of another followed file; only read once that one is truncated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) copy_of: Option<u64>,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// An overlong line ended, so many bytes of which were not looked at.
    Skipped(u64),
}

/// A file that is open.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    position: Position,
    /// The position that a restart would begin with: everything before it has been handed over.
    committed: Position,
    /// The file was truncated since, so that `committed` speaks of content that is gone; a restart
    /// would find that out again, and report it again.
    stale: bool,
    /// Bytes from `position.offset` on that have no line end yet.
    partial: Vec<u8>,
    /// When it last grew.
    pub(super) grown_ms: i64,
    /// Since when it is no longer at a path that is followed.
    pub(super) retired_ms: Option<i64>,
}

impl Head {
    /// Of the first bytes of `file` as it is now.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Self::of_first(file, HEAD_BYTES)
    }

    /// Whether `file` begins with the bytes that this was made of. An empty head fits every file.
    pub(super) fn fits(&self, file: &File) -> bool {
        Self::of_first(file, self.bytes).is_ok_and(|head| head == *self)
    }

    /// Whether there is nothing to compare.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn of_first(file: &File, limit: u64) -> io::Result<Self> {
        let mut buffer = vec![0; limit as usize];
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        let digest = Sha256::digest(&buffer[..filled]);
        let mut hash = [0; 8];
        hash.copy_from_slice(&digest[..8]);
        Ok(Self {
            bytes: filled as u64,
            hash: u64::from_be_bytes(hash),
        })
    }
}

impl Tail {
    /// Follows `file` from a position, whose identity it must have.
    pub(super) fn at(file: File, position: Position, now_ms: i64) -> Self {
        Self {
            file,
            committed: position.clone(),
            stale: false,
            position,
            partial: Vec::new(),
            grown_ms: now_ms,
            retired_ms: None,
        }
    }

    /// Follows `file` from `offset`.
    pub(super) fn new(file: File, path: PathBuf, offset: u64, now_ms: i64) -> io::Result<Self> {
        let position = Position {
            target: path.canonicalize().ok().filter(|target| *target != path),
            path,
            id: FileId::of(&file.metadata()?),
            head: Head::of(&file)?,
            content: rand::random(),
            offset,
            skipping: None,
            done: false,
            copy_of: None,
        };
        Ok(Self::at(file, position, now_ms))
    }

    pub(super) fn id(&self) -> FileId {
        self.position.id
    }

    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    pub(super) fn committed(&self) -> &Position {
        &self.committed
    }

    /// Where the content that the file has now was committed up to.
    pub(super) fn committed_of_content(&self) -> Position {
        if self.stale {
            Position {
                offset: 0,
                skipping: None,
                ..self.position.clone()
            }
        } else {
            self.committed.clone()
        }
    }

    /// Everything that was read has been handed over.
    pub(super) fn commit(&mut self) {
        self.committed.clone_from(&self.position);
        self.stale = false;
    }

    /// A restart would begin with `committed`, which speaks of other content than the file has now.
    pub(super) fn keep_committed(&mut self, committed: Position) {
        self.committed = committed;
        self.stale = true;
    }

    /// A restart would begin where reading begins now.
    pub(super) fn begin_anew(&mut self) {
        if !self.stale {
            self.committed.clone_from(&self.position);
        }
    }

    /// A restart would begin with `committed`, a position in the same content.
    pub(super) fn resume_from(&mut self, committed: &Position) {
        self.committed = Position {
            path: self.position.path.clone(),
            id: self.position.id,
            done: false,
            copy_of: None,
            ..committed.clone()
        };
    }

    pub(super) fn set_path(&mut self, path: &Path) {
        path.clone_into(&mut self.position.path);
        path.clone_into(&mut self.committed.path);
    }

    /// Whether it is a copy of another followed file, and of which content.
    pub(super) fn set_copy(&mut self, copy_of: Option<u64>) {
        self.position.copy_of = copy_of;
        self.committed.copy_of = copy_of;
    }

    /// The file's first bytes as they are now, read already or not.
    pub(super) fn head_now(&self) -> io::Result<Head> {
        Head::of(&self.file)
    }

    /// Whether the content that was read is no longer what the file begins with: it was truncated,
    /// and perhaps written anew.
    pub(super) fn was_truncated(&self) -> io::Result<bool> {
        let size = self.file.metadata()?.len();
        let read_to = self.position.offset + self.partial.len() as u64;
        Ok(size < read_to || !self.position.head.fits(&self.file))
    }

    /// Starts again at the file's beginning. Gives what was left of an unfinished line.
    pub(super) fn restart(&mut self) -> io::Result<Vec<u8>> {
        self.position.offset = 0;
        self.position.skipping = None;
        self.position.content = rand::random();
        self.position.head = Head::of(&self.file)?;
        Ok(std::mem::take(&mut self.partial))
    }

    /// Reads up to `budget` bytes and gives what they bring to `found`, until that says stop.
    /// Returns how many bytes were read.
    pub(super) fn read(
        &mut self,
        budget: usize,
        found: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> io::Result<usize> {
        let mut total = 0;
        let mut chunk = Vec::new();
        while total < budget {
            chunk.resize(CHUNK_BYTES.min(budget - total), 0);
            let at = self.position.offset + self.partial.len() as u64;
            let n = self.file.read_at(&mut chunk, at)?;
            if n == 0 {
                break;
            }
            total += n;
            self.partial.extend_from_slice(&chunk[..n]);
            if !self.take_lines(found) {
                // What was read and not taken is read again.
                self.partial.clear();
                break;
            }
        }
        // Not if it was truncated and written anew just now: that must still be noticed.
        if total > 0 && self.position.head.bytes < HEAD_BYTES && self.position.head.fits(&self.file)
        {
            self.position.head = Head::of(&self.file)?;
            if !self.stale {
                self.committed.head = self.position.head;
            }
        }
        Ok(total)
    }

    /// Takes what is left as a line although it has no end: nothing more is expected.
    pub(super) fn finish(&mut self, found: &mut dyn FnMut(Found<'_>) -> bool) {
        let rest = std::mem::take(&mut self.partial);
        if let Some(skipped) = self.position.skipping.take() {
            found(Found::Skipped(skipped + rest.len() as u64));
        } else if !rest.is_empty() {
            found(Found::Line(&rest));
        }
        self.position.offset += rest.len() as u64;
        self.position.done = true;
    }

    fn take_lines(&mut self, found: &mut dyn FnMut(Found<'_>) -> bool) -> bool {
        let mut taken = 0;
        let mut go_on = true;
        while go_on {
            let rest = &self.partial[taken..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            match (end, self.position.skipping) {
                (Some(end), Some(skipped)) => {
                    self.position.skipping = None;
                    go_on = found(Found::Skipped(skipped + end as u64));
                    taken += end + 1;
                }
                (None, Some(skipped)) => {
                    self.position.skipping = Some(skipped + rest.len() as u64);
                    taken += rest.len();
                    break;
                }
                (Some(end), None) if end <= MAX_LINE_BYTES => {
                    let line = &rest[..end];
                    go_on = found(Found::Line(line.strip_suffix(b"\r").unwrap_or(line)));
                    taken += end + 1;
                }
                (_, None) if rest.len() > MAX_LINE_BYTES => {
                    go_on = found(Found::Line(&rest[..MAX_LINE_BYTES]));
                    self.position.skipping = Some(0);
                    taken += MAX_LINE_BYTES;
                }
                (_, None) => break,
            }
        }
        self.partial.drain(..taken);
        self.position.offset += taken as u64;
        go_on
    }
}
