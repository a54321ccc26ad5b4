//! Keeps processors busy, visibly: at nice 1 it gets nearly an equal share of a busy machine and
//! is counted as `cpu.nice_pct`, which nothing else on a test machine uses. So a test sees its own
//! load and no other's.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::process::Process;

/// The name of the busy processes.
pub const NAME: &str = "wk-burn";

/// Busy processors, until this is dropped.
#[derive(Debug)]
pub struct Burn {
    _loops: Vec<Process>,
}

impl Burn {
    /// Starts one busy loop for each processor.
    pub fn start(dir: &Path) -> Result<Self> {
        let shell = dir.join(NAME);
        std::fs::copy("/bin/sh", &shell).context("/bin/sh is needed")?;
        let processors = std::thread::available_parallelism()?.get();
        let start = |n| {
            let mut command = Command::new("nice");
            command.args(["-n", "1"]).arg(&shell);
            command.args(["-c", "while :; do :; done"]);
            Process::start("burn", command, &dir.join(format!("burn-{n}.log")))
        };
        let loops = (0..processors).map(start).collect::<Result<_>>()?;
        Ok(Self { _loops: loops })
    }
}
