//! Log rules: so many matching lines within a window. Time alone clears them ([`super::tick`]).

use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    AlertChange, AlertEvidence, AlertState, Finding, HostAlerts, NewAlertId,
    entry::{Entry, EntryKind, Matched},
    raised,
};
use crate::{
    rules::{CheckKey, Rule, RuleKind, RulePack},
    wording,
};

/// Most times of matches remembered for one window; beyond it the two oldest become one.
const MAX_REMEMBERED_MATCHES: usize = 64;

/// Most log rules that are pending or firing on one host: as many as an agent takes from its policy.
/// Matches of a further one are not judged.
const MAX_LOG_CHECKS: usize = 256;

/// Lines that matched, as one heartbeat event reports them.
#[derive(Clone, Copy, Debug)]
pub struct LogMatches<'a> {
    /// When the heartbeat was made, on the collector's time line.
    pub at: UnixMillis,
    /// The log rule's name in the policy.
    pub rule: &'a str,
    /// The file.
    pub path: &'a str,
    /// How many lines.
    pub count: u64,
    /// Some of them.
    pub lines: &'a [String],
}

/// Counts lines that matched. Hand in each event once; late ones count in the window they belong
/// to, and those that left it change nothing.
pub fn record_log_matches(
    host: &mut HostAlerts,
    rules: &RulePack,
    matches: &LogMatches<'_>,
    new_id: NewAlertId<'_>,
) -> Vec<AlertChange> {
    if matches.count == 0 {
        return Vec::new();
    }
    let mut changes = super::tick(host, matches.at);
    let check = CheckKey::log(matches.rule);
    for rule in rules.rules() {
        if let RuleKind::LogCount { log_rule, .. } = &rule.kind
            && (log_rule == "*" || log_rule == matches.rule)
        {
            changes.extend(record(host, rule, &check, matches, new_id));
        }
    }
    changes
}

fn record(
    host: &mut HostAlerts,
    rule: &Rule,
    check: &CheckKey,
    matches: &LogMatches<'_>,
    new_id: NewAlertId<'_>,
) -> Option<AlertChange> {
    let RuleKind::LogCount {
        count,
        window,
        clear_for,
        ..
    } = rule.kind
    else {
        return None;
    };
    if host.is_full_of_logs(rule, check) {
        return None;
    }
    let suppresses = host.suppresses();
    let i = host.other(EntryKind::Log, &rule.id, check);
    let entry = &mut host.others[i];
    if let AlertState::Firing { clearing_since, .. } = &mut entry.state {
        if clearing_since.is_none_or(|last| last < matches.at) {
            *clearing_since = Some(matches.at);
            entry.ends_at = Some(matches.at + clear_for);
            host.changed.0 = true;
        }
        return None;
    }
    host.changed.0 = true;
    let at = remember(&mut entry.matched, window, matches);
    let total = entry
        .matched
        .iter()
        .fold(0_u64, |sum, matched| sum.saturating_add(matched.count));
    if total < count || suppresses {
        let since = entry.matched.first().map_or(at, |matched| matched.at);
        entry.state = AlertState::Pending { since };
        entry.ends_at = Some(at + window);
        return None;
    }
    entry.matched.clear();
    let finding = Finding {
        summary: wording::log_lines(matches.rule, total, window),
        evidence: AlertEvidence {
            value: Some(total as f64),
            threshold: Some(count as f64),
            detail: Some(format!("in {}", matches.path)),
            lines: matches.lines.to_vec(),
        },
    };
    let change = raised(rule, entry, at, finding, new_id);
    if let AlertState::Firing { clearing_since, .. } = &mut entry.state {
        *clearing_since = Some(at);
    }
    entry.ends_at = Some(at + clear_for);
    Some(change)
}

impl HostAlerts {
    /// Whether a further log rule would be one too many.
    fn is_full_of_logs(&self, rule: &Rule, check: &CheckKey) -> bool {
        let is_log = |entry: &&Entry| entry.kind == EntryKind::Log;
        let mut logs = self.others.iter().filter(is_log);
        logs.clone().count() >= MAX_LOG_CHECKS
            && logs.all(|entry| entry.rule != rule.id || entry.check != *check)
    }
}

/// Adds to what counts, forgets what left the window, and gives the time of the newest.
fn remember(
    matched: &mut Vec<Matched>,
    window: DurationMs,
    matches: &LogMatches<'_>,
) -> UnixMillis {
    let place = matched.partition_point(|earlier| earlier.at <= matches.at);
    matched.insert(
        place,
        Matched {
            at: matches.at,
            count: matches.count,
        },
    );
    let newest = matched.last().map_or(matches.at, |last| last.at);
    matched.retain(|one| one.at > newest - window);
    if matched.len() > MAX_REMEMBERED_MATCHES {
        let oldest = matched.remove(0);
        matched[0].count = matched[0].count.saturating_add(oldest.count);
    }
    newest
}
