//! The rules of one check, compiled together, and what becomes of the lines that match them.

use std::path::Path;

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use watchkeep_shared::wire::{
    heartbeat::LogGapReason,
    policy::{LogCheck, LogRule},
};

use super::{framing::Found, pending::Pending};

/// Most memory that one pattern may compile to, bytes.
const PATTERN_BYTES: usize = 1 << 20;
/// Most memory that the patterns of one check may compile to together, bytes.
const SET_BYTES: usize = 16 << 20;
/// Most memory for what looking for them has learnt, bytes.
const CACHE_BYTES: usize = 1 << 20;

/// What to look for, and how the log is cut into records.
#[derive(Debug)]
pub(super) struct Rules {
    set: RegexSet,
    named: Vec<LogRule>,
    pub(super) record_start: Option<Regex>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            set: RegexSet::empty(),
            named: Vec::new(),
            record_start: None,
        }
    }
}

impl Rules {
    /// Compiles a check's patterns.
    pub(super) fn new(check: &LogCheck) -> Result<Self, regex::Error> {
        let patterns = check.rules.iter().map(|rule| rule.pattern.as_str());
        let set = RegexSetBuilder::new(patterns)
            .size_limit(SET_BYTES)
            .dfa_size_limit(CACHE_BYTES)
            .build()?;
        let record_start = check.record_start.as_deref().map(compile).transpose()?;
        Ok(Self {
            set,
            named: check.rules.clone(),
            record_start,
        })
    }

    /// The rules that a line or record matches.
    pub(super) fn matching<'a>(&'a self, text: &[u8]) -> impl Iterator<Item = &'a LogRule> {
        // Nearly every line matches none, which costs half as much to find as which one.
        let matches = self.set.is_match(text).then(|| self.set.matches(text));
        matches.into_iter().flatten().map(|at| &self.named[at])
    }
}

/// Where lines go.
pub(super) struct Sink<'a> {
    pub(super) rules: &'a Rules,
    pub(super) pending: &'a mut Pending,
    pub(super) path: &'a Path,
}

impl Sink<'_> {
    /// Returns whether there is room for more.
    pub(super) fn take(&mut self, found: &Found<'_>) -> bool {
        match found {
            Found::Text(text) => {
                for rule in self.rules.matching(text) {
                    self.pending.matched(rule, self.path, text);
                }
            }
            Found::Skipped(bytes) => {
                self.pending
                    .gap(self.path, LogGapReason::LineTooLong, Some(*bytes));
            }
        }
        !self.pending.is_full()
    }
}

/// Whether a rule's pattern can be used; the text of the error is for people.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    compile(pattern).map(drop).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
        error => error.to_string().lines().last().unwrap_or("").to_owned(),
    })
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build()
}
