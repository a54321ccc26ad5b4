//! Finding what the process before left on disk.

use std::{collections::HashSet, io, sync::Arc};

use watchkeep_shared::metric;

use super::{
    CHECKPOINT, Checkpoint, Entry, FrameId, Run, Segment, Spool, StoredFrame,
    losses::carried,
    segment::{self, Record},
};
use crate::files;

impl Spool {
    /// Reads what is there, before the frames of this process. If the disk refused at the start it
    /// is called again before the first write that might succeed.
    pub(super) fn recover(&mut self) -> io::Result<()> {
        files::make_private_dir(&self.dir)?;
        let numbers = segment::list(&self.dir)?;
        self.recovered = true;
        // What was noted since the start is newer than anything on disk, whatever its number.
        let own_note = self.note.take();
        self.recover_checkpoint();
        self.recover_segments(numbers);
        if let Some(own) = own_note {
            self.note = Some(self.next_note(own.text));
        }
        self.drop_finished_segments();
        Ok(())
    }

    fn recover_checkpoint(&mut self) {
        match files::read_json::<Checkpoint>(&self.dir.join(CHECKPOINT)) {
            Ok(Some(checkpoint)) => {
                self.checkpoint = checkpoint.note.number;
                self.note = Some(checkpoint.note);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the spool's checkpoint can't be read"),
        }
    }

    fn recover_segments(&mut self, numbers: Vec<u32>) {
        let mut drop_through = 0;
        let mut found = Vec::new();
        for number in numbers {
            self.next_segment = number.saturating_add(1);
            match segment::read(&self.dir, number) {
                Ok(contents) => {
                    for (_, record) in &contents.records {
                        if let Record::Frame(record) = record {
                            drop_through = drop_through.max(record.drop_through.unwrap_or(0));
                        }
                    }
                    found.push(self.recover_segment(number, contents));
                }
                Err(error) => {
                    tracing::warn!(number, %error, "a spool segment can't be read");
                    self.unreadable += 1;
                }
            }
        }
        let mut older = Vec::new();
        for (segment, entries, damaged) in found {
            if segment.number <= drop_through {
                // Counted already by the frame that gave them up.
                self.delete_files(segment.number);
                continue;
            }
            self.losses.damaged += damaged.len() as u64;
            self.damaged
                .extend(damaged.into_iter().map(|ordinal| (segment.number, ordinal)));
            self.segments.push_back(segment);
            older.extend(entries);
        }
        for entry in older.into_iter().rev() {
            self.index.push_front(entry);
        }
    }

    fn recover_segment(
        &mut self,
        number: u32,
        contents: segment::Contents,
    ) -> (Segment, Vec<Entry>, Vec<u32>) {
        let mut damaged = contents.damaged;
        let mut segment = Segment {
            number,
            nonce: contents.nonce,
            bytes: contents.bytes,
            live: damaged.len(),
            newest: None,
            note: 0,
        };
        let mut entries = Vec::new();
        // Each segment brings the schemas of its frames: one of another segment may be deleted first.
        let mut own_schemas = HashSet::new();
        for (place, record) in contents.records {
            let record = match record {
                Record::Schema { names } => {
                    let id = metric::schema_id(&names);
                    own_schemas.insert(id);
                    self.schemas.entry(id).or_insert_with(|| Arc::new(names));
                    continue;
                }
                Record::Frame(record) => record,
            };
            if let Some(note) = record.note {
                segment.note = segment.note.max(note.number);
                if self.note.as_ref().is_none_or(|n| n.number < note.number) {
                    self.note = Some(note);
                }
            }
            if contents.acked.contains(&place.ordinal) {
                continue;
            }
            if !own_schemas.contains(&record.frame.schema) {
                damaged.push(place.ordinal);
                segment.live += 1;
                continue;
            }
            let run = self.run_index(Run {
                boot: record.boot,
                instance: record.instance,
            });
            segment.live += 1;
            segment.newest = Some((run, record.frame.clocks));
            let id = FrameId(self.next_found_id);
            self.next_found_id += 1;
            entries.push(Entry {
                id,
                run,
                carried: carried(&record.frame),
                stored: StoredFrame::Disk {
                    segment: number,
                    place,
                },
            });
        }
        (segment, entries, damaged)
    }

    fn run_index(&mut self, run: Run) -> u32 {
        let at = self.runs.iter().position(|known| *known == run);
        at.unwrap_or_else(|| {
            self.runs.push(run);
            self.runs.len() - 1
        }) as u32
    }
}
