//! Chunks: version byte, decoded length, then one zstd frame of
//!
//! ```text
//! names, and for each: length, bytes
//! schemas, and for each: schema (8 bytes, little endian), columns, the place of each column's name
//! segments, and for each:
//!   schema (8 bytes, little endian), rows, columns,
//!   times:   length, zigzag(first), zigzag(first step), zigzag(change of step) …
//!   columns: length of each, then each:
//!     unit   the greatest common divisor of all differences, 0 if there are none
//!     form   0 every value is present, 1 a bitmap of those present follows
//!     values zigzag(first), zigzag(difference / unit) …
//! ```
//!
//! All numbers are varints. Lengths let a reader of one metric skip the other columns. The unit
//! makes bytes that move by whole pages, and whole numbers, as small as their information.
//!
//! Version 1 has no names and no schemas: the names of its columns are found by the schema's id.

use std::{collections::BTreeMap, sync::Arc};

use watchkeep_shared::{UnixMillis, ids::SchemaId, wire::limits::MAX_METRIC_NAME_BYTES};

use super::{
    ChunkData, Hundredths, MAX_CELLS_PER_CHUNK, MAX_DECODED_CHUNK_BYTES, MAX_NAMES_PER_CHUNK,
    MAX_ROWS_PER_CHUNK, Names, Point, Segment, from_hundredths,
    varint::{self, unzigzag, zigzag},
};

pub(super) const VERSION: u8 = 2;
/// Without names.
pub(super) const OLD_VERSION: u8 = 1;
/// Most columns of all schemas of a chunk.
const MAX_COLUMNS: usize = 1024 * 1024;
/// Level 3 is where more CPU stops paying on this data.
const ZSTD_LEVEL: i32 = 3;

/// Why a chunk can't be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Written by a newer version, or not a chunk.
    #[error("chunk has version {0}; this program reads versions {OLD_VERSION} and {VERSION}")]
    Version(u8),
    /// More than the limits of this module.
    #[error("chunk is larger than the limit of {limit} {what}")]
    TooLarge {
        limit: usize,
        /// Of what.
        what: &'static str,
    },
    #[error("chunk is damaged: {0}")]
    Damaged(&'static str),
}

const CUT: ChunkError = ChunkError::Damaged("it ends too early");

/// Encodes and compresses a chunk.
pub fn encode(chunk: &ChunkData) -> Result<Vec<u8>, ChunkError> {
    let mut plain = Vec::new();
    encode_names(&mut plain, &chunk.names)?;
    let mut size = Size::default();
    varint::write(&mut plain, chunk.segments.len() as u64);
    for segment in &chunk.segments {
        size.add(segment.times.len(), segment.columns.len())?;
        encode_segment(&mut plain, segment);
    }
    if plain.len() > MAX_DECODED_CHUNK_BYTES {
        return Err(TOO_LONG);
    }
    let packed = zstd::bulk::compress(&plain, ZSTD_LEVEL)
        .map_err(|_| ChunkError::Damaged("it can't be compressed"))?;
    let mut out = Vec::with_capacity(packed.len() + 6);
    out.push(VERSION);
    varint::write(&mut out, plain.len() as u64);
    out.extend_from_slice(&packed);
    Ok(out)
}

/// Decodes a whole chunk.
pub fn decode(bytes: &[u8]) -> Result<ChunkData, ChunkError> {
    let plain = unpack(bytes)?;
    let mut segments = Vec::new();
    let (mut reader, names) = Reader::new(&plain)?;
    while let Some(head) = reader.next_segment()? {
        let mut columns = Vec::with_capacity(head.columns.len());
        for column in &head.columns {
            columns.push(decode_column(column, head.rows)?);
        }
        segments.push(Segment {
            schema: head.schema,
            times: decode_times(head.times, head.rows)?,
            columns,
        });
    }
    Ok(ChunkData { segments, names })
}

