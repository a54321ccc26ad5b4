//! What must hold for any files in the spool's directory: the body of the fuzz target `spool`
//! (`tests/fuzz/`), which the tests run too.

use std::{fs, path::Path};

use uuid::Uuid;
use watchkeep_shared::{
    BootId, InstanceId, metric,
    wire::heartbeat::{Clocks, Event, Frame},
};

use super::{
    CHECKPOINT, FrameId, Keep, Run, Spool, Spooled,
    segment::{self, FrameRecord, Note, Record},
};
use crate::config::SpoolLimits;

const LIMITS: SpoolLimits = SpoolLimits {
    max_bytes: 1 << 20,
    max_age_hours: 168,
    memory_frames: 100,
};
/// Separates the parts of an input; no byte of UTF-8.
const SEPARATOR: u8 = 0xfe;
/// Most parts that are looked at.
const MAX_PARTS: usize = 64;
const NONCE: [u8; 8] = *b"fuzzfuzz";
const NOW: Clocks = Clocks {
    wall_ms: 1_800_000_000_000,
    mono_ms: 50_000,
    boot_ms: 50_000,
};

/// A directory of the spool as an input describes it.
struct Files<'a> {
    dir: &'a Path,
    number: u32,
    segment: Vec<u8>,
    acks: Vec<u8>,
    frames: u32,
    /// Records with a right checksum.
    records: usize,
}

/// However the files came to be as they are: the spool opens, gives each record at most once, gives
/// the same when it is opened again, and once all is acknowledged and the losses are reported, nothing
/// comes back. `dir` is empty and is left as it may be.
///
/// The input is a list of parts. The first byte of each says what it is: `r` a record's content, which
/// gets the right checksum and the next number; `o` the same with the number that its next byte
/// says; `b` bytes of a segment; `x` a place and a value by which a byte of the segment is changed;
/// `a` frames that were acknowledged; `A` bytes of their list; `c` the checkpoint; `s` a new segment.
pub fn recovery(dir: &Path, data: &[u8]) {
    let records = lay_out(dir, data);
    let mut spool = Spool::open(dir, LIMITS, run(2));
    let losses_before = spool.losses;
    let (_, first) = deliver(&mut spool, records);
    drop(spool);

    let mut spool = Spool::open(dir, LIMITS, run(3));
    assert_eq!(
        spool.losses, losses_before,
        "opened again it counts other losses"
    );
    let (ids, again) = deliver(&mut spool, records);
    assert_eq!(again, first, "opened again it gives something else");
    spool.acknowledge(&ids);
    let events = spool.make_room(NOW);
    let names = names();
    let id = spool.push(frame(1, events), &names, Keep::Disk { note: None });
    assert_eq!(spool.write_error(), None);
    assert_eq!(spool.losses.take(), [], "a loss is reported with its frame");
    spool.acknowledge(&[id]);
    drop(spool);

    let mut spool = Spool::open(dir, LIMITS, run(4));
    assert_eq!(spool.make_room(NOW), [], "a loss is reported once");
    let (_, left) = deliver(&mut spool, records + 1);
    assert_eq!(left, [], "what was acknowledged is gone");
}

/// Everything in the spool, which must be in order and no more than `records`.
fn deliver(spool: &mut Spool, records: usize) -> (Vec<FrameId>, Vec<(Run, Frame)>) {
    let all = spool.oldest(usize::MAX, usize::MAX);
    assert!(all.len() <= records, "{} of {records} records", all.len());
    assert!(all.is_sorted_by(|a, b| a.id < b.id), "the order");
    let one = |spooled: Spooled| (spooled.id, (spooled.run, spooled.frame));
    all.into_iter().map(one).unzip()
}

/// Writes what the input describes; gives how many records are in it.
fn lay_out(dir: &Path, data: &[u8]) -> usize {
    let mut files = Files {
        dir,
        number: 1,
        segment: header(),
        acks: NONCE.to_vec(),
        frames: 0,
        records: 0,
    };
    for part in data.split(|byte| *byte == SEPARATOR).take(MAX_PARTS) {
        if let Some((kind, content)) = part.split_first() {
            files.part(*kind, content);
        }
    }
    files.write();
    files.records
}

fn header() -> Vec<u8> {
    [segment::FILE_MAGIC.as_slice(), &NONCE].concat()
}

