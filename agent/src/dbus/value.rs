//! The D-Bus wire format (D-Bus Specification 0.42, "Marshaling"), little-endian to write, both ways to
//! read. Only what the system's services send: no file descriptors.

/// Deepest nesting that is read; the specification allows 64.
const MAX_DEPTH: u32 = 32;
/// What a list weighs in memory beside its members, in the size of a plain value.
const LIST_WEIGHT: usize = 4;
/// How much heavier than its bytes a message may become: small values deep in structures would make
/// a hundred times as much of them.
const WEIGHT_BEYOND_BYTES: usize = 64;

/// A value as it was received.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`, `q`, `u`, `t`, and `b` as 0 or 1.
    Unsigned(u64),
    /// `n`, `i`, `x`.
    Signed(i64),
    /// `d`.
    Double(f64),
    /// `s`, `o`, `g`.
    Text(String),
    /// Arrays, structures and entries of dictionaries.
    List(Vec<Value>),
}

impl Value {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one that fits.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Unsigned(n) => i64::try_from(*n).ok(),
            Self::Signed(n) => Some(*n),
            _ => None,
        }
    }

    /// The members; none if it is no list.
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }
}

/// The bytes don't follow the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message does not follow the D-Bus format")]
pub struct Malformed;

/// Reads values from a message; alignment counts from the start of `bytes`.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
    /// What values may still weigh.
    room: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8], big_endian: bool) -> Self {
        Self {
            bytes,
            at: 0,
            big_endian,
            room: bytes.len() + WEIGHT_BEYOND_BYTES,
        }
    }

    /// One value for each complete type of `signature`.
    pub fn values(&mut self, signature: &str) -> Result<Vec<Value>, Malformed> {
        let (mut rest, mut values) = (signature.as_bytes(), Vec::new());
        while !rest.is_empty() {
            let (one, after) = split_type(rest, 0)?;
            values.push(self.value(one, 0)?);
            rest = after;
        }
        Ok(values)
    }

    fn value(&mut self, kind: &[u8], depth: u32) -> Result<Value, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        let first = kind.first().ok_or(Malformed)?;
        let weight = match first {
            b'(' | b'{' | b'a' => LIST_WEIGHT,
            _ => 1,
        };
        self.room = self.room.checked_sub(weight).ok_or(Malformed)?;
        Ok(match first {
            b'y' => Value::Unsigned(u64::from(self.take(1, 1)?[0])),
            b'b' | b'u' => Value::Unsigned(self.unsigned(4)?),
            b'q' => Value::Unsigned(self.unsigned(2)?),
            b't' => Value::Unsigned(self.unsigned(8)?),
            b'n' => Value::Signed(i64::from(self.unsigned(2)? as u16 as i16)),
            b'i' => Value::Signed(i64::from(self.unsigned(4)? as u32 as i32)),
            b'x' => Value::Signed(self.unsigned(8)? as i64),
            b'd' => Value::Double(f64::from_bits(self.unsigned(8)?)),
            b's' | b'o' => {
                let length = self.unsigned(4)? as usize;
                self.text(length)?
            }
            b'g' => {
                let length = usize::from(self.take(1, 1)?[0]);
                self.text(length)?
            }
            b'v' => {
                let length = usize::from(self.take(1, 1)?[0]);
                let inner = self.text(length)?;
                let inner = inner.text().unwrap_or_default().as_bytes();
                match split_type(inner, 0)? {
                    (one, []) => self.value(one, depth + 1)?,
                    _ => return Err(Malformed),
                }
            }
            b'(' | b'{' => {
                self.align(8)?;
                let (mut rest, mut members) = (&kind[1..kind.len() - 1], Vec::new());
                while !rest.is_empty() {
                    let (one, after) = split_type(rest, 0)?;
                    members.push(self.value(one, depth + 1)?);
                    rest = after;
                }
                Value::List(members)
            }
            b'a' => self.array(&kind[1..], depth)?,
            _ => return Err(Malformed),
        })
    }

    fn array(&mut self, kind: &[u8], depth: u32) -> Result<Value, Malformed> {
        let length = self.unsigned(4)? as usize;
        self.align(alignment(kind))?;
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        if end > self.bytes.len() {
            return Err(Malformed);
        }
        let mut members = Vec::new();
        // Every type takes at least a byte, so the length bounds the members.
        while self.at < end {
            members.push(self.value(kind, depth + 1)?);
        }
        if self.at != end {
            return Err(Malformed);
        }
        Ok(Value::List(members))
    }

    fn text(&mut self, length: usize) -> Result<Value, Malformed> {
        let text = self.take(length, 1)?;
        let text = std::str::from_utf8(text).map_err(|_| Malformed)?.to_owned();
        match self.take(1, 1)? {
            [0] => Ok(Value::Text(text)),
            _ => Err(Malformed),
        }
    }

    fn unsigned(&mut self, size: usize) -> Result<u64, Malformed> {
        let bytes = self.take(size, size)?;
        let join = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Ok(if self.big_endian {
            bytes.iter().fold(0, join)
        } else {
            bytes.iter().rev().fold(0, join)
        })
    }

    /// Skips to a multiple of `to`.
    pub fn align(&mut self, to: usize) -> Result<(), Malformed> {
        let at = self.at.next_multiple_of(to);
        if at > self.bytes.len() {
            return Err(Malformed);
        }
        self.at = at;
        Ok(())
    }

    fn take(&mut self, size: usize, alignment: usize) -> Result<&'a [u8], Malformed> {
        self.align(alignment)?;
        let end = self.at.checked_add(size).ok_or(Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(taken)
    }
}

