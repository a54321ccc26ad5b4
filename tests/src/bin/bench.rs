//! `watchkeep-bench`: the standard set of measurements, as a Markdown table.

use std::{io::Write as _, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use watchkeep_tests::{
    bench::{Part, Size, measure, table},
    fleet,
    harness::{DatabaseKind, database::POSTGRES_VARIABLE},
};

/// Measures the collector and the agent on this machine and prints a Markdown table. PostgreSQL is
/// measured too if `WATCHKEEP_TEST_POSTGRES` names a server.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// A few seconds of everything, to see that the set works; its figures mean nothing.
    #[arg(long)]
    trial: bool,
    /// Only this part; can be given several times.
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "watchkeep-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let arguments = Arguments::parse();
    fleet::raise_descriptor_limit();
    let mut kinds = vec![DatabaseKind::Sqlite];
    if std::env::var_os(POSTGRES_VARIABLE).is_some() {
        kinds.push(DatabaseKind::Postgres);
    }
    let size = if arguments.trial {
        Size::Trial
    } else {
        Size::Standard
    };
    let parts = if arguments.only.is_empty() {
        Part::ALL.to_vec()
    } else {
        arguments.only
    };
    let mut tell = |step: &str| {
        let _ = writeln!(std::io::stderr(), "measuring: {step}");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let rows = runtime.block_on(measure(&parts, &kinds, size, &mut tell))?;
    write!(std::io::stdout(), "{}", table(&rows))?;
    Ok(())
}
