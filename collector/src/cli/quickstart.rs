//! `quickstart`: everything on one machine for a first look. What exists is kept, so running it
//! again resumes; the demo client is only made together with the store.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
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
    app::App,
    boot::{self, Running},
    config::Config,
    identity::{self, NewToken},
    store::{fleet, people},
};

/// What the demo client is made of.
const DEMO_FLEET: &str = include_str!("../../../config/demo.toml");
/// Its site.
const DEMO_SITE: &str = "This machine";
/// The agent's program, in the directory of this one.
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
    /// The agents' port.
    #[arg(long, default_value_t = 7443)]
    agent_port: u16,
    /// The web port.
    #[arg(long, default_value_t = 8443)]
    web_port: u16,
    /// This machine's address, for other servers and browsers to connect to. Without it only this
    /// machine can.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<IpAddr>,
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
    let password = people_and_demo(&opened.app, args.reset_password).await?;
    if let Some(password) = &password {
        // At once: should a later step fail, it could not be shown again.
        say(&format!("The one-time password of {ADMIN} is {password}"))?;
    }
    say("Starting the collector ...")?;
    let running = boot::start(opened).await?;
    let agent_dir = dir.join("agent");
    prepare_agent(&running, &agent, &agent_dir).await?;
    let child = start_agent(&agent, &agent_dir)?;
    greet(&Greeting {
        url: &url,
        password: password.as_deref(),
        dir: &dir,
        is_local: args.listen.is_none(),
    })?;
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
    let (agents, web) = (config.agents.listen, config.web.listen);
    if (agents.port(), web.port()) != (args.agent_port, args.web_port) {
        bail!(
            "{} names the ports {} and {}: give --agent-port {} --web-port {}, or edit the file",
            path.display(),
            agents.port(),
            web.port(),
            agents.port(),
            web.port()
        );
    }
    if let Some(address) = args.listen
        && (agents.ip(), web.ip()) != (address, address)
    {
        bail!(
            "{} listens on {} and {}: change `listen` and `public_url` of [agents] and [web] there to {address}, and start again without --listen",
            path.display(),
            agents.ip(),
            web.ip()
        );
    }
    Ok(config)
}

fn config_text(dir: &Path, args: &Args) -> String {
    // A path as a TOML string.
    let data_dir = toml::Value::String(dir.display().to_string());
    let ip = args.listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let agents = SocketAddr::new(ip, args.agent_port);
    let web = SocketAddr::new(ip, args.web_port);
    // Browsers know localhost by its name.
    let url = |address: SocketAddr| match args.listen {
        Some(_) => address.to_string(),
        None => format!("localhost:{}", address.port()),
    };
    let (agents_url, web_url) = (url(agents), url(web));
    format!(
        r#"# Made by `watchkeep-collector quickstart`. config/collector.example.toml explains every key.
data_dir = {data_dir}

[agents]
listen = "{agents}"
public_url = "https://{agents_url}"

[web]
listen = "{web}"
public_url = "https://{web_url}"

[policy]
interval_ms = 10000
services = [
  {{ type = "process", name = "watchkeep-collector" }},
  {{ type = "tcp", address = "{web}" }},
]

[[policy.logs]]
path = "/var/log/*.log"
rules = [{{ name = "kernel-errors", pattern = "(?i)out of memory|segfault|I/O error" }}]
"#
    )
}

