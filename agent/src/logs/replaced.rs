//! A file that was put in the place of a followed one, with the same content or parts of it: by rsync,
//! `sed -i`, an editor, or a script that keeps the last lines. Only lines that were not read before are
//! new. It differs from a log that simply begins anew by what it has in common with the one before.

use std::{
    collections::HashMap,
    fs::File,
    hash::{BuildHasher as _, RandomState},
    io,
};

use super::{
    encoding::{Encoding, mark_bytes},
    tail::{CHUNK_BYTES, HEAD_BYTES, Position, Tail, piece},
};
use crate::platform;

/// Most bytes of either file that are compared line by line.
const MAX_COMPARED_BYTES: u64 = 16 << 20;
/// Of longer files, so much of the end is searched for what was read last.
const MAX_SEARCHED_BYTES: u64 = 4 << 20;
/// So much in common is no chance.
const ENOUGH_BYTES: u64 = 1_024;

/// What a file is to the one that was at its path before.
#[derive(Debug)]
pub(super) enum Replacement {
    /// All that was read is before this offset; what is behind it is new.
    Continued(u64),
    /// It has lines that were read, and others.
    Rewritten(KnownLines),
    /// It has lines that were read, and is too long to find all.
    TooLong,
    /// It has little in common with it.
    Another,
}

/// Lines that were read before, and how often.
#[derive(Debug)]
pub(super) struct KnownLines {
    hasher: RandomState,
    counts: HashMap<u64, u32>,
    /// What is behind was written since.
    until: u64,
}

impl KnownLines {
    /// Whether all lines of `text` were read before; then they are, each, once less so.
    pub(super) fn take(&mut self, text: &[u8]) -> bool {
        let mut taken = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            let hash = self.hash(line);
            let Some(count) = self.counts.get_mut(&hash).filter(|count| **count > 0) else {
                for hash in taken {
                    *self.counts.entry(hash).or_default() += 1;
                }
                return false;
            };
            *count -= 1;
            taken.push(hash);
        }
        true
    }

    /// Whether what was there is behind.
    pub(super) const fn is_passed(&self, offset: u64) -> bool {
        offset >= self.until
    }

    fn hash(&self, line: &[u8]) -> u64 {
        self.hasher
            .hash_one(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// Compares `new`, of so many bytes, with what was read of `old`.
pub(super) fn compare(old: &Tail, new: &File, bytes: u64) -> io::Result<Replacement> {
    let read = old.position().offset;
    if read == 0 {
        return Ok(Replacement::Another);
    }
    let is_long = read.max(bytes) > MAX_COMPARED_BYTES;
    let same = if is_long { has_same_ends } else { begins_alike };
    if bytes >= read && same(old.file(), new, read)? {
        return Ok(Replacement::Continued(read));
    }
    if is_long {
        return compare_long(old, new, read, bytes);
    }
    let mut known = KnownLines {
        hasher: RandomState::new(),
        counts: HashMap::new(),
        until: bytes,
    };
    each_line((old.file(), read), old.encoding(), &mut |line| {
        let hash = known.hash(line);
        *known.counts.entry(hash).or_default() += 1;
    })?;
    let (mut common, mut left) = (0, known.counts.clone());
    let encoding = Encoding::of(&piece(new, 0, HEAD_BYTES)?);
    each_line((new, bytes), encoding, &mut |line| {
        let hash = known.hash(line);
        if let Some(count) = left.get_mut(&hash).filter(|count| **count > 0) {
            *count -= 1;
            common += line.len() as u64 + 1;
        }
    })?;
    let is_rewritten = common * 2 >= bytes && common >= ENOUGH_BYTES.min(read / 2);
    Ok(if is_rewritten && bytes > 0 {
        Replacement::Rewritten(known)
    } else {
        Replacement::Another
    })
}

/// Files that are too long to compare line by line: by what was read last.
fn compare_long(old: &Tail, new: &File, read: u64, bytes: u64) -> io::Result<Replacement> {
    let limit = read.min(HEAD_BYTES);
    let last = piece(old.file(), read - limit, limit)?;
    let searched = bytes.min(MAX_SEARCHED_BYTES);
    let end = piece(new, bytes - searched, searched)?;
    if let Some(at) = memchr::memmem::rfind(&end, &last) {
        let behind = bytes - searched + (at + last.len()) as u64;
        return Ok(Replacement::Continued(behind));
    }
    let is_edited = begins_alike(old.file(), new, HEAD_BYTES)?;
    Ok(if is_edited && bytes > ENOUGH_BYTES {
        Replacement::TooLong
    } else {
        Replacement::Another
    })
}

/// The position in a file that continues `before` at `offset`.
pub(super) fn continued(before: &Position, offset: u64, new: Position) -> Position {
    Position {
        offset,
        early: before.early,
        skipping: before.skipping,
        content: before.content,
        ..new
    }
}

/// Whether the first `bytes` bytes are the same in both.
fn begins_alike(one: &File, other: &File, bytes: u64) -> io::Result<bool> {
    let mut at = 0;
    while at < bytes {
        let limit = (bytes - at).min(CHUNK_BYTES as u64);
        if piece(one, at, limit)? != piece(other, at, limit)? {
            return Ok(false);
        }
        at += limit;
    }
    Ok(true)
}

/// Whether the first and the last of `bytes` bytes are the same in both.
fn has_same_ends(one: &File, other: &File, bytes: u64) -> io::Result<bool> {
    let limit = bytes.min(HEAD_BYTES);
    let last = bytes - limit;
    Ok(piece(one, 0, limit)? == piece(other, 0, limit)?
        && piece(one, last, limit)? == piece(other, last, limit)?)
}

/// Gives each whole line in the first `bytes` bytes of `file`.
fn each_line(
    (file, bytes): (&File, u64),
    encoding: Encoding,
    with: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    let mut raw = vec![0; CHUNK_BYTES];
    let (mut text, mut at) = (Vec::new(), 0);
    while at < bytes {
        let room = CHUNK_BYTES.min(usize::try_from(bytes - at).unwrap_or(CHUNK_BYTES));
        let n = platform::read_at(file, &mut raw[..room], at)?;
        let mark = if at == 0 { mark_bytes(&raw[..n]) } else { 0 };
        let used = encoding.decode(&raw[mark..n], &mut text) + mark;
        if used == 0 {
            break;
        }
        at += used as u64;
        let whole = memchr::memrchr(b'\n', &text).map_or(0, |end| end + 1);
        for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
            with(&line[..line.len() - 1]);
        }
        text.drain(..whole);
    }
    Ok(())
}
