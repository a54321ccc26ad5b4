//! Frames from memory to disk: all that wait, with one write, so that they are there together.

use std::io;

use super::{
    Segment, Spool, StoredFrame,
    segment::{FrameRecord, Note, Record, RecordSpan, SegmentWriter},
};
use crate::files;

impl Spool {
    pub(super) fn write_memory_frames(&mut self, note: Option<String>) {
        if !self.recovered
            && let Err(error) = self.recover()
        {
            self.refused(&error);
            return;
        }
        let note = note.map(|text| self.next_note(text));
        // Files that are given up anyway must not keep the disk full.
        let written = self.try_write(note.clone()).or_else(|error| {
            self.writer = None;
            if self.pending_delete.is_empty() {
                return Err(error);
            }
            self.delete_doomed();
            self.try_write(note.clone())
        });
        match written {
            Ok(()) => {
                self.delete_doomed();
                for (segment, ordinal) in std::mem::take(&mut self.damaged) {
                    self.acknowledge_on_disk(segment, &[ordinal]);
                }
                if note.is_some() {
                    self.note = note;
                }
                if self.write_error.take().is_some() {
                    tracing::info!("the spool's disk takes writes again");
                }
            }
            Err(error) => {
                self.writer = None;
                self.refused(&error);
            }
        }
    }

    fn try_write(&mut self, note: Option<Note>) -> io::Result<()> {
        self.ensure_writer()?;
        let waiting: Vec<usize> = (0..self.index.len())
            .filter(|at| matches!(self.index[*at].stored, StoredFrame::Memory(_)))
            .collect();
        let mut records = Vec::with_capacity(waiting.len() + 1);
        let mut schemas = self.writer_schemas.clone();
        for (n, at) in waiting.iter().enumerate() {
            let entry = &self.index[*at];
            let StoredFrame::Memory(frame) = &entry.stored else {
                continue;
            };
            if !schemas.contains(&frame.schema) {
                let names = self.schemas.get(&frame.schema);
                records.push(Record::Schema {
                    names: names.map(|names| names.to_vec()).unwrap_or_default(),
                });
                schemas.push(frame.schema);
            }
            let last = n + 1 == waiting.len();
            let run = self.runs[entry.run as usize];
            records.push(Record::Frame(Box::new(FrameRecord {
                boot: run.boot,
                instance: run.instance,
                frame: (**frame).clone(),
                note: note.clone().filter(|_| last),
                drop_through: self.pending_delete.iter().max().copied().filter(|_| last),
            })));
        }
        let writer = self.writer.as_mut().expect("it was just made");
        let places = writer.append(&records)?;
        let bytes = writer.bytes();
        let frame_places: Vec<RecordSpan> = places
            .into_iter()
            .zip(&records)
            .filter(|(_, record)| matches!(record, Record::Frame(_)))
            .map(|(place, _)| place)
            .collect();
        self.writer_schemas = schemas;
        self.written(&waiting, frame_places, bytes, note);
        Ok(())
    }

    /// Books frames that reached the disk.
    fn written(&mut self, at: &[usize], places: Vec<RecordSpan>, bytes: u64, note: Option<Note>) {
        let segment = self.segments.back_mut().expect("the writer's segment");
        segment.bytes = bytes;
        segment.note = note.map_or(segment.note, |note| note.number);
        segment.live += at.len();
        for (at, place) in at.iter().zip(places) {
            let entry = &mut self.index[*at];
            if let StoredFrame::Memory(frame) = &entry.stored {
                segment.newest = Some((entry.run, frame.clocks));
            }
            entry.stored = StoredFrame::Disk {
                segment: segment.number,
                place,
            };
        }
        self.memory_frames = 0;
    }

    fn ensure_writer(&mut self) -> io::Result<()> {
        if self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.bytes() < self.segment_bytes)
        {
            return Ok(());
        }
        self.writer = None;
        self.drop_finished_segments();
        files::make_private_dir(&self.dir)?;
        let nonce = rand::random::<[u8; 8]>();
        let number = self.next_segment;
        self.next_segment += 1;
        let writer = SegmentWriter::create(&self.dir, number, nonce)?;
        self.segments.push_back(Segment {
            number,
            nonce: writer.nonce,
            bytes: writer.bytes(),
            live: 0,
            newest: None,
            note: 0,
        });
        self.writer = Some(writer);
        self.writer_schemas.clear();
        Ok(())
    }
}
