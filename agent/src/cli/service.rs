//! The service that the packages install, seen from the command line: whose state directory it is,
//! and how it is started.

use std::{path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::{config::Config, platform};

const NAME: &str = "watchkeep-agent";
/// Where units are, `systemd.unit(5)`.
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// How the installed service is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// A unit of systemd.
    Systemd,
    /// A script of `OpenRC`.
    OpenRc,
}

impl Manager {
    /// What manages the service that works in this state directory; `None` if none is installed here.
    pub(super) fn of(config: &Config) -> Option<Self> {
        if config.state_dir != Path::new(platform::STATE_DIR) {
            return None;
        }
        let has_unit = || {
            let unit = format!("{NAME}.service");
            UNITS.iter().any(|dir| Path::new(dir).join(&unit).exists())
        };
        if Path::new("/run/systemd/system").is_dir() && has_unit() {
            Some(Self::Systemd)
        } else if Path::new("/run/openrc").is_dir() && Path::new("/etc/init.d").join(NAME).exists()
        {
            Some(Self::OpenRc)
        } else {
            None
        }
    }

    fn command(self, verb: &'static str) -> [&'static str; 3] {
        match self {
            Self::Systemd => ["systemctl", verb, NAME],
            Self::OpenRc => ["rc-service", NAME, verb],
        }
    }

    /// The command that starts the service, for people.
    pub(super) fn advice(self) -> String {
        self.command("start").join(" ")
    }

    /// Starts the service. Needs root.
    pub(super) fn start(self) -> anyhow::Result<()> {
        self.call("start")
    }

    /// Stops the service, if it runs. Needs root.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.call("stop")
    }

    fn call(self, verb: &'static str) -> anyhow::Result<()> {
        let line = self.command(verb);
        let [program, arguments @ ..] = line;
        let text = line.join(" ");
        let status = Command::new(program)
            .args(arguments)
            .status()
            .with_context(|| format!("`{text}` can't be run"))?;
        if !status.success() {
            bail!("`{text}` failed ({status}); the system's log says why");
        }
        Ok(())
    }
}

/// Fails if root would make files in the state directory of a service that runs as another user, which
/// could not read them.
pub(super) fn check_user(config: &Config) -> anyhow::Result<()> {
    let Some(manager) = Manager::of(config) else {
        return Ok(());
    };
    if platform::other_owner(&config.state_dir)?.is_some() {
        bail!(
            "{} belongs to the service's user, and this is root, whose files the service could not read: start the service with `{}`",
            config.state_dir.display(),
            manager.advice()
        );
    }
    Ok(())
}

/// Runs this program's command line again as the owner of the state directory, so that every file is
/// made by whom the service runs as. `more` is added to the arguments. Returns whether that succeeded; if
/// not, it has said why.
pub(super) fn run_as(
    owner: platform::Owner,
    dir: &Path,
    more: Option<&str>,
) -> anyhow::Result<bool> {
    let foreign = platform::files_of_root(dir)
        .with_context(|| format!("state_dir {} can't be read", dir.display()))?;
    if !foreign.is_empty() {
        let list: Vec<String> = foreign
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        bail!(
            "files of root are in the state directory of another user, who can't use them ({}): run `chown -R {owner} {}` and try again",
            list.join(", "),
            dir.display()
        );
    }
    let mut command = Command::new(platform::own_program()?);
    command.args(std::env::args_os().skip(1)).args(more);
    platform::run_as(&mut command, owner);
    let status = command
        .status()
        .with_context(|| format!("this program can't be run as user {owner}"))?;
    Ok(status.success())
}
