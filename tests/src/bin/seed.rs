//! `watchkeep-seed`: fills a store with the history of a large fleet.

use std::{io::Write as _, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use watchkeep_tests::seed::{Amount, seed};

/// Fills a store that the collector has made and that nothing uses now.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// `sqlite:PATH` or `postgres://…`
    #[arg(long)]
    store: String,
    #[command(flatten)]
    amount: Amount,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "watchkeep-seed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let arguments = Arguments::parse();
    let now = watchkeep_tests::clock::wall_now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut tell = |step: &str| {
        let _ = writeln!(std::io::stderr(), "seeding: {step}");
    };
    runtime.block_on(seed(&arguments.store, arguments.amount, now, &mut tell))
}
