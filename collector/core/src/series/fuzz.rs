//! What must hold for any bytes that are read as history: bodies of the fuzz targets `row` and `chunk`
//! (`tests/fuzz/`), which the tests run too.

use std::{collections::BTreeSet, sync::Arc};

use watchkeep_shared::{UnixMillis, ids::SchemaId};

use super::{
    ChunkData, Hundredths, MAX_HUNDREDTHS, Names, Row, bound, chunk, decode, encode,
    from_hundredths, merge, read as read_series, row, to_hundredths, unnamed, varint,
};

/// Below it hundredths survive being a double.
const EXACT: i64 = 1 << 50;

/// A row that is read is written as one that says the same.
pub fn rows(data: &[u8]) {
    let Ok(hundredths) = row::decode_hundredths(data) else {
        assert!(row::decode(data).is_err());
        return;
    };
    let values = row::decode(data).expect("it was read in hundredths");
    let expected: Vec<_> = hundredths.iter().copied().map(from_hundredths).collect();
    assert_eq!(values, expected);
    let exact = |value: &Hundredths| value.is_none_or(|value| value.abs() < EXACT);
    if hundredths.iter().all(exact) {
        let written = row::encode(&values);
        assert_eq!(row::decode_hundredths(&written), Ok(hundredths));
    }
    for value in values.into_iter().flatten() {
        let kept = to_hundredths(Some(value)).expect("it is finite");
        assert!(kept.abs() <= MAX_HUNDREDTHS);
    }
}

/// A chunk that is read is written as one that says the same; one metric of it is what its column is;
/// and rows made into two chunks and merged are the rows of one. The first byte says what
/// the rest is: `c` a chunk, `p` what is in one, anything else rows.
pub fn chunks(data: &[u8]) {
    match data.split_first() {
        Some((b'c', bytes)) => read(bytes),
        Some((b'p', plain)) => read(&packed(plain)),
        Some((_, bytes)) => made(bytes),
        None => {}
    }
}

fn packed(plain: &[u8]) -> Vec<u8> {
    let mut bytes = vec![chunk::VERSION];
    varint::write(&mut bytes, plain.len() as u64);
    bytes.extend(zstd::bulk::compress(plain, 1).expect("bytes can be compressed"));
    bytes
}

fn read(bytes: &[u8]) {
    let Ok(mut data) = decode(bytes) else { return };
    unnamed(bytes).expect("the whole could be read");
    let written = encode(&data).expect("what was read is within the limits");
    assert_eq!(decode(&written), Ok(data.clone()), "written and read again");
    columns(bytes, &data);
    bound(&mut data);
    encode(&data).expect("what was bounded is within the limits");
}

/// One metric alone is what it is in the whole.
fn columns(bytes: &[u8], data: &ChunkData) {
    let widest = data
        .segments()
        .iter()
        .map(|segment| segment.columns().len());
    // Names of its own would say which column is meant.
    if data
        .segments()
        .iter()
        .any(|one| data.names(one.schema()).is_some())
    {
        return;
    }
    let names: Names = (0..4).map(|at: usize| Arc::from(at.to_string())).collect();
    for at in 0..widest.max().unwrap_or(0).min(4) {
        let wanted = at.to_string();
        let points = read_series(bytes, &[&wanted], &|_| Some(Arc::clone(&names)))
            .expect("the whole could be read")
            .remove(0);
        let mut expected: Vec<(i64, f64)> = Vec::new();
        for segment in data.segments() {
            if let Some(column) = segment.columns().get(at) {
                let values = column.iter().copied().map(from_hundredths);
                let pairs = segment.times().iter().zip(values);
                expected.extend(pairs.filter_map(|(at, value)| Some((at.0, value?))));
            }
        }
        expected.sort_by_key(|(at, _)| *at);
        let points: Vec<_> = points.iter().map(|p| (p.at.0, p.value)).collect();
        assert_eq!(points, expected);
    }
}

fn made(bytes: &[u8]) {
    let rows: Vec<Row> = bytes.chunks_exact(8).map(row_of).collect();
    let (some, others) = rows.split_at(rows.len() / 2);
    let all = ChunkData::from_rows(rows.iter().cloned());
    let times: BTreeSet<i64> = rows.iter().map(|row| row.at.0).collect();
    assert_eq!(all.len(), times.len(), "each time once");
    let coded = encode(&all).expect("a few rows are within the limits");
    assert_eq!(decode(&coded), Ok(all.clone()));
    columns(&coded, &all);
    let chunk = |rows: &[Row]| ChunkData::from_rows(rows.iter().cloned());
    let merged = merge(&chunk(some), &chunk(others));
    assert_eq!(merged.rows(), all.rows(), "in two parts");
}

/// Eight bytes as a row of 0 to 3 values.
fn row_of(bytes: &[u8]) -> Row {
    let value = |at: usize| match bytes[at] {
        0xff => None,
        byte => Some(i64::from(byte) << (bytes[6] % 56)),
    };
    Row {
        at: UnixMillis(i64::from(bytes[0]) * 1_000 + i64::from(bytes[1]) - 99),
        schema: SchemaId(u64::from(bytes[2] % 3)),
        values: (3..3 + usize::from(bytes[7] % 4)).map(value).collect(),
    }
}

/// Inputs to begin with for [`rows`].
pub fn row_seeds() -> Vec<Vec<u8>> {
    let values = [
        Some(0.0),
        Some(99.99),
        Some(-1.25),
        None,
        Some(4096.0),
        Some(16_777_216.0),
        Some(1e15),
        Some(f64::MAX),
    ];
    vec![
        row::encode(&[]),
        row::encode(&values[..3]),
        row::encode(&values),
        row::encode(&[None; 100]),
    ]
}

/// Inputs to begin with for [`chunks`].
pub fn chunk_seeds() -> Vec<Vec<u8>> {
    let hour = |schema: u64, from: i64| {
        (0..40).map(move |n| Row {
            at: UnixMillis(from + n * 10_000 + n % 3),
            schema: SchemaId(schema),
            values: vec![
                Some(1_000 + n * n % 700),
                (n % 5 != 0).then_some(n * 409_600),
                None,
            ],
        })
    };
    let mut data = ChunkData::from_rows(hour(1, 0).chain(hour(2, 5_000)));
    data.add_names(&|schema| {
        let names = ["cpu.busy_pct", "mem.used_bytes", "load.1m"].map(Arc::from);
        (schema == SchemaId(1)).then(|| Arc::from(names))
    });
    let bytes = encode(&data).expect("it is within the limits");
    let plain = chunk::unpack(&bytes).expect("it was just packed");
    let few: Vec<u8> = (0..200_u8).map(|n| n.wrapping_mul(37)).collect();
    vec![
        [b"c", bytes.as_slice()].concat(),
        [b"p", plain.as_slice()].concat(),
        [b"p\0", &[0; 3][..]].concat(),
        [b"r", few.as_slice()].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_check::check;

    #[test]
    fn rows_hold() {
        check("row", &row_seeds(), rows);
    }

    #[test]
    fn chunks_hold() {
        check("chunk", &chunk_seeds(), chunks);
    }
}