/// The values of some metrics, each by time, in the order of `wanted`; `known` gives the names of a
/// schema that the chunk itself does not name. Only the columns of these metrics are decoded.
pub fn read(
    bytes: &[u8],
    wanted: &[&str],
    known: &dyn Fn(SchemaId) -> Option<Names>,
) -> Result<Vec<Vec<Point>>, ChunkError> {
    let plain = unpack(bytes)?;
    let mut found: Vec<Vec<Point>> = wanted.iter().map(|_| Vec::new()).collect();
    let (mut reader, names) = Reader::new(&plain)?;
    let mut segments = 0;
    while let Some(head) = reader.next_segment()? {
        let named = names.get(&head.schema).cloned();
        let Some(columns) = named.or_else(|| known(head.schema)) else {
            continue;
        };
        let mut times: Option<Vec<UnixMillis>> = None;
        for (name, points) in wanted.iter().zip(&mut found) {
            let column = columns.iter().position(|known| **known == **name);
            let Some(column) = column.and_then(|i| head.columns.get(i)) else {
                continue;
            };
            let times: &[UnixMillis] = match &mut times {
                Some(times) => times,
                empty => empty.insert(decode_times(head.times, head.rows)?),
            };
            let values = decode_column(column, head.rows)?;
            points.extend(times.iter().zip(values).filter_map(|(at, value)| {
                from_hundredths(value).map(|value| Point { at: *at, value })
            }));
        }
        segments += 1;
    }
    if segments > 1 {
        for points in &mut found {
            points.sort_by_key(|point| point.at);
        }
    }
    Ok(found)
}

