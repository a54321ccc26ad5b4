//! `host`: the enrolled hosts, by name or by identifier.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use watchkeep_core::{
    evidence::{Evidence, EvidenceKind},
    search::name_order,
};
use watchkeep_shared::HostId;

use super::{ACTOR, confirm, say};
use crate::{
    app::App,
    boot,
    config::Config,
    hosts::{Change, describe},
    identity,
    store::{
        fleet::{self, HostRow},
        identity as rows,
        people::Act,
        record,
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum HostCommand {
    /// List hosts: identifier, name, client, site, separated by tabs.
    List,
    /// Show what a host's agent is asked to monitor, and where each item comes from.
    Policy {
        /// The host's name or identifier.
        host: String,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Give a host another name here. What its agent reports as host name is kept beside it.
    Rename {
        /// The host's name or identifier.
        host: String,
        /// The new name.
        name: String,
    },
    /// Revoke a host's certificates: its heartbeats are rejected until it enrols again.
    Revoke {
        /// The host's name or identifier.
        host: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Re-enrol a host: revoke its certificates and print the line with which one machine enrols
    /// again as this host. Ends the quarantine of a host whose identity was used twice.
    Rekey {
        /// The host's name or identifier.
        host: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// End a host's record and revoke its certificates.
    Retire {
        /// The host's name or identifier.
        host: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(config: Config, command: HostCommand) -> anyhow::Result<()> {
    match command {
        HostCommand::List => list(config).await,
        HostCommand::Policy { host, json } => super::policy::run(config, &host, json).await,
        HostCommand::Rename { host, name } => rename(config, &host, name).await,
        HostCommand::Revoke { host, yes } => revoke(config, &host, yes).await,
        HostCommand::Rekey { host, yes } => rekey(config, &host, yes).await,
        HostCommand::Retire { host, yes } => retire(config, &host, yes).await,
    }
}

/// The host of a name or an identifier. Names of hosts need not be unique; retired hosts are only
/// found by their identifier.
pub(super) async fn find(app: &App, wanted: &str) -> anyhow::Result<HostRow> {
    if let Ok(id) = wanted.parse::<HostId>() {
        let row = fleet::host(&app.store, id).await?;
        return row.with_context(|| format!("there is no host {id}: `host list` shows them"));
    }
    let mut found: Vec<HostRow> = fleet::hosts(&app.store)
        .await?
        .into_iter()
        .filter(|row| row.retired_at.is_none() && row.name.eq_ignore_ascii_case(wanted))
        .collect();
    found.sort_by_key(|row| row.id);
    match found.len() {
        0 => bail!("there is no host called {wanted}: `host list` shows them"),
        1 => Ok(found.remove(0)),
        many => {
            let lines: Vec<String> = found.iter().map(line).collect();
            bail!(
                "{many} hosts are called {wanted}; give the identifier:\n{}",
                lines.join("\n")
            )
        }
    }
}

fn line(row: &HostRow) -> String {
    let id = HostId(row.id);
    format!("{id}\t{}\t{}\t{}", row.name, row.client_name, row.site_name)
}

async fn list(config: Config) -> anyhow::Result<()> {
    let app = boot::open(config).await?.app;
    let mut rows = fleet::hosts(&app.store).await?;
    rows.retain(|row| row.retired_at.is_none());
    rows.sort_by_cached_key(|row| (name_order(&row.name), name_order(&row.client_name), row.id));
    for row in &rows {
        say(&line(row))?;
    }
    Ok(())
}

async fn rename(config: Config, host: &str, name: String) -> anyhow::Result<()> {
    let app = boot::open(config).await?.app;
    let row = find(&app, host).await?;
    let change = Change {
        name: Some(name),
        ..Change::default()
    };
    let after = describe(&app, HostId(row.id), change, ACTOR).await?;
    say(&format!("{} is now called {}.", row.name, after.name))
}

async fn revoke(config: Config, host: &str, yes: bool) -> anyhow::Result<()> {
    let app = boot::open(config).await?.app;
    let row = find(&app, host).await?;
    let id = HostId(row.id);
    confirm(
        &format!(
            "Host {} will be revoked: its heartbeats are rejected until it enrols again.",
            row.name
        ),
        yes,
    )?;
    let mut tx = app.store.begin().await?;
    let count = rows::revoke_host(&mut tx, id, app.clock.now()).await?;
    app.audit(
        &mut tx,
        act("host_revoke", &format!("host {id}"), &row.name),
    )
    .await?;
    tx.commit().await?;
    say(&format!(
        "{count} certificate{} of {} revoked.",
        if count == 1 { "" } else { "s" },
        row.name
    ))
}

async fn rekey(config: Config, host: &str, yes: bool) -> anyhow::Result<()> {
    let opened = boot::open(config).await?;
    let row = find(&opened.app, host).await?;
    confirm(
        &format!(
            "Host {} will be re-enrolled: its heartbeats are rejected until one machine enrols again with the token that follows.",
            row.name
        ),
        yes,
    )?;
    let cas = opened.authority.current();
    let token = identity::rekey(&opened.app, &cas, HostId(row.id), ACTOR)
        .await?
        .with_context(|| format!("{} was retired", row.name))?;
    writeln!(
        std::io::stderr(),
        "On the right machine stop the agent, run this line, and start the agent again. The token is valid for one machine and 24 hours:"
    )?;
    say(&format!("watchkeep-agent enroll --force {token}"))
}

async fn retire(config: Config, host: &str, yes: bool) -> anyhow::Result<()> {
    let app = boot::open(config).await?.app;
    let row = find(&app, host).await?;
    let id = HostId(row.id);
    confirm(
        &format!(
            "Host {} will be retired: its record ends and its agent is rejected.",
            row.name
        ),
        yes,
    )?;
    let now = app.clock.now();
    let mut tx = app.store.begin().await?;
    if !fleet::retire_host(&mut tx, id, now).await? {
        bail!("{} was retired before", row.name);
    }
    rows::revoke_host(&mut tx, id, now).await?;
    let ended = Evidence {
        host: Some(id),
        kind: EvidenceKind::Retired,
        valid_from: now,
        valid_to: now,
        recorded_at: now,
    };
    record::insert_evidence(&mut tx, &[(app.ids.next(now), &ended)]).await?;
    app.audit(
        &mut tx,
        act("host_retire", &format!("host {id}"), &row.name),
    )
    .await?;
    tx.commit().await?;
    say(&format!("{} is retired.", row.name))
}

const fn act<'a>(action: &'a str, subject: &'a str, detail: &'a str) -> Act<'a> {
    Act {
        by: ACTOR,
        action,
        subject,
        detail,
    }
}
