//! `quickstart`: everything on one machine for a first look. What exists is kept, so running it
//! again resumes.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};
use watchkeep_core::ids::SiteId;
use watchkeep_shared::DurationMs;

use super::{
    admin::{ADMIN, add_user, reset_user},
    apply::{Fleet, apply},
    say,
};
use crate::{
    boot::{self, Running},
    config::Config,
    identity,
    store::{fleet, people},
};

/// What the demo client is made of.
const DEMO_FLEET: &str = include_str!("../../../config/demo.toml");
/// Its site.
const DEMO_SITE: &str = "This machine";
/// The agent's program, beside this one.
const AGENT: &str = "watchkeep-agent";
/// Pause before an agent that ended is started again.
const AGENT_PAUSE: Duration = Duration::from_secs(2);
/// How long the agent has to say goodbye.
const AGENT_STOP: Duration = Duration::from_secs(8);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where everything is kept.
    #[arg(long)]
    data_dir: PathBuf,
    /// The agents' port, on this machine only.
    #[arg(long, default_value_t = 7443)]
    agent_port: u16,
    /// The web port, on this machine only.
    #[arg(long, default_value_t = 8443)]
    web_port: u16,
    /// Give the admin a new one-time password.
    #[arg(long)]
    reset_password: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let agent = agent_program()?;
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("failed to make {}", args.data_dir.display()))?;
    let dir = args.data_dir.canonicalize()?;
    let config = load_config(&dir, &args)?;
    let url = config.web.public_url.clone();
    say("Preparing keys and the store ...")?;
    let opened = boot::init(config).await?;
    let password = login(&opened.app, args.reset_password).await?;
    if let Some(password) = &password {
        // At once: should a later step fail, it could not be shown again.
        say(&format!("The one-time password of {ADMIN} is {password}"))?;
    }
    let demo: Fleet = watchkeep_shared::settings::load("config/demo.toml", DEMO_FLEET, [])?;
    apply(&opened.app, &demo, false).await?;
    say("Starting the collector ...")?;
    let running = boot::start(opened).await?;
    let agent_dir = dir.join("agent");
    prepare_agent(&running, &agent, &agent_dir).await?;
    let child = start_agent(&agent, &agent_dir)?;
    greet(&url, password.as_deref(), &agent_dir)?;
    watch(running, child, &agent, &agent_dir).await
}

/// Keeps the agent running until a signal; then the agent says goodbye before the collector stops.
async fn watch(
    running: Running,
    mut child: Child,
    agent: &Path,
    agent_dir: &Path,
) -> anyhow::Result<()> {
    {
        let signalled = running.until_signal();
        tokio::pin!(signalled);
        loop {
            tokio::select! {
                result = &mut signalled => {
                    result?;
                    break;
                }
                ended = child.wait() => {
                    tracing::warn!("the agent ended ({:?}), starting it again", ended);
                    tokio::time::sleep(AGENT_PAUSE).await;
                    child = start_agent(agent, agent_dir)?;
                }
            }
        }
    }
    stop_agent(&mut child).await;
    running.stop().await?;
    say("Stopped. Run it again to continue.")
}

fn load_config(dir: &Path, args: &Args) -> anyhow::Result<Config> {
    let path = dir.join("collector.toml");
    if !path.exists() {
        identity::write_file(&path, &config_text(dir, args), 0o600)?;
    }
    let config = Config::load(&path)?;
    let ports = (config.agents.listen.port(), config.web.listen.port());
    if ports != (args.agent_port, args.web_port) {
        bail!(
            "{} names the ports {} and {}: give --agent-port {} --web-port {}, or edit the file",
            path.display(),
            ports.0,
            ports.1,
            ports.0,
            ports.1
        );
    }
    Ok(config)
}

fn config_text(dir: &Path, args: &Args) -> String {
    // A path as a TOML string.
    let data_dir = toml::Value::String(dir.display().to_string());
    let (agent_port, web_port) = (args.agent_port, args.web_port);
    format!(
        r#"# Made by `watchkeep-collector quickstart`. config/collector.example.toml explains every key.
data_dir = {data_dir}

[agents]
listen = "127.0.0.1:{agent_port}"
public_url = "https://localhost:{agent_port}"

[web]
listen = "127.0.0.1:{web_port}"
public_url = "https://localhost:{web_port}"

[policy]
interval_ms = 10000
services = [
  {{ type = "process", name = "watchkeep-collector" }},
  {{ type = "tcp", address = "127.0.0.1:{web_port}" }},
]

[[policy.logs]]
path = "/var/log/*.log"
rules = [{{ name = "kernel-trouble", pattern = "(?i)out of memory|segfault|I/O error" }}]
"#
    )
}

/// The admin's one-time password, if one was made now.
async fn login(app: &crate::app::App, reset: bool) -> anyhow::Result<Option<String>> {
    if people::users(&app.store).await?.is_empty() {
        return add_user(app, ADMIN, "Administrator").await.map(Some);
    }
    if reset {
        return reset_user(app, ADMIN).await.map(Some);
    }
    Ok(None)
}

/// Enrols this machine, unless it is.
async fn prepare_agent(running: &Running, agent: &Path, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let config = dir.join("agent.toml");
    if !config.exists() {
        let state_dir = toml::Value::String(dir.join("state").display().to_string());
        identity::write_file(&config, &format!("state_dir = {state_dir}\n"), 0o600)?;
    }
    if dir.join("state").join("identity.json").exists() {
        return Ok(());
    }
    say("Enrolling this machine ...")?;
    let sites = fleet::sites(&running.app.store).await?;
    let site = sites
        .iter()
        .find(|row| row.name == DEMO_SITE)
        .with_context(|| format!("there is no site {DEMO_SITE}"))?;
    let valid_for = DurationMs::from_mins(10);
    let token = identity::create_token(
        &running.app,
        &running.authority.current(),
        SiteId(site.id),
        1,
        valid_for,
    )
    .await?;
    let output = Command::new(agent)
        .arg("enroll")
        .arg(token.to_string())
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("failed to run {}", agent.display()))?;
    if !output.status.success() {
        bail!(
            "this machine could not be enrolled: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn start_agent(agent: &Path, dir: &Path) -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("agent.log"))?;
    Command::new(agent)
        .arg("run")
        .arg("--config")
        .arg(dir.join("agent.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start {}", agent.display()))
}

async fn stop_agent(child: &mut Child) {
    let pid = child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
    {
        tracing::debug!("the agent is gone: {error}");
    }
    if tokio::time::timeout(AGENT_STOP, child.wait())
        .await
        .is_err()
    {
        tracing::warn!("the agent did not stop in time");
    }
}

fn greet(url: &str, password: Option<&str>, agent_dir: &Path) -> anyhow::Result<()> {
    let login = password.map_or_else(
        || format!("  Login     {ADMIN}, with the password you chose (--reset-password makes a new one)"),
        |password| format!("  Login     {ADMIN}\n  Password  {password}   (one-time; you will choose your own)"),
    );
    say(&format!(
        "\nWatchkeep is running.\n\n  Open      {url}\n{login}\n\nThe browser warns about the certificate: it is signed by a new private authority of this installation.\nThe agent's log is {}. Ctrl-C stops both.\n",
        agent_dir.join("agent.log").display()
    ))
}

/// The agent beside this program, else on the path.
fn agent_program() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(AGENT);
    if beside.is_file() {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(AGENT))
        .find(|file| file.is_file())
        .with_context(|| {
            format!(
                "{} is missing: build it with `cargo build --release -p {AGENT}`",
                beside.display()
            )
        })
}
