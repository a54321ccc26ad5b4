//! Making chunks of rows. Pure; what is wrong with one chunk's rows is in its own output.

use std::collections::HashMap;

use watchkeep_core::series::{self as codec, ChunkData, MAX_SEALED_CELLS, Names, Row, row};
use watchkeep_shared::{UnixMillis, ids::SchemaId};

use super::pass::HostHour;
use crate::{
    history::LostRows,
    store::{
        history::ChunkKey,
        set_aside::{Aside, Part},
    },
};

/// Unreadable rows of one host and hour that are kept; more are only counted.
const MAX_ASIDES: usize = 16;

/// The rows of one chunk.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) key: ChunkKey,
    pub(super) rows: HostHour,
    /// The chunk that there is already.
    pub(super) earlier: Option<Vec<u8>>,
}

/// What becomes of them.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) key: ChunkKey,
    /// The chunk to write, if there is one.
    pub(super) body: Option<Vec<u8>>,
    pub(super) asides: Vec<Aside>,
    pub(super) lost: LostRows,
}

/// Makes chunks. `names` holds the lists of names that are known.
pub(super) fn seal_all(inputs: Vec<Input>, names: &HashMap<SchemaId, Names>) -> Vec<Output> {
    inputs
        .into_iter()
        .map(|input| seal_one(input, names))
        .collect()
}

fn seal_one(input: Input, names: &HashMap<SchemaId, Names>) -> Output {
    let mut output = Output {
        key: input.key,
        body: None,
        asides: Vec::new(),
        lost: LostRows {
            thinned: input.rows.thinned,
            ..LostRows::default()
        },
    };
    let rows = decode_rows(input.rows, names, &mut output);
    let known = |schema| names.get(&schema).cloned();
    let mut chunk = ChunkData::from_rows(rows);
    chunk.add_names(&known);
    if let Some(body) = input.earlier {
        match codec::decode(&body) {
            Ok(mut earlier) => {
                earlier.add_names(&known);
                chunk = codec::merge(&earlier, &chunk);
            }
            Err(error) => {
                output.lost.unreadable += 1;
                let aside = aside(input.key, Part::Chunk, &error.to_string(), body);
                output.asides.push(aside);
            }
        }
    }
    if chunk.is_empty() {
        return output;
    }
    let dropped = codec::bound(&mut chunk);
    output.lost.thinned += dropped.thinned;
    output.lost.unnamed += dropped.unnamed;
    match codec::encode(&chunk) {
        Ok(body) => output.body = Some(body),
        Err(error) => {
            tracing::error!(host.id = %input.key.host, "failed to encode a chunk: {error}");
            output.lost.unreadable += chunk.len();
        }
    }
    output
}

fn decode_rows(hour: HostHour, names: &HashMap<SchemaId, Names>, output: &mut Output) -> Vec<Row> {
    // What is decoded must fit into memory, whatever the rows say of themselves.
    let cells: usize = hour
        .rows
        .iter()
        .filter_map(|raw| row::count(&raw.values))
        .sum();
    let stride = cells.div_ceil(MAX_SEALED_CELLS).max(1);
    let mut raws = hour.rows;
    raws.sort_by_key(|raw| raw.at);
    let mut rows = Vec::with_capacity(raws.len() / stride + 1);
    for (at, raw) in raws.into_iter().enumerate() {
        if at % stride != 0 {
            output.lost.thinned += 1;
            continue;
        }
        let values = match row::decode_hundredths(&raw.values) {
            Ok(values) => values,
            Err(error) => {
                output.lost.unreadable += 1;
                if output.asides.len() < MAX_ASIDES {
                    let aside = aside(output.key, Part::Row, &error.to_string(), raw.values);
                    output.asides.push(aside);
                }
                continue;
            }
        };
        // A heartbeat that was taken without its values is in the record, not in a chart.
        if values.is_empty() {
            continue;
        }
        if !names.contains_key(&raw.schema) {
            output.lost.unnamed += 1;
            continue;
        }
        rows.push(Row {
            at: UnixMillis(raw.at),
            schema: raw.schema,
            values,
        });
    }
    rows
}

fn aside(key: ChunkKey, part: Part, reason: &str, body: Vec<u8>) -> Aside {
    Aside {
        part,
        host: key.host,
        hour: key.hour,
        reason: reason.to_owned(),
        body,
    }
}
