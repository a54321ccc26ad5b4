//! Reading a rule pack from TOML: every key is asked for by name, what nobody asked for is refused
//! with a suggestion, and all problems are collected before the pack is refused.

mod fields;

use std::fmt;

use toml::de::{DeTable, DeValue};
use watchkeep_shared::{DurationMs, metric};

use self::fields::{Fields, Problems};
use super::{Limit, MAX_RULE_ID_BYTES, MAX_RULES, Rule, RuleId, RuleKind};

/// Why a rule pack is refused: every problem found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    problems: Vec<Problem>,
}

impl RuleError {
    /// The problems, by line; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for RuleError {}

/// One problem of a rule pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the text, from 1.
    pub line: usize,
    /// The key, as in `rule[3].raise.above`; empty for the text as a whole.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Rule>, RuleError> {
    let mut problems = Problems::new(text);
    let rules = match DeTable::parse(text) {
        Ok(table) => read_pack(table.get_ref(), &mut problems),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            problems.add(at, "", error.message());
            Vec::new()
        }
    };
    let problems = problems.into_sorted();
    if problems.is_empty() {
        Ok(rules)
    } else {
        Err(RuleError { problems })
    }
}

fn read_pack(table: &DeTable<'_>, problems: &mut Problems<'_>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut fields = Fields::new(table, 0, String::new(), problems);
    let list = fields.take("rule");
    fields.finish();
    let Some(list) = list else {
        problems.add(0, "rule", "is missing; a pack has at least one [[rule]]");
        return rules;
    };
    let DeValue::Array(items) = list.get_ref() else {
        problems.add(
            list.span().start,
            "rule",
            "must be written as [[rule]] tables",
        );
        return rules;
    };
    if items.len() > MAX_RULES {
        let message = format!("has {} rules; at most {MAX_RULES} are allowed", items.len());
        problems.add(list.span().start, "rule", &message);
        return rules;
    }
    for (i, item) in items.iter().enumerate() {
        let at = item.span().start;
        let path = format!("rule[{}]", i + 1);
        let DeValue::Table(table) = item.get_ref() else {
            problems.add(at, &path, "must be a table");
            continue;
        };
        let Some(rule) = read_rule(Fields::new(table, at, path.clone(), problems)) else {
            continue;
        };
        if rules.iter().any(|other| other.id == rule.id) {
            let message = format!("\"{}\" is taken by another rule; ids are unique", rule.id);
            problems.add(at, &format!("{path}.id"), &message);
        }
        if is_single(&rule.kind) && rules.iter().any(|r| r.kind.as_str() == rule.kind.as_str()) {
            let message = format!("a pack has at most one rule of kind {}", rule.kind.as_str());
            problems.add(at, &format!("{path}.kind"), &message);
        }
        rules.push(rule);
    }
    rules
}

/// Kinds of which a second rule would say the same about the same check.
const fn is_single(kind: &RuleKind) -> bool {
    matches!(
        kind,
        RuleKind::Silent
            | RuleKind::UnexpectedReboot { .. }
            | RuleKind::ClockSkew { .. }
            | RuleKind::ClockStep { .. }
            | RuleKind::AgentDegraded
            | RuleKind::ClonedIdentity
    )
}

/// Reads one rule; `None` if it has a problem, which is then noted.
fn read_rule(mut fields: Fields<'_, '_, '_>) -> Option<Rule> {
    let id = fields.text("id").filter(|id| {
        let valid = !id.is_empty()
            && id.len() <= MAX_RULE_ID_BYTES
            && id
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
        if !valid {
            fields.problem(
                "id",
                &format!("must be 1 to {MAX_RULE_ID_BYTES} of a-z 0-9 - _ . as in \"disk-full\""),
            );
        }
        valid
    });
    let name = fields.text("name");
    let severity = fields.word("severity");
    let priority = fields.word("priority");
    let runbook = fields.optional_text("runbook");
    let word = fields.text("kind")?;
    if !KINDS.contains(&word.as_str()) {
        // Without the kind the set of right keys is not known.
        fields.problem("kind", &fields::unknown_word(&word, &KINDS));
        return None;
    }
    let kind = read_kind(&mut fields, &word);
    fields.finish();
    Some(Rule {
        id: RuleId(id?),
        name: name?,
        severity: severity?,
        priority: priority?,
        runbook,
        kind: kind?,
    })
}

const KINDS: [&str; 9] = [
    "threshold",
    "service_state",
    "log_count",
    "silent",
    "unexpected_reboot",
    "clock_skew",
    "clock_step",
    "agent_trouble",
    "cloned_identity",
];

