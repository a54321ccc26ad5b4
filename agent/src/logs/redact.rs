//! Takes secrets and personal data out of a line before it leaves the machine.
//!
//! Patterns can't know everything; they err on the side of taking out too much. The built-in ones:
//! assignments to names that speak of secrets, bearer and basic credentials, cookies, JSON web
//! tokens, cloud access keys, user information in URLs, private keys, e-mail addresses, and card
//! numbers (by their check digit). They are compiled when the first line matches a rule, not
//! before, as most agents never need them.

use std::{borrow::Cow, sync::OnceLock};

use regex::{Captures, Regex};

const REDACTED: &str = "[redacted]";
/// How often a line is looked at; the first pass almost always suffices.
const PASSES: usize = 5;

/// Pattern and replacement, in the order in which they are applied.
/// Classes are ASCII where that will do: Unicode ones compile to many times the size.
const BUILT_IN: [(&str, &str); 10] = [
    (
        r"(?s)-----BEGIN[A-Z ]*PRIVATE KEY-----.*?(?:-----END[A-Z ]*PRIVATE KEY-----|\z)",
        REDACTED,
    ),
    (r"(?i)((?:set-)?cookie[ \t]*[:=][ \t]*).*", "${1}[redacted]"),
    (
        r"(?i)(bearer|basic|digest|negotiate)[ \t]+[A-Za-z0-9._~+/=-]{6,}",
        "${1} [redacted]",
    ),
    (
        r"eyJ[A-Za-z0-9_-]{8}[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?",
        REDACTED,
    ),
    (r"(?:AKIA|ASIA)[0-9A-Z]{16}", REDACTED),
    URL_USER,
    (
        r#"(?i)((?:password|passwd|passphrase|passcode|pwd|secret|token|api[-_ ]?key|access[-_ ]?key|private[-_ ]?key|credentials?|client[-_ ]?id)[A-Za-z0-9_.-]*\\?["']?[ \t]*(?:=>|[:=])[ \t]*)(?:(?:\\?"(?:[^"\\]|\\[^"])*\\?"?|'[^']*'?)(?:\[redacted\]|\[e-mail\]|\[card number\]|[^\s,;&"'\]})])*|(?:\[redacted\]|\[e-mail\]|\[card number\]|[^\s,;&"'\]})])+)"#,
        "${1}[redacted]",
    ),
    (
        r"(?i)((?:password|passwd|pwd|secret|token)[ \t]+(?:is|was)[ \t]+)\S+",
        "${1}[redacted]",
    ),
    (
        r#"[^\s@<>()\[\],;:"'=]+@[^\s@<>()\[\],;:"'=./]+(?:\.[^\s@<>()\[\],;:"'=./]+)+"#,
        "[e-mail]",
    ),
    // An address that was taken out may have stood in the way.
    URL_USER,
];

/// User information in a URL. A password may hold a slash, though it should not; one after digits
/// alone is that behind a port.
const URL_USER: (&str, &str) = (
    r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/@]+|[^\s/@:]*:[0-9]*[^\s/@0-9][^\s@]*)@",
    "${1}[redacted]@",
);

/// Takes secrets out of lines.
#[derive(Debug)]
pub struct Redactor {
    extra: Vec<Regex>,
    built_in: OnceLock<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    patterns: Vec<(Regex, &'static str)>,
    digits: Regex,
}

impl Redactor {
    /// With these patterns beside the built-in ones.
    pub fn new(extra: Vec<Regex>) -> Self {
        Self {
            extra,
            built_in: OnceLock::new(),
        }
    }

    /// `line` without what must not leave the machine. What is left of a line can be a secret by
    /// another pattern, so it is looked at again until nothing changes, within [`PASSES`].
    pub fn redact(&self, line: &str) -> String {
        let mut text = self.pass(line);
        for _ in 1..PASSES {
            if text == line {
                break;
            }
            let again = self.pass(&text);
            if again == text {
                break;
            }
            text = again;
        }
        text
    }

    fn pass(&self, line: &str) -> String {
        let compiled = self.built_in.get_or_init(Compiled::new);
        let mut text = Cow::Borrowed(line);
        for (pattern, replacement) in &compiled.patterns {
            text = replaced(text, |text| pattern.replace_all(text, *replacement));
        }
        text = replaced(text, |text| {
            compiled
                .digits
                .replace_all(text, |found: &Captures<'_>| without_card_numbers(&found[0]))
        });
        for pattern in &self.extra {
            text = replaced(text, |text| {
                pattern.replace_all(text, regex::NoExpand(REDACTED))
            });
        }
        text.into_owned()
    }
}

impl Compiled {
    fn new() -> Self {
        let compile = |pattern| Regex::new(pattern).expect("a test compiles all of them");
        Self {
            patterns: BUILT_IN
                .iter()
                .map(|(pattern, replacement)| (compile(pattern), *replacement))
                .collect(),
            digits: compile(r"[0-9](?:[ -]?[0-9]){12,}"),
        }
    }
}

fn replaced<'a>(
    text: Cow<'a, str>,
    replace: impl for<'b> Fn(&'b str) -> Cow<'b, str>,
) -> Cow<'a, str> {
    match replace(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(changed) => Cow::Owned(changed),
    }
}

/// A run of digit groups without those neighbouring groups that together are a card number: 13 to
/// 19 digits whose last is the right check digit (ISO/IEC 7812, Luhn).
fn without_card_numbers(run: &str) -> String {
    let groups: Vec<&str> = run.split_inclusive([' ', '-']).collect();
    let mut text = String::new();
    let mut at = 0;
    while at < groups.len() {
        let end = (at + 1..=groups.len())
            .rev()
            .find(|end| is_card_number(&groups[at..*end]));
        if let Some(end) = end {
            text.push_str("[card number]");
            let last = groups[end - 1];
            text.extend(last.chars().last().filter(|c| !c.is_ascii_digit()));
            at = end;
        } else {
            text.push_str(groups[at]);
            at += 1;
        }
    }
    text
}

