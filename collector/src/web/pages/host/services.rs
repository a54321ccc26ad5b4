//! What is watched on a host, and what is asked for and not watched yet or not at all.

use watchkeep_core::policy::{Level, ReportedPolicy};
use watchkeep_shared::{
    HostId, UnixMillis,
    wire::heartbeat::{Service, ServiceStatus},
};

use crate::{
    health::Health,
    live::HostNow,
    policies::view::{ItemState, PolicyView, ReportedState, ServiceItem},
    store::{policy as rows, views::HostView},
    web::{
        context::Ctx,
        error::WebError,
        parts::{Pill, Time, pill},
    },
};

/// A service that is watched, or asked for.
pub(super) struct ServiceRow {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) detail: String,
    pub(super) state: Pill,
    pub(super) from: &'static str,
    /// Who put it on the host's own list, and when.
    pub(super) chosen: Option<(String, Time)>,
    pub(super) is_own: bool,
    rank: u8,
}

/// A log rule.
pub(super) struct RuleRow {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) from: &'static str,
    pub(super) detail: String,
    pub(super) state: Pill,
}

/// A host's policy and how far it has come.
pub(crate) async fn policy(
    ctx: &Ctx,
    host: &HostView,
    now: Option<&HostNow>,
) -> Result<PolicyView, WebError> {
    let app = &ctx.web.app;
    let id = HostId(host.id);
    let policy = app.policies.of(id, host.into());
    let chosen = rows::watched_on(&app.store, id).await?;
    let is_not_here = |key: &str| now.is_some_and(|now| now.not_here.iter().any(|one| one == key));
    let seen = now.filter(|now| now.last_seen_at > UnixMillis(0));
    let seen = seen.map(|now| ReportedState {
        reported: ReportedPolicy {
            version: now.policy_version,
            services: &now.services,
            refused: &now.refused,
        },
        is_not_here: &is_not_here,
    });
    Ok(PolicyView::new(&policy, &chosen, seen))
}

/// All services, what needs a look first.
pub(super) fn services(
    ctx: &Ctx,
    policy: &PolicyView,
    now: Option<&HostNow>,
    health: Health,
) -> Vec<ServiceRow> {
    let reported = now.map_or(&[][..], |now| &now.services);
    // Without heartbeats their present state is not known.
    let silent = !health.is_up();
    let find = |key: &str| reported.iter().find(|one| one.key == key);
    let asked = policy.services.iter();
    let mut all: Vec<ServiceRow> = asked
        .map(|item| asked_row(ctx, item, find(&item.key), silent))
        .collect();
    for service in reported {
        if !policy.services.iter().any(|item| item.key == service.key) {
            all.push(told_row(service, silent));
        }
    }
    all.sort_by(|a, b| (a.rank, &a.key).cmp(&(b.rank, &b.key)));
    all
}

fn asked_row(ctx: &Ctx, item: &ServiceItem, service: Option<&Service>, silent: bool) -> ServiceRow {
    let (state, detail, rank) = match (&item.state, service) {
        (ItemState::Watched, Some(service)) => {
            let row = told_row(service, silent);
            (row.state, row.detail, row.rank)
        }
        (ItemState::Refused { reason }, _) => {
            let detail = format!("refused by the customer's configuration: {reason}");
            (pill("warn", "warn", "Refused"), detail, 1)
        }
        (ItemState::NotHere, _) => {
            let detail = "not installed here (no ticket)";
            (pill("idle", "unknown", "Not here"), detail.to_owned(), 4)
        }
        (ItemState::Pending | ItemState::Watched, _) => {
            let detail = "takes effect with the next heartbeat";
            (pill("info", "wait", "Pending"), detail.to_owned(), 2)
        }
    };
    let chosen = item.chosen.as_ref();
    let (kind, name) = item.key.split_once(':').unwrap_or(("", &item.key));
    ServiceRow {
        name: name.to_owned(),
        kind: kind_word(kind),
        detail,
        state,
        from: level_words(item.from),
        chosen: chosen.map(|chosen| (chosen.by.clone(), ctx.time(chosen.at))),
        is_own: item.from == Level::Host,
        rank,
        key: item.key.clone(),
    }
}

/// A service as the agent reported it, requested or not: agents report failed units by themselves.
fn told_row(service: &Service, silent: bool) -> ServiceRow {
    let (kind, name) = service.key.split_once(':').unwrap_or(("", &service.key));
    ServiceRow {
        key: service.key.clone(),
        name: name.to_owned(),
        kind: kind_word(kind),
        detail: service.detail.clone().unwrap_or_default(),
        // A silent host's services are as it last said.
        state: if silent {
            pill("idle", "unknown", "Unknown")
        } else {
            service_state(kind, service.status)
        },
        from: "reported by agent",
        chosen: None,
        is_own: false,
        rank: if service.status == ServiceStatus::Running {
            3
        } else {
            0
        },
    }
}

/// All log rules.
pub(super) fn log_rules(policy: &PolicyView) -> Vec<RuleRow> {
    let rows = policy.logs.iter().map(|item| {
        let (state, detail) = match &item.state {
            ItemState::Pending => (pill("info", "wait", "Pending"), ""),
            ItemState::Watched => (pill("ok", "up", "Followed"), ""),
            ItemState::NotHere => (pill("idle", "unknown", "Not here"), ""),
            ItemState::Refused { reason } => (pill("warn", "warn", "Refused"), reason.as_str()),
        };
        RuleRow {
            name: item
                .key
                .strip_prefix("log:")
                .unwrap_or(&item.key)
                .to_owned(),
            path: item.check.path.clone(),
            from: level_words(item.from),
            detail: detail.to_owned(),
            state,
        }
    });
    rows.collect()
}

/// Where an item comes from, for people.
pub(super) const fn level_words(level: Level) -> &'static str {
    match level {
        Level::Default => "global policy",
        Level::Client => "client policy",
        Level::Site => "site policy",
        Level::Contract => "contract policy",
        Level::Host => "this host",
    }
}

pub(super) fn kind_word(kind: &str) -> &'static str {
    match kind {
        "process" => "process",
        "tcp" => "TCP port",
        "systemd" => "systemd unit",
        "winsvc" => "Windows service",
        "http" => "web page",
        "tls" => "TLS certificate",
        "certificate" => "certificate file",
        _ => "service",
    }
}

/// A state with the word for this kind of check: a certificate does not run.
fn service_state(kind: &str, status: ServiceStatus) -> Pill {
    let (up, stopped) = match kind {
        "tls" | "certificate" => ("Valid", "Not valid"),
        "tcp" | "http" => ("Answers", "No answer"),
        _ => ("Running", "Stopped"),
    };
    match status {
        ServiceStatus::Running => pill("ok", "up", up),
        ServiceStatus::Stopped => pill("crit", "crit", stopped),
        ServiceStatus::Failed => pill("crit", "crit", "Failed"),
        ServiceStatus::RestartLoop => pill("crit", "crit", "Restart loop"),
        ServiceStatus::Stuck => pill("crit", "crit", "Stuck"),
        ServiceStatus::Masked => pill("crit", "crit", "Masked"),
        ServiceStatus::NotFound => pill("crit", "crit", "Not found"),
        ServiceStatus::Changing => pill("idle", "wait", "Changing"),
        ServiceStatus::Unknown => pill("idle", "unknown", "Unknown"),
    }
}
