//! `watchkeep-agent enroll`. As root it enrols as the owner of the state directory, which is the
//! service's user where a package made it, and starts the service.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use watchkeep_shared::token::EnrolmentToken;

use super::{
    keep_out_failed, print, runtime,
    service::{self, Manager},
};
use crate::{config::Config, enroll, identity::Identity, platform, run};

/// The arguments of `enroll`.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) token: String,
    pub(super) hostname: String,
    /// Replace an identity that is there.
    pub(super) force: bool,
    /// Start the service afterwards, or say how.
    pub(super) start: bool,
}

/// Enrols this machine.
pub(super) fn run(config: &Config, options: &Options) -> anyhow::Result<ExitCode> {
    let manager = Manager::of(config).filter(|_| options.start && platform::is_root());
    // A running service holds the state directory.
    if options.force
        && let Some(manager) = manager
    {
        manager.stop()?;
    }
    let enrolled = enroll_as_owner(config, options);
    if let Some(manager) = manager
        && (options.force || matches!(enrolled, Ok(true)))
    {
        manager.start().context("the agent could not be started")?;
    }
    if !enrolled? {
        return Ok(ExitCode::FAILURE);
    }
    if manager.is_some() {
        print("the agent is started\n")?;
    } else if options.start {
        let advice =
            Manager::of(config).map_or_else(|| "watchkeep-agent run".to_owned(), Manager::advice);
        print(&format!("start the agent with `{advice}`\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Enrols as the owner of the state directory. Returns whether it succeeded; if not, the process that
/// tried has said why.
fn enroll_as_owner(config: &Config, options: &Options) -> anyhow::Result<bool> {
    let owner = platform::other_owner(&config.state_dir)
        .with_context(|| format!("state_dir {}", config.state_dir.display()))?;
    match owner {
        Some(owner) => {
            let more = options.start.then_some("--no-start");
            service::run_as(owner, &config.state_dir, more)
        }
        None => enroll_here(config, options).map(|()| true),
    }
}

fn enroll_here(config: &Config, options: &Options) -> anyhow::Result<()> {
    let token: EnrolmentToken = options.token.parse()?;
    let force = options.force;
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
    let enrolment = enroll::enroll(&token, &options.hostname, config.proxy.as_ref());
    let identity = runtime()?.block_on(enrolment)?;
    // A host that only got a new key keeps what it has not sent yet.
    if force && before.is_none_or(|before| before.host != identity.host) {
        run::forget_previous_host(&config.state_dir)?;
    }
    identity.store(&config.state_dir)?;
    print(&format!(
        "enrolled as host {} at {}\n",
        identity.host, identity.url
    ))?;
    Ok(())
}
