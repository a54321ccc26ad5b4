//! Finds the programs under test: those that cargo built into the same target directory as the
//! running test, or for the agent the one that [`AGENT_VARIABLE`] names. Building them is not a
//! test's business.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// The collector.
pub const COLLECTOR: &str = "watchkeep-collector";
/// The agent.
pub const AGENT: &str = "watchkeep-agent";

/// Path of an agent to use instead, as one that was built to be packed.
pub const AGENT_VARIABLE: &str = "WATCHKEEP_TEST_AGENT";

/// The path of a program; an error that says what to run where it was not built.
pub fn find(name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(AGENT_VARIABLE).filter(|_| name == AGENT) {
        return Ok(path.into());
    }
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
