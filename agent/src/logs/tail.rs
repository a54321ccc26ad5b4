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

use super::{
    encoding::{Encoding, mark_bytes},
    framing::{self, Found, Framing},
    replaced::KnownLines,
};
use crate::platform;

/// First bytes of a file that tell it from another with the same inode.
pub(super) const HEAD_BYTES: u64 = 1_024;
/// Contents of one file that came and went since something was handed over.
const MAX_SUPERSEDED: usize = 16;
/// How long a record waits for more lines before it is taken as complete.
const RECORD_QUIET_MS: i64 = 1_000;
/// How long the end of the last line is waited for before the line is matched without it.
const LAST_LINE_QUIET_MS: i64 = 10_000;
/// In place of the content that a copy is of: it was handed over, and need not be known any more.
pub(super) const SETTLED: u64 = 0;
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// So many pieces of zeros are looked through for what follows them.
const MAX_ZERO_CHUNKS: usize = 32;

/// A file's place in the file system, and when it was made where the file system reports it: by that an
/// inode that was used again differs, even while the file is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    dev: u64,
    ino: u64,
    /// Microseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born_us: Option<i64>,
}

impl FileId {
    /// Of the file that this was asked of.
    pub fn of(metadata: &Metadata) -> Self {
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
    pub(super) const fn born_us(self) -> Option<i64> {
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
    /// How much of that line was matched before its end came, bytes of text.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) early: usize,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What the file system says of a file: if it is the same, the file was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    bytes: u64,
    /// Microseconds since the Unix epoch.
    pub(super) written_us: Option<i64>,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            written_us: written_us(metadata),
        }
    }
}

