//! The form of the spool's files, without any opinion on what is kept.
//!
//! A segment `NNNNNNNN.seg` is a header (magic, nonce) and records: magic, payload length, ordinal,
//! first 8 bytes of a SHA-256 over length, ordinal and payload, then the payload, JSON. The ordinal
//! is the number of frames before the record, so a reader that has to skip damage knows how many
//! frames it skipped. Beside it `NNNNNNNN.ack` lists the ordinals of acknowledged frames; it is not
//! synced, as a frame that is sent twice does no harm. The nonce binds the two files together.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use watchkeep_shared::{BootId, InstanceId, wire::heartbeat::Frame};

use crate::{files, platform};

pub(super) const FILE_MAGIC: &[u8; 8] = b"WKSPOOL1";
const HEADER_BYTES: usize = 16;
const RECORD_MAGIC: &[u8; 4] = b"WKR1";
const RECORD_HEADER_BYTES: usize = 20;
const ACK_BYTES: usize = 8;
/// Larger records are damage; a frame at all limits of the protocol is smaller.
const MAX_PAYLOAD_BYTES: usize = 4 << 20;

/// The content of a record.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Record {
    /// Metric names that frames after it in the segment use.
    Schema {
        /// The names.
        names: Vec<String>,
    },
    /// A frame.
    Frame(Box<FrameRecord>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrameRecord {
    pub(super) boot: BootId,
    pub(super) instance: InstanceId,
    pub(super) frame: Frame,
    /// What is committed together with the frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<Note>,
    /// Segments up to this number are given up; their loss is an event of this frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drop_through: Option<u32>,
}

/// A text that is committed with a frame; of several the one with the highest number counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) number: u64,
    pub(super) text: String,
}

/// Where a record lies in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordSpan {
    pub(super) offset: u32,
    /// With its header.
    pub(super) bytes: u32,
    pub(super) ordinal: u32,
}

/// What a segment held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) nonce: [u8; 8],
    pub(super) records: Vec<(RecordSpan, Record)>,
    /// Ordinals of frames that were not acknowledged and can't be read.
    pub(super) damaged: Vec<u32>,
    pub(super) acked: HashSet<u32>,
    pub(super) bytes: u64,
}

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    file: File,
    path: PathBuf,
    pub(super) nonce: [u8; 8],
    bytes: u64,
    frames: u32,
}

pub(super) fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

pub(super) fn ack_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.ack"))
}

/// The segments in `dir`, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in dir.read_dir()? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".seg"))
            .and_then(|stem| stem.parse::<u32>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl SegmentWriter {
    /// Makes an empty segment. After an error nothing of it is left: a full disk is tried again
    /// and again, and must not fill with empty files.
    pub(super) fn create(dir: &Path, number: u32, nonce: [u8; 8]) -> io::Result<Self> {
        let path = segment_path(dir, number);
        let mut file = platform::private_file()
            .write(true)
            .create_new(true)
            .open(&path)?;
        let begun = file
            .write_all(FILE_MAGIC)
            .and_then(|()| file.write_all(&nonce))
            .and_then(|()| files::sync_parent(&path));
        if let Err(error) = begun {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self {
            file,
            path,
            nonce,
            bytes: HEADER_BYTES as u64,
            frames: 0,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends records with one write and waits until they are on disk. After an error the
    /// segment holds what it held before, as far as the disk allows, and must not be used further.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<Vec<RecordSpan>> {
        let mut buffer = Vec::new();
        let mut places = Vec::with_capacity(records.len());
        let mut frames = self.frames;
        for record in records {
            let place = encode(record, self.bytes as u32, frames, &mut buffer)?;
            frames += u32::from(matches!(record, Record::Frame(_)));
            places.push(place);
        }
        let written = platform::write_all_at(&self.file, &buffer, self.bytes)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            if let Err(error) = self.file.set_len(self.bytes) {
                tracing::debug!(path = %self.path.display(), %error, "a torn record stays");
            }
            return Err(error);
        }
        self.bytes += buffer.len() as u64;
        self.frames = frames;
        Ok(places)
    }
}

fn encode(
    record: &Record,
    base: u32,
    ordinal: u32,
    buffer: &mut Vec<u8>,
) -> io::Result<RecordSpan> {
    let start = buffer.len();
    seal(ordinal, &serde_json::to_vec(record)?, buffer);
    Ok(RecordSpan {
        offset: base + start as u32,
        bytes: (buffer.len() - start) as u32,
        ordinal,
    })
}

/// Appends a record's header and its payload.
pub(super) fn seal(ordinal: u32, payload: &[u8], buffer: &mut Vec<u8>) {
    let length = payload.len() as u32;
    buffer.extend_from_slice(RECORD_MAGIC);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&ordinal.to_le_bytes());
    buffer.extend_from_slice(&checksum(length, ordinal, payload));
    buffer.extend_from_slice(payload);
}

fn checksum(length: u32, ordinal: u32, payload: &[u8]) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(length.to_le_bytes());
    hash.update(ordinal.to_le_bytes());
    hash.update(payload);
    let digest = hash.finalize();
    let mut check = [0; 8];
    check.copy_from_slice(&digest[..8]);
    check
}

