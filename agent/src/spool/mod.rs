//! Every frame lies here from its making until the collector has acknowledged it.
//!
//! A frame starts in memory. It goes to disk when it carries events, when it could not be sent, or
//! when the next one is made before its acknowledgement; so a healthy agent writes nothing. On disk
//! there is a bounded number of segment files (see [`segment`]); when the bound is reached, or the
//! age limit, the oldest segment goes, and the loss is an event of the frame whose write commits it.
//! A disk that refuses leaves the frames in memory, up to a bound; each write tries it again, what
//! it held from the process before included. A `kill -9` loses only frames
//! that were never written, and what is found on disk at the next start is sent with its original
//! boot, instance and sequence number, so the collector takes it once.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod losses;
mod recover;
mod segment;
mod upkeep;
mod write;

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use watchkeep_shared::{
    BootId, InstanceId,
    ids::SchemaId,
    wire::heartbeat::{Clocks, Event, Frame},
};

use self::{
    losses::{Losses, carried, estimated_bytes},
    segment::{Note, RecordSpan, SegmentWriter},
};
use crate::{config::SpoolLimits, files::Durability};

const CHECKPOINT: &str = "checkpoint.json";
/// Room that one more frame may need, bytes.
const RESERVE_BYTES: u64 = 64 << 10;
/// Frames of this process are numbered from here; those found on disk, whenever that can be read,
/// are older and stay below.
const FIRST_OWN_ID: u64 = 1 << 40;

/// Identifies a frame in the spool of this process; later frames have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(u64);

/// One run of an agent: which boot, which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The boot.
    pub boot: BootId,
    /// The process.
    pub instance: InstanceId,
}

/// A frame taken out for sending.
#[derive(Clone, Debug)]
pub struct Spooled {
    /// To acknowledge it.
    pub id: FrameId,
    /// Who made it.
    pub run: Run,
    /// It.
    pub frame: Frame,
}

/// How a frame is kept at first.
#[derive(Clone, Debug)]
pub enum Keep {
    /// In memory.
    Memory,
    /// On disk before the call returns, together with a text that is to be found at the next start.
    Disk {
        /// The text; `None` leaves the one before in place.
        note: Option<String>,
    },
}

/// The unacknowledged frames.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    limits: SpoolLimits,
    segment_bytes: u64,
    index: VecDeque<Entry>,
    next_id: u64,
    next_found_id: u64,
    runs: Vec<Run>,
    schemas: HashMap<SchemaId, Arc<Vec<String>>>,
    segments: VecDeque<Segment>,
    writer: Option<SegmentWriter>,
    writer_schemas: Vec<SchemaId>,
    next_segment: u32,
    reader: Option<(u32, File)>,
    note: Option<Note>,
    checkpoint: u64,
    losses: Losses,
    pending_delete: Vec<u32>,
    /// Damaged records whose loss is not on disk yet: segment and ordinal.
    damaged: Vec<(u32, u32)>,
    memory_frames: usize,
    /// What the process before left has been read.
    recovered: bool,
    /// Segments of it that exist and can't be read.
    unreadable: usize,
    write_error: Option<String>,
}

#[derive(Debug)]
struct Entry {
    id: FrameId,
    /// Index into `runs`.
    run: u32,
    /// Lost frames that the frame's own events report, which count again if it is lost too.
    carried: u32,
    stored: StoredFrame,
}

#[derive(Debug)]
enum StoredFrame {
    Memory(Box<Frame>),
    Disk { segment: u32, place: RecordSpan },
}

#[derive(Debug)]
struct Segment {
    number: u32,
    nonce: [u8; 8],
    bytes: u64,
    /// Frames in it that are not acknowledged, and damaged ones whose loss is not on disk yet.
    live: usize,
    newest: Option<(u32, Clocks)>,
    /// Highest note in it.
    note: u64,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    note: Note,
}

