//! How the bytes of a log become text: UTF-16 is decoded, and lines that end with a carriage return alone
//! are given a usual end. What is UTF-8, or nearly, stays as it is. Positions in a file are in its own
//! bytes, so each piece of text can be converted back into a number of those.

use std::char::{REPLACEMENT_CHARACTER, decode_utf16};

/// Of UTF-8, UTF-16 little and big endian.
const MARKS: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
/// First bytes of a file that are looked at.
const LOOKED_AT_BYTES: usize = 1_024;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoding {
    units: Units,
    /// No line feed ends a line, carriage returns do.
    ends_with_return: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Units {
    #[default]
    Bytes,
    Utf16Le,
    Utf16Be,
}

/// Length of the byte order mark that a file which begins with `head` has.
pub(super) fn mark_bytes(head: &[u8]) -> usize {
    let mark = MARKS.iter().find(|mark| head.starts_with(mark));
    mark.map_or(0, |mark| mark.len())
}

impl Encoding {
    /// Of a file that begins with `head`.
    pub(super) fn of(head: &[u8]) -> Self {
        let head = &head[..head.len().min(LOOKED_AT_BYTES)];
        let units = Units::of(head);
        let mut encoding = Self {
            units,
            ends_with_return: false,
        };
        let mut text = Vec::new();
        encoding.decode(head, &mut text);
        // One at the end may be the first half of an end.
        let before_last = text.split_last().map_or(&text[..], |(_, before)| before);
        encoding.ends_with_return = before_last.contains(&b'\r') && !text.contains(&b'\n');
        encoding
    }

    /// Appends what `raw` says to `text`, as UTF-8 where it was not of single bytes. Returns how many
    /// bytes of `raw` were used: half a character is not.
    pub(super) fn decode(self, raw: &[u8], text: &mut Vec<u8>) -> usize {
        let from = text.len();
        let used = match self.units {
            Units::Bytes => {
                text.extend_from_slice(raw);
                raw.len()
            }
            Units::Utf16Le => decode_into(raw, u16::from_le_bytes, text),
            Units::Utf16Be => decode_into(raw, u16::from_be_bytes, text),
        };
        if self.ends_with_return {
            for byte in &mut text[from..] {
                if *byte == b'\r' {
                    *byte = b'\n';
                }
            }
        }
        used
    }

    /// How many bytes of the file `text` was decoded from. It may begin or end within a character, all
    /// of which counts where it begins.
    pub(super) fn raw_bytes(self, text: &[u8]) -> u64 {
        if self.units == Units::Bytes {
            return text.len() as u64;
        }
        let units = |byte: &u8| match byte {
            0x80..=0xbf => 0,
            0xf0.. => 2,
            _ => 1,
        };
        text.iter().map(units).sum::<u64>() * 2
    }
}

impl Units {
    fn of(head: &[u8]) -> Self {
        match MARKS.iter().position(|mark| head.starts_with(mark)) {
            Some(0) => return Self::Bytes,
            Some(1) => return Self::Utf16Le,
            Some(_) => return Self::Utf16Be,
            None => {}
        }
        // Without a mark: nearly all letters are ASCII, so that every other byte is zero.
        let pairs = head.len() / 2;
        let count =
            |is_it: fn(&[u8]) -> bool| head.chunks_exact(2).filter(|pair| is_it(pair)).count();
        let is_most = |count: usize| pairs >= 4 && count * 10 >= pairs * 9;
        if is_most(count(|pair| pair[0] != 0 && pair[1] == 0)) {
            Self::Utf16Le
        } else if is_most(count(|pair| pair[0] == 0 && pair[1] != 0)) {
            Self::Utf16Be
        } else {
            Self::Bytes
        }
    }
}

fn decode_into(raw: &[u8], unit: fn([u8; 2]) -> u16, text: &mut Vec<u8>) -> usize {
    let units = raw.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let is_half = |unit: u16| (0xd800..0xdc00).contains(&unit);
    let count = raw.len() / 2 - usize::from(units.clone().next_back().is_some_and(is_half));
    let mut buffer = [0; 4];
    for letter in decode_utf16(units.take(count)) {
        // Half a character alone is one unit, and so is this.
        let letter = letter.unwrap_or(REPLACEMENT_CHARACTER);
        text.extend_from_slice(letter.encode_utf8(&mut buffer).as_bytes());
    }
    count * 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utf16(text: &str, to: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to).collect()
    }

    #[test]
    fn an_encoding_is_known_by_its_mark_or_its_zeros() {
        let of = |head: &[u8]| Encoding::of(head).units;
        assert_eq!(of(b"plain text\n"), Units::Bytes);
        assert_eq!(of(b"\xef\xbb\xbfwith a mark\n"), Units::Bytes);
        assert_eq!(of(b"\xff\xfea\0"), Units::Utf16Le);
        assert_eq!(of(b"\xfe\xff\0a"), Units::Utf16Be);
        assert_eq!(
            of(&utf16("no mark \u{fc}\n", u16::to_le_bytes)),
            Units::Utf16Le
        );
        assert_eq!(
            of(&utf16("no mark \u{fc}\n", u16::to_be_bytes)),
            Units::Utf16Be
        );
        assert_eq!(of(&[0; 1_024]), Units::Bytes, "a hole");
        assert_eq!(of(b"a\0"), Units::Bytes, "too little to tell");
        assert_eq!(of(b"ab\0\0\0\0\0\0\0\0\0"), Units::Bytes);
    }

    #[test]
    fn lines_end_with_a_return_where_nothing_else_ends_them() {
        let of = |head: &[u8]| Encoding::of(head).ends_with_return;
        assert!(of(b"one\rtwo\rthree"));
        assert!(of(&utf16("\u{feff}one\rtwo", u16::to_le_bytes)));
        assert!(!of(b"one\r"), "a line feed may follow");
        assert!(!of(b"one\r\ntwo\r\n"));
        assert!(!of(b"10 %\r20 %\rdone\n"));
        let mut text = Vec::new();
        Encoding::of(b"a\rb\r").decode(b"a\rb\r", &mut text);
        assert_eq!(text, b"a\nb\n");
    }

    proptest! {
        #[test]
        fn pieces_are_decoded_like_the_whole_and_converted_back(
            text in "\\PC{0,40}",
            half in any::<bool>(),
            big in any::<bool>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let to = if big { u16::to_be_bytes } else { u16::to_le_bytes };
            let mut raw = utf16(&format!("\u{feff}{text}"), to);
            if half {
                raw.extend(to(0xd83d));
                raw.extend(to(0x41));
            }
            let encoding = Encoding::of(&raw);
            let raw = &raw[mark_bytes(&raw)..];
            let mut whole = Vec::new();
            prop_assert_eq!(encoding.decode(raw, &mut whole), raw.len());
            prop_assert_eq!(encoding.raw_bytes(&whole), raw.len() as u64);
            let at = cut.index(raw.len() + 1);
            let mut pieces = Vec::new();
            let used = encoding.decode(&raw[..at], &mut pieces);
            prop_assert!(at - used < 4);
            prop_assert_eq!(encoding.raw_bytes(&pieces), used as u64);
            encoding.decode(&raw[used..], &mut pieces);
            prop_assert_eq!(&pieces, &whole);
            let at = cut.index(whole.len() + 1);
            let parts = encoding.raw_bytes(&whole[..at]) + encoding.raw_bytes(&whole[at..]);
            prop_assert_eq!(parts, raw.len() as u64);
        }
    }
}
