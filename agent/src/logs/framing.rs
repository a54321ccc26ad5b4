//! Cuts bytes into lines, and lines into records of several lines. Pure, and bounded: what is longer
//! than the limits is cut or skipped, and said.
//!
//! A record begins with a line that matches the check's `record_start` and continues until the next
//! such line. Lines before the first are a record too. How long to wait for the rest of the last
//! record is the caller's business.

use regex::bytes::Regex;

/// Longest line that is matched whole, bytes.
pub(super) const MAX_LINE_BYTES: usize = 16 << 10;
/// Longest record, bytes; it is cut after the line with which it gets longer.
pub(super) const MAX_RECORD_BYTES: usize = 32 << 10;
/// Most lines of a record; what follows is a record of its own.
pub(super) const MAX_RECORD_LINES: usize = 512;

/// What was cut out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A line or a record, without its end.
    Text(&'a [u8]),
    /// An overlong line ended, so many bytes of which were not looked at.
    Skipped(u64),
}

/// How a log is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing<'a> {
    /// What the first line of a record looks like; `None`: every line is a record.
    pub(super) start: Option<&'a Regex>,
    /// Nothing more is expected now, so the last record's lines are all of it.
    pub(super) flush: bool,
}

/// Takes what is complete from the beginning of `bytes` and gives it to `found`, until that says
/// stop. `skipping` holds how many bytes of an overlong line were skipped, while inside one.
/// Returns how many bytes were taken, and whether to continue.
pub(super) fn take(
    bytes: &[u8],
    skipping: &mut Option<u64>,
    framing: Framing<'_>,
    found: &mut dyn FnMut(Found<'_>) -> bool,
) -> (usize, bool) {
    let mut taken = 0;
    let mut go_on = true;
    while go_on {
        let rest = &bytes[taken..];
        if let Some(skipped) = *skipping {
            let Some(end) = line_end(rest) else {
                *skipping = Some(skipped + rest.len() as u64);
                return (bytes.len(), true);
            };
            *skipping = None;
            go_on = found(Found::Skipped(skipped + end as u64));
            taken += end + 1;
        } else if let Some(length) = record(rest, framing) {
            go_on = found(Found::Text(without_end(&rest[..length])));
            taken += length;
        } else if is_overlong(rest) {
            go_on = found(Found::Text(&rest[..MAX_LINE_BYTES]));
            *skipping = Some(0);
            taken += MAX_LINE_BYTES;
        } else {
            break;
        }
    }
    (taken, go_on)
}

/// `text` without the end of its last line.
pub(super) fn without_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes)
}

/// Whether the first line is longer than the limit, ended or not.
fn is_overlong(bytes: &[u8]) -> bool {
    line_end(bytes).unwrap_or(bytes.len()) > MAX_LINE_BYTES
}

/// Length of the first record with its end, if it is complete and its first line not overlong.
fn record(bytes: &[u8], framing: Framing<'_>) -> Option<usize> {
    let mut length = line_end(bytes).filter(|end| *end <= MAX_LINE_BYTES)? + 1;
    let Some(start) = framing.start else {
        return Some(length);
    };
    for _ in 1..MAX_RECORD_LINES {
        let rest = &bytes[length..];
        if is_overlong(rest) || length > MAX_RECORD_BYTES {
            return Some(length);
        }
        let Some(end) = line_end(rest) else {
            return framing.flush.then_some(length);
        };
        if start.is_match(without_end(&rest[..=end])) {
            return Some(length);
        }
        length += end + 1;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::logs::fuzz;

    fn cut(bytes: &[u8], sizes: &[usize], start: Option<&Regex>) -> (Vec<Vec<u8>>, u64) {
        let given = fuzz::cut(bytes, sizes, start);
        (given.texts, given.skipped)
    }

    #[test]
    fn a_record_begins_with_its_start_and_ends_before_the_next() {
        let start = Regex::new("^[0-9]").unwrap();
        let text = b"tail\n at b\n1 ERROR\r\n at x\n at y\r\n2 fine\n3 ERROR\n at z\nunfin";
        let (texts, _) = cut(text, &[1_000], Some(&start));
        let expected: [&[u8]; 4] = [
            b"tail\n at b",
            b"1 ERROR\r\n at x\n at y",
            b"2 fine",
            b"3 ERROR\n at z",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_record_without_end_is_cut() {
        let start = Regex::new("^START").unwrap();
        let mut text = b"START\n".to_vec();
        for _ in 0..2_000 {
            text.extend_from_slice(b"more\n");
        }
        let (texts, _) = cut(&text, &[700], Some(&start));
        assert_eq!(texts.len(), 4);
        assert!(texts.iter().all(|text| text.len() <= MAX_RECORD_LINES * 6));
        text.splice(6.., vec![b'x'; MAX_LINE_BYTES + 5]);
        text.extend_from_slice(b"\nSTART\n");
        let (texts, skipped) = cut(&text, &[700], Some(&start));
        assert_eq!((texts.len(), skipped), (3, 5));
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..30),
            4 => Just(b"\n".to_vec()),
            2 => Just(b"START x\n".to_vec()),
            1 => (MAX_LINE_BYTES - 2..MAX_LINE_BYTES + 3).prop_map(|n| vec![b'a'; n]),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter_and_no_byte_is_lost(
            text in text(),
            sizes in prop::collection::vec(1_usize..20_000, 1..5),
            records in any::<bool>(),
        ) {
            let start = Regex::new("^START").unwrap();
            let start = records.then_some(&start);
            let (texts, skipped) = cut(&text, &sizes, start);
            prop_assert_eq!((texts.clone(), skipped), cut(&text, &[text.len().max(1)], start));
            // Only line ends, and what has none, are not in what was given.
            let ended = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let given: usize = texts.iter().map(Vec::len).sum();
            let ends = text[..ended].iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
            prop_assert!(given + skipped as usize + ends >= ended);
            prop_assert!(given + skipped as usize <= text.len());
        }
    }
}
