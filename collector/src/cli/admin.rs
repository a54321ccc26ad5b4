//! `init`, `token`, `user`.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use watchkeep_core::{
    duration::parse_duration,
    ids::{SiteId, UserId},
};
use watchkeep_shared::DurationMs;

use super::{ACTOR, confirm, say};
use crate::{
    app::App,
    boot,
    config::Config,
    identity::{self, NewToken},
    store::{fleet, people},
    web::password,
};

/// Longest validity of a token.
const MAX_VALID_DAYS: i64 = 3_650;
/// Login that `init` makes.
pub(super) const ADMIN: &str = "admin";

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create an enrolment token for a site and print the line to run on the customer's server.
    Create {
        /// The site's name, from `apply`.
        #[arg(long)]
        site: String,
        /// How many machines may enrol with it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        uses: i64,
        /// Valid for, as in 30m, 12h, 7d or 2w.
        #[arg(long, default_value = "24h", value_parser = parse_span)]
        expires: DurationMs,
        /// Print the token alone, for scripts.
        #[arg(long)]
        bare: bool,
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
    /// Give a user a new one-time password and end the sessions.
    Reset {
        /// What the person signs in with.
        login: String,
    },
    /// Refuse a user's sign-in from now on and end the sessions.
    Disable {
        /// What the person signs in with.
        login: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// List users: login, name, and whether they are disabled, separated by tabs.
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
        bare,
    } = command;
    let opened = boot::open(config).await?;
    let sites = fleet::sites(&opened.app.store).await?;
    let Some(row) = sites.iter().find(|row| row.name == site) else {
        if sites.is_empty() {
            bail!(
                "there is no site yet: describe clients and sites in a file, then `watchkeep-collector apply -f FILE`"
            );
        }
        // One a line: names have commas and blanks in them.
        let known: Vec<String> = sites
            .iter()
            .map(|row| format!("  {}\t{}", row.name, row.client_name))
            .collect();
        bail!(
            "there is no site called {site}; there are:\n{}",
            known.join("\n")
        );
    };
    let new = NewToken {
        site: SiteId(row.id),
        uses,
        valid_for: expires,
        by: ACTOR,
    };
    let token = identity::create_token(&opened.app, &opened.authority.current(), &new).await?;
    if bare {
        say(&token.to_string())
    } else {
        say(&format!("watchkeep-agent enroll {token}"))
    }
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
        UserCommand::Disable { login, yes } => {
            confirm(
                &format!("User {login} will be signed out and can't sign in any more."),
                yes,
            )?;
            disable_user(&app, &login).await?;
            say(&format!("{login} is disabled."))
        }
        UserCommand::List => {
            for user in people::users(&app.store).await? {
                let state = user.disabled_at.map_or("", |_| "\tdisabled");
                say(&format!("{}\t{}{state}", user.login, user.name))?;
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
    if !people::create_user(&mut tx, &user).await? {
        bail!("the user {login} exists: `user reset {login}` sets a new one-time password")
    }
    app.audit(&mut tx, act("user_add", login)).await?;
    tx.commit().await?;
    Ok(password)
}

/// Gives a login a new one-time password, and returns that.
pub(super) async fn reset_user(app: &App, login: &str) -> anyhow::Result<String> {
    let user = known_user(app, login).await?;
    let password = password::generate_one_time();
    let hash = password::hash(&password)?;
    let mut tx = app.store.begin().await?;
    people::set_password(&mut tx, UserId(user.id), &hash, true).await?;
    people::delete_other_sessions(&mut tx, UserId(user.id), &[]).await?;
    app.audit(&mut tx, act("user_reset", &user.login)).await?;
    tx.commit().await?;
    Ok(password)
}

async fn disable_user(app: &App, login: &str) -> anyhow::Result<()> {
    let user = known_user(app, login).await?;
    let others = people::users(&app.store).await?;
    let is_other = |one: &people::User| one.id != user.id && one.disabled_at.is_none();
    if !others.iter().any(is_other) {
        bail!("{login} is the only user who can sign in: add another first with `user add`");
    }
    let mut tx = app.store.begin().await?;
    people::disable_user(&mut tx, user.id(), app.clock.now()).await?;
    people::delete_other_sessions(&mut tx, user.id(), &[]).await?;
    app.audit(&mut tx, act("user_disable", &user.login)).await?;
    tx.commit().await?;
    Ok(())
}

async fn known_user(app: &App, login: &str) -> anyhow::Result<people::User> {
    let user = people::user_by_login(&app.store, login).await?;
    user.with_context(|| format!("there is no user {login}: `user list` shows them"))
}

const fn act<'a>(action: &'a str, subject: &'a str) -> people::Act<'a> {
    people::Act {
        by: ACTOR,
        action,
        subject,
        detail: "",
    }
}

/// Reads a span such as `30m`, `12h`, `7d`, `2w`.
fn parse_span(text: &str) -> Result<DurationMs, String> {
    parse_duration(text)
        .filter(|span| (1_000..=MAX_VALID_DAYS * 86_400_000).contains(&span.0))
        .ok_or_else(|| {
            format!(
                "`{text}` is not a span from 1s to {MAX_VALID_DAYS}d, such as 30m, 12h, 7d or 2w"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_unit() {
        for (text, seconds) in [
            ("30m", 1_800),
            ("12h", 43_200),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1d 12h", 129_600),
        ] {
            assert_eq!(parse_span(text), Ok(DurationMs::from_secs(seconds)));
        }
        for wrong in ["", "7", "d", "-1h", "0s", "1mo", "10000d", "ever"] {
            let error = parse_span(wrong).unwrap_err();
            assert!(error.contains("such as 30m"), "{wrong}: {error}");
        }
    }
}
