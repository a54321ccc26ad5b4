//! The command line. Each verb is one small file; this one parses and dispatches.

mod admin;
mod apply;
mod ca;
mod channel;
mod host;
mod manual;
mod migrate;
mod policy;
mod quickstart;
mod report;
mod status;

use std::{io::Write as _, path::PathBuf};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{boot, config::Config};

/// Watchkeep's collector: takes agents' heartbeats, opens tickets, keeps the uptime record.
#[derive(Debug, Parser)]
#[command(name = "watchkeep-collector", version)]
pub struct Cli {
    /// The settings file.
    #[arg(
        long,
        global = true,
        env = "WATCHKEEP_CONFIG",
        default_value = "/etc/watchkeep/collector.toml"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine for a first look: keys, store, admin, demo client, an agent.
    Quickstart(quickstart::Args),
    /// Make the data directory, the certificate authority and the store.
    Init,
    /// Run until SIGTERM or SIGINT.
    Serve,
    /// Bring the store to this program's version; the server does so when it starts.
    Migrate(migrate::Args),
    /// Check the settings and say what is wrong.
    CheckConfig,
    /// Create or update clients, contracts, sites and their policies from a TOML file; idempotent.
    Apply(apply::Args),
    /// Enrolment tokens.
    Token {
        #[command(subcommand)]
        command: admin::TokenCommand,
    },
    /// Users.
    User {
        #[command(subcommand)]
        command: admin::UserCommand,
    },
    /// Enrolled hosts.
    Host {
        #[command(subcommand)]
        command: host::HostCommand,
    },
    /// The certificate authority, and replacing it.
    Ca {
        #[command(subcommand)]
        command: ca::CaCommand,
    },
    /// Channels by which messages reach people.
    Channel {
        #[command(subcommand)]
        command: channel::ChannelCommand,
    },
    /// Hosts, open tickets and the pipeline, as the store has them.
    Status(status::Args),
    /// The uptime report of a contract for a month.
    Report(report::Args),
    /// Write manual pages and the shells' completions.
    #[command(hide = true)]
    Manual {
        /// Where to.
        dir: PathBuf,
    },
}

/// Runs the command line.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    // Its settings are in its data directory.
    if let Command::Quickstart(args) = cli.command {
        return quickstart::run(args).await;
    }
    // Made where packages are built, which is not where they run: without settings.
    if let Command::Manual { dir } = cli.command {
        return Ok(manual::write(&Cli::command(), &dir)?);
    }
    let config = Config::load(&cli.config)?;
    match cli.command {
        Command::Quickstart(_) | Command::Manual { .. } => Ok(()),
        Command::Init => admin::init(config).await,
        Command::Serve => {
            let running = boot::start(boot::open_to_serve(config).await?).await?;
            running.until_stopped().await
        }
        Command::Migrate(args) => migrate::run(config, args).await,
        Command::CheckConfig => {
            config.check_files()?;
            say(&format!("{} is fine", cli.config.display()))
        }
        Command::Apply(args) => apply::run(config, args).await,
        Command::Token { command } => admin::token(config, command).await,
        Command::User { command } => admin::user(config, command).await,
        Command::Host { command } => host::run(config, command).await,
        Command::Ca { command } => ca::run(config, command).await,
        Command::Channel { command } => channel::run(config, command).await,
        Command::Status(args) => status::run(config, args).await,
        Command::Report(args) => report::run(config, args).await,
    }
}

/// Who acts, in the audit log.
const ACTOR: &str = "command line";

/// Prints a line for people or scripts.
fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Whether the error is a closed output, as in `status | head`.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Asks before something that can't be undone.
fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("{question} Add --yes to do it without a question.");
    }
    write!(std::io::stderr(), "{question} Type yes to continue: ")?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    if line.trim() == "yes" {
        Ok(())
    } else {
        anyhow::bail!("nothing was changed")
    }
}
