//! What must hold for any bytes in a log: bodies of the fuzz targets (`tests/fuzz/`), which the
//! tests run too.

use std::sync::LazyLock;

use regex::{Regex, bytes};

use super::{
    framing::{self, Found, Framing, MAX_LINE_BYTES, MAX_RECORD_BYTES, MAX_RECORD_LINES},
    redact::Redactor,
};

/// In the input of [`framing`]: with the byte after it a run of so many bytes more than a little
/// less than the longest line.
const LONG_RUN: u8 = 0xff;
/// Most of them.
const LONG_RUNS: usize = 6;

static START: LazyLock<bytes::Regex> =
    LazyLock::new(|| bytes::Regex::new("^[0-9]").expect("it is a pattern"));
static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new(Vec::new()));
static MARKS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\[redacted\]|\[e-mail\]|\[card number\]").expect("it is a pattern")
});

/// What a log gave: its lines or records, and how many bytes were skipped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) texts: Vec<Vec<u8>>,
    pub(super) skipped: u64,
}

/// Framing gives the same whatever the pieces are in which bytes come, and what a plain reading of
/// its rules gives. The first byte says whether there are records of several lines, the next three
/// how large the pieces are.
pub fn framing(data: &[u8]) {
    let Some((head, text)) = data.split_first_chunk::<4>() else {
        return;
    };
    let text = with_long_runs(text);
    let start = (head[0] & 1 == 1).then_some(&*START);
    let sizes = [1, 2, 3].map(|at| 1 + usize::from(head[at]) + text.len() / 64);
    let whole = cut(&text, &[text.len().max(1)], start);
    assert_eq!(cut(&text, &sizes, start), whole, "pieces of {sizes:?}");
    assert_eq!(plainly(&text, start), whole, "the plain reading");
}

fn with_long_runs(data: &[u8]) -> Vec<u8> {
    let (mut text, mut runs) = (Vec::with_capacity(data.len()), 0);
    let mut bytes = data.iter();
    while let Some(&byte) = bytes.next() {
        if byte == LONG_RUN && runs < LONG_RUNS {
            runs += 1;
            let more = bytes.next().copied().unwrap_or(0);
            text.resize(text.len() + MAX_LINE_BYTES - 128 + usize::from(more), b'x');
        } else {
            text.push(byte);
        }
    }
    text
}

/// Everything that `bytes` give when they come in pieces of these sizes, and a flush.
pub(super) fn cut(bytes: &[u8], sizes: &[usize], start: Option<&bytes::Regex>) -> Cut {
    let mut given = Cut::default();
    let (mut buffer, mut skipping) = (Vec::new(), None);
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    loop {
        let size = sizes.next().map_or(1, |size| *size).min(rest.len());
        let flush = rest.is_empty();
        buffer.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        let framing = Framing { start, flush };
        let (taken, _) = framing::take(&buffer, &mut skipping, framing, &mut |found| {
            match found {
                Found::Text(text) => given.texts.push(text.to_vec()),
                Found::Skipped(bytes) => given.skipped += bytes,
            }
            true
        });
        buffer.drain(..taken);
        assert!(buffer.len() <= MAX_RECORD_BYTES + 2 * MAX_LINE_BYTES + size);
        if flush {
            return given;
        }
    }
}

/// The rules of framing, line by line, with everything at hand.
fn plainly(text: &[u8], start: Option<&bytes::Regex>) -> Cut {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let is_ended = |line: &[u8]| line.ends_with(b"\n");
    let is_overlong = |line: &[u8]| line.len() - usize::from(is_ended(line)) > MAX_LINE_BYTES;
    let mut given = Cut::default();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        if is_overlong(line) {
            given.texts.push(line[..MAX_LINE_BYTES].to_vec());
            if is_ended(line) {
                given.skipped += (line.len() - 1 - MAX_LINE_BYTES) as u64;
            }
            continue;
        }
        if !is_ended(line) {
            break;
        }
        let mut record = line.to_vec();
        let mut count = 1;
        while let (Some(start), Some(next)) = (start, lines.get(at)) {
            let full = record.len() > MAX_RECORD_BYTES || count == MAX_RECORD_LINES;
            if full || is_overlong(next) || !is_ended(next) {
                break;
            }
            if start.is_match(framing::without_end(next)) {
                break;
            }
            record.extend_from_slice(next);
            count += 1;
            at += 1;
        }
        given.texts.push(framing::without_end(&record).to_vec());
    }
    given
}

