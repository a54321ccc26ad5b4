//! One followed file: who it is, how far it was read, and the lines that came since.

use std::{
    fs::{File, Metadata},
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::framing::{self, Found, Framing};
use crate::platform;

/// First bytes of a file that tell it from another with the same inode.
const HEAD_BYTES: u64 = 1_024;
/// Contents of one file that came and went since something was handed over.
const MAX_SUPERSEDED: usize = 16;
/// How long a record waits for more lines before it is taken as complete.
const RECORD_QUIET_MS: i64 = 1_000;
/// In place of the content that a copy is of: it was handed over, and need not be known any more.
pub(super) const SETTLED: u64 = 0;
const CHUNK_BYTES: usize = 64 << 10;

/// A file's place in the file system, and when it was made where the file system reports it: by that an
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
        let (dev, ino) = platform::file_numbers(metadata);
        Self {
            dev,
            ino,
            born_us: since.and_then(|since| i64::try_from(since.as_micros()).ok()),
        }
    }

    /// When it was made, microseconds since the Unix epoch; `None`: the file system does not tell.
    pub(super) fn born_us(self) -> Option<i64> {
        self.born_us
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
    /// Names the file's present content, so that a copy can be distinguished from the content after it.
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

/// A file that is open.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    position: Position,
    /// The position that a restart would begin with: everything before it has been handed over.
    committed: Position,
    /// Where contents that the file had before were committed up to, until what became of them has
    /// been handed over: a restart would have to find it out again.
    superseded: Vec<Position>,
    /// Bytes from `position.offset` on that are no whole line or record yet.
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
        let first = piece(file, 0, limit)?;
        let digest = Sha256::digest(&first);
        let mut hash = [0; 8];
        hash.copy_from_slice(&digest[..8]);
        Ok(Self {
            bytes: first.len() as u64,
            hash: u64::from_be_bytes(hash),
        })
    }
}

/// Up to `limit` bytes at a place.
fn piece(file: &File, at: u64, limit: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; limit as usize];
    let mut filled = 0;
    while filled < buffer.len() {
        match platform::read_at(file, &mut buffer[filled..], at + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

impl Tail {
    /// Follows `file` from a position, whose identity it must have.
    pub(super) fn at(file: File, position: Position, now_ms: i64) -> Self {
        Self {
            file,
            committed: position.clone(),
            superseded: Vec::new(),
            position,
            partial: Vec::new(),
            grown_ms: now_ms,
            retired_ms: None,
        }
    }

    /// Follows `file` from `offset`.
    pub(super) fn new(file: File, path: PathBuf, offset: u64, now_ms: i64) -> io::Result<Self> {
        let position = Position {
            target: platform::real_path(&path)
                .ok()
                .filter(|target| *target != path),
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

    /// Of the file as it is now, wherever that is.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    pub(super) fn committed(&self) -> &Position {
        &self.committed
    }

    /// Everything that a restart must know.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Position> {
        std::iter::once(&self.committed).chain(&self.superseded)
    }

    /// Everything that was read has been handed over.
    pub(super) fn commit(&mut self) {
        self.committed.clone_from(&self.position);
        self.superseded.clear();
    }

    /// What became of this content, which the file had before, is not handed over yet.
    pub(super) fn supersede(&mut self, committed: Position) {
        if self.superseded.len() < MAX_SUPERSEDED {
            self.superseded.push(committed);
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

    /// Whether `other`, of so many bytes, is a copy of what this file has or of its beginning, by its
    /// first and last bytes.
    pub(super) fn is_copied_by(&self, other: &File, bytes: u64) -> bool {
        let is_long_enough = self.file.metadata().is_ok_and(|own| own.len() >= bytes);
        let limit = bytes.min(HEAD_BYTES);
        let has_same = |at| {
            let own = piece(&self.file, at, limit);
            let others = piece(other, at, limit);
            own.ok().zip(others.ok()).is_some_and(|(a, b)| a == b)
        };
        bytes > 0 && is_long_enough && has_same(0) && has_same(bytes - limit)
    }

    /// Whether the content that was read is no longer what the file begins with: it was truncated,
    /// and perhaps written again.
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
        self.committed.clone_from(&self.position);
        Ok(std::mem::take(&mut self.partial))
    }

    /// Whether lines wait for the rest of their record.
    pub(super) fn record_waits(&self) -> bool {
        self.partial.contains(&b'\n')
    }

    /// Reads up to `budget` bytes and gives what they bring to `found`, until that says stop.
    /// `start`: what the first line of a record looks like. Returns how many bytes were read.
    pub(super) fn read(
        &mut self,
        budget: usize,
        start: Option<&Regex>,
        now_ms: i64,
        found: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> io::Result<usize> {
        let mut total = 0;
        let mut chunk = Vec::new();
        let mut framing = Framing {
            start,
            flush: false,
        };
        while total < budget {
            chunk.resize(CHUNK_BYTES.min(budget - total), 0);
            let at = self.position.offset + self.partial.len() as u64;
            let n = platform::read_at(&self.file, &mut chunk, at)?;
            if n == 0 {
                break;
            }
            total += n;
            self.partial.extend_from_slice(&chunk[..n]);
            if !self.take_found(framing, found) {
                // What was read and not taken is read again.
                self.partial.clear();
                break;
            }
        }
        if total > 0 {
            self.grown_ms = now_ms;
        } else if self.record_waits() && now_ms - self.grown_ms >= RECORD_QUIET_MS {
            framing.flush = true;
            self.take_found(framing, found);
        }
        // Not if it was truncated and written again just now: that must still be noticed.
        if total > 0 && self.position.head.bytes < HEAD_BYTES && self.position.head.fits(&self.file)
        {
            self.position.head = Head::of(&self.file)?;
            // More than was handed over a copy from before may not have.
            if self.committed.head.is_empty() {
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
            found(Found::Text(framing::without_end(&rest)));
        }
        self.position.offset += rest.len() as u64;
        self.position.done = true;
    }

    fn take_found(
        &mut self,
        framing: Framing<'_>,
        found: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> bool {
        let skipping = &mut self.position.skipping;
        let (taken, go_on) = framing::take(&self.partial, skipping, framing, found);
        self.partial.drain(..taken);
        self.position.offset += taken as u64;
        go_on
    }
}