/// Reads the record at the start of `bytes`; `None` if it is not whole.
fn decode(bytes: &[u8]) -> Option<(Record, usize, u32)> {
    let header = bytes.get(..RECORD_HEADER_BYTES)?;
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&header[at..at + 4]);
        u32::from_le_bytes(word)
    };
    let (length, ordinal) = (word(4), word(8));
    if header[..4] != *RECORD_MAGIC || length as usize > MAX_PAYLOAD_BYTES {
        return None;
    }
    let end = RECORD_HEADER_BYTES + length as usize;
    let payload = bytes.get(RECORD_HEADER_BYTES..end)?;
    if checksum(length, ordinal, payload) != header[12..20] {
        return None;
    }
    Some((serde_json::from_slice(payload).ok()?, end, ordinal))
}

/// Reads a whole segment, past any damage.
pub(super) fn read(dir: &Path, number: u32) -> io::Result<Contents> {
    let bytes = std::fs::read(segment_path(dir, number))?;
    let mut contents = Contents {
        bytes: bytes.len() as u64,
        ..Contents::default()
    };
    let Some(header) = bytes.get(..HEADER_BYTES).filter(|h| h[..8] == *FILE_MAGIC) else {
        // A header that is cut short held nothing yet.
        contents
            .damaged
            .extend((bytes.len() > HEADER_BYTES).then_some(0));
        return Ok(contents);
    };
    contents.nonce.copy_from_slice(&header[8..]);
    contents.acked = read_acks(dir, number, contents.nonce);
    let mut at = HEADER_BYTES;
    let mut expected = 0;
    while at < bytes.len() {
        let found = decode(&bytes[at..]).filter(|(_, _, ordinal)| {
            // A copy of an earlier record, or a number for which there was no room: no damage makes
            // that, and it must neither come twice nor count what never was.
            (expected..=(at / RECORD_HEADER_BYTES) as u32).contains(ordinal)
        });
        let Some((record, length, ordinal)) = found else {
            let next = find_magic(&bytes, at + 1);
            if next.is_none() && !contents.acked.contains(&expected) {
                contents.damaged.push(expected);
            }
            at = next.unwrap_or(bytes.len());
            continue;
        };
        let skipped = (expected..ordinal).filter(|skipped| !contents.acked.contains(skipped));
        contents.damaged.extend(skipped);
        expected = ordinal + u32::from(matches!(record, Record::Frame(_)));
        let place = RecordSpan {
            offset: at as u32,
            bytes: length as u32,
            ordinal,
        };
        contents.records.push((place, record));
        at += length;
    }
    Ok(contents)
}

fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    bytes
        .get(from..)?
        .windows(RECORD_MAGIC.len())
        .position(|window| window == RECORD_MAGIC)
        .map(|at| from + at)
}

/// Reads one frame again.
pub(super) fn read_frame(file: &File, place: RecordSpan) -> io::Result<Frame> {
    let mut bytes = vec![0; place.bytes as usize];
    platform::read_exact_at(file, &mut bytes, u64::from(place.offset))?;
    match decode(&bytes) {
        Some((Record::Frame(record), _, _)) => Ok(record.frame),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the record is damaged",
        )),
    }
}

/// Notes that frames were acknowledged. Not synced.
pub(super) fn append_acks(
    dir: &Path,
    number: u32,
    nonce: [u8; 8],
    ordinals: &[u32],
) -> io::Result<()> {
    let path = ack_path(dir, number);
    let mut file = platform::private_file()
        .append(true)
        .create(true)
        .open(path)?;
    let mut buffer = Vec::with_capacity(8 + ordinals.len() * ACK_BYTES);
    if file.metadata()?.len() == 0 {
        buffer.extend_from_slice(&nonce);
    }
    for ordinal in ordinals {
        buffer.extend_from_slice(&ordinal.to_le_bytes());
        // So that zeroes after a power cut acknowledge nothing.
        buffer.extend_from_slice(&(!ordinal).to_le_bytes());
    }
    file.write_all(&buffer)
}

fn read_acks(dir: &Path, number: u32, nonce: [u8; 8]) -> HashSet<u32> {
    let bytes = std::fs::read(ack_path(dir, number)).unwrap_or_default();
    let Some(entries) = bytes.strip_prefix(&nonce) else {
        return HashSet::new();
    };
    entries
        .chunks_exact(ACK_BYTES)
        .filter_map(|entry| {
            let ordinal = u32::from_le_bytes(entry[..4].try_into().ok()?);
            let inverse = u32::from_le_bytes(entry[4..].try_into().ok()?);
            (inverse == !ordinal).then_some(ordinal)
        })
        .collect()
}