const fn alignment_of(kind: u8) -> usize {
    match kind {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

fn alignment(kind: &[u8]) -> usize {
    kind.first().map_or(1, |first| alignment_of(*first))
}

/// The first complete type of a signature, and the rest.
fn split_type(signature: &[u8], depth: u32) -> Result<(&[u8], &[u8]), Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed);
    }
    let close = match signature.first().ok_or(Malformed)? {
        b'a' => {
            let (inner, _) = split_type(&signature[1..], depth + 1)?;
            return Ok(signature.split_at(1 + inner.len()));
        }
        b'(' => b')',
        b'{' => b'}',
        b')' | b'}' => return Err(Malformed),
        _ => return Ok(signature.split_at(1)),
    };
    let mut length = 1;
    while *signature.get(length).ok_or(Malformed)? != close {
        length += split_type(&signature[length..], depth + 1)?.0.len();
    }
    // An empty structure is not allowed, and would make arrays of nothing without end.
    if length == 1 {
        return Err(Malformed);
    }
    Ok(signature.split_at(length + 1))
}

/// Writes values, little-endian.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    /// What was written.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// Fills up with zeros to a multiple of `to`.
    pub fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// `y`
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// `u`, `b`
    pub fn number(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// `t`
    pub fn long(&mut self, number: u64) {
        self.align(8);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// `s`, `o`
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// `g`; at most 255 bytes, which the caller's constants are.
    pub fn signature(&mut self, signature: &str) {
        self.bytes.push(signature.len() as u8);
        self.bytes.extend_from_slice(signature.as_bytes());
        self.bytes.push(0);
    }

    /// `as`
    pub fn texts(&mut self, texts: &[&str]) {
        self.array(4, |writer| {
            for text in texts {
                writer.text(text);
            }
        });
    }

    /// An array whose members are aligned to `alignment` and written by `members`.
    pub fn array(&mut self, alignment: usize, members: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        members(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.byte(7);
        writer.text("nginx.service");
        writer.array(8, |writer| {
            for (name, value) in [("A", "x"), ("Bcd", "yz")] {
                writer.align(8);
                writer.text(name);
                writer.signature("s");
                writer.text(value);
            }
        });
        writer.texts(&["failed", "é"]);
        writer.long(1 << 40);
        let mut reader = Reader::new(&writer.bytes, false);
        let text = |text: &str| Value::Text(text.to_owned());
        let pair = |a: &str, b: &str| Value::List(vec![text(a), text(b)]);
        assert_eq!(
            reader.values("ysa{sv}ast").unwrap(),
            [
                Value::Unsigned(7),
                text("nginx.service"),
                Value::List(vec![pair("A", "x"), pair("Bcd", "yz")]),
                Value::List(vec![text("failed"), text("é")]),
                Value::Unsigned(1 << 40),
            ]
        );
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_signature_make_it_fall(
            bytes in prop::collection::vec(0_u8..20, 0..200),
            signature in "[a(){}svuybgtiax]{0,12}",
            big_endian: bool,
        ) {
            let _ = Reader::new(&bytes, big_endian).values(&signature);
        }
    }
}
