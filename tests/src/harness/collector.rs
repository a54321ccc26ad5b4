//! A real collector with a store of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use watchkeep_shared::{
    HostId,
    token::EnrolmentToken,
    wire::policy::{LogCheck, ServiceCheck},
};

use super::{
    Database, DatabaseKind, Proxy, Settings, binaries,
    ports::Port,
    process::{Process, output},
    wait_for,
};
use crate::{
    fleet::{connection::Connection, tls::Trust},
    loopback::Target,
    store::Store,
};

/// The client, contract and site that every test collector has.
pub const CLIENT: &str = "Test client";
/// See [`CLIENT`].
pub const CONTRACT: &str = "Test contract";
/// See [`CLIENT`].
pub const SITE: &str = "Test site";

/// How long a collector may take to answer on its port; generous, for machines that build beside.
const START_DEADLINE: Duration = Duration::from_mins(1);

const FLEET: &str = r#"
[[client]]
name = "Test client"

[[client.contract]]
name = "Test contract"
zone = "UTC"
target_pct = 99.5

[[client.site]]
name = "Test site"
contract = "Test contract"
"#;

/// A collector: its directory, its store, and its process while it runs.
#[derive(Debug)]
pub struct Collector {
    // Before the store: a running program must not lose its database.
    process: Option<Process>,
    database: Database,
    agents_port: Port,
    web_port: Port,
    dir: TempDir,
}

impl Collector {
    /// Makes a collector's settings, keys and store, with one client, contract and site. It does
    /// not run yet.
    pub async fn create(kind: DatabaseKind, settings: &Settings) -> Result<Self> {
        let dir = Self::directory()?;
        let database = Database::create(kind, dir.path()).await?;
        Self::create_on(database, dir, settings).await
    }

    /// The same with a database that is elsewhere.
    pub async fn create_with(database: Database, settings: &Settings) -> Result<Self> {
        Self::create_on(database, Self::directory()?, settings).await
    }

    async fn create_on(database: Database, dir: TempDir, settings: &Settings) -> Result<Self> {
        let collector = Self::new(database, dir)?;
        collector.init(settings, collector.agents_port()).await?;
        Ok(collector)
    }

    /// The same, with agents that connect through a proxy.
    pub async fn create_behind_proxy(
        kind: DatabaseKind,
        settings: &Settings,
    ) -> Result<(Self, Proxy)> {
        let dir = Self::directory()?;
        let collector = Self::new(Database::create(kind, dir.path()).await?, dir)?;
        let proxy = Proxy::start(collector.agents_address()).await?;
        collector.init(settings, proxy.port()).await?;
        Ok((collector, proxy))
    }

    fn directory() -> Result<TempDir> {
        let dir = tempfile::Builder::new()
            .prefix("watchkeep-collector-")
            .tempdir()?;
        Ok(dir)
    }

    fn new(database: Database, dir: TempDir) -> Result<Self> {
        Ok(Self {
            process: None,
            database,
            agents_port: Port::take()?,
            web_port: Port::take()?,
            dir,
        })
    }

    async fn init(&self, settings: &Settings, public_port: u16) -> Result<()> {
        std::fs::write(self.config(), self.settings_text(settings, public_port)?)?;
        self.run(&["init"]).await?;
        let fleet = self.path("fleet.toml");
        std::fs::write(&fleet, FLEET)?;
        self.run(&["apply", "-f", text(&fleet)?]).await?;
        Ok(())
    }

    fn settings_text(&self, settings: &Settings, public_port: u16) -> Result<String> {
        let quoted = |path: &Path| Ok::<_, anyhow::Error>(toml::Value::from(text(path)?));
        let rules = match &settings.rules {
            Some(rules) => {
                let path = self.path("rules.toml");
                std::fs::write(&path, rules)?;
                format!("[rules]\npack = {}", quoted(&path)?)
            }
            None => String::new(),
        };
        let policy = toml::to_string(&Policy {
            policy: PolicyTable {
                interval_ms: settings.interval_ms,
                services: &settings.services,
                logs: &settings.logs,
            },
        })?;
        Ok(format!(
            "data_dir = {data}
[store]
url = {url}
[agents]
listen = \"127.0.0.1:{agents}\"
public_url = \"https://127.0.0.1:{public_port}\"
certificate_s = {certificate_s}
queue_batches = {queue_batches}
renew_within_s = {renew_within_s}
enrolments_per_s = {enrolments_per_s}
enrolments_burst = {enrolments_burst}
[web]
listen = \"127.0.0.1:{web}\"
public_url = \"https://127.0.0.1:{web}\"
{rules}
[silence]
after_ms = {silence}
grace_ms = {grace}
{policy}",
            data = quoted(&self.path("data"))?,
            url = toml::Value::from(self.database.url()),
            agents = self.agents_port.number(),
            certificate_s = settings.certificate_s,
            queue_batches = settings.queue_batches,
            renew_within_s = settings.renew_within_s,
            enrolments_per_s = settings.enrolments.0,
            enrolments_burst = settings.enrolments.1,
            web = self.web_port.number(),
            silence = settings.silence_after_ms,
            grace = settings.grace_ms,
        ))
    }