impl Spool {
    /// Opens the spool in `dir` (made if absent). Never fails: what can't be read is a loss, and
    /// what can't be written stays in memory.
    pub fn open(dir: &Path, limits: SpoolLimits, run: Run) -> Self {
        let mut spool = Self {
            dir: dir.to_owned(),
            limits,
            segment_bytes: segment_bytes(limits),
            index: VecDeque::new(),
            next_id: FIRST_OWN_ID,
            next_found_id: 1,
            runs: vec![run],
            schemas: HashMap::new(),
            segments: VecDeque::new(),
            writer: None,
            writer_schemas: Vec::new(),
            next_segment: 1,
            reader: None,
            note: None,
            checkpoint: 0,
            losses: Losses::default(),
            pending_delete: Vec::new(),
            damaged: Vec::new(),
            memory_frames: 0,
            recovered: false,
            unreadable: 0,
            write_error: None,
        };
        if let Err(error) = spool.recover() {
            spool.refused(&error);
        }
        spool
    }

    /// The newest text that was committed with a frame or by [`Spool::save_note`].
    pub fn note(&self) -> Option<&str> {
        self.note.as_ref().map(|note| note.text.as_str())
    }

    /// How many frames are not acknowledged.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether all frames are acknowledged.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Why the disk refused the last write; `None` while all is well.
    pub fn write_error(&self) -> Option<&str> {
        self.write_error.as_deref()
    }

    /// What is wrong with the spool, for people; `None` while all is well.
    pub fn trouble(&self) -> Option<String> {
        let unreadable = (self.unreadable > 0).then(|| {
            format!(
                "{} of its files can't be read, so heartbeats in them wait",
                self.unreadable
            )
        });
        let refused = self.write_error.as_ref().map(|error| {
            format!(
                "the disk refuses writes ({error}): heartbeats are kept in memory, at most {}, and a restart loses them",
                self.limits.memory_frames
            )
        });
        let both: Vec<String> = refused.into_iter().chain(unreadable).collect();
        (!both.is_empty()).then(|| both.join("; "))
    }

    /// Applies other limits from the next frame on.
    pub fn set_limits(&mut self, limits: SpoolLimits) {
        self.limits = limits;
        self.segment_bytes = segment_bytes(limits);
    }

    /// The names of a schema that a frame in the spool uses.
    pub fn schema(&self, id: SchemaId) -> Option<&Arc<Vec<String>>> {
        self.schemas.get(&id)
    }

    /// Applies the limits and gives the events that the next frame must carry, which must be
    /// pushed with [`Keep::Disk`] if there are any.
    pub fn make_room(&mut self, now: Clocks) -> Vec<Event> {
        while self.must_evict(now) {
            self.evict_oldest_segment();
        }
        self.losses.take()
    }

    /// Adds a frame of this process.
    pub fn push(&mut self, frame: Frame, names: &[String], keep: Keep) -> FrameId {
        self.schemas
            .entry(frame.schema)
            .or_insert_with(|| Arc::new(names.to_vec()));
        let id = FrameId(self.next_id);
        self.next_id += 1;
        self.index.push_back(Entry {
            id,
            run: 0,
            carried: carried(&frame),
            stored: StoredFrame::Memory(Box::new(frame)),
        });
        self.memory_frames += 1;
        if let Keep::Disk { note } = keep {
            self.write_memory_frames(note);
        }
        self.bound_memory();
        id
    }

    /// Writes the frames that are only in memory.
    pub fn persist(&mut self) {
        if self.memory_frames > 0 {
            self.write_memory_frames(None);
        }
    }

    /// Keeps a text for the next start without a frame. Not synced to disk.
    pub fn save_note(&mut self, text: String) {
        let note = self.next_note(text);
        match self.write_checkpoint(&note, Durability::Cached) {
            Ok(()) => self.note = Some(note),
            Err(error) => self.refused(&error),
        }
    }

    /// The newest frame's identifier.
    pub fn newest_id(&self) -> Option<FrameId> {
        self.index.back().map(|entry| entry.id)
    }

    /// The newest frame.
    pub fn newest(&mut self) -> Option<Spooled> {
        let at = self.index.len().checked_sub(1)?;
        self.take_out(at)
    }

