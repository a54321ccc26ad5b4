//! What the agent discovered on a host and nobody asks for: services first, each with the ports that
//! it listens on.

use std::collections::BTreeSet;

use watchkeep_shared::{
    HostId, UnixMillis,
    wire::{
        heartbeat::{Event, Proposal},
        policy::ServiceCheck,
    },
};

use super::services::{ServiceRow, kind_word};
use crate::{
    store::views,
    web::{context::Ctx, error::WebError},
};

/// Proposals that are shown before someone asks for all.
const PROPOSALS_AT_FIRST: usize = 5;

/// Something that could be watched and is not.
pub(super) struct ProposalRow {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) detail: String,
    /// It belongs to the service in the row above.
    pub(super) is_nested: bool,
    line: String,
}

/// What could be watched.
#[derive(Default)]
pub(super) struct Proposals {
    pub(super) rows: Vec<ProposalRow>,
    pub(super) total: usize,
    /// All as lines for a `[policy]` section; only where all are shown.
    pub(super) snippet: String,
}

/// What the agent last found, as far as it can be watched.
pub(super) async fn found(ctx: &Ctx, host: HostId) -> Result<Vec<Proposal>, WebError> {
    let kinds = ["discovered", "discovered"];
    let events = views::host_events(&ctx.web.app.store, host, UnixMillis(0), kinds, 1).await?;
    let newest = events
        .first()
        .map(|event| serde_json::from_str(&event.detail));
    Ok(match newest {
        Some(Ok(Event::Discovered { proposals, .. })) => proposals,
        _ => Vec::new(),
    })
}

/// What the agent found and nobody watches, and the lines that a policy would need for it.
pub(super) async fn proposals(
    ctx: &Ctx,
    host: HostId,
    services: &[ServiceRow],
    all: bool,
) -> Result<Proposals, WebError> {
    let found = found(ctx, host).await?;
    let rows = found.into_iter().filter_map(row);
    let rows = rows.filter(|row| !services.iter().any(|service| service.key == row.key));
    let mut proposals = Proposals {
        rows: by_owner(rows.collect()),
        ..Proposals::default()
    };
    proposals.total = proposals.rows.len();
    if all {
        for row in &proposals.rows {
            proposals.snippet.push_str(&row.line);
            proposals.snippet.push('\n');
        }
    } else {
        proposals.rows.truncate(PROPOSALS_AT_FIRST);
    }
    Ok(proposals)
}

fn row(proposal: Proposal) -> Option<ProposalRow> {
    let (key, line) = policy_line(proposal.check.known()?)?;
    let (kind, name) = key.split_once(':').unwrap_or(("", &key));
    Some(ProposalRow {
        name: name.to_owned(),
        kind: kind_word(kind),
        detail: proposal.detail.unwrap_or_default(),
        is_nested: false,
        line,
        key,
    })
}

/// Services by name, each followed by its ports; then other ports, certificates, and other units
/// such as timers.
fn by_owner(mut rows: Vec<ProposalRow>) -> Vec<ProposalRow> {
    let owners: BTreeSet<String> = rows
        .iter()
        .filter_map(|row| service_name(&row.key).map(str::to_owned))
        .collect();
    for row in &mut rows {
        row.is_nested = port_owner(row).is_some_and(|owner| owners.contains(owner));
    }
    rows.sort_by_cached_key(|row| {
        let name = service_name(&row.key);
        let (rank, group) = match (name, port_owner(row)) {
            (Some(name), _) => (0, name),
            (None, Some(owner)) if row.is_nested => (0, owner),
            (None, owner) => match row.key.split_once(':') {
                Some(("tcp", _)) => (1, owner.unwrap_or_default()),
                Some(("certificate", _)) => (2, ""),
                _ => (3, ""),
            },
        };
        (rank, group.to_owned(), row.is_nested, row.key.clone())
    });
    rows
}

/// The name of a service without `.service`; `None` for anything else, timers too.
fn service_name(key: &str) -> Option<&str> {
    match key.split_once(':')? {
        ("systemd", unit) => unit.strip_suffix(".service"),
        ("winsvc", name) => Some(name),
        _ => None,
    }
}

/// Who listens, by the agent's detail, as in `listens, owned by user postgres`.
fn port_owner(row: &ProposalRow) -> Option<&str> {
    let owner = row.detail.strip_prefix("listens, owned by ")?;
    Some(owner.strip_prefix("user ").unwrap_or(owner))
}

/// The key of a check that agents propose, and its line in a `[policy]` section.
pub(super) fn policy_line(check: &ServiceCheck) -> Option<(String, String)> {
    let (kind, field, value) = match check {
        ServiceCheck::Systemd { unit } => ("systemd", "unit", unit),
        ServiceCheck::WindowsService { name } => ("winsvc", "name", name),
        ServiceCheck::Tcp { address } => ("tcp", "address", address),
        ServiceCheck::Certificate { path } => ("certificate", "path", path),
        ServiceCheck::Process { .. } | ServiceCheck::Http { .. } | ServiceCheck::Tls { .. } => {
            return None;
        }
    };
    // A JSON text is a TOML one too.
    let value = serde_json::to_string(value).ok()?;
    let line = format!("{{ type = \"{kind}\", {field} = {value} }},");
    Some((check.key(), line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_come_first_and_each_has_its_ports() {
        let row = |key: &str, detail: &str| ProposalRow {
            key: key.to_owned(),
            name: String::new(),
            kind: "",
            detail: detail.to_owned(),
            is_nested: false,
            line: String::new(),
        };
        let sorted = by_owner(vec![
            row("systemd:apt-daily.timer", "enabled"),
            row("certificate:/etc/tls/www.pem", "valid until 2027-01-01"),
            row("tcp:0.0.0.0:80", "listens, owned by nginx"),
            row("tcp:127.0.0.1:9", "listens"),
            row("tcp:127.0.0.1:5432", "listens, owned by user postgres"),
            row("systemd:postgres.service", "enabled"),
            row("systemd:nginx.service", "enabled"),
        ]);
        let order: Vec<(&str, bool)> = sorted
            .iter()
            .map(|row| (row.key.as_str(), row.is_nested))
            .collect();
        assert_eq!(
            order,
            [
                ("systemd:nginx.service", false),
                ("tcp:0.0.0.0:80", true),
                ("systemd:postgres.service", false),
                ("tcp:127.0.0.1:5432", true),
                ("tcp:127.0.0.1:9", false),
                ("certificate:/etc/tls/www.pem", false),
                ("systemd:apt-daily.timer", false),
            ]
        );
    }
}
