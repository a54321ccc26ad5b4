//! One's own account: password, open sessions.

use askama::Template;
use axum::{
    Form,
    extract::Query,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use watchkeep_shared::DurationMs;

use crate::{
    identity::{CA_DIR, Cas},
    store::people,
    web::{
        context::{Ctx, Layout, html},
        error::{OWN_BODY, WebError},
        pages::login::inside,
        parts::Time,
        password, session,
    },
};

#[derive(Template)]
#[template(path = "pages/account.html")]
struct AccountPage {
    layout: Layout,
    login: String,
    sessions: Vec<SessionRow>,
    /// About the certificate authority.
    authority: Option<String>,
}

struct SessionRow {
    key: String,
    browser: String,
    address: String,
    began: Time,
    used: Time,
    current: bool,
}

/// `GET /account`
pub(crate) async fn page(ctx: Ctx) -> Result<Response, WebError> {
    let store = &ctx.web.app.store;
    let used_after = ctx.now - session::IDLE;
    let open = people::sessions_of(store, ctx.viewer.user, ctx.now, used_after).await?;
    let sessions = open.iter().map(|one| SessionRow {
        key: URL_SAFE_NO_PAD.encode(&one.token_sha256),
        browser: browser(&one.user_agent),
        address: one.address.clone(),
        began: ctx.time(one.created_at),
        used: ctx.time(one.last_seen_at),
        current: one.token_sha256 == ctx.viewer.token_sha256,
    });
    html(&AccountPage {
        layout: ctx.layout("account").await?,
        login: ctx.viewer.login.clone(),
        sessions: sessions.collect(),
        authority: authority(&ctx),
    })
}

/// Which authority signs, and that it is being replaced; the command line has the rest.
fn authority(ctx: &Ctx) -> Option<String> {
    let cas = Cas::open(&ctx.web.app.config.data_dir.join(CA_DIR))
        .inspect_err(|error| tracing::warn!("the certificate authorities can't be read: {error}"))
        .ok()?;
    let signs = cas.signs();
    let days = signs.not_after().since(ctx.now).0 / DurationMs::from_hours(24).0;
    let mut text = format!("Certificate authority {}: {days} days left.", signs.id());
    if cas.rotation().trusted().len() > 1 {
        text.push_str(
            " It is being replaced: `watchkeep-collector ca status` names the hosts that have not followed.",
        );
    }
    Some(text)
}

#[derive(Deserialize)]
pub(crate) struct Revoke {
    /// The session's key; empty for all but this one.
    #[serde(default)]
    key: String,
}

/// `POST /account/sessions/revoke`
pub(crate) async fn revoke(ctx: Ctx, Form(form): Form<Revoke>) -> Result<Response, WebError> {
    let mut tx = ctx.web.app.store.begin().await?;
    if form.key.is_empty() {
        people::delete_other_sessions(&mut tx, ctx.viewer.user, &ctx.viewer.token_sha256).await?;
    } else {
        let key = URL_SAFE_NO_PAD.decode(&form.key).map_err(|_| {
            WebError::Bad("key: not a session's key; use the buttons of the list".to_owned())
        })?;
        people::delete_session(&mut tx, ctx.viewer.user, &key).await?;
    }
    let which = if form.key.is_empty() {
        "all others"
    } else {
        "one"
    };
    ctx.audit(&mut tx, "session_revoked", which, "").await?;
    tx.commit().await?;
    Ok(Redirect::to("/account").into_response())
}

#[derive(Template)]
#[template(path = "pages/password.html")]
struct PasswordPage {
    layout: Layout,
    first: bool,
    /// Where to continue after it.
    next: String,
    current_error: &'static str,
    new_error: String,
    again_error: &'static str,
}

/// `GET /account/password`
pub(crate) async fn password_page(
    ctx: Ctx,
    Query(wanted): Query<Next>,
) -> Result<Response, WebError> {
    html(&password_form(&ctx, wanted.next).await?)
}

/// Where the sign-in that led here wanted to go.
#[derive(Debug, Deserialize)]
pub(crate) struct Next {
    #[serde(default)]
    next: String,
}

async fn password_form(ctx: &Ctx, next: String) -> Result<PasswordPage, WebError> {
    // Before the first password is chosen there is nowhere to navigate to.
    let section = if ctx.viewer.must_change {
        "first"
    } else {
        "account"
    };
    Ok(PasswordPage {
        layout: ctx.layout(section).await?,
        first: ctx.viewer.must_change,
        next,
        current_error: "",
        new_error: String::new(),
        again_error: "",
    })
}

#[derive(Deserialize)]
pub(crate) struct NewPassword {
    current: String,
    new: String,
    again: String,
    #[serde(default)]
    next: String,
}

/// `POST /account/password`. Ends all other sessions.
pub(crate) async fn set_password(
    ctx: Ctx,
    Form(form): Form<NewPassword>,
) -> Result<Response, WebError> {
    let web = &ctx.web;
    let mut page = password_form(&ctx, form.next.clone()).await?;
    // Whoever has the session may guess its password no faster than at the sign-in.
    if web
        .limits
        .take_for(&ctx.viewer.token_sha256, ctx.now)
        .is_some()
    {
        page.current_error = "Too many attempts. Wait a few minutes.";
        return refused(&page);
    }
    let user = people::user_by_login(&web.app.store, &ctx.viewer.login).await?;
    let hash = user.map(|user| user.password_hash);
    if !web.hasher.verify(form.current.clone(), hash).await? {
        page.current_error = "This is not your current password.";
        return refused(&page);
    }
    if let Err(weak) = password::check(&form.new, &ctx.viewer.login) {
        page.new_error = format!("The new password {weak}.");
    } else if form.new == form.current {
        page.new_error = String::from("The new password is the current one: choose another.");
    } else if form.new != form.again {
        page.again_error = "The two new passwords differ: type the same one twice.";
    } else {
        return store_password(&ctx, form).await;
    }
    refused(&page)
}

fn refused(page: &PasswordPage) -> Result<Response, WebError> {
    Ok((
        StatusCode::UNPROCESSABLE_ENTITY,
        [(OWN_BODY, "1")],
        html(page)?,
    )
        .into_response())
}

async fn store_password(ctx: &Ctx, form: NewPassword) -> Result<Response, WebError> {
    let hash = ctx.web.hasher.hash(form.new).await?;
    let mut tx = ctx.web.app.store.begin().await?;
    people::set_password(&mut tx, ctx.viewer.user, &hash, false).await?;
    people::delete_other_sessions(&mut tx, ctx.viewer.user, &ctx.viewer.token_sha256).await?;
    ctx.audit(&mut tx, "password_changed", &ctx.viewer.login, "")
        .await?;
    tx.commit().await?;
    let to = if form.next.is_empty() && !ctx.viewer.must_change {
        "/account"
    } else {
        inside(&form.next)
    };
    Ok(Redirect::to(to).into_response())
}

/// "Firefox on Linux" from the browser's User-Agent; enough to recognise one's own.
fn browser(user_agent: &str) -> String {
    let find = |table: &[(&str, &'static str)]| {
        table
            .iter()
            .find(|(sign, _)| user_agent.contains(sign))
            .map(|(_, name)| *name)
    };
    let program = find(&[
        ("Firefox/", "Firefox"),
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ]);
    let system = find(&[
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS", "macOS"),
        ("Linux", "Linux"),
    ]);
    match (program, system) {
        (Some(program), Some(system)) => format!("{program} on {system}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "Unknown browser".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_apart() {
        let chrome =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36";
        assert_eq!(browser(chrome), "Chrome on Linux");
        assert_eq!(browser(""), "Unknown browser");
    }
}