impl Files<'_> {
    fn part(&mut self, kind: u8, content: &[u8]) {
        match (kind, content) {
            (b'r', _) => self.record(self.frames, content),
            (b'o', [ordinal, content @ ..]) => self.record(u32::from(*ordinal), content),
            (b'O', [a, b, c, d, content @ ..]) => {
                self.record(u32::from_le_bytes([*a, *b, *c, *d]), content);
            }
            (b'b', _) => self.segment.extend_from_slice(content),
            (b'x', [high, low, by]) => {
                let at = usize::from(*high) << 8 | usize::from(*low);
                if let Some(byte) = self.segment.get_mut(at) {
                    *byte ^= by;
                }
            }
            (b'a', _) => {
                for ordinal in content {
                    let ordinal = u32::from(*ordinal);
                    self.acks.extend_from_slice(&ordinal.to_le_bytes());
                    self.acks.extend_from_slice(&(!ordinal).to_le_bytes());
                }
            }
            (b'A', _) => self.acks.extend_from_slice(content),
            (b'c', _) => fs::write(self.dir.join(CHECKPOINT), content).expect("a checkpoint"),
            (b's', _) => {
                self.write();
                self.number += 1;
                self.segment = header();
                self.acks = NONCE.to_vec();
                self.frames = 0;
            }
            _ => {}
        }
    }

    fn record(&mut self, ordinal: u32, content: &[u8]) {
        segment::seal(ordinal, content, &mut self.segment);
        self.records += 1;
        let is_frame = matches!(
            serde_json::from_slice::<Record>(content),
            Ok(Record::Frame(_))
        );
        self.frames = ordinal.saturating_add(u32::from(is_frame));
    }

    fn write(&self) {
        let path = segment::segment_path(self.dir, self.number);
        fs::write(path, &self.segment).expect("a segment");
        if self.acks.len() > NONCE.len() {
            let path = segment::ack_path(self.dir, self.number);
            fs::write(path, &self.acks).expect("a list of acknowledged frames");
        }
    }
}

fn run(n: u128) -> Run {
    Run {
        boot: BootId(Uuid::from_u128(1)),
        instance: InstanceId(Uuid::from_u128(n)),
    }
}

fn names() -> Vec<String> {
    vec!["a".to_owned(), "b".to_owned()]
}

fn frame(seq: u64, events: Vec<Event>) -> Frame {
    Frame {
        boot: None,
        instance: None,
        seq,
        clocks: Clocks {
            boot_ms: seq as i64 * 1_000,
            ..NOW
        },
        interval_ms: 1_000,
        schema: metric::schema_id(&names()),
        values: vec![Some(1.5), None],
        services: None,
        events,
    }
}

/// Inputs to begin with: segments as the agent writes them.
pub fn seeds() -> Vec<Vec<u8>> {
    let record = |kind: &[u8], record: &Record| {
        let content = serde_json::to_vec(record).expect("a record has string keys only");
        [kind, &content].concat()
    };
    let schema = record(b"r", &Record::Schema { names: names() });
    let frame = |seq: u64, note: Option<u64>, drop_through| {
        let text = "{\"checks\":[]}".to_owned();
        let record_of = FrameRecord {
            boot: run(1).boot,
            instance: run(1).instance,
            frame: frame(seq, Vec::new()),
            note: note.map(|number| Note { number, text }),
            drop_through,
        };
        record(b"r", &Record::Frame(Box::new(record_of)))
    };
    let lists: [Vec<Vec<u8>>; 6] = [
        vec![
            schema.clone(),
            frame(1, None, None),
            frame(2, Some(1), None),
        ],
        vec![schema.clone(), frame(1, None, None), b"a\0".to_vec()],
        vec![
            schema.clone(),
            frame(1, None, None),
            frame(2, None, None),
            b"x\x01\x80\x01".to_vec(),
            b"s".to_vec(),
            schema.clone(),
            frame(3, Some(7), Some(1)),
        ],
        vec![
            b"c{\"note\":{\"number\":3,\"text\":\"x\"}}".to_vec(),
            schema.clone(),
            frame(1, Some(2), None),
            b"bWKR1\0\0".to_vec(),
            frame(2, None, None),
        ],
        vec![frame(1, None, None), schema.clone(), frame(2, None, None)],
        vec![
            schema,
            frame(1, None, None),
            [b"o\0", &frame(1, None, None)[1..]].concat(),
            [b"O\xff\xff\xff\xff", &frame(2, None, None)[1..]].concat(),
        ],
    ];
    lists.iter().map(|parts| parts.join(&SEPARATOR)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_check::check;

    #[test]
    fn recovery_holds() {
        check("spool", &seeds(), |data| {
            let dir = tempfile::tempdir().unwrap();
            recovery(dir.path(), data);
        });
    }
}
