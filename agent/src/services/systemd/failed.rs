//! Failed units that the policy does not name: which are shown one by one, and which together.
//! Pure.
//!
//! Instances of one template (`sshd@….service`) are one entry under the template's name. Of all
//! entries a bounded number is shown; the rest is one more entry that says how many and which.

use std::collections::{BTreeMap, BTreeSet};

use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::super::Finding;

/// Most entries for failed units that the policy does not name.
pub(super) const MAX_SHOWN: usize = 16;
/// The entry for all others.
const OTHERS: &str = "*";
/// Most names that an entry lists.
const MAX_NAMES: usize = 5;
/// An entry that is over is shown for this long, so that its ticket resolves, milliseconds.
const OVER_MS: i64 = 120_000;

/// Entries for several units each.
#[derive(Debug, Default)]
pub(super) struct FailedGroups {
    entries: BTreeMap<String, Entry>,
    /// All units in them.
    members: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    members: BTreeSet<String>,
    /// When it was last failed.
    failed_ms: i64,
}

impl FailedGroups {
    /// Takes the names of all units that are failed and not named by the policy. `alone` says which
    /// units have an entry of their own already. Returns which ones have or get one now.
    pub(super) fn take(
        &mut self,
        failed: &BTreeSet<String>,
        alone: &BTreeSet<String>,
        now_ms: i64,
    ) -> BTreeSet<String> {
        let mut by_entry: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in failed {
            let entry = template_of(name).unwrap_or_else(|| name.clone());
            by_entry.entry(entry).or_default().insert(name.clone());
        }
        // What is shown stays; the free places go by name.
        let is_shown = |entry: &String| alone.contains(entry) || self.entries.contains_key(entry);
        let (mut shown, waiting): (Vec<String>, Vec<String>) =
            by_entry.keys().cloned().partition(is_shown);
        let free = MAX_SHOWN.saturating_sub(shown.len());
        let left_out = waiting.iter().skip(free).cloned();
        let mut others = BTreeSet::new();
        for entry in left_out {
            others.extend(by_entry.remove(&entry).unwrap_or_default());
        }
        shown.extend(waiting.into_iter().take(free));
        let mut single = BTreeSet::new();
        let mut groups = BTreeMap::new();
        for entry in shown {
            let members = by_entry.remove(&entry).unwrap_or_default();
            if members.contains(&entry) {
                single.insert(entry);
            } else {
                groups.insert(entry, members);
            }
        }
        if !others.is_empty() {
            groups.insert(OTHERS.to_owned(), others);
        }
        self.update(groups, now_ms);
        single
    }

    fn update(&mut self, groups: BTreeMap<String, BTreeSet<String>>, now_ms: i64) {
        self.members = groups.values().flatten().cloned().collect();
        for entry in self.entries.values_mut() {
            entry.members.clear();
        }
        for (name, members) in groups {
            let failed_ms = now_ms;
            let entry = Entry { members, failed_ms };
            self.entries.insert(name, entry);
        }
        self.entries
            .retain(|_, entry| now_ms - entry.failed_ms < OVER_MS);
    }

    /// Whether a unit is among the failed ones that are shown together.
    pub(super) fn contains(&self, unit: &str) -> bool {
        self.members.contains(unit)
    }

    /// The entries, by name.
    pub(super) fn snapshot(&self) -> impl Iterator<Item = (&String, Finding)> {
        self.entries.iter().map(|(name, entry)| {
            let finding = entry.finding(name == OTHERS);
            (name, finding)
        })
    }
}

impl Entry {
    fn finding(&self, is_others: bool) -> Finding {
        let count = self.members.len();
        let mut names: Vec<&str> = self.members.iter().map(String::as_str).collect();
        names.truncate(MAX_NAMES);
        let names = names.join(", ");
        let more = if count > MAX_NAMES { ", …" } else { "" };
        let (status, text) = match count {
            0 => (ServiceStatus::Running, "none is failed any more".to_owned()),
            1 if !is_others => (ServiceStatus::Failed, names),
            _ if is_others => {
                let text = format!("{count} more failed: {names}{more}");
                (ServiceStatus::Failed, text)
            }
            _ => {
                let text = format!("{count} instances: {names}{more}");
                (ServiceStatus::Failed, text)
            }
        };
        Finding {
            status,
            detail: Some(super::super::short(&text)),
        }
    }
}

/// The template of an instance, as in `sshd@.service`; `None` for any other unit.
fn template_of(unit: &str) -> Option<String> {
    let (prefix, rest) = unit.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!prefix.is_empty() && !instance.is_empty()).then(|| format!("{prefix}@.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: impl IntoIterator<Item = impl Into<String>>) -> BTreeSet<String> {
        names.into_iter().map(Into::into).collect()
    }

    fn shown(groups: &FailedGroups) -> Vec<(String, ServiceStatus, String)> {
        let entries = groups.snapshot();
        entries
            .map(|(name, finding)| (name.clone(), finding.status, finding.detail.unwrap()))
            .collect()
    }

    #[test]
    fn instances_of_a_template_are_one_entry_and_the_rest_is_counted() {
        let mut groups = FailedGroups::default();
        let instances = (0..3_000).map(|i| format!("sshd@{i:04}.service"));
        let plain = (0..20).map(|i| format!("job-{i:02}.service"));
        let failed = names(instances.chain(plain));
        let alone = groups.take(&failed, &BTreeSet::new(), 0);
        assert_eq!(alone.len(), MAX_SHOWN);
        let first = "sshd@0000.service, sshd@0001.service, sshd@0002.service";
        let shown = shown(&groups);
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].0, "*");
        assert_eq!(shown[0].1, ServiceStatus::Failed);
        assert!(shown[0].2.starts_with("3004 more failed: job-16.service"));
        // Everyone sees the instances once there is a place for them.
        let few = names(failed.iter().filter(|one| one.contains('@')).cloned());
        assert_eq!(groups.take(&few, &alone, 1), BTreeSet::new());
        let shown = self::shown(&groups);
        assert_eq!(shown[1].0, "sshd@.service");
        assert!(shown[1].2.starts_with(&format!("3000 instances: {first}")));
    }

    #[test]
    fn what_is_shown_stays_shown_and_what_is_over_is_told() {
        let mut groups = FailedGroups::default();
        let late = names((0..MAX_SHOWN).map(|i| format!("z-{i:02}.service")));
        let alone = groups.take(&late, &BTreeSet::new(), 0);
        assert_eq!(alone, late);
        let more = names(late.iter().cloned().chain(["a.service".to_owned()]));
        assert_eq!(groups.take(&more, &alone, 1), late);
        let others = |status, text: &str| vec![("*".to_owned(), status, text.to_owned())];
        assert_eq!(
            shown(&groups),
            others(ServiceStatus::Failed, "1 more failed: a.service")
        );
        assert!(groups.contains("a.service"));
        groups.take(&late, &alone, 2);
        assert_eq!(
            shown(&groups),
            others(ServiceStatus::Running, "none is failed any more")
        );
        groups.take(&late, &alone, OVER_MS + 1);
        assert_eq!(shown(&groups), []);
    }

    #[test]
    fn an_instance_is_one_of_its_template() {
        for (unit, expected) in [
            ("sshd@10.0.0.1:22-1.service", Some("sshd@.service")),
            ("a@b@c.service", Some("a@.service")),
            ("a@.service", None),
            ("a.service", None),
            ("@x.service", None),
        ] {
            assert_eq!(template_of(unit).as_deref(), expected, "{unit}");
        }
    }
}