/// The schemas of a chunk that it does not name itself.
pub fn unnamed(bytes: &[u8]) -> Result<Vec<SchemaId>, ChunkError> {
    // Newer chunks name all of theirs but for those that were lost before.
    if bytes.first() == Some(&VERSION) {
        return Ok(Vec::new());
    }
    let plain = unpack(bytes)?;
    let (mut reader, _) = Reader::new(&plain)?;
    let mut found = Vec::new();
    while let Some(head) = reader.next_segment()? {
        found.push(head.schema);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

const TOO_LONG: ChunkError = ChunkError::TooLarge {
    limit: MAX_DECODED_CHUNK_BYTES,
    what: "bytes",
};

/// A chunk's content as of [`VERSION`].
pub(super) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, ChunkError> {
    let (&version, mut rest) = bytes.split_first().ok_or(CUT)?;
    // No names and no schemas.
    let head: &[u8] = match version {
        VERSION => &[],
        OLD_VERSION => &[0, 0],
        other => return Err(ChunkError::Version(other)),
    };
    let len = varint::read_len(&mut rest).ok_or(CUT)?;
    if len > MAX_DECODED_CHUNK_BYTES {
        return Err(TOO_LONG);
    }
    let plain = zstd::bulk::decompress(rest, len)
        .map_err(|_| ChunkError::Damaged("it can't be decompressed"))?;
    if plain.len() != len {
        return Err(ChunkError::Damaged("its length is wrong"));
    }
    Ok(if head.is_empty() {
        plain
    } else {
        [head, &plain].concat()
    })
}

/// What the segments of a chunk add up to.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    rows: usize,
    cells: usize,
}

impl Size {
    /// Adds a segment, unless a limit is exceeded.
    fn add(&mut self, rows: usize, columns: usize) -> Result<(), ChunkError> {
        self.rows = self.rows.saturating_add(rows);
        self.cells = self.cells.saturating_add(rows.saturating_mul(columns));
        let too_large = |limit, what| Err(ChunkError::TooLarge { limit, what });
        if self.rows > MAX_ROWS_PER_CHUNK {
            return too_large(MAX_ROWS_PER_CHUNK, "rows");
        }
        if self.cells > MAX_CELLS_PER_CHUNK {
            return too_large(MAX_CELLS_PER_CHUNK, "values");
        }
        Ok(())
    }
}

const TOO_MANY_NAMES: ChunkError = ChunkError::TooLarge {
    limit: MAX_NAMES_PER_CHUNK,
    what: "names",
};

fn encode_names(out: &mut Vec<u8>, schemas: &BTreeMap<SchemaId, Names>) -> Result<(), ChunkError> {
    let mut places: BTreeMap<&str, u64> = BTreeMap::new();
    let mut names = Vec::new();
    for name in schemas.values().flat_map(|names| names.iter()) {
        let next = names.len() as u64;
        places.entry(name).or_insert_with(|| {
            names.push(name);
            next
        });
    }
    if names.len() > MAX_NAMES_PER_CHUNK {
        return Err(TOO_MANY_NAMES);
    }
    varint::write(out, names.len() as u64);
    for name in names {
        varint::write(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
    }
    varint::write(out, schemas.len() as u64);
    for (schema, columns) in schemas {
        out.extend_from_slice(&schema.0.to_le_bytes());
        varint::write(out, columns.len() as u64);
        for name in columns.iter() {
            varint::write(out, places.get(&**name).copied().unwrap_or_default());
        }
    }
    Ok(())
}

fn decode_names(rest: &mut &[u8]) -> Result<BTreeMap<SchemaId, Names>, ChunkError> {
    let count = varint::read_len(rest).ok_or(CUT)?;
    if count > MAX_NAMES_PER_CHUNK {
        return Err(TOO_MANY_NAMES);
    }
    let mut names: Vec<Arc<str>> = Vec::new();
    for _ in 0..count {
        let len = varint::read_len(rest).ok_or(CUT)?;
        let (name, after) = rest.split_at_checked(len).ok_or(CUT)?;
        *rest = after;
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| name.len() <= MAX_METRIC_NAME_BYTES);
        names.push(name.ok_or(ChunkError::Damaged("a name is no text"))?.into());
    }
    let mut schemas = BTreeMap::new();
    let mut all_columns = 0;
    for _ in 0..varint::read_len(rest).ok_or(CUT)? {
        let (schema, after) = rest.split_first_chunk::<8>().ok_or(CUT)?;
        *rest = after;
        let columns = varint::read_len(rest).ok_or(CUT)?;
        all_columns += columns.min(MAX_COLUMNS + 1);
        if columns > rest.len() || all_columns > MAX_COLUMNS {
            return Err(CUT);
        }
        let mut list = Vec::with_capacity(columns);
        for _ in 0..columns {
            let place = varint::read_len(rest).ok_or(CUT)?;
            let name = names.get(place);
            list.push(Arc::clone(
                name.ok_or(ChunkError::Damaged("a column has no name"))?,
            ));
        }
        schemas.insert(SchemaId(u64::from_le_bytes(*schema)), list.into());
    }
    Ok(schemas)
}

fn encode_segment(out: &mut Vec<u8>, segment: &Segment) {
    out.extend_from_slice(&segment.schema.0.to_le_bytes());
    varint::write(out, segment.times.len() as u64);
    varint::write(out, segment.columns.len() as u64);
    let mut part = Vec::new();
    let (mut last, mut step) = (0_i64, 0_i64);
    for (i, at) in segment.times.iter().enumerate() {
        let next_step = at.0.wrapping_sub(last);
        let written = match i {
            0 | 1 => next_step,
            _ => next_step.wrapping_sub(step),
        };
        varint::write(&mut part, zigzag(written));
        (last, step) = (at.0, next_step);
    }
    varint::write(out, part.len() as u64);
    out.extend_from_slice(&part);

    let mut columns = Vec::new();
    for column in &segment.columns {
        part.clear();
        encode_column(&mut part, column);
        varint::write(out, part.len() as u64);
        columns.extend_from_slice(&part);
    }
    out.extend_from_slice(&columns);
}

fn encode_column(out: &mut Vec<u8>, column: &[Hundredths]) {
    let present: Vec<i64> = column.iter().copied().flatten().collect();
    let differences = || present.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let unit = differences().fold(0, |unit, difference| gcd(unit, difference.unsigned_abs()));
    // A unit that does not fit the sign is of no use.
    let unit = i64::try_from(unit).unwrap_or(1);
    varint::write(out, unit as u64);
    if present.len() == column.len() {
        out.push(0);
    } else {
        out.push(1);
        for eight in column.chunks(8) {
            let bits = eight.iter().enumerate();
            out.push(bits.fold(0, |byte, (i, v)| byte | u8::from(v.is_some()) << i));
        }
    }
    if let Some(first) = present.first() {
        varint::write(out, zigzag(*first));
    }
    for difference in differences() {
        varint::write(out, zigzag(difference / unit.max(1)));
    }
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Walks the segments of a decompressed chunk.
struct Reader<'a> {
    rest: &'a [u8],
    left: usize,
    size: Size,
}

/// The undecoded parts of one segment.
struct Head<'a> {
    schema: SchemaId,
    rows: usize,
    times: &'a [u8],
    columns: Vec<&'a [u8]>,
}

