//! The history codec: how the metric values of heartbeats are kept. A heartbeat's values are stored
//! as one small row ([`mod@row`]); the rows of a host-hour are later sealed into one compressed
//! chunk ([`encode`]). Charts read one metric of many chunks ([`read`]) and thin it out
//! ([`fn@downsample`]).
//!
//! Values are whole hundredths, the resolution that agents send: exact below 10^13, for whole
//! numbers up to 360 * 10^12 (bytes: 360 TB), above that as near as an `f64` is. In a row a schema's id
//! refers to the names; a chunk holds the names itself, so it can be read for as long as it is kept.
//! Decoding is bounded and refuses what it cannot read ([`ChunkError`]); it never panics on foreign
//! bytes. What exceeds the limits of a chunk is thinned out before it is encoded ([`bound()`]).

mod bound;
mod chunk;
mod downsample;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod row;
mod varint;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use watchkeep_shared::{UnixMillis, ids::SchemaId};

pub use self::{
    bound::{Dropped, MAX_SEALED_CELLS, bound},
    chunk::{ChunkError, decode, encode, read, unnamed},
    downsample::{Bucket, Downsampler, Range, downsample},
};

/// Most rows in one chunk: an hour and a half at the shortest interval.
pub const MAX_ROWS_PER_CHUNK: usize = 27_000;
/// Most values, present or missing, in one chunk.
pub const MAX_CELLS_PER_CHUNK: usize = 32 * 1024 * 1024;
/// Most distinct metric names in one chunk.
pub const MAX_NAMES_PER_CHUNK: usize = 4_096;
/// Largest chunk after decompression, bytes.
pub const MAX_DECODED_CHUNK_BYTES: usize = 256 * 1024 * 1024;

/// The names of a schema, in the order of its values.
pub type Names = Arc<[Arc<str>]>;

/// A value in whole hundredths; `None` if it is missing.
pub type Hundredths = Option<i64>;

/// Largest magnitude that is kept, hundredths; larger values are cut to it.
pub const MAX_HUNDREDTHS: i64 = 1 << 60;

/// The nearest hundredth; `None` for what is missing or no finite number.
pub fn to_hundredths(value: Option<f64>) -> Hundredths {
    value
        .filter(|value| value.is_finite())
        .map(|value| ((value * 100.0).round() as i64).clamp(-MAX_HUNDREDTHS, MAX_HUNDREDTHS))
}

/// The value of so many hundredths.
pub fn from_hundredths(value: Hundredths) -> Option<f64> {
    value.map(|value| value as f64 / 100.0)
}

/// The values of one heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When they were taken.
    pub at: UnixMillis,
    /// Which names they belong to.
    pub schema: SchemaId,
    /// The values, in the order of the names.
    pub values: Vec<Hundredths>,
}

/// The rows of one host-hour (or any other stretch), each time once, by columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkData {
    segments: Vec<Segment>,
    /// The names of its schemas; those of a chunk of an older version are not in it.
    names: BTreeMap<SchemaId, Names>,
}

/// The rows of one schema, in time order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    schema: SchemaId,
    times: Vec<UnixMillis>,
    columns: Vec<Vec<Hundredths>>,
}

impl Segment {
    /// Which names the columns belong to.
    pub const fn schema(&self) -> SchemaId {
        self.schema
    }

    /// The times of the rows, ascending.
    pub fn times(&self) -> &[UnixMillis] {
        &self.times
    }

    /// The columns, in the order of the schema's names; each as long as [`Self::times`].
    pub fn columns(&self) -> &[Vec<Hundredths>] {
        &self.columns
    }
}

impl ChunkData {
    /// Takes in rows in any order. Of rows of one time the first is kept.
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Self {
        let mut rows: Vec<Row> = rows.into_iter().collect();
        rows.sort_by_key(|row| row.at);
        rows.dedup_by_key(|row| row.at);
        let mut segments: Vec<Segment> = Vec::new();
        let mut places: HashMap<(SchemaId, usize), usize> = HashMap::new();
        for row in rows {
            let width = row.values.len();
            let place = *places.entry((row.schema, width)).or_insert_with(|| {
                segments.push(Segment {
                    schema: row.schema,
                    times: Vec::new(),
                    columns: vec![Vec::new(); width],
                });
                segments.len() - 1
            });
            segments[place].push(&row);
        }
        Self {
            segments,
            names: BTreeMap::new(),
        }
    }

    /// Adds the names of its schemas, where they are known.
    pub fn add_names(&mut self, known: &dyn Fn(SchemaId) -> Option<Names>) {
        for segment in &self.segments {
            if !self.names.contains_key(&segment.schema)
                && let Some(names) = known(segment.schema)
            {
                self.names.insert(segment.schema, names);
            }
        }
    }

    /// The names of a schema, if the chunk has them.
    pub fn names(&self, schema: SchemaId) -> Option<&Names> {
        self.names.get(&schema)
    }

    /// The schemas whose names it lacks.
    pub fn unnamed(&self) -> impl Iterator<Item = SchemaId> {
        let schemas = self.segments.iter().map(Segment::schema);
        schemas.filter(|schema| !self.names.contains_key(schema))
    }

    /// The segments, by the time of their first row.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Every row, by time.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::with_capacity(self.len());
        for segment in &self.segments {
            for (i, at) in segment.times.iter().enumerate() {
                rows.push(Row {
                    at: *at,
                    schema: segment.schema,
                    values: segment.columns.iter().map(|column| column[i]).collect(),
                });
            }
        }
        rows.sort_by_key(|row| row.at);
        rows
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| segment.times.len())
            .sum()
    }

    /// Whether there is no row.
    pub const fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

impl Segment {
    fn push(&mut self, row: &Row) {
        self.times.push(row.at);
        for (column, value) in self.columns.iter_mut().zip(&row.values) {
            column.push(*value);
        }
    }
}

/// The rows of both; of rows of one time, `a`'s.
pub fn merge(a: &ChunkData, b: &ChunkData) -> ChunkData {
    // The sort is stable, so that of equal times `a`'s comes first and is kept.
    let mut merged = ChunkData::from_rows(a.rows().into_iter().chain(b.rows()));
    let named = |schema| a.names(schema).or_else(|| b.names(schema)).cloned();
    merged.add_names(&named);
    merged
}

/// One value of one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When it was taken.
    pub at: UnixMillis,
    /// The value, in the metric's unit.
    pub value: f64,
}

#[cfg(test)]
mod tests;
