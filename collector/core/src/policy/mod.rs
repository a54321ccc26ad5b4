//! Policy: what a host's agent is asked to do, put together from what was asked for at five levels.
//!
//! Each level is a [`Layer`]. [`merge`] lays them over each other, the most specific last, and
//! remembers where each item came from; [`Effective::to_wire`] is what goes down to the agent.
//! [`item_status`] compares an item with what the agent reported.
//!
//! It does not know what the customer allows: that is the agent's to say, and it says so by refusing.
//! Nothing here fails; [`Layer::problems`] finds what a layer must not hold.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use watchkeep_shared::wire::{
    heartbeat::Service,
    limits,
    policy::{LogCheck, Policy, Refusal, ServiceCheck},
};

/// Where an item can come from, the most general first; a later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The collector's settings: for all hosts.
    Default,
    /// For the hosts of a client.
    Client,
    /// For the hosts of a site.
    Site,
    /// For the hosts under a contract.
    Contract,
    /// For one host.
    Host,
}

impl Level {
    /// All of them, the most general first.
    pub const ALL: [Self; 5] = [
        Self::Default,
        Self::Client,
        Self::Site,
        Self::Contract,
        Self::Host,
    ];

    /// Its word, in the store and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Client => "client",
            Self::Site => "site",
            Self::Contract => "contract",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one level asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Layer {
    /// Time between heartbeats, milliseconds; absent: as the level before says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u32>,
    /// Services to watch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceCheck>,
    /// Logs to follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogCheck>,
    /// Keys of what the levels before ask for and this one does not want: a service's
    /// ([`ServiceCheck::key`]), or `log:NAME` of a log rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// An item and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sourced<T> {
    pub item: T,
    /// The level that asks for it.
    pub from: Level,
}

/// What a host's agent is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// Time between heartbeats, milliseconds.
    pub interval_ms: Sourced<u32>,
    /// Services, each key once.
    pub services: Vec<Sourced<ServiceCheck>>,
    /// Log rules, each name once: every check here has exactly one rule.
    pub logs: Vec<Sourced<LogCheck>>,
    /// Keys that a level took away again, and that none after it brought back.
    pub without: Vec<Sourced<String>>,
}

impl Default for Effective {
    fn default() -> Self {
        merge([])
    }
}

/// Lays layers over each other; the later ones win. A service with the key of an earlier one takes
/// its place, a log rule with the name of an earlier one likewise, and everything else adds up.
pub fn merge<'a>(layers: impl IntoIterator<Item = (Level, &'a Layer)>) -> Effective {
    let mut all = Effective {
        interval_ms: Sourced {
            item: limits::DEFAULT_INTERVAL_MS,
            from: Level::Default,
        },
        services: Vec::new(),
        logs: Vec::new(),
        without: Vec::new(),
    };
    for (from, layer) in layers {
        if let Some(item) = layer.interval_ms {
            all.interval_ms = Sourced { item, from };
        }
        all.take_away(from, &layer.without);
        for check in &layer.services {
            let item = check.clone();
            put(&mut all.services, Sourced { item, from }, ServiceCheck::key);
        }
        for log in &layer.logs {
            for rule in &log.rules {
                let item = LogCheck {
                    rules: vec![rule.clone()],
                    ..log.clone()
                };
                put(&mut all.logs, Sourced { item, from }, log_key);
            }
        }
    }
    let there: BTreeSet<String> = all.keys().collect();
    all.without.retain(|one| !there.contains(&one.item));
    all
}

/// Adds an item, or puts it in the place of the one with its key.
fn put<T>(list: &mut Vec<Sourced<T>>, new: Sourced<T>, key: impl Fn(&T) -> String) {
    let wanted = key(&new.item);
    match list.iter_mut().find(|known| key(&known.item) == wanted) {
        Some(known) => *known = new,
        None => list.push(new),
    }
}

/// The key of a log check with one rule, as alerts name it: `log:NAME`.
pub fn log_key(log: &LogCheck) -> String {
    let name = log.rules.first().map_or("", |rule| &rule.name);
    format!("log:{name}")
}

impl Effective {
    fn take_away(&mut self, from: Level, keys: &[String]) {
        for key in keys {
            let before = self.services.len() + self.logs.len();
            self.services.retain(|one| one.item.key() != *key);
            self.logs.retain(|one| log_key(&one.item) != *key);
            if self.services.len() + self.logs.len() < before {
                let item = key.clone();
                put(&mut self.without, Sourced { item, from }, Clone::clone);
            }
        }
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        let services = self.services.iter().map(|one| one.item.key());
        services.chain(self.logs.iter().map(|one| log_key(&one.item)))
    }

    /// Where the service with a key comes from, if it is asked for.
    pub fn service(&self, key: &str) -> Option<Level> {
        let found = self.services.iter().find(|one| one.item.key() == key);
        found.map(|one| one.from)
    }

    /// As it goes down to the agent. The version is a hash of the content: it changes when that
    /// does, and needs no counter that could be lost.
    pub fn to_wire(&self) -> Policy {
        let mut policy = Policy {
            version: 1,
            interval_ms: self.interval_ms.item,
            services: self
                .services
                .iter()
                .map(|one| one.item.clone().into())
                .collect(),
            logs: self.logs(),
        };
        // Values of these types always have a JSON form.
        let digest = Sha256::digest(serde_json::to_vec(&policy).unwrap_or_default());
        let first = digest
            .iter()
            .take(6)
            .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        policy.version = first.max(1);
        policy
    }

