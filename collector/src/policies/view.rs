//! A host's policy as people read it: each item with where it comes from, who chose it, and how far it
//! has come.

use serde::Serialize;
use watchkeep_core::policy::{ItemStatus, Level, PolicyItem, ReportedPolicy, Sourced, log_key};
use watchkeep_shared::wire::policy::{LogCheck, ServiceCheck};

use super::HostPolicy;
use crate::store::policy::WatchRow;

/// A host's policy with how far it has come.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyView {
    pub version: u64,
    /// The version that the agent runs; absent before its first heartbeat.
    pub running_version: Option<u64>,
    /// Time between heartbeats.
    pub interval_ms: Sourced<u32>,
    /// Why the customer's configuration refuses that interval, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_refused: Option<String>,
    pub services: Vec<ServiceItem>,
    /// Log rules.
    pub logs: Vec<LogItem>,
    /// What a level took away from what the levels before ask for.
    pub without: Vec<Sourced<String>>,
}

/// A service of a policy.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceItem {
    pub key: String,
    pub check: ServiceCheck,
    /// Where it comes from.
    pub from: Level,
    /// How far it has come.
    #[serde(flatten)]
    pub state: ItemState,
    /// Who put it on the host's own list, and when (milliseconds since the Unix epoch).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Chosen>,
}

/// A log rule of a policy.
#[derive(Clone, Debug, Serialize)]
pub struct LogItem {
    /// `log:NAME`.
    pub key: String,
    /// The log, with this rule alone.
    pub check: LogCheck,
    /// Where it comes from.
    pub from: Level,
    /// How far it has come.
    #[serde(flatten)]
    pub state: ItemState,
}

/// Who chose an item.
#[derive(Clone, Debug, Serialize)]
pub struct Chosen {
    /// The person's name.
    pub by: String,
    /// When, milliseconds since the Unix epoch.
    pub at: i64,
}

/// Whether an item is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ItemState {
    /// The agent has not reported it yet.
    Pending,
    /// The agent watches it.
    Watched,
    /// It does not exist on this host, and is not on the host's own list.
    NotHere,
    /// The customer's configuration refuses it.
    Refused { reason: String },
}

/// What is known of a host's agent.
#[derive(Clone, Copy)]
pub struct ReportedState<'a> {
    pub reported: ReportedPolicy<'a>,
    /// Whether a service does not exist there.
    pub is_not_here: &'a dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for ReportedState<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reported.fmt(f)
    }
}

impl PolicyView {
    /// Puts together what the store, the memory and the agent say. `chosen`: the host's own list.
    pub fn new(policy: &HostPolicy, chosen: &[WatchRow], seen: Option<ReportedState<'_>>) -> Self {
        let reported = seen.map(|seen| seen.reported);
        let state = |item: PolicyItem<'_>| match policy.item_status(item, reported) {
            ItemStatus::Pending => ItemState::Pending,
            ItemStatus::Watched => ItemState::Watched,
            ItemStatus::Refused(reason) => ItemState::Refused {
                reason: reason.to_owned(),
            },
        };
        let service = |one: &Sourced<ServiceCheck>| {
            let key = one.item.key();
            let not_here = seen.is_some_and(|seen| (seen.is_not_here)(&key));
            let who = chosen
                .iter()
                .find(|row| one.from == Level::Host && row.item == key);
            ServiceItem {
                check: one.item.clone(),
                from: one.from,
                state: match state(PolicyItem::Service(&key)) {
                    ItemState::Watched if not_here => ItemState::NotHere,
                    state => state,
                },
                chosen: who.map(|row| Chosen {
                    by: row.added_by.clone(),
                    at: row.added_at,
                }),
                key,
            }
        };
        let log = |one: &Sourced<LogCheck>| LogItem {
            key: log_key(&one.item),
            from: one.from,
            state: state(PolicyItem::Log(&one.item.path)),
            check: one.item.clone(),
        };
        let effective = &policy.effective;
        let refused = reported
            .and_then(|reported| reported.refused.iter().find(|one| one.item == "interval"));
        Self {
            version: policy.wire.version,
            running_version: reported.map(|reported| reported.version),
            interval_ms: effective.interval_ms.clone(),
            interval_refused: refused.map(|one| one.reason.clone()),
            services: effective.services.iter().map(service).collect(),
            logs: effective.logs.iter().map(log).collect(),
            without: effective.without.clone(),
        }
    }
}