fn is_card_number(groups: &[&str]) -> bool {
    let digits: Vec<u32> = groups
        .iter()
        .flat_map(|group| group.chars().filter_map(|c| c.to_digit(10)))
        .collect();
    if !(13..=19).contains(&digits.len()) || digits[0] == 0 {
        return false;
    }
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

    thread_local! {
        /// Compiling the patterns takes longer than any test.
        static REDACTOR: Redactor = Redactor::new(Vec::new());
    }

    fn redact(line: &str) -> String {
        REDACTOR.with(|redactor| redactor.redact(line))
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (line, expected) in [
            ("disk full on /var", "disk full on /var"),
            (
                "Failed password for root from 192.0.2.1",
                "Failed password for root from 192.0.2.1",
            ),
            ("login password=hunter2 ok", "login password=[redacted] ok"),
            (
                "DB_PASSWORD: 'a b c', next",
                "DB_PASSWORD: [redacted], next",
            ),
            (
                r#"{"api_key": "xyz", "n": 1}"#,
                r#"{"api_key": [redacted], "n": 1}"#,
            ),
            (
                "GET /?access_token=abc&x=1",
                "GET /?access_token=[redacted]&x=1",
            ),
            (
                "Authorization: Bearer abcdef123456",
                "Authorization: Bearer [redacted]",
            ),
            (
                "authorization=basic dXNlcjpwYXNz",
                "authorization=basic [redacted]",
            ),
            ("Cookie: sid=1; theme=dark", "Cookie: [redacted]"),
            (
                "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc end",
                "jwt [redacted] end",
            ),
            ("key AKIAIOSFODNN7EXAMPLE used", "key [redacted] used"),
            (
                "connect postgres://bob:pw@db/x",
                "connect postgres://[redacted]@db/x",
            ),
            ("-----BEGIN RSA PRIVATE KEY-----MIIE", "[redacted]"),
            (
                "key -----BEGIN PRIVATE KEY-----\nMIIE\nabc=\n-----END PRIVATE KEY-----\nread",
                "key [redacted]\nread",
            ),
            (
                "a\n-----BEGIN EC PRIVATE KEY-----\nMIIE\nabc=",
                "a\n[redacted]",
            ),
            (
                "mail from jo.doe+x@mail.example.org failed",
                "mail from [e-mail] failed",
            ),
            (
                "paid with 4111 1111 1111 1111 today",
                "paid with [card number] today",
            ),
            ("paid with 4111-1111-1111-1111", "paid with [card number]"),
            ("order 7 4111111111111111", "order 7 [card number]"),
            (
                "not a card 4111 1111 1111 1112",
                "not a card 4111 1111 1111 1112",
            ),
            ("the password is hunter2", "the password is [redacted]"),
            // What was taken out before is part of the value.
            ("password=https://u:p@h/x", "password=[redacted]"),
            ("token=\"x\"y z", "token=[redacted] z"),
            ("access_token=a}b@c.d", "access_token=[redacted]"),
            ("curl 'token=abc' failed", "curl 'token=[redacted]' failed"),
        ] {
            assert_eq!(redact(line), expected);
        }
    }

    #[test]
    fn passwords_in_urls_go_and_paths_stay() {
        for (line, expected) in [
            ("postgres://bob:p/w@db/x", "postgres://[redacted]@db/x"),
            ("x://bob:/y@mail.example.org@db", "x://[redacted]@db"),
            ("http://registry:8080/@scope", "http://registry:8080/@scope"),
        ] {
            assert_eq!(redact(line), expected);
        }
    }

    #[test]
    fn extra_patterns_are_applied_literally() {
        let redactor = Redactor::new(vec![Regex::new(r"CUST-\d+").unwrap()]);
        assert_eq!(redactor.redact("for CUST-123 $1"), "for [redacted] $1");
    }

    fn with_check_digit(mut digits: Vec<u8>) -> String {
        digits.push(0);
        for check in 0..10 {
            *digits.last_mut().unwrap() = check;
            let text: String = digits.iter().map(|d| char::from(b'0' + d)).collect();
            if is_card_number(&[&text]) {
                return text;
            }
        }
        unreachable!("one of ten check digits is right")
    }

    proptest! {
        #[test]
        fn no_secret_survives_in_any_surroundings(
            name in "(db_|X-)?(password|secret|api-key|TOKEN|passwd)(_v2)?",
            sep in "( ?= ?|: ?|\": \")",
            secret in "[A-Za-z0-9!#$%^*_+]{6,40}",
            before in "[a-z ]{0,20} ",
            after in "( [a-z ]{0,20})?",
        ) {
            let line = format!("{before}{name}{sep}{secret}{after}");
            let text = redact(&line);
            prop_assert!(!text.contains(&secret), "{line} became {text}");
        }

        #[test]
        fn no_card_number_survives(
            digits in prop::collection::vec(0_u8..10, 12..18),
            before in "[a-z]{0,9} ",
        ) {
            let mut digits = digits;
            digits[0] = digits[0].max(1);
            let number = with_check_digit(digits);
            let text = redact(&format!("{before}{number}"));
            prop_assert!(!text.contains(&number), "{text}");
        }

        #[test]
        fn any_text_is_taken(line in "\\PC*") {
            let _ = redact(&line);
        }
    }
}
