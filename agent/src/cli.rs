//! The command line.

mod logs;

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{CommandFactory as _, Parser, Subcommand};
use tracing_subscriber::{layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};
use watchkeep_shared::{metric, token::EnrolmentToken};

use crate::{
    clock,
    config::{Config, Source},
    enroll,
    identity::Identity,
    manual, platform, run, sampler,
    status::Status,
    timekeeping,
};

/// Watches this server and reports to a Watchkeep collector.
#[derive(Debug, Parser)]
#[command(name = "watchkeep-agent", version)]
struct Args {
    /// The configuration file [default: /etc/watchkeep/agent.toml if it exists].
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "WATCHKEEP_AGENT_CONFIG"
    )]
    config: Option<PathBuf>,
    /// Where state is kept, instead of the configured place.
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a key and gets this machine's certificate with an enrolment token.
    Enroll {
        /// The line that `watchkeep-collector token create` printed.
        token: String,
        /// Replace an identity that is there already.
        #[arg(long)]
        force: bool,
        /// The name to enrol under, instead of the machine's host name.
        #[arg(long, value_name = "NAME")]
        hostname: Option<String>,
    },
    /// Watches and reports until it is stopped.
    Run,
    /// Checks the configuration and says what is wrong with it.
    CheckConfig,
    /// Measures once and prints the values.
    Sample {
        /// Print a heartbeat frame as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tries log rules.
    Logs {
        #[command(subcommand)]
        command: logs::LogsCommand,
    },
    /// Writes manual pages and the shells' completions.
    #[command(hide = true)]
    Manual {
        /// Where to.
        dir: PathBuf,
    },
    /// The service of Windows.
    #[cfg(windows)]
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Says how the running agent is.
    Status {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[cfg(windows)]
#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Makes the service, which starts with the machine. Needs an administrator.
    Install,
    /// Stops and removes the service; settings and state stay.
    Remove,
    /// What the service manager runs.
    #[command(hide = true)]
    Run,
}

/// Runs the command line; the whole program.
pub fn main() -> ExitCode {
    match dispatch(Args::parse()) {
        Ok(code) => code,
        // Whoever reads the output has read enough, as in `sample | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let text = watchkeep_shared::error_text(error.as_ref());
            let _ = writeln!(io::stderr(), "watchkeep-agent: {text}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

fn dispatch(args: Args) -> anyhow::Result<ExitCode> {
    // Made where packages are built, which is not where they run: without settings.
    if let Command::Manual { dir } = &args.command {
        manual::write(&Args::command(), dir)?;
        return Ok(ExitCode::SUCCESS);
    }
    let source = Source {
        path: args.config,
        state_dir: args.state_dir.map(std::path::absolute).transpose()?,
    };
    if let Command::Status { json } = args.command {
        return show_status(&source.state_dir_at_least(), json);
    }
    let config = source.load()?;
    match args.command {
        Command::Enroll {
            token,
            force,
            hostname,
        } => {
            let hostname = hostname.unwrap_or_else(sampler::host_name);
            enroll_here(&config, &token, &hostname, force)?;
        }
        Command::Run => {
            let set_level = start_log(&config);
            runtime()?.block_on(run::run(config, source, set_level))?;
        }
        Command::CheckConfig => {
            print(&format!("the configuration is valid:\n{config:#?}\n"))?;
        }
        Command::Sample { json } => print(&sample(json)?)?,
        Command::Logs { command } => return Ok(logs::run(&config, command)),
        #[cfg(windows)]
        Command::Service { command } => service(command, source, config)?,
        Command::Status { .. } | Command::Manual { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// One thread: an agent has little to do and must stay small.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

#[cfg(windows)]
fn service(command: ServiceCommand, source: Source, config: Config) -> anyhow::Result<()> {
    use crate::platform::service;

    match command {
        ServiceCommand::Install => {
            let settings = source.path.map(std::path::absolute).transpose()?;
            crate::files::make_private_dir(&config.state_dir)
                .and_then(|()| platform::keep_others_out(&config.state_dir))
                .with_context(|| keep_out_failed(&config.state_dir))?;
            service::install(&std::env::current_exe()?, settings.as_deref())?;
        }
        ServiceCommand::Remove => service::remove()?,
        ServiceCommand::Run => service::run(Box::new(move || {
            let set_log_level = start_log(&config);
            let ended = runtime().map(|runtime| {
                runtime.block_on(run::run(config.clone(), source.clone(), set_log_level))
            });
            matches!(ended, Ok(Ok(())))
        }))?,
    }
    Ok(())
}

/// Starts the log; what it gives back sets another level.
fn start_log(config: &Config) -> run::SetLogLevel {
    let (filter, handle) = reload::Layer::new(config.log.clone());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Box::new(move |targets| {
        if let Err(error) = handle.reload(targets) {
            tracing::warn!(%error, "the log level could not be changed");
        }
    })
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn enroll_here(config: &Config, token: &str, hostname: &str, force: bool) -> anyhow::Result<()> {
    let token: EnrolmentToken = token.parse()?;
    let _lock = run::lock_state_dir(&config.state_dir)?;
    if Identity::exists(&config.state_dir) && !force {
        bail!(
            "this machine is enrolled already ({} holds an identity); use --force to replace it",
            config.state_dir.display()
        );
    }
    platform::keep_others_out(&config.state_dir)
        .with_context(|| keep_out_failed(&config.state_dir))?;
    let before = Identity::load(&config.state_dir).ok();
    let enrolment = enroll::enroll(&token, hostname, config.proxy.as_deref());
    let identity = runtime()?.block_on(enrolment)?;
    // A host that only got a new key keeps what it has not sent yet.
    if force && before.is_none_or(|before| before.host != identity.host) {
        run::forget_previous_host(&config.state_dir)?;
    }
    identity.store(&config.state_dir)?;
    print(&format!(
        "enrolled as host {} at {}; start the agent with `watchkeep-agent run`\n",
        identity.host, identity.url
    ))?;
    Ok(())
}

fn keep_out_failed(dir: &Path) -> String {
    format!(
        "other users can't be kept out of {}; run this as an administrator",
        dir.display()
    )
}

fn sample(json: bool) -> anyhow::Result<String> {
    let mut sampler = sampler::Sampler::new(clock::now());
    let (asked, ()) = runtime()?.block_on(async {
        let pause = tokio::time::sleep(Duration::from_millis(500));
        tokio::join!(timekeeping::look(), pause)
    });
    let clocks = clock::now();
    let sample = sampler.sample(clocks, 0);
    let (mut names, mut values) = (sample.schema.names.clone(), sample.values);
    for (name, value) in asked {
        names.push(name);
        values.push(value.map(metric::round_to_hundredth));
    }
    if json {
        let frame = watchkeep_shared::wire::heartbeat::Frame {
            boot: Some(crate::boot::boot_id()?),
            instance: None,
            seq: 1,
            clocks,
            interval_ms: 500,
            schema: metric::schema_id(&names),
            values,
            services: None,
            events: Vec::new(),
        };
        let both = serde_json::json!({ "frame": frame, "names": names });
        return Ok(format!("{}\n", serde_json::to_string_pretty(&both)?));
    }
    let mut text = String::new();
    for (name, value) in names.iter().zip(&values) {
        match value {
            Some(value) => writeln!(text, "{name:<44} {value:>20}")?,
            None => writeln!(text, "{name:<44} {:>20}", "-")?,
        }
    }
    Ok(text)
}

/// Success while the agent runs and is connected, failure otherwise.
fn show_status(state_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let status = Status::read(state_dir)
        .with_context(|| crate::status::path(state_dir).display().to_string())?;
    let Some(status) = status else {
        bail!(
            "no agent has run with state_dir {} yet",
            state_dir.display()
        );
    };
    let running = status.is_running();
    let text = if json {
        let mut value = serde_json::to_value(&status)?;
        value["running"] = running.into();
        format!("{}\n", serde_json::to_string_pretty(&value)?)
    } else {
        table(&status, running)?
    };
    print(&text)?;
    let well = running && status.connection == crate::status::Connection::Connected;
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn table(status: &Status, running: bool) -> Result<String, std::fmt::Error> {
    let now = clock::now().wall_ms;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{name:<14} {value}");
    line("agent", if running { "running" } else { "not running" })?;
    // Status is written at each beat: an old one means that the disk refuses, or worse.
    let age_ms = now - status.written_wall_ms;
    if running && age_ms > 3 * i64::from(status.interval_ms).max(10_000) {
        let stale = format!(
            "this was written {}: the agent hangs, or its state directory takes no writes",
            ago(age_ms)
        );
        line("stale", &stale)?;
    }
    line("host", &status.host.to_string())?;
    line("collector", &status.collector)?;
    line("connection", status.connection.as_str())?;
    let last_ack = status
        .last_ack_wall_ms
        .map_or_else(|| "never".to_owned(), |at| ago(now - at));
    line("last answer", &last_ack)?;
    let spool = format!(
        "{} heartbeats, {} bytes on disk",
        status.spool_frames, status.spool_bytes
    );
    line("spool", &spool)?;
    // As on the host's page: a version is a hash, and is written like one.
    let policy = format!(
        "version {:x}, every {} ms",
        status.policy_version, status.interval_ms
    );
    line("policy", &policy)?;
    for refused in &status.refused {
        line("refused", &format!("{}: {}", refused.item, refused.reason))?;
    }
    if let Some(expires) = status.certificate_expires_wall_ms {
        let days = (expires - now) / 86_400_000;
        line("certificate", &format!("{days} days left"))?;
    }
    let trusts: Vec<String> = status.trusts.iter().map(ToString::to_string).collect();
    line("trusts", &trusts.join(", "))?;
    let config_error = status.config_error.as_ref().map(|error| {
        format!("the configuration in force is the one before, the new one is wrong: {error}")
    });
    for problem in status
        .last_error
        .iter()
        .chain(&status.spool_error)
        .chain(&config_error)
        .chain(&status.given_up)
    {
        line("problem", problem)?;
    }
    Ok(text)
}

fn ago(ms: i64) -> String {
    match ms / 1_000 {
        seconds @ ..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3_600),
    }
}
