//! Finds the programs under test: those that cargo built into the same target directory as the
//! running test. Building them is not a test's business.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The collector.
pub const COLLECTOR: &str = "watchkeep-collector";
/// The agent.
pub const AGENT: &str = "watchkeep-agent";

/// The path of a program; an error that says what to run where it was not built.
pub fn find(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("can't tell where this test runs from")?;
    // target/PROFILE/deps/TEST
    let dir = test
        .ancestors()
        .nth(2)
        .context("the test is not in a target directory")?;
    let path = dir.join(name);
    if !path.is_file() {
        bail!(
            "{name} is not built: run `cargo build --workspace --bins` (or tests/run.sh) before these tests"
        );
    }
    Ok(path)
}
