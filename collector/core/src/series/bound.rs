//! Keeping a host-hour within the limits of a chunk: an agent that sends more than it should loses
//! resolution of its own history, and nothing else is affected.

use std::collections::HashSet;

use super::{ChunkData, MAX_NAMES_PER_CHUNK, MAX_ROWS_PER_CHUNK};

/// Most values of a chunk that is written: 64 MiB while it is decoded. The shortest interval with 233
/// metrics stays within it.
pub const MAX_SEALED_CELLS: usize = 4 * 1024 * 1024;

/// Most schemas of a chunk that is written.
const MAX_SCHEMAS: usize = 512;

/// What was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Rows left out evenly over time, because there were too many rows or values.
    pub thinned: usize,
    /// Rows of schemas that would have exceeded the number of schemas or names.
    pub unnamed: usize,
}

/// Leaves out rows until the chunk is within all limits: first those of the rarest schemas, if there
/// are too many of them or of names, then evenly over time.
pub fn bound(chunk: &mut ChunkData) -> Dropped {
    let all = chunk.len();
    bound_schemas(chunk);
    let before = chunk.len();
    let mut stride = 1;
    // A segment keeps its first row, so a stride that fits the total may not fit the segments.
    while rows_at(chunk, stride) > MAX_ROWS_PER_CHUNK || cells_at(chunk, stride) > MAX_SEALED_CELLS
    {
        stride += stride.div_ceil(16);
    }
    if stride > 1 {
        for segment in &mut chunk.segments {
            keep_each(&mut segment.times, stride);
            for column in &mut segment.columns {
                keep_each(column, stride);
            }
        }
    }
    Dropped {
        thinned: before - chunk.len(),
        unnamed: all - before,
    }
}

fn bound_schemas(chunk: &mut ChunkData) {
    let mut by_rows: Vec<_> = chunk
        .segments
        .iter()
        .map(|segment| (segment.times.len(), segment.schema))
        .collect();
    by_rows.sort_by_key(|(rows, _)| std::cmp::Reverse(*rows));
    let mut known: HashSet<&str> = HashSet::new();
    let mut kept = HashSet::new();
    for (_, schema) in by_rows {
        let names = chunk.names.get(&schema).map_or(&[][..], |names| names);
        let new: HashSet<&str> = names
            .iter()
            .map(|name| &**name)
            .filter(|name| !known.contains(name))
            .collect();
        if kept.len() < MAX_SCHEMAS && known.len() + new.len() <= MAX_NAMES_PER_CHUNK {
            known.extend(new);
            kept.insert(schema);
        }
    }
    chunk
        .segments
        .retain(|segment| kept.contains(&segment.schema));
    chunk.names.retain(|schema, _| kept.contains(schema));
}

fn rows_at(chunk: &ChunkData, stride: usize) -> usize {
    let segments = chunk.segments.iter();
    segments
        .map(|segment| segment.times.len().div_ceil(stride))
        .sum()
}

fn cells_at(chunk: &ChunkData, stride: usize) -> usize {
    let segments = chunk.segments.iter();
    segments
        .map(|segment| segment.times.len().div_ceil(stride) * segment.columns.len())
        .sum()
}

/// Keeps the first of each `stride`.
fn keep_each<T>(all: &mut Vec<T>, stride: usize) {
    let mut at = 0;
    all.retain(|_| {
        let is_kept = at % stride == 0;
        at += 1;
        is_kept
    });
}
