//! Matching threshold rules with a schema's metric names, once for all hosts that use the schema.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use watchkeep_shared::metric;

use super::{CheckKey, Limit, Rule, RuleKind};

/// The threshold rules that apply to one schema, each with the place of its value in a frame.
#[derive(Debug)]
pub struct Resolved {
    id: u64,
    entries: Vec<ResolvedEntry>,
}

/// One threshold rule on one metric.
#[derive(Debug)]
pub struct ResolvedEntry {
    pub rule: Arc<Rule>,
    /// Index of its value in a frame's values.
    pub value: usize,
    /// The metric's name.
    pub check: CheckKey,
    // Levels with their sign folded in, so that both directions are one comparison.
    pub(crate) sign: f64,
    pub(crate) raise: f64,
    pub(crate) clear: f64,
}

impl Resolved {
    /// Differs between any two pairs of pack and schema that differ.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// The entries, by the place of their value, then by rule.
    pub fn entries(&self) -> &[ResolvedEntry] {
        &self.entries
    }
}

impl ResolvedEntry {
    pub(crate) fn is_breach(&self, value: f64) -> bool {
        self.sign * value > self.raise
    }

    pub(crate) fn is_normal(&self, value: f64) -> bool {
        self.sign * value < self.clear
    }
}

/// Identifies the content of a list of rules within this process.
pub(super) fn fingerprint(rules: &[Rule]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for rule in rules {
        format!("{rule:?}").hash(&mut hasher);
    }
    hasher.finish()
}

pub(super) fn resolve<S: AsRef<str>>(
    rules: &[Arc<Rule>],
    fingerprint: u64,
    names: &[S],
) -> Resolved {
    let mut hasher = DefaultHasher::new();
    fingerprint.hash(&mut hasher);
    let mut entries = Vec::new();
    for (value, name) in names.iter().map(AsRef::as_ref).enumerate() {
        name.hash(&mut hasher);
        let (family, _) = metric::split(name);
        entries.extend(
            rules
                .iter()
                .filter_map(|rule| entry(rule, value, family, name)),
        );
    }
    Resolved {
        id: hasher.finish(),
        entries,
    }
}

fn entry(rule: &Arc<Rule>, value: usize, family: &str, name: &str) -> Option<ResolvedEntry> {
    let RuleKind::Threshold {
        metric,
        raise,
        clear,
        ..
    } = &rule.kind
    else {
        return None;
    };
    (metric == family || metric == name).then(|| {
        let sign = match raise {
            Limit::Above(_) => 1.0,
            Limit::Below(_) => -1.0,
        };
        ResolvedEntry {
            rule: Arc::clone(rule),
            value,
            check: CheckKey::metric(name),
            sign,
            raise: sign * raise.value(),
            clear: sign * clear.value(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::RulePack;

    const PACK: &str = r#"
        [[rule]]
        id = "disk"
        name = "Disk"
        kind = "threshold"
        severity = "warning"
        priority = "P3"
        metric = "disk.used_pct"
        raise = { above = 85 }
        clear = { below = 80 }

        [[rule]]
        id = "var"
        name = "Var"
        kind = "threshold"
        severity = "critical"
        priority = "P1"
        metric = "disk.used_pct:/var"
        raise = { above = 95 }
        clear = { below = 90 }

        [[rule]]
        id = "silent"
        name = "Silent"
        kind = "silent"
        severity = "critical"
        priority = "P1"
    "#;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_family_matches_each_instance_and_a_full_name_only_itself() {
        let pack = RulePack::parse(PACK).unwrap();
        let resolved = pack.resolve(&names(&[
            "cpu.busy_pct",
            "disk.used_pct:/",
            "disk.used_pct:/var",
            "disk.used_pctx:/",
        ]));
        let found: Vec<_> = resolved
            .entries()
            .iter()
            .map(|entry| (entry.rule.id.as_str(), entry.value, entry.check.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("disk", 1, "disk.used_pct:/"),
                ("disk", 2, "disk.used_pct:/var"),
                ("var", 2, "disk.used_pct:/var"),
            ]
        );
    }

    #[test]
    fn the_identity_follows_names_and_rules() {
        let pack = RulePack::parse(PACK).unwrap();
        let other = RulePack::parse(&PACK.replace("85", "84")).unwrap();
        let some = names(&["cpu.busy_pct", "disk.used_pct:/"]);
        let swapped = names(&["disk.used_pct:/", "cpu.busy_pct"]);
        assert_eq!(pack.resolve(&some).id(), pack.resolve(&some).id());
        assert_ne!(pack.resolve(&some).id(), pack.resolve(&swapped).id());
        assert_ne!(pack.resolve(&some).id(), other.resolve(&some).id());
    }
}
