//! A real agent with a state directory of its own.

use std::{ffi::OsString, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value as Json;
use tempfile::TempDir;
use watchkeep_shared::{BootId, HostId, token::EnrolmentToken};

use super::{
    binaries,
    process::{Process, output, output_of_any_status},
    wait_for,
};
use crate::store::Store;

/// The variable by which an agent believes in another boot.
pub(super) const BOOT_VARIABLE: &str = "WATCHKEEP_TEST_BOOT_ID";
/// How long an agent may take from its start to its first heartbeat in the store.
const FIRST_HEARTBEAT_DEADLINE: Duration = Duration::from_mins(1);

/// An agent: its directory, and its process while it runs.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    host: HostId,
    dir: TempDir,
}

impl Agent {
    /// Enrols an agent. Log rules may read what is in [`Agent::logs`].
    pub async fn enroll(token: &EnrolmentToken) -> Result<Self> {
        Self::enroll_in(Self::directory()?, token).await
    }

    /// A directory for an agent, so that its path can be named before it is enrolled.
    pub fn directory() -> Result<TempDir> {
        let dir = tempfile::Builder::new()
            .prefix("watchkeep-agent-")
            .tempdir()?;
        std::fs::create_dir(dir.path().join("logs"))?;
        Ok(dir)
    }

    /// Enrols an agent in a directory from [`Agent::directory`].
    pub async fn enroll_in(dir: TempDir, token: &EnrolmentToken) -> Result<Self> {
        let state = dir.path().join("state");
        let logs = dir.path().join("logs/**");
        let settings = format!(
            "state_dir = {}\n[limits]\nlog_paths = [{}]\n",
            toml::Value::from(state.to_str().context("the path is UTF-8")?),
            toml::Value::from(logs.to_str().context("the path is UTF-8")?),
        );
        let config = dir.path().join("agent.toml");
        std::fs::write(&config, settings)?;
        let mut command = Command::new(binaries::find(binaries::AGENT)?);
        command.arg("enroll").arg(token.to_string());
        command.arg("--config").arg(&config);
        output("watchkeep-agent enroll", command).await?;
        let identity: Json = serde_json::from_slice(&std::fs::read(state.join("identity.json"))?)?;
        let host = identity["host"]
            .as_str()
            .context("identity.json names the host")?;
        Ok(Self {
            process: None,
            host: host.parse()?,
            dir,
        })
    }

    /// Enrols it again, with a token for the same host.
    pub async fn enroll_again(&self, token: &str) -> Result<()> {
        let mut command = Command::new(binaries::find(binaries::AGENT)?);
        command.args(["enroll", "--force", token, "--config"]);
        command.arg(self.dir.path().join("agent.toml"));
        output("watchkeep-agent enroll --force", command).await?;
        Ok(())
    }

    /// Starts the agent.
    pub fn start(&mut self) -> Result<()> {
        self.start_with_boot(None)
    }

    /// Starts the agent; it believes that the machine is on the given boot.
    pub fn start_with_boot(&mut self, boot: Option<BootId>) -> Result<()> {
        let variables = boot.map(|boot| (BOOT_VARIABLE, boot.to_string().into()));
        self.start_with(variables)
    }

    /// Starts the agent with these variables in its environment.
    pub fn start_with(
        &mut self,
        variables: impl IntoIterator<Item = (&'static str, OsString)>,
    ) -> Result<()> {
        let mut command = Command::new(binaries::find(binaries::AGENT)?);
        command
            .arg("run")
            .arg("--config")
            .arg(self.dir.path().join("agent.toml"));
        command.envs(variables);
        let log = self.dir.path().join("agent.log");
        self.process = Some(Process::start("the agent", command, &log)?);
        Ok(())
    }

    /// As [`heartbeats`], of this agent.
    pub async fn heartbeats(&self, store: &Store, than: i64) -> i64 {
        heartbeats(store, self.host, than).await
    }

    /// What `status --json` says, whether all is well or not.
    pub async fn status(&self) -> Result<Json> {
        let mut command = Command::new(binaries::find(binaries::AGENT)?);
        command.args(["status", "--json", "--config"]);
        command.arg(self.dir.path().join("agent.toml"));
        let text = output_of_any_status("watchkeep-agent status", command).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Kills the agent, as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the agent does not run")?
            .kill()
    }

    /// Holds the agent up, as SIGSTOP does.
    pub fn pause(&self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// Lets a paused agent continue.
    pub fn resume(&self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the agent does not run")
    }

    /// Stops the agent in order.
    pub async fn stop(&mut self) -> Result<()> {
        let process = self.process.take().context("the agent does not run")?;
        let status = process.terminate().await?;
        anyhow::ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The host that it is.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// A directory for logs that the agent may read.
    pub fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}

/// Waits until the store has more heartbeats of a host than `than`; returns how many.
pub async fn heartbeats(store: &Store, host: HostId, than: i64) -> i64 {
    let sql = format!(
        "SELECT COUNT(*) FROM heartbeat WHERE host_id = {}",
        store.id(host.uuid())
    );
    let what = format!("more than {than} heartbeats of the agent are in the store");
    wait_for(&what, FIRST_HEARTBEAT_DEADLINE, async || {
        let count = store.int(&sql).await?;
        Ok((count > than).then_some(count))
    })
    .await
}
