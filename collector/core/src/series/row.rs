//! The values of one heartbeat as a compact blob: for each value a varint whose two lowest bits
//! say how the rest is to be read.
//!
//! ```text
//! count, then for each value:   bits 0-1   bits 2-…
//!   hundredths                  0          zigzag(hundredths)
//!   a whole number              1          zigzag(hundredths / 100)
//!   whole KiB                   2          zigzag(hundredths / 102400)
//!   missing                     3          0
//! ```

use super::{Hundredths, from_hundredths, to_hundredths, varint};

/// Most values in one row ([`watchkeep_shared::wire::limits::MAX_VALUES_PER_FRAME`]).
const MAX_VALUES: usize = watchkeep_shared::wire::limits::MAX_VALUES_PER_FRAME;

const MISSING: u64 = 3;
/// What the rest of a value counts, in hundredths, by its two lowest bits.
const UNITS: [i64; 3] = [1, 100, 102_400];

/// The bytes are not a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a row of values: {0}")]
pub struct RowError(&'static str);

/// Encodes values, rounded to hundredths.
pub fn encode(values: &[Option<f64>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + values.len() * 4);
    varint::write(&mut out, values.len() as u64);
    for value in values {
        let code = match to_hundredths(*value) {
            None => MISSING,
            Some(hundredths) => {
                let tag = match hundredths {
                    0 => 0,
                    n if n % UNITS[2] == 0 => 2,
                    n if n % UNITS[1] == 0 => 1,
                    _ => 0,
                };
                varint::zigzag(hundredths / UNITS[tag]) << 2 | tag as u64
            }
        };
        varint::write(&mut out, code);
    }
    out
}

/// Decodes values as numbers.
pub fn decode(bytes: &[u8]) -> Result<Vec<Option<f64>>, RowError> {
    Ok(decode_hundredths(bytes)?
        .into_iter()
        .map(from_hundredths)
        .collect())
}

/// How many values a row says it has.
pub fn count(mut bytes: &[u8]) -> Option<usize> {
    varint::read_len(&mut bytes)
}

/// Decodes values as hundredths, as chunks are made of.
pub fn decode_hundredths(mut bytes: &[u8]) -> Result<Vec<Hundredths>, RowError> {
    const CUT: RowError = RowError("it ends too early");
    let count = varint::read_len(&mut bytes).ok_or(CUT)?;
    if count > MAX_VALUES {
        return Err(RowError("it has more values than a heartbeat may"));
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let code = varint::read(&mut bytes).ok_or(CUT)?;
        values.push(match UNITS.get((code & 3) as usize) {
            None => None,
            Some(unit) => Some(
                varint::unzigzag(code >> 2)
                    .checked_mul(*unit)
                    .ok_or(RowError("a value is too large"))?,
            ),
        });
    }
    if !bytes.is_empty() {
        return Err(RowError("something follows its end"));
    }
    Ok(values)
}
