//! Finds the programs under test: those that cargo built into the same target directory as the
//! running test. Building them is not a test's business.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// The collector.
pub const COLLECTOR: &str = "watchkeep-collector";
/// The agent.
pub const AGENT: &str = "watchkeep-agent";

/// The path of a program; an error that says what to run where it was not built.
pub fn find(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("can't tell where this program runs from")?;
    // Tests are in target/PROFILE/deps, programs in target/PROFILE.
    let path = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    path.with_context(|| {
        format!("{name} is not built: run `cargo build --workspace --bins` (with --release for benchmarks), or tests/run.sh")
    })
}