/// Redacting again changes nothing; nothing but marks is ever added; and a secret that is named as
/// one is gone, whatever is around it. The secret is made of the first bytes.
pub fn redaction(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let once = REDACTOR.redact(&text);
    assert_eq!(REDACTOR.redact(&once), once, "redacted twice");
    let kept = MARKS.replace_all(&once, "");
    assert!(is_within(&kept, &text), "{text:?} became {once:?}");

    let Some((seed, around)) = data.split_first_chunk::<12>() else {
        return;
    };
    let letters = b"abcdefghijkmnopqrstuvwxyzACDEFGH23456789";
    let secret: String = seed
        .iter()
        .map(|byte| char::from(letters[usize::from(*byte) % letters.len()]))
        .collect();
    let (before, after) = around.split_at(around.len() / 2);
    let before = String::from_utf8_lossy(before);
    let after = String::from_utf8_lossy(after);
    if before.contains(&secret) || after.contains(&secret) {
        return;
    }
    let line = format!("{before} password={secret} {after}");
    let sent = REDACTOR.redact(&line);
    assert!(!sent.contains(&secret), "{line:?} became {sent:?}");
}

/// Whether all characters of `part` but blanks occur in `whole`, in this order.
fn is_within(part: &str, whole: &str) -> bool {
    let mut whole = whole.chars();
    part.chars()
        .filter(|c| !c.is_whitespace())
        .all(|wanted| whole.any(|c| c == wanted))
}

/// Inputs to begin with for [`framing`].
pub fn framing_seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 6] = [
        b"plain\nlines\r\nand an unfinished one",
        b"tail\n at b\n1 ERROR\r\n at x\n at y\r\n2 fine\n3 ERROR\n at z\nunfin",
        b"2026-01-01 boom\n\tat a.b.C(D.java:1)\n\tat e\n\n2026-01-02 \xc3\x28 not UTF-8\n",
        b"\xff\x7f\n\xff\x80\n\xff\x81\r\nshort\n",
        b"1 a\n\xff\xff\n b\n\xff\x00\n c\n\xff\x10\n d\n2\n",
        &[b'\n'; 600],
    ];
    let heads = [[0, 0, 0, 0], [1, 0, 7, 60], [1, 255, 1, 3]];
    let all = texts
        .iter()
        .flat_map(|text| heads.iter().map(|head| [head, *text].concat()));
    all.collect()
}

/// Inputs to begin with for [`redaction`].
pub fn redaction_seeds() -> Vec<Vec<u8>> {
    [
        "Failed password for root from 192.0.2.1",
        "DB_PASSWORD: 'a b c', next token=\"x\"y",
        r#"{"api_key": "xyz", "n": 1} {\"secret\":\"abc\"}"#,
        "GET /?access_token=abc&x=1 Cookie: sid=1; theme=dark",
        "Authorization: Bearer abcdef123456 basic dXNlcjpwYXNz",
        "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc key AKIAIOSFODNN7EXAMPLE used",
        "connect postgres://bob:pw@db/x as jo.doe+x@mail.example.org",
        "key -----BEGIN PRIVATE KEY-----\nMIIE\nabc=\n-----END PRIVATE KEY-----\nread",
        "paid with 4111 1111 1111 1111 and 4111-1111-1111-1111, order 7 4111111111111111",
        "the password is hunter2, the token was password=[redacted]] twice",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_check::check;

    #[test]
    fn framing_holds() {
        check("framing", &framing_seeds(), framing);
    }

    #[test]
    fn redaction_holds() {
        check("redaction", &redaction_seeds(), redaction);
    }
}