    /// Starts the collector and waits until its agent port accepts connections.
    pub async fn start(&mut self) -> Result<()> {
        let mut command = Command::new(binaries::find(binaries::COLLECTOR)?);
        command.arg("serve").arg("--config").arg(self.config());
        let process = Process::start("the collector", command, &self.path("collector.log"))?;
        self.process = Some(process);
        let address = self.agents_address();
        let process = self.process.as_mut().context("it was started")?;
        wait_for("the collector listens", START_DEADLINE, async || {
            let ended = process.ended()?;
            assert!(
                ended.is_none(),
                "the collector ended at its start: {ended:?}"
            );
            TcpStream::connect(address).await?;
            Ok(Some(()))
        })
        .await;
        Ok(())
    }

    /// Waits until the collector says on its web port that it takes heartbeats.
    pub async fn ready(&self) -> Result<()> {
        let ca = std::fs::read_to_string(self.path("data/ca/ca.pem"))?;
        let tls = Trust::new(&ca)?.anonymous()?;
        let target = Target::parse(&self.web_url())?;
        wait_for("the collector is ready", START_DEADLINE, async || {
            let mut web = Connection::open(&target, tls.clone()).await?;
            Ok((web.get("/readyz").await?.status == 200).then_some(()))
        })
        .await;
        Ok(())
    }

    /// Kills the collector, as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the collector does not run")?
            .kill()
    }

    /// Stops the collector's process where it is, as SIGSTOP does.
    pub fn pause(&self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// Lets a paused collector continue.
    pub fn resume(&self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the collector does not run")
    }

    /// Stops the collector in order.
    pub async fn stop(&mut self) -> Result<()> {
        let process = self.process.take().context("the collector does not run")?;
        let status = process.terminate().await?;
        anyhow::ensure!(status.success(), "the collector ended with {status}");
        Ok(())
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Runs a command of the collector's program to its end; returns its standard output.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(binaries::find(binaries::COLLECTOR)?);
        command.args(arguments).arg("--config").arg(self.config());
        output(
            &format!("watchkeep-collector {}", arguments.join(" ")),
            command,
        )
        .await
    }

    /// A token for `uses` agents at [`SITE`].
    pub async fn token(&self, uses: usize) -> Result<EnrolmentToken> {
        let uses = uses.to_string();
        let arguments = ["token", "create", "--site", SITE, "--uses", &uses, "--bare"];
        let text = self.run(&arguments).await?;
        Ok(text.trim().parse()?)
    }

    /// Revokes a host's certificates; returns the token with which it enrols again.
    pub async fn rekey(&self, host: HostId) -> Result<String> {
        let line = self
            .run(&["host", "rekey", &host.to_string(), "--yes"])
            .await?;
        let token = line.split_whitespace().last();
        Ok(token.context("`host rekey` prints a line")?.to_owned())
    }

    /// What `status --json` says.
    pub async fn status(&self) -> Result<Json> {
        Ok(serde_json::from_str(
            &self.run(&["status", "--json"]).await?,
        )?)
    }

    /// The contract's report for the present month.
    pub async fn report(&self) -> Result<Json> {
        let month = crate::clock::month_now();
        let arguments = [
            "report",
            "--contract",
            CONTRACT,
            "--month",
            &month,
            "--format",
            "json",
        ];
        Ok(serde_json::from_str(&self.run(&arguments).await?)?)
    }

    /// The URL of its store.
    pub fn store_url(&self) -> &str {
        self.database.url()
    }

    /// The store, for reading.
    pub async fn store(&self) -> Result<Store> {
        Store::open(self.database.url()).await
    }

    /// Where agents connect when there is no proxy.
    pub fn agents_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.agents_port.number()))
    }

    fn agents_port(&self) -> u16 {
        self.agents_port.number()
    }

    /// The base URL of the web port.
    pub fn web_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.web_port.number())
    }

    /// Its settings file.
    pub fn config(&self) -> PathBuf {
        self.path("collector.toml")
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[derive(serde::Serialize)]
struct Policy<'a> {
    policy: PolicyTable<'a>,
}

#[derive(serde::Serialize)]
struct PolicyTable<'a> {
    interval_ms: u32,
    services: &'a [ServiceCheck],
    logs: &'a [LogCheck],
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
