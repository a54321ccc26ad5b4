//! `apply`: clients, contracts and sites as a file says. What is missing is made, what differs is
//! brought up to date, nothing is removed; done twice it changes nothing.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use watchkeep_core::{ids::ContractId, ledger::UnknownRule};

use super::say;
use crate::{
    app::App,
    boot,
    config::Config,
    store::{Tx, fleet},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file; see config/fleet.example.toml.
    #[arg(short, long)]
    file: PathBuf,
    /// Only print what would change.
    #[arg(long)]
    dry_run: bool,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fleet {
    /// Customers.
    #[serde(default, rename = "client")]
    pub(super) clients: Vec<ClientSpec>,
}

/// One customer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientSpec {
    /// Its name, unique.
    pub(super) name: String,
    /// What was sold to it.
    #[serde(default, rename = "contract")]
    pub(super) contracts: Vec<ContractSpec>,
    /// Its places.
    #[serde(default, rename = "site")]
    pub(super) sites: Vec<SiteSpec>,
}

/// One contract.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContractSpec {
    /// Its name, unique among all clients.
    pub(super) name: String,
    /// What kind it is.
    #[serde(default)]
    pub(super) kind: ContractKind,
    /// IANA time zone of its months.
    pub(super) zone: String,
    /// How the headline treats unknown time.
    #[serde(default)]
    pub(super) unknown_rule: UnknownRule,
    /// Promised availability, percent.
    pub(super) target_pct: f64,
}

/// What was sold.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum ContractKind {
    /// A fixed fee.
    #[default]
    Managed,
    /// Prepaid hours.
    BlockHours,
    /// By the hour.
    TimeAndMaterial,
}

/// One place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteSpec {
    /// Its name, unique among all clients.
    pub(super) name: String,
    /// The contract that covers its hosts.
    pub(super) contract: Option<String>,
}

impl ContractKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::BlockHours => "block_hours",
            Self::TimeAndMaterial => "time_and_material",
        }
    }
}

pub(super) async fn run(config: Config, args: Args) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.file)
        .with_context(|| format!("failed to read {}", args.file.display()))?;
    let origin = args.file.display().to_string();
    let fleet: Fleet = watchkeep_shared::settings::load(&origin, &text, [])?;
    let app = boot::open(config).await?.app;
    let plan = apply(&app, &fleet, args.dry_run).await?;
    for line in &plan {
        say(line)?;
    }
    say(match (plan.is_empty(), args.dry_run) {
        (true, _) => "Nothing to change.",
        (false, true) => "Nothing was changed (--dry-run).",
        (false, false) => "Done.",
    })
}

/// Brings the store to what `fleet` says, in one transaction. Returns a line for each change.
pub(super) async fn apply(app: &App, fleet: &Fleet, dry_run: bool) -> anyhow::Result<Vec<String>> {
    check(fleet)?;
    let now = app.clock.now();
    let mut plan = Vec::new();
    let contracts = fleet::contracts(&app.store).await?;
    let sites = fleet::sites(&app.store).await?;
    let mut tx = app.store.begin().await?;
    for client in &fleet.clients {
        let id = fleet::ensure_client(&mut tx, &client.name, now).await?;
        for spec in &client.contracts {
            let known = contracts.iter().find(|row| row.name == spec.name);
            let new = contract(id, spec);
            if known.is_some_and(|row| same_contract(row, &new)) {
                continue;
            }
            let verb = if known.is_some() { "change" } else { "add" };
            plan.push(format!("{verb} contract {} of {}", spec.name, client.name));
            fleet::put_contract(&mut tx, &new, now).await?;
        }
        for spec in &client.sites {
            let covered = contract_id(&mut tx, spec.contract.as_deref()).await?;
            let known = sites.iter().find(|row| row.name == spec.name);
            let same = known.is_some_and(|row| {
                row.client_id == id.uuid() && row.contract_id == covered.map(ContractId::uuid)
            });
            if same {
                continue;
            }
            let verb = if known.is_some() { "change" } else { "add" };
            plan.push(format!("{verb} site {} of {}", spec.name, client.name));
            fleet::put_site(&mut tx, id, covered, &spec.name, now).await?;
        }
    }
    if !dry_run {
        tx.commit().await?;
    }
    Ok(plan)
}

/// Finds what the types can't.
fn check(fleet: &Fleet) -> anyhow::Result<()> {
    for client in &fleet.clients {
        for spec in &client.contracts {
            if !(0.0..=100.0).contains(&spec.target_pct) {
                bail!(
                    "contract {}: target_pct {} is not 0 to 100",
                    spec.name,
                    spec.target_pct
                );
            }
            // Any month will do to try the zone.
            watchkeep_core::ledger::month_window("2026-01", &spec.zone)
                .with_context(|| format!("contract {}", spec.name))?;
        }
    }
    Ok(())
}

fn contract(client: watchkeep_core::ids::ClientId, spec: &ContractSpec) -> fleet::NewContract {
    fleet::NewContract {
        client,
        name: spec.name.clone(),
        kind: spec.kind.as_str().to_owned(),
        zone: spec.zone.clone(),
        unknown_rule: match spec.unknown_rule {
            UnknownRule::CountAsUp => "count_as_up",
            UnknownRule::CountAsDown => "count_as_down",
            UnknownRule::Exclude => "exclude",
        }
        .to_owned(),
        target_pct: spec.target_pct,
    }
}

fn same_contract(row: &fleet::ContractRow, new: &fleet::NewContract) -> bool {
    row.client_id == new.client.uuid()
        && row.kind == new.kind
        && row.zone == new.zone
        && row.unknown_rule == new.unknown_rule
        && (row.target_pct - new.target_pct).abs() < f64::EPSILON
}

async fn contract_id(tx: &mut Tx, name: Option<&str>) -> anyhow::Result<Option<ContractId>> {
    let Some(name) = name else { return Ok(None) };
    let rows = fleet::contracts_in(tx).await?;
    let row = rows
        .iter()
        .find(|row| row.name == name)
        .with_context(|| format!("there is no contract {name}: name it under its client"))?;
    Ok(Some(ContractId(row.id)))
}
