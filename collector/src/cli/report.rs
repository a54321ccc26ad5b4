//! `report`: a contract's month, from the store alone; a running collector is not disturbed.

use anyhow::Context as _;
use clap::ValueEnum;
use watchkeep_core::ids::ContractId;

use super::say;
use crate::{boot, config::Config, reports, store::fleet};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The contract's name.
    #[arg(long)]
    contract: String,
    /// The month, YYYY-MM, in the contract's time zone.
    #[arg(long)]
    month: String,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Everything, for machines.
    Json,
    /// One row a host, then its outages.
    Csv,
}

pub(super) async fn run(config: Config, args: Args) -> anyhow::Result<()> {
    let app = boot::open(config).await?.app;
    let contracts = fleet::contracts(&app.store).await?;
    let row = contracts
        .iter()
        .find(|row| row.name == args.contract)
        .with_context(|| {
            let known: Vec<String> = contracts
                .iter()
                .map(|row| format!("  {}\t{}", row.name, row.client_name))
                .collect();
            format!(
                "there is no contract called {}; there are:\n{}",
                args.contract,
                known.join("\n")
            )
        })?;
    let open = reports::stored_chains(&app.store).await?;
    let now = app.clock.now();
    let report = reports::month(
        &app.store,
        &|host| open.get(&host).cloned(),
        ContractId(row.id),
        &args.month,
        now,
    )
    .await?
    .context("the contract is gone")?;
    match args.format {
        Format::Json => say(&report.to_json()),
        Format::Csv => say(report.to_csv()?.trim_end()),
    }
}
