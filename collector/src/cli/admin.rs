//! `init`, `token`, `user`, `host`.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use watchkeep_core::{
    evidence::{Evidence, EvidenceKind},
    ids::{SiteId, UserId},
};
use watchkeep_shared::{DurationMs, HostId};

use super::{confirm, say};
use crate::{
    app::App,
    boot,
    config::Config,
    identity,
    store::{fleet, identity as rows, people, record},
    web::password,
};

/// Login that `init` makes.
pub(super) const ADMIN: &str = "admin";

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Print an enrolment token for a site: one line to paste on the customer's server.
    Create {
        /// The site's name, from `apply`.
        #[arg(long)]
        site: String,
        /// How many machines it takes in.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        uses: i64,
        /// Valid for, as in 30m, 12h, 7d or 2w.
        #[arg(long, default_value = "24h", value_parser = parse_span)]
        expires: DurationMs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Create a user and print the one-time password.
    Add {
        /// What the person signs in with.
        login: String,
        /// The person's name.
        #[arg(long)]
        name: Option<String>,
    },
    /// Give a login a new one-time password and end its sessions.
    Reset {
        /// Which login.
        login: String,
    },
    /// List logins.
    List,
}

pub(super) async fn init(config: Config) -> anyhow::Result<()> {
    let dir = config.data_dir.clone();
    let opened = boot::init(config).await?;
    say(&format!(
        "The data directory {} and the store are ready.",
        dir.display()
    ))?;
    if people::users(&opened.app.store).await?.is_empty() {
        let password = add_user(&opened.app, ADMIN, "Administrator").await?;
        say(&format!(
            "Sign in as {ADMIN} with the one-time password {password}"
        ))?;
    }
    say("Next: `watchkeep-collector apply -f FILE` for clients and sites, then `serve`.")
}

pub(super) async fn token(config: Config, command: TokenCommand) -> anyhow::Result<()> {
    let TokenCommand::Create {
        site,
        uses,
        expires,
    } = command;
    let opened = boot::open(config).await?;
    let sites = fleet::sites(&opened.app.store).await?;
    let Some(row) = sites.iter().find(|row| row.name == site) else {
        let known: Vec<&str> = sites.iter().map(|row| row.name.as_str()).collect();
        if known.is_empty() {
            bail!("there is no site {site}: make one with `watchkeep-collector apply`");
        }
        bail!("there is no site {site}; there are: {}", known.join(", "));
    };
    let token = identity::create_token(
        &opened.app,
        &opened.authority.current(),
        SiteId(row.id),
        uses,
        expires,
    )
    .await?;
    say(&token.to_string())
}

pub(super) async fn user(config: Config, command: UserCommand) -> anyhow::Result<()> {
    let app = boot::open(config).await?.app;
    match command {
        UserCommand::Add { login, name } => {
            let name = name.unwrap_or_else(|| login.clone());
            let password = add_user(&app, &login, &name).await?;
            say(&format!(
                "Sign in as {login} with the one-time password {password}"
            ))
        }
        UserCommand::Reset { login } => {
            let password = reset_user(&app, &login).await?;
            say(&format!(
                "Sign in as {login} with the one-time password {password}"
            ))
        }
        UserCommand::List => {
            for user in people::users(&app.store).await? {
                say(&format!("{}\t{}", user.login, user.name))?;
            }
            Ok(())
        }
    }
}

/// Makes a login with a one-time password, and returns that.
pub(super) async fn add_user(app: &App, login: &str, name: &str) -> anyhow::Result<String> {
    let password = password::generate_one_time();
    let hash = password::hash(&password)?;
    let mut tx = app.store.begin().await?;
    let user = people::NewUser {
        id: UserId(app.ids.uuid(app.clock.now())),
        login,
        name,
        password_hash: &hash,
        role: "admin",
        must_change: true,
        created_at: app.clock.now(),
    };
    match people::create_user(&mut tx, &user).await {
        Ok(()) => {}
        Err(error) if error.is_unique_violation() => {
            bail!("the login {login} exists: `user reset {login}` gives it a new password")
        }
        Err(error) => return Err(error.into()),
    }
    tx.commit().await?;
    Ok(password)
}

/// Gives a login a new one-time password, and returns that.
pub(super) async fn reset_user(app: &App, login: &str) -> anyhow::Result<String> {
    let user = people::user_by_login(&app.store, login)
        .await?
        .with_context(|| format!("there is no login {login}: `user list` shows them"))?;
    let password = password::generate_one_time();
    let hash = password::hash(&password)?;
    let mut tx = app.store.begin().await?;
    people::set_password(&mut tx, UserId(user.id), &hash, true).await?;
    people::delete_other_sessions(&mut tx, UserId(user.id), &[]).await?;
    tx.commit().await?;
    Ok(password)
}

pub(super) async fn revoke(config: Config, host: HostId, yes: bool) -> anyhow::Result<()> {
    let app = boot::open(config).await?.app;
    let row = known_host(&app, host).await?;
    confirm(
        &format!("{} will be refused until it enrols again.", row.name),
        yes,
    )?;
    let mut tx = app.store.begin().await?;
    let count = rows::revoke_host(&mut tx, host, app.clock.now()).await?;
    tx.commit().await?;
    say(&format!(
        "{count} certificates of {} are revoked.",
        row.name
    ))
}

pub(super) async fn rekey(config: Config, host: HostId, yes: bool) -> anyhow::Result<()> {
    let opened = boot::open(config).await?;
    let row = known_host(&opened.app, host).await?;
    confirm(
        &format!(
            "{} will be refused until one machine enrols again with the token that follows.",
            row.name
        ),
        yes,
    )?;
    let token = identity::rekey(&opened.app, &opened.authority.current(), host, super::ACTOR)
        .await?
        .with_context(|| format!("{} was retired", row.name))?;
    writeln!(
        std::io::stderr(),
        "On the right machine: stop the agent, `watchkeep-agent enroll --force TOKEN`, start it. The token is good for one machine and 24 hours:"
    )?;
    say(&token.to_string())
}

pub(super) async fn retire(config: Config, host: HostId, yes: bool) -> anyhow::Result<()> {
    let app = boot::open(config).await?.app;
    let row = known_host(&app, host).await?;
    confirm(
        &format!(
            "Host {} will be retired: its record ends and its agent is rejected.",
            row.name
        ),
        yes,
    )?;
    let now = app.clock.now();
    let mut tx = app.store.begin().await?;
    if !fleet::retire_host(&mut tx, host, now).await? {
        bail!("{} was retired before", row.name);
    }
    rows::revoke_host(&mut tx, host, now).await?;
    let ended = Evidence {
        host: Some(host),
        kind: EvidenceKind::Retired,
        valid_from: now,
        valid_to: now,
        recorded_at: now,
    };
    record::insert_evidence(&mut tx, &[(app.ids.next(now), &ended)]).await?;
    tx.commit().await?;
    say(&format!("{} is retired.", row.name))
}

async fn known_host(app: &App, host: HostId) -> anyhow::Result<fleet::HostRow> {
    fleet::host(&app.store, host)
        .await?
        .with_context(|| format!("there is no host {host}: `status` shows them"))
}

/// Reads a span such as `30m`, `12h`, `7d`.
fn parse_span(text: &str) -> Result<DurationMs, String> {
    let wrong = || format!("`{text}` is not a span such as 30m, 12h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: i64 = text
        .strip_suffix(unit)
        .and_then(|count| count.parse().ok())
        .ok_or_else(wrong)?;
    if !(1..=10_000_000).contains(&count) {
        return Err(wrong());
    }
    Ok(DurationMs::from_secs(count * seconds))
}