fn read_kind(fields: &mut Fields<'_, '_, '_>, word: &str) -> Option<RuleKind> {
    match word {
        "threshold" => read_threshold(fields),
        "service_state" => read_service(fields),
        "log_count" => read_log_count(fields),
        "silent" => Some(RuleKind::Silent),
        "unexpected_reboot" => fields
            .duration("clear_after", DurationMs::from_mins(15))
            .map(|clear_after| RuleKind::UnexpectedReboot { clear_after }),
        "clock_skew" => read_skew(fields),
        "clock_step" => {
            let above = fields.duration("above", DurationMs::from_secs(5));
            let clear_after = fields.duration("clear_after", DurationMs::from_hours(1));
            Some(RuleKind::ClockStep {
                above: above?,
                clear_after: clear_after?,
            })
        }
        "agent_trouble" => Some(RuleKind::AgentDegraded),
        "cloned_identity" => Some(RuleKind::ClonedIdentity),
        _ => None,
    }
}

fn read_threshold(fields: &mut Fields<'_, '_, '_>) -> Option<RuleKind> {
    let metric = fields.text("metric").filter(|name| {
        let valid = metric::is_valid_name(name);
        if !valid {
            fields.problem("metric", "is too long or has control characters");
        }
        valid
    });
    let raise = fields.level("raise");
    let clear = fields.level("clear");
    let raise_for = fields.duration("raise_for", DurationMs(0));
    let clear_for = fields.duration("clear_for", DurationMs(0));
    let (raise, clear) = (raise?, clear?);
    if let Some(message) = hysteresis_fault(raise, clear) {
        fields.problem("clear", &message);
        return None;
    }
    Some(RuleKind::Threshold {
        metric: metric?,
        raise,
        raise_for: raise_for?,
        clear,
        clear_for: clear_for?,
    })
}

/// What is wrong with a pair of levels: a value that is a breach must not also be well.
fn hysteresis_fault(raise: Limit, clear: Limit) -> Option<String> {
    match (raise, clear) {
        (Limit::Above(r), Limit::Below(c)) if c <= r => None,
        (Limit::Below(r), Limit::Above(c)) if c >= r => None,
        (Limit::Above(r), Limit::Below(_)) => Some(format!(
            "is beyond raise (above {r}), so a value could be both; use below {r} or less"
        )),
        (Limit::Below(r), Limit::Above(_)) => Some(format!(
            "is beyond raise (below {r}), so a value could be both; use above {r} or more"
        )),
        (Limit::Above(r), Limit::Above(_)) => Some(format!(
            "must point the other way than raise, as in {{ below = {r} }}"
        )),
        (Limit::Below(r), Limit::Below(_)) => Some(format!(
            "must point the other way than raise, as in {{ above = {r} }}"
        )),
    }
}

fn read_service(fields: &mut Fields<'_, '_, '_>) -> Option<RuleKind> {
    let service = fields
        .optional_text("service")
        .unwrap_or_else(|| "*".to_owned());
    let raise_for = fields.duration("raise_for", DurationMs(0));
    let clear_for = fields.duration("clear_for", DurationMs(0));
    Some(RuleKind::ServiceState {
        service,
        raise_for: raise_for?,
        clear_for: clear_for?,
    })
}

fn read_log_count(fields: &mut Fields<'_, '_, '_>) -> Option<RuleKind> {
    let log_rule = fields
        .optional_text("log_rule")
        .unwrap_or_else(|| "*".to_owned());
    let count = fields.count("count", 1);
    let window = fields
        .duration("window", DurationMs::from_mins(5))
        .filter(|window| {
            if window.0 == 0 {
                fields.problem("window", "must be longer than 0");
            }
            window.0 > 0
        });
    let clear_for = fields.duration("clear_for", DurationMs::from_mins(30));
    Some(RuleKind::LogCount {
        log_rule,
        count: count?,
        window: window?,
        clear_for: clear_for?,
    })
}

fn read_skew(fields: &mut Fields<'_, '_, '_>) -> Option<RuleKind> {
    let above = fields.duration("above", DurationMs::from_secs(30));
    let clear_below = fields.duration("clear_below", DurationMs::from_secs(10));
    let raise_for = fields.duration("raise_for", DurationMs(0));
    let (above, clear_below) = (above?, clear_below?);
    if clear_below > above {
        fields.problem("clear_below", "is larger than above; use the same or less");
        return None;
    }
    Some(RuleKind::ClockSkew {
        above,
        clear_below,
        raise_for: raise_for?,
    })
}

#[cfg(test)]
mod tests;
