//! `apply`: clients, contracts, sites and their policies as a file says. What is missing is made, what
//! differs is brought up to date, no client, contract or site is removed; done twice it changes
//! nothing.

mod policy;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use watchkeep_core::{
    ids::{ClientId, ContractId},
    ledger::UnknownRule,
    policy::{Layer, Level},
    tickets::{Paging, PagingSettings},
};

use watchkeep_shared::UnixMillis;

use super::{ACTOR, say};
use crate::{
    app::App,
    boot,
    config::{Config, PolicySection},
    store::{Tx, fleet, people, views},
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
    /// What all its hosts are asked for.
    #[serde(default, deserialize_with = "layer")]
    pub(super) policy: Layer,
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
    /// What it changes of the table of priorities: who is woken for what.
    #[serde(default)]
    pub(super) paging: PagingSettings,
    /// What the hosts under it are asked for.
    #[serde(default, deserialize_with = "layer")]
    pub(super) policy: Layer,
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
    /// What its hosts are asked for.
    #[serde(default, deserialize_with = "layer")]
    pub(super) policy: Layer,
}

fn layer<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Layer, D::Error> {
    PolicySection::deserialize(from).map(PolicySection::into_layer)
}

/// What `apply` does.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// A line for each change.
    pub(super) changes: Vec<String>,
    /// A line for what the file does not say and that stays as it is.
    pub(super) kept: Vec<String>,
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
    let by = (!args.dry_run).then_some(ACTOR);
    let plan = apply(&app, &fleet, by).await?;
    for line in plan.changes.iter().chain(&plan.kept) {
        say(line)?;
    }
    say(match (plan.changes.is_empty(), args.dry_run) {
        (true, _) => "Nothing to change.",
        (false, true) => "Nothing was changed (--dry-run).",
        (false, false) => "Done.",
    })
}

/// Brings the store to what `fleet` says and writes each change into the audit log, in one
/// transaction. Without `by` nothing is written.
pub(super) async fn apply(app: &App, fleet: &Fleet, by: Option<&str>) -> anyhow::Result<Plan> {
    check(fleet)?;
    let now = app.clock.now();
    let mut work = Apply {
        clients: views::clients(&app.store).await?,
        contracts: fleet::contracts(&app.store).await?,
        sites: fleet::sites(&app.store).await?,
        policies: policy::StoredPolicies::read(&app.store, now).await?,
        now,
        plan: Plan::default(),
    };
    let hosts = fleet::hosts(&app.store).await?;
    let mut clients = Vec::with_capacity(fleet.clients.len());
    let mut tx = app.store.begin().await?;
    for spec in &fleet.clients {
        clients.push(work.client(&mut tx, spec).await?.uuid());
    }
    let mut plan = work.plan;
    work.policies.name_kept(&hosts, &clients, &mut plan);
    work.policies.finish(&mut tx).await?;
    if let Some(by) = by {
        for change in &plan.changes {
            let act = people::Act {
                by,
                action: "apply",
                subject: "fleet",
                detail: change,
            };
            app.audit(&mut tx, act).await?;
        }
        tx.commit().await?;
    }
    Ok(plan)
}

/// The store as it was, and the plan as it grows.
#[derive(Debug)]
struct Apply {
    clients: Vec<views::Named>,
    contracts: Vec<fleet::ContractRow>,
    sites: Vec<fleet::SiteRow>,
    policies: policy::StoredPolicies,
    now: UnixMillis,
    plan: Plan,
}

impl Apply {
    async fn client(&mut self, tx: &mut Tx, client: &ClientSpec) -> anyhow::Result<ClientId> {
        if !self.clients.iter().any(|known| known.name == client.name) {
            self.plan
                .changes
                .push(format!("add client {}", client.name));
        }
        let id = fleet::ensure_client(tx, &client.name, self.now).await?;
        let owner = policy::Owner {
            level: Level::Client,
            id: id.uuid(),
            name: &client.name,
        };
        let (policies, plan) = (&mut self.policies, &mut self.plan);
        policies.put(tx, owner, &client.policy, plan).await?;
        for spec in &client.contracts {
            self.contract(tx, id, &client.name, spec).await?;
        }
        for spec in &client.sites {
            self.site(tx, id, &client.name, spec).await?;
        }
        Ok(id)
    }

