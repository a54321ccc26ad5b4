//! The command line. Each verb is one small file; this one parses and dispatches.

mod admin;
mod apply;
mod ca;
mod channel;
mod manual;
mod policy;
mod quickstart;
mod report;
mod status;

use std::{io::Write as _, path::PathBuf};

use clap::{CommandFactory as _, Parser, Subcommand};
use watchkeep_shared::HostId;

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
    /// Everything on this machine for a first look: keys, store, admin, demo client, an agent.
    Quickstart(quickstart::Args),
    /// Make the data directory, the certificate authority and the store.
    Init,
    /// Run until SIGTERM or SIGINT.
    Serve,
    /// Check the settings and say what is wrong.
    CheckConfig,
    /// Bring clients, contracts, sites and their policies to what a TOML file says; idempotent.
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
        command: HostCommand,
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

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// Show what a host's agent is asked to do, and where each item comes from.
    Policy {
        /// The host's identifier, from `status`.
        host: HostId,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a host's certificates; its next request is refused. It can enrol again.
    Revoke {
        /// The host's identifier, from `status`.
        host: HostId,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Give a host a new key: revoke its certificates and print a token with which one machine
    /// enrols again as this host. Ends the quarantine of a host whose identity was used twice.
    Rekey {
        /// The host's identifier, from `status`.
        host: HostId,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// End a host's record and revoke its certificates.
    Retire {
        /// The host's identifier, from `status`.
        host: HostId,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
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
            let running = boot::start(boot::open(config).await?).await?;
            running.until_stopped().await
        }
        Command::CheckConfig => {
            config.check_files()?;
            say(&format!("{} is fine", cli.config.display()))
        }
        Command::Apply(args) => apply::run(config, args).await,
        Command::Token { command } => admin::token(config, command).await,
        Command::User { command } => admin::user(config, command).await,
        Command::Host {
            command: HostCommand::Policy { host, json },
        } => policy::run(config, host, json).await,
        Command::Host {
            command: HostCommand::Revoke { host, yes },
        } => admin::revoke(config, host, yes).await,
        Command::Host {
            command: HostCommand::Rekey { host, yes },
        } => admin::rekey(config, host, yes).await,
        Command::Host {
            command: HostCommand::Retire { host, yes },
        } => admin::retire(config, host, yes).await,
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

/// Asks before something that can't be undone.
fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("{question} Add --yes to do it without being asked.");
    }
    write!(std::io::stderr(), "{question} Type yes to go on: ")?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    if line.trim() == "yes" {
        Ok(())
    } else {
        anyhow::bail!("nothing was done")
    }
}