/// When a file was written last, microseconds since the Unix epoch.
pub(super) fn written_us(metadata: &Metadata) -> Option<i64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok()
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
    encoding: Encoding,
    /// Text from `position.offset` on that is no whole line or record yet.
    partial: Vec<u8>,
    /// Lines that were read when they were in the file that this one replaced.
    known: Option<KnownLines>,
    /// There was more than could be read.
    unread: bool,
    /// What the file was when it was read to its end.
    pub(super) read_whole: Option<Stamp>,
    /// It was read to its end after it had left its path.
    pub(super) is_drained: bool,
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
        let mut first = piece(file, 0, limit)?;
        // Room that is reserved for what is written later; not a hole that the file begins with.
        let zeros = first.iter().rev().take_while(|byte| **byte == 0).count();
        if zeros < first.len() {
            first.truncate(first.len() - zeros);
        }
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
pub(super) fn piece(file: &File, at: u64, limit: u64) -> io::Result<Vec<u8>> {
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
        let head = piece(&file, 0, HEAD_BYTES).unwrap_or_default();
        Self {
            file,
            committed: position.clone(),
            superseded: Vec::new(),
            position,
            encoding: Encoding::of(&head),
            partial: Vec::new(),
            known: None,
            unread: false,
            read_whole: None,
            is_drained: false,
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
            early: 0,
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

    /// What the file is, if it still has so many bytes.
    pub(super) fn stamp_of_size(&self, bytes: u64) -> Option<Stamp> {
        let stamp = Stamp::of(&self.metadata().ok()?);
        (stamp.bytes == bytes).then_some(stamp)
    }

    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    pub(super) fn committed(&self) -> &Position {
        &self.committed
    }

    /// The file itself.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    pub(super) const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether no name leads to it any more: it was deleted, or another was put in its place.
    pub(super) fn is_unlinked(&self) -> bool {
        self.metadata()
            .is_ok_and(|metadata| platform::is_unlinked(&metadata))
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

    /// It goes on elsewhere.
    pub(super) fn begin_at(&mut self, position: Position) {
        self.committed.clone_from(&position);
        self.position = position;
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

    /// These lines were read before, in the file that this one replaced.
    pub(super) fn skip_known(&mut self, known: KnownLines) {
        self.known = Some(known);
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
        Ok(size < self.read_to() || !self.position.head.fits(&self.file))
    }

    /// Whether it only grew; not if it had nothing before, as much may have come and gone since.
    pub(super) fn is_as_expected(&self) -> bool {
        let is_empty = || self.metadata().is_ok_and(|metadata| metadata.len() == 0);
        !self.was_truncated().unwrap_or(false) && (!self.position.head.is_empty() || is_empty())
    }

    /// Starts again at the file's beginning. Gives what was left of an unfinished line to `found`.
    pub(super) fn restart(&mut self, found: &mut dyn FnMut(Found<'_>) -> bool) -> io::Result<()> {
        let rest = std::mem::take(&mut self.partial);
        let early = std::mem::take(&mut self.position.early);
        if let Some(skipped) = self.position.skipping.take() {
            found(Found::Skipped(skipped));
        } else if !rest.is_empty() {
            found(text_of(framing::without_end(&rest), early));
        }
        self.position.offset = 0;
        self.position.content = rand::random();
        self.position.head = Head::of(&self.file)?;
        self.encoding = Encoding::of(&piece(&self.file, 0, HEAD_BYTES)?);
        self.known = None;
        self.committed.clone_from(&self.position);
        Ok(())
    }

    /// Whether lines wait for the rest of their record.
    pub(super) fn record_waits(&self) -> bool {
        self.partial.contains(&b'\n')
    }

    /// Whether it must be read although nothing was written: something waits for the time to pass, or
    /// there was more than could be read.
    pub(super) fn must_be_read(&self) -> bool {
        self.unread || self.position.early < self.partial.len()
    }

    /// There may be more, which could not be read.
    pub(super) const fn set_unread(&mut self) {
        self.unread = true;
    }

    /// Whether there is more than could be read.
    pub(super) const fn is_unread(&self) -> bool {
        self.unread
    }

    /// Where the next byte to be read is.
    fn read_to(&self) -> u64 {
        self.position.offset + self.encoding.raw_bytes(&self.partial)
    }

    /// Reads up to `budget` bytes and gives what they bring to `found`, until that says stop.
    /// `start`: what the first line of a record looks like. `buffer` serves all files in turn. Returns
    /// how many bytes were read.
    pub(super) fn read(
        &mut self,
        (budget, now_ms): (usize, i64),
        start: Option<&Regex>,
        buffer: &mut Vec<u8>,
        found: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> io::Result<usize> {
        let mut total = 0;
        let mut framing = Framing {
            start,
            flush: false,
        };
        self.unread = true;
        buffer.resize(CHUNK_BYTES, 0);
        while total < budget {
            let room = CHUNK_BYTES.min(budget - total);
            let at = self.read_to();
            let n = platform::read_at(&self.file, &mut buffer[..room], at)?;
            let taken_in = n > 0 && self.take_in(&buffer[..n], at)?;
            if !taken_in {
                // At the end, or before something that is not written yet.
                self.unread = n == room;
                break;
            }
            total += n;
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
        } else if !self.unread && now_ms - self.grown_ms >= LAST_LINE_QUIET_MS {
            self.match_early(found);
        }
        if !self.unread {
            self.is_drained = self.retired_ms.is_some();
            if total > 0 || self.read_whole.is_none() {
                self.read_whole = self.metadata().ok().as_ref().map(Stamp::of);
            }
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

    /// Takes what was read at `at` into `partial`; holes and what comes before the first letter of a
    /// line are passed over. Returns whether anything was taken.
    fn take_in(&mut self, chunk: &[u8], at: u64) -> io::Result<bool> {
        let before = (self.position.offset, self.partial.len());
        let is_at_start = self.partial.is_empty();
        let is_zero = chunk.iter().all(|byte| *byte == 0);
        if is_zero && is_at_start {
            return self.pass_over(chunk.len() as u64, at);
        }
        if is_zero && platform::next_data(&self.file, at)?.is_none() {
            return Ok(false);
        }
        let mut chunk = chunk;
        if at == 0 {
            self.encoding = Encoding::of(chunk);
            let mark = mark_bytes(chunk);
            self.position.offset += mark as u64;
            chunk = &chunk[mark..];
        } else if self.position.head.bytes < HEAD_BYTES {
            // Known better the more there is.
            self.encoding = Encoding::of(&piece(&self.file, 0, HEAD_BYTES)?);
        }
        self.encoding.decode(chunk, &mut self.partial);
        if !is_zero {
            // Read again with what follows: it may not be written yet.
            let zeros = self.partial.iter().rev().take_while(|byte| **byte == 0);
            self.partial.truncate(self.partial.len() - zeros.count());
        }
        if is_at_start && self.position.skipping.is_none() {
            let zeros = zeros_before(&self.partial);
            self.position.offset += self.encoding.raw_bytes(&self.partial[..zeros]);
            self.partial.drain(..zeros);
        }
        Ok((self.position.offset, self.partial.len()) != before)
    }

    /// Passes over zeros, of which so many were read at `at`, and over the hole that they may be in: a
    /// writer that goes on where it was in a truncated file leaves one. Zeros at the end of a file are
    /// left: it may be written from there on.
    fn pass_over(&mut self, zeros: u64, at: u64) -> io::Result<bool> {
        let mut to = at + zeros;
        // Zeros that are no hole are looked through so far.
        for _ in 0..MAX_ZERO_CHUNKS {
            let Some(next) = platform::next_data(&self.file, to)? else {
                return Ok(false);
            };
            to = next.max(to);
            let chunk = piece(&self.file, to, CHUNK_BYTES as u64)?;
            if chunk.is_empty() {
                return Ok(false);
            }
            if chunk.iter().any(|byte| *byte != 0) {
                break;
            }
            to += chunk.len() as u64;
        }
        if let Some(skipped) = &mut self.position.skipping {
            *skipped += to - at;
        }
        self.position.offset = to;
        Ok(true)
    }

    /// Gives the last line, which has no end yet and may get none.
    fn match_early(&mut self, found: &mut dyn FnMut(Found<'_>) -> bool) {
        let early = self.position.early;
        if early < self.partial.len() && !self.record_waits() {
            found(text_of(framing::without_end(&self.partial), early));
            self.position.early = self.partial.len();
        }
    }

    /// Takes what is left as a line although it has no end: nothing more is expected.
    pub(super) fn finish(&mut self, found: &mut dyn FnMut(Found<'_>) -> bool) {
        let rest = std::mem::take(&mut self.partial);
        let early = std::mem::take(&mut self.position.early);
        let bytes = self.encoding.raw_bytes(&rest);
        if let Some(skipped) = self.position.skipping.take() {
            found(Found::Skipped(skipped + bytes));
        } else if early < rest.len() {
            found(text_of(framing::without_end(&rest), early));
        }
        self.position.offset += bytes;
        self.position.done = true;
    }

    /// Nothing more is expected of it, and nothing is left.
    pub(super) fn set_done(&mut self) {
        self.partial.clear();
        self.position.done = true;
    }

    fn take_found(
        &mut self,
        framing: Framing<'_>,
        found: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> bool {
        let early = &mut self.position.early;
        let known = &mut self.known;
        let mut deliver = |piece: Found<'_>| {
            let text = match piece {
                Found::Text(text) => &text[zeros_before(text)..],
                other => return found(other),
            };
            let seen = std::mem::take(early);
            if known.as_mut().is_some_and(|known| known.take(text)) {
                return true;
            }
            found(text_of(text, seen))
        };
        let skipping = &mut self.position.skipping;
        let (taken, go_on) = framing::take(&self.partial, skipping, framing, &mut deliver);
        self.position.offset += self.encoding.raw_bytes(&self.partial[..taken]);
        self.partial.drain(..taken);
        let offset = self.position.offset;
        self.known.take_if(|known| known.is_passed(offset));
        go_on
    }
}

/// A line, of which so many bytes were given before.
const fn text_of(text: &[u8], seen: usize) -> Found<'_> {
    if seen == 0 {
        Found::Text(text)
    } else {
        Found::Longer { text, seen }
    }
}

fn zeros_before(text: &[u8]) -> usize {
    text.iter().take_while(|byte| **byte == 0).count()
}
