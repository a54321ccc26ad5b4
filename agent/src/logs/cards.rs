//! Card numbers in text: 14 to 19 digits in an issuer's range, of a length that it issues, with the right
//! check digit (ISO/IEC 7812, Luhn), alone or in the groups in which cards show them. Other numbers
//! stay: counters, times and identifiers are what a log is read for. One in ten of them has a right
//! check digit by chance.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex};

/// Runs of digits, and of groups of digits.
pub(super) const DIGITS: &str = "[0-9](?:[ -]?[0-9]){13,}";
const MARK: &[u8] = b"[card number]";

/// First digits, from and to, and the lengths that are issued in that range.
const ISSUERS: [(u32, u32, &[usize]); 15] = [
    // Visa.
    (4, 4, &[16, 19]),
    // Mastercard.
    (51, 55, &[16]),
    (2221, 2720, &[16]),
    // American Express.
    (34, 34, &[15]),
    (37, 37, &[15]),
    // Diners Club.
    (300, 305, &[14, 16]),
    (36, 36, &[14]),
    (38, 39, &[14, 16]),
    // Discover, RuPay.
    (6011, 6011, &[16, 19]),
    (644, 659, &[16, 19]),
    // UnionPay.
    (62, 62, &[16, 17, 18, 19]),
    // JCB.
    (3528, 3589, &[16, 19]),
    // Maestro.
    (6759, 6763, &[16, 18, 19]),
    (5018, 5038, &[16, 18, 19]),
    // Mir.
    (2200, 2204, &[16, 17, 18, 19]),
];
/// Digits in each group, as on a card.
const GROUPS: [&[usize]; 5] = [
    &[4, 4, 4, 4],
    &[4, 4, 4, 4, 3],
    &[4, 6, 5],
    &[4, 6, 4],
    &[6, 13],
];

/// The line without card numbers. `digits` is [`DIGITS`].
pub(super) fn without_card_numbers<'l>(line: &'l [u8], digits: &Regex) -> Cow<'l, [u8]> {
    digits.replace_all(line, |found: &Captures<'_>| {
        let run = found.get(0).map_or(0..0, |run| run.range());
        let before = line[..run.start].last();
        let after = &line[run.end..];
        // A part of an identifier, a negative number, a fraction.
        let is_joined = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let is_part = before.is_some_and(|byte| is_joined(*byte) || *byte == b'.')
            || after.first().is_some_and(|byte| is_joined(*byte))
            || (after.first() == Some(&b'.') && after.get(1).is_some_and(u8::is_ascii_digit));
        let text = &line[run];
        if is_part {
            text.to_vec()
        } else {
            without_cards_in(text)
        }
    })
}

/// A run of groups of digits without the card numbers in it: the whole run, if it has the groups of a
/// card; or groups between blanks that are each as long as a card number.
fn without_cards_in(run: &[u8]) -> Vec<u8> {
    let separators = || run.iter().filter(|byte| !byte.is_ascii_digit());
    let is_even = separators().all(|byte| Some(byte) == separators().next());
    let lengths: Vec<usize> = run
        .split(|byte| !byte.is_ascii_digit())
        .map(<[u8]>::len)
        .collect();
    if is_even && GROUPS.contains(&lengths.as_slice()) && is_card_number(run) {
        return MARK.to_vec();
    }
    let mut text = Vec::with_capacity(run.len());
    for (at, part) in run.split(|byte| *byte == b' ').enumerate() {
        if at > 0 {
            text.push(b' ');
        }
        let is_plain = part.iter().all(u8::is_ascii_digit);
        text.extend_from_slice(if is_plain && is_card_number(part) {
            MARK
        } else {
            part
        });
    }
    text
}

fn is_card_number(text: &[u8]) -> bool {
    let digits: Vec<u32> = text
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .map(|byte| u32::from(byte - b'0'))
        .collect();
    let begins_within = |from: u32, to: u32| {
        let places = from.ilog10() as usize + 1;
        let first = digits
            .iter()
            .take(places)
            .fold(0, |n, digit| n * 10 + digit);
        digits.len() >= places && (from..=to).contains(&first)
    };
    let is_issued = ISSUERS
        .iter()
        .any(|(from, to, lengths)| lengths.contains(&digits.len()) && begins_within(*from, *to));
    is_issued && has_check_digit(&digits)
}

fn has_check_digit(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => *digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn without(line: &str) -> String {
        let digits = Regex::new(DIGITS).unwrap();
        let bytes = without_card_numbers(line.as_bytes(), &digits).into_owned();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn card_numbers_go() {
        for (line, expected) in [
            (
                "paid with 4111 1111 1111 1111 today",
                "paid with [card number] today",
            ),
            ("paid with 4111-1111-1111-1111", "paid with [card number]"),
            ("order 7 4111111111111111", "order 7 [card number]"),
            (
                "4111111111111111 5555555555554444",
                "[card number] [card number]",
            ),
            ("amex 3782 822463 10005.", "amex [card number]."),
            ("\"pan\":6011111111111117,", "\"pan\":[card number],"),
            ("jcb=3530111333300000&x", "jcb=[card number]&x"),
            ("diners 30569309025904", "diners [card number]"),
        ] {
            assert_eq!(without(line), expected);
        }
    }

    /// All but the first have the check digit of a card number.
    #[test]
    fn other_numbers_stay() {
        for line in [
            "not a card 4111 1111 1111 1112",
            // No issuer, or not of its lengths.
            "at 1117838570000004",
            "counter 9111111111111117",
            "visa has no 4111111111111 and no 411111111111116",
            // Identifiers.
            "blk_4111111111111111",
            "blk_-4111111111111111",
            "job-4111111111111111",
            "4111111111111111-part",
            "x4111111111111111",
            "4111111111111111b",
            "0.4111111111111111",
            "4111111111111111.5",
            "id 12344111-1111-1111-1111-123456789012",
            "id 4111-1111-1111-1111-12345678",
            // Groups that a card does not have, or more of them.
            "4111111111 111111",
            "41 11 11 11 11 11 11 11",
            "fans ( 3530 1113 3330 0000 3515 3497 )",
            "4111-1111 1111 1111",
        ] {
            assert_eq!(without(line), line);
        }
    }

    proptest! {
        #[test]
        fn no_card_number_survives(
            (from, to, lengths) in prop::sample::select(ISSUERS.to_vec()),
            at in any::<prop::sample::Index>(),
            more in prop::collection::vec(0_u32..10, 19),
            before in "[a-z]{0,9} ",
        ) {
            let first = from + at.index((to - from + 1) as usize) as u32;
            let length = lengths[at.index(lengths.len())];
            let mut digits: Vec<u32> = first.to_string().bytes().map(|b| u32::from(b - b'0')).collect();
            digits.extend(&more[digits.len()..length]);
            let check = (0..10).find(|check| {
                digits[length - 1] = *check;
                has_check_digit(&digits)
            });
            prop_assert!(check.is_some());
            let number: String = digits.iter().map(u32::to_string).collect();
            let text = without(&format!("{before}{number}"));
            prop_assert_eq!(text, format!("{before}[card number]"));
        }
    }
}