    /// The oldest frames, at most `max_frames` and about `max_bytes` of JSON.
    pub fn oldest(&mut self, max_frames: usize, max_bytes: usize) -> Vec<Spooled> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut at = 0;
        while at < self.index.len() && batch.len() < max_frames && bytes < max_bytes {
            bytes += match &self.index[at].stored {
                StoredFrame::Disk { place, .. } => place.bytes as usize,
                StoredFrame::Memory(frame) => estimated_bytes(frame),
            };
            // A damaged frame leaves the index, and the next one moves to its place.
            if let Some(spooled) = self.take_out(at) {
                batch.push(spooled);
                at += 1;
            }
        }
        batch
    }

    /// Forgets frames that the collector has taken care of. Frames that are gone already are
    /// passed over.
    pub fn acknowledge(&mut self, ids: &[FrameId]) {
        let mut acked: Vec<(u32, u32)> = Vec::new();
        for id in ids {
            let Ok(at) = self.index.binary_search_by_key(id, |entry| entry.id) else {
                continue;
            };
            let entry = self.index.remove(at).expect("it was just found");
            match entry.stored {
                StoredFrame::Memory(_) => self.memory_frames -= 1,
                StoredFrame::Disk { segment, place } => acked.push((segment, place.ordinal)),
            }
        }
        acked.sort_unstable();
        for group in acked.chunk_by(|a, b| a.0 == b.0) {
            let ordinals: Vec<u32> = group.iter().map(|(_, ordinal)| *ordinal).collect();
            self.acknowledge_on_disk(group[0].0, &ordinals);
        }
        self.forget_unused_schemas();
    }

    fn bound_memory(&mut self) {
        while self.memory_frames > self.limits.memory_frames {
            let oldest = (0..self.index.len())
                .find(|at| matches!(self.index[*at].stored, StoredFrame::Memory(_)));
            let Some(entry) = oldest.and_then(|at| self.index.remove(at)) else {
                return;
            };
            self.memory_frames -= 1;
            self.losses.write_failed += 1 + u64::from(entry.carried);
        }
    }

    /// A copy of the frame at `at`, read from disk if need be; one that can't be read is given up.
    fn take_out(&mut self, at: usize) -> Option<Spooled> {
        let entry = &self.index[at];
        let (id, run) = (entry.id, self.runs[entry.run as usize]);
        let (number, place) = match &entry.stored {
            StoredFrame::Memory(frame) => {
                return Some(Spooled {
                    id,
                    run,
                    frame: (**frame).clone(),
                });
            }
            StoredFrame::Disk { segment, place } => (*segment, *place),
        };
        match self.read_frame(number, place) {
            Ok(frame) => Some(Spooled { id, run, frame }),
            Err(error) => {
                tracing::warn!(number, %error, "a spooled frame can't be read");
                self.losses.damaged += 1 + u64::from(self.index[at].carried);
                self.index.remove(at);
                self.damaged.push((number, place.ordinal));
                None
            }
        }
    }

    fn read_frame(&mut self, number: u32, place: RecordSpan) -> io::Result<Frame> {
        if self.reader.as_ref().is_none_or(|(n, _)| *n != number) {
            let file = File::open(segment::segment_path(&self.dir, number))?;
            self.reader = Some((number, file));
        }
        let (_, file) = self.reader.as_ref().expect("it was just opened");
        segment::read_frame(file, place)
    }

    fn forget_unused_schemas(&mut self) {
        // Schemas change rarely; a few stale ones cost little.
        if self.index.is_empty() && self.schemas.len() > 8 {
            self.schemas.clear();
        }
    }

    fn refused(&mut self, error: &io::Error) {
        if self.write_error.is_none() {
            tracing::warn!(dir = %self.dir.display(), %error, "the spool's disk refuses; frames stay in memory");
        }
        self.write_error = Some(error.to_string());
    }
}

/// A segment is given up as a whole, so it is a small part of the whole.
fn segment_bytes(limits: SpoolLimits) -> u64 {
    (limits.max_bytes / 16).clamp(64 << 10, 1 << 20)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod torture;
