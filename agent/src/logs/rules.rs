//! The rules of one check, compiled together, and what becomes of the lines that match them.

use std::path::Path;

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use regex_automata::{
    MatchKind,
    meta::{self, BuildError},
    nfa::thompson::WhichCaptures,
    util::syntax,
};
use watchkeep_shared::wire::{
    heartbeat::LogGapReason,
    policy::{LogCheck, LogRule},
};

use super::{framing::Found, pending::Pending};

/// Most memory that one pattern may compile to, bytes.
const PATTERN_BYTES: usize = 1 << 20;
/// Most memory that the patterns of one check may compile to together, bytes; the policy's budget is
/// smaller.
const SET_BYTES: usize = 16 << 20;
/// Least memory for what looking for the patterns of one check has learnt, bytes.
pub const CHECK_CACHE_BYTES: usize = 64 << 10;
/// How to write a pattern that needs less memory.
pub const SMALLER_PATTERNS: &str = "\\w, \\d, \\s, \\b and . mean all the world's characters, which takes most of it: write (?-u:\\w) for ASCII";

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
        let patterns = || check.rules.iter().map(|rule| rule.pattern.as_str());
        let compiled: usize = patterns().filter_map(|one| compiled_bytes(one).ok()).sum();
        let set = RegexSetBuilder::new(patterns())
            .size_limit(SET_BYTES)
            // A large automaton can't work with a small cache, and would be far slower without.
            .dfa_size_limit(compiled.max(CHECK_CACHE_BYTES))
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
            Found::Longer { text, seen } => {
                let seen = &text[..(*seen).min(text.len())];
                let before: Vec<&LogRule> = self.rules.matching(seen).collect();
                for rule in self.rules.matching(text) {
                    if !before.iter().any(|other| other.name == rule.name) {
                        self.pending.matched(rule, self.path, text);
                    }
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

/// Checks a rule's pattern and returns how much memory it needs, bytes: compiled, and as much again for
/// what looking for it learns. The text of the error is for people.
pub fn check_pattern(pattern: &str) -> Result<usize, String> {
    compiled_bytes(pattern)
        .map(|bytes| bytes * 2)
        .map_err(|error| match error.syntax_error() {
            Some(syntax) => syntax.to_string().lines().last().unwrap_or("").to_owned(),
            None if error.size_limit().is_some() => {
                format!("the pattern is too large; {SMALLER_PATTERNS}")
            }
            None => error.to_string(),
        })
}

/// The memory of a pattern's automata, as they are in a [`RegexSet`].
fn compiled_bytes(pattern: &str) -> Result<usize, Box<BuildError>> {
    let config = meta::Config::new()
        .nfa_size_limit(Some(PATTERN_BYTES))
        .match_kind(MatchKind::All)
        .which_captures(WhichCaptures::None)
        .utf8_empty(false);
    let automata = meta::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().utf8(false))
        .build(pattern)?;
    Ok(automata.memory_usage())
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_s_memory_is_known_and_an_error_says_what_is_wrong() {
        let ascii = check_pattern(r"user=(?-u:\w{1,32}) from").unwrap();
        let unicode = check_pattern(r"user=\w{1,8} from").unwrap();
        assert!(ascii < 64 << 10, "{ascii}");
        assert!(unicode > 4 * ascii, "{unicode}");
        let error = check_pattern(r"user=\w{1,200} from").unwrap_err();
        assert!(error.contains("(?-u:\\w)"), "{error}");
        let error = check_pattern("a(b").unwrap_err();
        assert_eq!(error, "error: unclosed group");
    }
}
