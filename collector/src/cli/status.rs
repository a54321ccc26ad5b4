//! `status`: hosts, open tickets and the pipeline, as the store has them; a running collector is
//! not disturbed.

use std::collections::HashMap;

use serde::Serialize;
use watchkeep_core::{host::HostState, search::name_order};
use watchkeep_shared::HostId;

use super::say;
use crate::{
    boot,
    config::Config,
    health::{Health, Signals},
    reports,
    store::{fleet, heartbeats, leases, views},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// For machines.
    #[arg(long)]
    json: bool,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Status {
    /// When a collector was last known to be alive, milliseconds since the Unix epoch.
    last_alive_ms: Option<i64>,
    hosts: Vec<HostStatus>,
    open_tickets: Vec<TicketStatus>,
}

#[derive(Debug, Serialize)]
struct HostStatus {
    id: String,
    name: String,
    client: String,
    site: String,
    state: Health,
    last_seen_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
struct TicketStatus {
    id: String,
    number: i64,
    title: String,
    state: String,
    priority: String,
    opened_at_ms: i64,
}

pub(super) async fn run(config: Config, args: Args) -> anyhow::Result<()> {
    let app = boot::open(config).await?.app;
    let open = reports::stored_chains(&app.store).await?;
    let mut states: HashMap<HostId, HostState> = HashMap::new();
    for row in heartbeats::states(&app.store).await? {
        let value: serde_json::Value = serde_json::from_str(&row.state)?;
        if let Some(host) = value.get("host") {
            states.insert(HostId(row.host_id), serde_json::from_value(host.clone())?);
        }
    }
    let firing: HashMap<HostId, u32> = views::firing_by_host(&app.store)
        .await?
        .into_iter()
        .map(|(id, count)| (id, u32::try_from(count).unwrap_or(u32::MAX)))
        .collect();
    let mut hosts = Vec::new();
    for row in fleet::hosts(&app.store).await? {
        let id = HostId(row.id);
        let last = states
            .get(&id)
            .and_then(|state| state.last)
            .map(|last| last.at);
        let seen = open.get(&id).map(|chain| chain.valid_to).max(last);
        let recorded = row.recorded();
        let signals = seen.map(|_| Signals {
            quarantined: false,
            silent: states.get(&id).is_some_and(|state| state.overdue),
            firing: firing.get(&id).copied().unwrap_or_default(),
        });
        hosts.push(HostStatus {
            id: id.to_string(),
            name: row.name,
            client: row.client_name,
            site: row.site_name,
            state: Health::of(recorded, signals),
            last_seen_ms: seen.map(|at| at.0),
        });
    }
    hosts.sort_by_cached_key(|host| (name_order(&host.name), host.id.clone()));
    let open_tickets = open_tickets(&app).await?;
    let last_alive_ms = leases::last_alive(&app.store).await?.map(|at| at.0);
    let status = Status {
        last_alive_ms,
        hosts,
        open_tickets,
    };
    if args.json {
        return say(&serde_json::to_string_pretty(&status)?);
    }
    print(&status)
}

async fn open_tickets(app: &crate::app::App) -> anyhow::Result<Vec<TicketStatus>> {
    let rows = crate::store::tickets::open(&app.store).await?;
    Ok(rows
        .into_iter()
        .map(|ticket| TicketStatus {
            id: ticket.id.to_string(),
            number: ticket.number,
            title: ticket.title,
            state: ticket.state.to_string(),
            priority: ticket.priority.to_string(),
            opened_at_ms: ticket.opened_at.0,
        })
        .collect())
}

fn print(status: &Status) -> anyhow::Result<()> {
    say(&format!("{} hosts", status.hosts.len()))?;
    for host in &status.hosts {
        say(&format!(
            "  {:<11} {:<30} {} · {}  {}",
            host.state.as_str(),
            host.name,
            host.client,
            host.site,
            host.id
        ))?;
    }
    say(&format!("{} open tickets", status.open_tickets.len()))?;
    for ticket in &status.open_tickets {
        say(&format!(
            "  #{} {} {:<8} {}",
            ticket.number, ticket.priority, ticket.state, ticket.title
        ))?;
    }
    Ok(())
}