/// Makes the demo client and the admin in a store that has neither. Returns the admin's one-time
/// password, if one was made now.
async fn people_and_demo(app: &App, reset: bool) -> anyhow::Result<Option<String>> {
    // Only a store without users is new. Later the demo client is the operator's, who may have
    // changed it.
    if people::users(&app.store).await?.is_empty() {
        let demo: Fleet = watchkeep_shared::settings::load("config/demo.toml", DEMO_FLEET, [])?;
        apply(app, &demo, Some("quickstart")).await?;
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
        .with_context(|| format!("there is no site {DEMO_SITE}: enrol this machine by hand with a token of another site"))?;
    let new = NewToken {
        site: SiteId(site.id),
        uses: 1,
        valid_for: DurationMs::from_mins(10),
        by: "quickstart",
    };
    let token = identity::create_token(&running.app, &running.authority.current(), &new).await?;
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

/// What the end of the start says.
struct Greeting<'a> {
    url: &'a str,
    password: Option<&'a str>,
    dir: &'a Path,
    /// Other machines can't connect.
    is_local: bool,
}

fn greet(greeting: &Greeting<'_>) -> anyhow::Result<()> {
    let Greeting {
        url,
        password,
        dir,
        is_local,
    } = *greeting;
    let login = password.map_or_else(
        || format!("  Login     {ADMIN}, with the password you chose (--reset-password makes a new one)"),
        |password| format!("  Login     {ADMIN}\n  Password  {password}   (one-time; you will choose your own)"),
    );
    let config = dir.join("collector.toml");
    let command = format!(
        "watchkeep-collector --config {} token create --site \"{DEMO_SITE}\"",
        config.display()
    );
    let more = if is_local {
        "Only this machine can connect. For other servers set `listen` and `public_url` of [agents] and [web] in that file to this machine's address, or start in a new data directory with --listen ADDRESS.".to_owned()
    } else {
        format!(
            "To add a server, run\n\n  {command}\n\nhere and the line that it prints on that server."
        )
    };
    say(&format!(
        "\nWatchkeep is running.\n\n  Open      {url}\n{login}\n\n\
         The browser warns about the certificate: it is signed by a new private authority of this installation.\n\
         Other commands need --config {}\n{more}\n\
         The agent's log is {}. Ctrl-C stops both.\n",
        config.display(),
        dir.join("agent").join("agent.log").display()
    ))
}

/// The agent in this program's directory, else on the path.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use watchkeep_shared::UnixMillis;

    use super::*;
    use crate::{
        clock::Clock, ids::RowIds, live::Live, policies::Policies, process::Process, store::Store,
    };

    async fn app(dir: &Path) -> App {
        let text = format!("data_dir = \"{}\"\n", dir.display());
        let config = Config::parse("test", &text, []).unwrap();
        App {
            store: Store::open(&config.store).await.unwrap(),
            clock: Clock::manual(UnixMillis(1_800_000_000_000)),
            live: Arc::new(Live::default()),
            delivery: Arc::default(),
            history: Arc::default(),
            policies: Arc::new(Policies::new(config.policy.clone())),
            ids: Arc::new(RowIds::new(1)),
            config: Arc::new(config),
            process: Process::new(),
        }
    }

    #[tokio::test]
    async fn what_was_made_of_the_demo_client_outlives_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let app = app(dir.path()).await;
        assert!(people_and_demo(&app, false).await.unwrap().is_some());
        let audit = people::audit_log(&app.store, 100).await.unwrap();
        assert!(audit.iter().any(|line| line.actor == "quickstart"));

        let with_policy = format!(
            "{DEMO_FLEET}\n[client.site.policy]\nservices = [{{ type = \"process\", name = \"shop\" }}]\n"
        );
        let fleet = watchkeep_shared::settings::load("fleet.toml", &with_policy, []).unwrap();
        let plan = apply(&app, &fleet, Some("ada")).await.unwrap();
        assert_eq!(plan.changes.len(), 1, "{plan:?}");
        assert_eq!(people_and_demo(&app, false).await.unwrap(), None);
        let again = apply(&app, &fleet, None).await.unwrap();
        assert_eq!(again.changes, [""; 0], "the policy is still there");
    }

    #[test]
    fn the_settings_name_the_address_to_connect_to() {
        let args = |listen: Option<&str>| Args {
            data_dir: PathBuf::from("/tmp/wk"),
            agent_port: 7443,
            web_port: 8443,
            listen: listen.map(|address| address.parse().unwrap()),
            reset_password: false,
        };
        for (listen, agents, url) in [
            (None, "127.0.0.1:7443", "https://localhost:7443"),
            (
                Some("192.0.2.7"),
                "192.0.2.7:7443",
                "https://192.0.2.7:7443",
            ),
            (
                Some("2001:db8::7"),
                "[2001:db8::7]:7443",
                "https://[2001:db8::7]:7443",
            ),
        ] {
            let text = config_text(Path::new("/tmp/wk"), &args(listen));
            let config = Config::parse("collector.toml", &text, []).unwrap();
            assert_eq!(config.agents.listen.to_string(), agents);
            assert_eq!(config.agents.public_url, url);
            assert_eq!(config.web.listen.ip(), config.agents.listen.ip());
        }
    }
}
