//! What rules would find in a file as it is now, and what would leave the machine: for
//! `watchkeep-agent logs test`. Reads the whole file and keeps nothing.

use std::io::{self, Read};

use serde::Serialize;
use watchkeep_shared::wire::policy::LogCheck;

use super::{
    framing::{self, Found, Framing},
    redact::Redactor,
    rules::Rules,
};

const CHUNK_BYTES: usize = 64 << 10;

/// What a trial found.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// Lines, or records of several lines.
    pub records: u64,
    /// Bytes of overlong lines that are not looked at.
    pub skipped_bytes: u64,
    /// One for each rule, in the order of the rules.
    pub rules: Vec<RuleTrial>,
}

/// What one rule found.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct RuleTrial {
    /// The rule's name.
    pub rule: String,
    /// How many lines or records match.
    pub count: u64,
    /// The first of them, as they would be sent.
    pub lines: Vec<String>,
}

impl Trial {
    /// Whether any rule matched.
    pub fn matched(&self) -> bool {
        self.rules.iter().any(|rule| rule.count > 0)
    }
}

/// Applies a check's rules to all that `log` holds; at most `shown` lines of each rule are given.
/// The error says which pattern can't be used, or why `log` can't be read.
pub fn try_rules(
    log: &mut dyn Read,
    check: &LogCheck,
    redactor: &Redactor,
    shown: usize,
) -> io::Result<Trial> {
    let rules = Rules::new(check).map_err(io::Error::other)?;
    let mut trial = Trial {
        records: 0,
        skipped_bytes: 0,
        rules: check
            .rules
            .iter()
            .map(|rule| RuleTrial {
                rule: rule.name.clone(),
                count: 0,
                lines: Vec::new(),
            })
            .collect(),
    };
    let (mut buffer, mut skipping) = (Vec::new(), None);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let n = log.read(&mut chunk)?;
        buffer.extend_from_slice(&chunk[..n]);
        let framing = Framing {
            start: rules.record_start.as_ref(),
            flush: n == 0,
        };
        let found = &mut |found: Found<'_>| {
            match found {
                Found::Text(text) => trial.text(&rules, text, redactor, shown),
                Found::Skipped(bytes) => trial.skipped_bytes += bytes,
            }
            true
        };
        let (taken, _) = framing::take(&buffer, &mut skipping, framing, found);
        buffer.drain(..taken);
        if n == 0 {
            trial.skipped_bytes += skipping.unwrap_or(0);
            return Ok(trial);
        }
    }
}

impl Trial {
    fn text(&mut self, rules: &Rules, text: &[u8], redactor: &Redactor, shown: usize) {
        self.records += 1;
        for rule in rules.matching(text) {
            let Some(found) = self.rules.iter_mut().find(|found| found.rule == rule.name) else {
                continue;
            };
            found.count += 1;
            if found.lines.len() < shown {
                found.lines.push(super::pending::shown_text(redactor, text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use watchkeep_shared::wire::policy::LogRule;

    use super::*;

    #[test]
    fn it_says_what_would_be_counted_and_sent() {
        let rule = |name: &str, pattern: &str| LogRule {
            name: name.to_owned(),
            pattern: pattern.to_owned(),
            lines_per_minute: None,
        };
        let check = LogCheck {
            path: String::new(),
            rules: vec![rule("errors", "ERROR"), rule("none", "NEVER")],
            record_start: Some("^[0-9]".to_owned()),
            journal: None,
            event_log: None,
        };
        let long = "x".repeat(framing::MAX_LINE_BYTES + 7);
        let log =
            format!("1 ERROR\n password=hunter2\n2 ERROR\n3 fine\n{long}\n4 ERROR unfinished");
        let redactor = Redactor::new(Vec::new());
        let trial = try_rules(&mut log.as_bytes(), &check, &redactor, 1).unwrap();
        assert!(trial.matched());
        assert_eq!((trial.records, trial.skipped_bytes), (4, 7));
        assert_eq!(trial.rules[0].count, 2);
        assert_eq!(trial.rules[0].lines, ["1 ERROR\n password=[redacted]"]);
        assert_eq!((trial.rules[1].count, trial.rules[1].lines.len()), (0, 0));
    }
}