    /// Rules on the same file, read in the same way, as one check.
    fn logs(&self) -> Vec<LogCheck> {
        let mut logs: Vec<LogCheck> = Vec::new();
        for one in &self.logs {
            let new = &one.item;
            let same = logs.iter_mut().find(|known| {
                // All but the rules, so that a field to come is not forgotten here.
                **known
                    == LogCheck {
                        rules: known.rules.clone(),
                        ..new.clone()
                    }
            });
            match same {
                Some(known) => known.rules.extend(new.rules.iter().cloned()),
                None => logs.push(new.clone()),
            }
        }
        logs
    }
}

impl Layer {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What it must not hold, a line each, with the key: values out of range, and items that are listed
    /// twice.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let range = limits::MIN_INTERVAL_MS..=limits::MAX_INTERVAL_MS;
        if let Some(ms) = self.interval_ms
            && !range.contains(&ms)
        {
            let (from, to) = (range.start(), range.end());
            problems.push(format!(
                "interval_ms: {ms} is outside {from} to {to} milliseconds"
            ));
        }
        let mut seen = BTreeSet::new();
        for (i, check) in self.services.iter().enumerate() {
            let key = check.key();
            if !seen.insert(key.clone()) {
                problems.push(format!("services[{i}]: {key} is listed twice"));
            }
        }
        for (i, log) in self.logs.iter().enumerate() {
            if log.rules.is_empty() {
                problems.push(format!("logs[{i}].rules: at least one"));
            }
            for (j, rule) in log.rules.iter().enumerate() {
                if !seen.insert(format!("log:{}", rule.name)) {
                    let name = &rule.name;
                    problems.push(format!(
                        "logs[{i}].rules[{j}].name: another rule is named {name}: give each its own name"
                    ));
                }
            }
        }
        for (i, key) in self.without.iter().enumerate() {
            if !key.contains(':') {
                problems.push(format!(
                    "without[{i}]: `{key}` is not a key such as process:nginx, systemd:cron.service or log:NAME"
                ));
            } else if seen.contains(key) {
                problems.push(format!(
                    "without[{i}]: {key} is asked for here too: leave one of the two out"
                ));
            }
        }
        problems
    }

    /// What differs in `new`, for a plan: `+ KEY`, `- KEY`, `~ KEY` for other fields of the same
    /// key, `without KEY`, `interval`. Empty if nothing does.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.interval_ms != new.interval_ms {
            let text = |ms: Option<u32>| ms.map_or("inherited".to_owned(), |ms| format!("{ms} ms"));
            let (old, new) = (text(self.interval_ms), text(new.interval_ms));
            changes.push(format!("interval {old} to {new}"));
        }
        let (before, after) = (merge([(Level::Host, self)]), merge([(Level::Host, new)]));
        compare(
            &before.services,
            &after.services,
            ServiceCheck::key,
            &mut changes,
        );
        compare(&before.logs, &after.logs, log_key, &mut changes);
        for key in new.without.iter().filter(|key| !self.without.contains(key)) {
            changes.push(format!("+ without {key}"));
        }
        for key in self.without.iter().filter(|key| !new.without.contains(key)) {
            changes.push(format!("- without {key}"));
        }
        if changes.is_empty() && self != new {
            changes.push("another order".to_owned());
        }
        changes
    }
}

fn compare<T: PartialEq>(
    before: &[Sourced<T>],
    after: &[Sourced<T>],
    key: impl Fn(&T) -> String,
    changes: &mut Vec<String>,
) {
    let find =
        |list: &[Sourced<T>], wanted: &str| list.iter().position(|one| key(&one.item) == wanted);
    for one in after {
        let name = key(&one.item);
        match find(before, &name) {
            None => changes.push(format!("+ {name}")),
            Some(i) if before[i].item != one.item => changes.push(format!("~ {name}")),
            Some(_) => {}
        }
    }
    for one in before {
        let name = key(&one.item);
        if find(after, &name).is_none() {
            changes.push(format!("- {name}"));
        }
    }
}

/// What an agent last reported about its policy.
#[derive(Clone, Copy, Debug)]
pub struct ReportedPolicy<'a> {
    /// The version it runs.
    pub version: u64,
    /// Services that it watches.
    pub services: &'a [Service],
    /// What the customer's configuration refuses.
    pub refused: &'a [Refusal],
}

/// Whether an item of a policy is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemStatus<'a> {
    /// The agent has not reported it yet.
    Pending,
    /// The agent watches it.
    Watched,
    /// The customer's configuration refuses it, for this reason.
    Refused(&'a str),
}

/// The status of a service or a log rule of the policy with `version`.
pub fn item_status<'a>(
    item: PolicyItem<'_>,
    version: u64,
    reported: Option<ReportedPolicy<'a>>,
) -> ItemStatus<'a> {
    let Some(reported) = reported else {
        return ItemStatus::Pending;
    };
    let name = match item {
        PolicyItem::Service(key) => key.to_owned(),
        PolicyItem::Log(path) => format!("log:{path}"),
    };
    if let Some(refusal) = reported.refused.iter().find(|one| one.item == name) {
        return ItemStatus::Refused(&refusal.reason);
    }
    let is_watched = match item {
        PolicyItem::Service(key) => reported.services.iter().any(|one| one.key == key),
        // Agents do not list logs: one that runs this version and refuses nothing follows them.
        PolicyItem::Log(_) => reported.version == version,
    };
    if is_watched {
        ItemStatus::Watched
    } else {
        ItemStatus::Pending
    }
}

/// An item of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyItem<'a> {
    /// A service, by its key.
    Service(&'a str),
    /// A log, by its path.
    Log(&'a str),
}