impl<'a> Reader<'a> {
    /// Reads the names, and begins before the first segment.
    fn new(plain: &'a [u8]) -> Result<(Self, BTreeMap<SchemaId, Names>), ChunkError> {
        let mut rest = plain;
        let names = decode_names(&mut rest)?;
        let left = varint::read_len(&mut rest).ok_or(CUT)?;
        let reader = Self {
            rest,
            left,
            size: Size::default(),
        };
        Ok((reader, names))
    }

    fn next_segment(&mut self) -> Result<Option<Head<'a>>, ChunkError> {
        if self.left == 0 {
            return if self.rest.is_empty() {
                Ok(None)
            } else {
                Err(ChunkError::Damaged("something follows its end"))
            };
        }
        self.left -= 1;
        let (schema, rest) = self.rest.split_first_chunk::<8>().ok_or(CUT)?;
        self.rest = rest;
        let rows = varint::read_len(&mut self.rest).ok_or(CUT)?;
        let count = varint::read_len(&mut self.rest).ok_or(CUT)?;
        self.size.add(rows, count)?;
        let len = varint::read_len(&mut self.rest).ok_or(CUT)?;
        let times = self.split(len)?;
        if count > self.rest.len() {
            return Err(CUT);
        }
        let mut lengths = Vec::with_capacity(count);
        for _ in 0..count {
            lengths.push(varint::read_len(&mut self.rest).ok_or(CUT)?);
        }
        let mut columns = Vec::with_capacity(count);
        for len in lengths {
            columns.push(self.split(len)?);
        }
        Ok(Some(Head {
            schema: SchemaId(u64::from_le_bytes(*schema)),
            rows,
            times,
            columns,
        }))
    }

    fn split(&mut self, len: usize) -> Result<&'a [u8], ChunkError> {
        let (part, rest) = self.rest.split_at_checked(len).ok_or(CUT)?;
        self.rest = rest;
        Ok(part)
    }
}

fn decode_times(mut bytes: &[u8], rows: usize) -> Result<Vec<UnixMillis>, ChunkError> {
    if rows > bytes.len() {
        return Err(CUT);
    }
    let mut times = Vec::with_capacity(rows);
    let (mut last, mut step) = (0_i64, 0_i64);
    for i in 0..rows {
        let read = unzigzag(varint::read(&mut bytes).ok_or(CUT)?);
        step = match i {
            0 | 1 => read,
            _ => step.wrapping_add(read),
        };
        let at = last.wrapping_add(step);
        if i > 0 && at <= last {
            return Err(ChunkError::Damaged("its times do not ascend"));
        }
        last = at;
        times.push(UnixMillis(at));
    }
    Ok(times)
}

fn decode_column(mut bytes: &[u8], rows: usize) -> Result<Vec<Hundredths>, ChunkError> {
    let bytes = &mut bytes;
    let unit = varint::read(bytes).ok_or(CUT)? as i64;
    let (&form, rest) = bytes.split_first().ok_or(CUT)?;
    *bytes = rest;
    let bitmap = match form {
        0 => None,
        1 => {
            let (bitmap, rest) = bytes.split_at_checked(rows.div_ceil(8)).ok_or(CUT)?;
            *bytes = rest;
            Some(bitmap)
        }
        _ => return Err(ChunkError::Damaged("a column has no known form")),
    };
    if bitmap.is_none() && rows > bytes.len() {
        return Err(CUT);
    }
    let mut values = Vec::with_capacity(rows);
    let mut last: Option<i64> = None;
    for row in 0..rows {
        if bitmap.is_some_and(|bits| bits[row / 8] >> (row % 8) & 1 == 0) {
            values.push(None);
            continue;
        }
        let read = unzigzag(varint::read(bytes).ok_or(CUT)?);
        let value = match last {
            None => read,
            Some(last) => last.wrapping_add(read.wrapping_mul(unit)),
        };
        last = Some(value);
        values.push(last);
    }
    if bytes.is_empty() {
        Ok(values)
    } else {
        Err(ChunkError::Damaged("a column is longer than its rows"))
    }
}