    async fn contract(
        &mut self,
        tx: &mut Tx,
        client: ClientId,
        client_name: &str,
        spec: &ContractSpec,
    ) -> anyhow::Result<()> {
        let known = self.contracts.iter().find(|row| row.name == spec.name);
        let new = contract(client, spec)?;
        if !known.is_some_and(|row| same_contract(row, &new)) {
            let verb = if known.is_some() { "change" } else { "add" };
            let line = format!("{verb} contract {} of {client_name}", spec.name);
            self.plan.changes.push(line);
            fleet::put_contract(tx, &new, self.now).await?;
        }
        let id = contract_id(tx, Some(&spec.name)).await?;
        let id = id.context("a contract that was just written is there")?;
        let owner = policy::Owner {
            level: Level::Contract,
            id: id.uuid(),
            name: &spec.name,
        };
        let (policies, plan) = (&mut self.policies, &mut self.plan);
        policies.put(tx, owner, &spec.policy, plan).await
    }

    async fn site(
        &mut self,
        tx: &mut Tx,
        client: ClientId,
        client_name: &str,
        spec: &SiteSpec,
    ) -> anyhow::Result<()> {
        let covered = contract_id(tx, spec.contract.as_deref()).await?;
        let known = self.sites.iter().find(|row| row.name == spec.name);
        let same = known.is_some_and(|row| {
            row.client_id == client.uuid() && row.contract_id == covered.map(ContractId::uuid)
        });
        if !same {
            let verb = if known.is_some() { "change" } else { "add" };
            let line = format!("{verb} site {} of {client_name}", spec.name);
            self.plan.changes.push(line);
            fleet::put_site(tx, client, covered, &spec.name, self.now).await?;
        }
        let id = fleet::site_in(tx, &spec.name).await?;
        let id = id.context("a site that was just written is there")?;
        let owner = policy::Owner {
            level: Level::Site,
            id: id.uuid(),
            name: &spec.name,
        };
        let (policies, plan) = (&mut self.policies, &mut self.plan);
        policies.put(tx, owner, &spec.policy, plan).await
    }
}

/// Finds what the types can't.
fn check(fleet: &Fleet) -> anyhow::Result<()> {
    for client in &fleet.clients {
        let of_client = (format!("client {}", client.name), &client.policy);
        let of_contracts = client
            .contracts
            .iter()
            .map(|spec| (format!("contract {}", spec.name), &spec.policy));
        let of_sites = client
            .sites
            .iter()
            .map(|spec| (format!("site {}", spec.name), &spec.policy));
        for (owner, layer) in [of_client].into_iter().chain(of_contracts).chain(of_sites) {
            let problems = layer.problems();
            if !problems.is_empty() {
                bail!("{owner}: policy.{}", problems.join("; policy."));
            }
        }
        for spec in &client.contracts {
            if !(0.0..=100.0).contains(&spec.target_pct) {
                bail!(
                    "contract {}: target_pct {} is not 0 to 100",
                    spec.name,
                    spec.target_pct
                );
            }
            if spec.paging.zone.is_some() {
                bail!(
                    "contract {}: paging.zone: remove it; the contract's own zone applies",
                    spec.name
                );
            }
            Paging::default()
                .with(&spec.paging, &spec.zone)
                .with_context(|| format!("contract {}", spec.name))?;
        }
    }
    Ok(())
}

fn contract(client: ClientId, spec: &ContractSpec) -> anyhow::Result<fleet::NewContract> {
    let changes_paging = spec.paging != PagingSettings::default();
    let paging = changes_paging.then(|| serde_json::to_string(&spec.paging));
    Ok(fleet::NewContract {
        paging: paging.transpose()?,
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
    })
}

fn same_contract(row: &fleet::ContractRow, new: &fleet::NewContract) -> bool {
    row.client_id == new.client.uuid()
        && row.kind == new.kind
        && row.zone == new.zone
        && row.unknown_rule == new.unknown_rule
        && row.paging == new.paging
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
