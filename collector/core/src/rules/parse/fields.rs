//! The keys of one TOML table, asked for one by one, and the list of problems.

use std::str::FromStr;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use watchkeep_shared::DurationMs;

use super::{
    super::{Limit, MAX_RULE_DURATION_MS, ParseWordError},
    Problem,
};
use crate::duration::parse_duration;

/// The problems found so far, in a text.
pub(super) struct Problems<'t> {
    text: &'t str,
    found: Vec<Problem>,
}

impl<'t> Problems<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self {
            text,
            found: Vec::new(),
        }
    }

    /// Notes a problem at a byte of the text.
    pub(super) fn add(&mut self, at: usize, path: &str, message: &str) {
        let before = self.text.as_bytes().iter().take(at);
        self.found.push(Problem {
            line: 1 + before.filter(|&&byte| byte == b'\n').count(),
            path: path.to_owned(),
            message: message.to_owned(),
        });
    }

    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| problem.line);
        self.found
    }
}

/// One table's keys. Each that is read is remembered, so that [`Self::finish`] can refuse the rest.
pub(super) struct Fields<'d, 'p, 't> {
    table: &'d DeTable<'d>,
    at: usize,
    path: String,
    known: Vec<&'static str>,
    problems: &'p mut Problems<'t>,
}

impl<'d, 'p, 't> Fields<'d, 'p, 't> {
    pub(super) fn new(
        table: &'d DeTable<'d>,
        at: usize,
        path: String,
        problems: &'p mut Problems<'t>,
    ) -> Self {
        Self {
            table,
            at,
            path,
            known: Vec::new(),
            problems,
        }
    }

    /// The value of a key, whatever it is.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Notes a problem of a key, at its value if it has one.
    pub(super) fn problem(&mut self, key: &str, message: &str) {
        let at = self
            .table
            .get(key)
            .map_or(self.at, |value| value.span().start);
        let path = self.join(key);
        self.problems.add(at, &path, message);
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// A text, not blank.
    pub(super) fn optional_text(&mut self, key: &'static str) -> Option<String> {
        let value = self.take(key)?;
        if let DeValue::String(text) = value.get_ref() {
            if text.trim().is_empty() {
                self.problem(key, "is empty");
                return None;
            }
            return Some(text.to_string());
        }
        let message = format!("must be text in quotes, not {}", value.get_ref().type_str());
        self.problem(key, &message);
        None
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        if self.table.get(key).is_none() {
            self.known.push(key);
            self.problem(key, "is missing");
            return None;
        }
        self.optional_text(key)
    }

    /// One word of a closed set.
    pub(super) fn word<T: FromStr<Err = ParseWordError>>(
        &mut self,
        key: &'static str,
    ) -> Option<T> {
        let text = self.text(key)?;
        text.parse()
            .map_err(|error: ParseWordError| {
                let words: Vec<&str> = error.expected.split(", ").collect();
                self.problem(key, &unknown_word(&text, &words));
            })
            .ok()
    }

    /// A duration in text, as in `5m`; `default` if the key is absent.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: DurationMs,
    ) -> Option<DurationMs> {
        let Some(value) = self.take(key) else {
            return Some(default);
        };
        let parsed = value.get_ref().as_str().and_then(rule_duration);
        if parsed.is_none() {
            self.problem(
                key,
                "must be a duration of at most 30 days in quotes: a whole number with ms, s, m, h \
                 or d, as in \"90s\" or \"1h30m\"",
            );
        }
        parsed
    }

    /// A whole number of at least 1; `default` if the key is absent.
    pub(super) fn count(&mut self, key: &'static str, default: u64) -> Option<u64> {
        let Some(value) = self.take(key) else {
            return Some(default);
        };
        let parsed = number(value.get_ref())
            .filter(|n| (1.0..=1e9).contains(n) && n.fract() == 0.0)
            .map(|n| n as u64);
        if parsed.is_none() {
            self.problem(key, "must be a whole number from 1 to 1000000000");
        }
        parsed
    }

    /// A level: `{ above = N }` or `{ below = N }`.
    pub(super) fn level(&mut self, key: &'static str) -> Option<Limit> {
        const SHAPE: &str = "must be { above = NUMBER } or { below = NUMBER }";
        let Some(value) = self.take(key) else {
            self.problem(key, &format!("is missing; it {SHAPE}"));
            return None;
        };
        let DeValue::Table(table) = value.get_ref() else {
            self.problem(key, SHAPE);
            return None;
        };
        let path = self.join(key);
        let before = self.problems.found.len();
        let mut inner = Fields::new(table, value.span().start, path, self.problems);
        let above = inner.optional_number("above");
        let below = inner.optional_number("below");
        inner.finish();
        match (above, below) {
            (Some(above), None) => Some(Limit::Above(above)),
            (None, Some(below)) => Some(Limit::Below(below)),
            _ => {
                if self.problems.found.len() == before {
                    self.problem(key, SHAPE);
                }
                None
            }
        }
    }

    /// A finite number.
    fn optional_number(&mut self, key: &'static str) -> Option<f64> {
        let value = self.take(key)?;
        let parsed = number(value.get_ref());
        if parsed.is_none() {
            self.problem(key, "must be a finite number");
        }
        parsed
    }

    /// Refuses every key that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let path = self.join(name);
            let message = match closest(name, &self.known) {
                Some(known) => format!("unknown key; did you mean \"{known}\"?"),
                None => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            self.problems.add(key.span().start, &path, &message);
        }
    }
}

/// The message for a word that is not in a closed set.
pub(super) fn unknown_word(found: &str, words: &[&str]) -> String {
    let all = words.join(", ");
    match closest(found, words) {
        Some(word) => format!("\"{found}\" is not known; did you mean \"{word}\"? ({all})"),
        None => format!("\"{found}\" is not known; use one of {all}"),
    }
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    let parsed = match value {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .map(|n| n as f64),
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => None,
    };
    parsed.filter(|n: &f64| n.is_finite())
}

/// `500ms`, `90s`, `5m`, `2h`, `1d`, and sums such as `1h30m`.
fn rule_duration(text: &str) -> Option<DurationMs> {
    parse_duration(text).filter(|length| (0..=MAX_RULE_DURATION_MS).contains(&length.0))
}

/// The word nearest to `found`, if one is near enough to be meant.
fn closest<'w>(found: &str, words: &[&'w str]) -> Option<&'w str> {
    words
        .iter()
        .map(|word| (strsim::levenshtein(found, word), *word))
        .filter(|(distance, word)| *distance <= (word.len().max(found.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
