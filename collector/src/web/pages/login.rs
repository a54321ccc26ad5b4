//! Signing in and out.

use askama::Template;
use axum::{
    Extension, Form,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use serde::Deserialize;

use crate::{
    store::people,
    web::{
        PeerAddr, Web,
        context::{Ctx, html},
        error::{OWN_BODY, WebError},
        format,
        limit::Attempt,
        session::{self, Device, Fresh, Theme, Viewer},
        unsent::Unsent,
    },
};

/// Longest name of a browser that is kept.
const MAX_USER_AGENT_CHARS: usize = 200;
const MAX_LOGIN_BYTES: usize = 128;

#[derive(Template)]
#[template(path = "pages/login.html")]
struct LoginPage {
    theme: Theme,
    login: String,
    next: String,
    error: String,
    unsent: Option<Unsent>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Params {
    #[serde(default)]
    next: String,
}

/// `GET /login`
pub(crate) async fn page(
    viewer: Option<Extension<Viewer>>,
    Query(params): Query<Params>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    if viewer.is_some() {
        return Ok(Redirect::to(inside(&params.next)).into_response());
    }
    let theme = Theme::of(&headers);
    html(&LoginPage {
        theme,
        login: String::new(),
        next: params.next,
        error: String::new(),
        unsent: None,
    })
}

/// The form for someone who sent `unsent` after the session had ended.
pub(crate) fn first(headers: &HeaderMap, next: &str, unsent: Unsent) -> Response {
    let page = LoginPage {
        theme: Theme::of(headers),
        login: String::new(),
        next: next.to_owned(),
        error: String::new(),
        unsent: Some(unsent),
    };
    let body = html(&page).unwrap_or_else(WebError::into_response);
    (StatusCode::UNAUTHORIZED, [(OWN_BODY, "1")], body).into_response()
}

#[derive(Deserialize)]
pub(crate) struct Credentials {
    login: String,
    password: String,
    #[serde(default)]
    next: String,
    /// What was sent when the session had ended: where to, and its fields as one text.
    #[serde(default)]
    unsent_action: String,
    #[serde(default)]
    unsent_fields: String,
}

impl Credentials {
    fn unsent(&self) -> Option<Unsent> {
        Unsent::kept(&self.unsent_action, &self.unsent_fields)
    }
}

/// `POST /login`
pub(crate) async fn submit(
    State(web): State<Web>,
    peer: Option<Extension<PeerAddr>>,
    headers: HeaderMap,
    Form(form): Form<Credentials>,
) -> Result<Response, WebError> {
    let now = web.app.clock.now();
    let from = session::address(&web, peer.as_deref(), &headers);
    let login: String = form.login.trim().chars().take(MAX_LOGIN_BYTES).collect();
    let user = people::user_by_login(&web.app.store, &login).await?;
    let user = user.filter(|user| user.disabled_at.is_none());
    let device = known_device(&web, user.as_ref(), &headers).await?;
    let attempt = Attempt {
        from,
        login: &login,
        device: device.as_deref(),
    };
    if let Some(wait) = web.limits.take(&attempt, now) {
        let text = format!(
            "Too many attempts to sign in. Try again in {}.",
            format::span(wait)
        );
        let mut refused = again(&headers, &form, StatusCode::TOO_MANY_REQUESTS, text)?;
        let seconds = (wait.0 / 1000 + 1).into();
        refused.headers_mut().insert(header::RETRY_AFTER, seconds);
        return Ok(refused);
    }
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let right = web.hasher.verify(form.password.clone(), hash).await?;
    let Some(user) = user.filter(|_| right) else {
        log(&web, &login, "sign_in_failed", &from.to_string()).await?;
        let text = "Wrong user name or password.".to_owned();
        return again(&headers, &form, StatusCode::UNAUTHORIZED, text);
    };
    let fresh = Fresh::new();
    let new_device = device.is_none().then(Device::new);
    let opened = SessionStart {
        user: &user,
        fresh: &fresh,
        from: &from.to_string(),
        device: device
            .as_deref()
            .or(new_device.as_ref().map(|new| &*new.sha256)),
    };
    open_session(&web, &opened, &headers).await?;
    let cookies = [Some(fresh.cookie()), new_device.map(|new| new.cookie)];
    let cookie = AppendHeaders(
        cookies
            .into_iter()
            .flatten()
            .map(|one| (header::SET_COOKIE, one)),
    );
    if user.must_change {
        let to = format::link("/account/password", &[("next", &form.next)]);
        return Ok((cookie, Redirect::to(&to)).into_response());
    }
    if let Some(unsent) = form.unsent() {
        let page = unsent.page(StatusCode::OK, fresh.csrf, Theme::of(&headers));
        return Ok((cookie, page).into_response());
    }
    Ok((cookie, Redirect::to(inside(&form.next))).into_response())
}

/// The form again, with a message and what was typed, but for the password.
fn again(
    headers: &HeaderMap,
    form: &Credentials,
    status: StatusCode,
    error: String,
) -> Result<Response, WebError> {
    let theme = Theme::of(headers);
    let page = LoginPage {
        theme,
        login: form.login.clone(),
        next: form.next.clone(),
        error,
        unsent: form.unsent(),
    };
    Ok((status, [(OWN_BODY, "1")], html(&page)?).into_response())
}

/// The digest of the browser's device cookie, if this person has signed in from it before.
async fn known_device(
    web: &Web,
    user: Option<&people::User>,
    headers: &HeaderMap,
) -> Result<Option<Vec<u8>>, WebError> {
    let (Some(user), Some(sha256)) = (user, Device::sha256_of(headers)) else {
        return Ok(None);
    };
    let since = web.app.clock.now() - session::DEVICE_LIFE;
    let known = people::is_known_device(&web.app.store, user.id(), &sha256, since).await?;
    Ok(known.then_some(sha256))
}

/// A session about to be opened.
struct SessionStart<'a> {
    user: &'a people::User,
    fresh: &'a Fresh,
    from: &'a str,
    /// The browser's digest.
    device: Option<&'a [u8]>,
}

async fn open_session(
    web: &Web,
    new: &SessionStart<'_>,
    headers: &HeaderMap,
) -> Result<(), WebError> {
    let (user, fresh, address) = (new.user, new.fresh, new.from);
    let now = web.app.clock.now();
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let agent: String = agent
        .unwrap_or_default()
        .chars()
        .take(MAX_USER_AGENT_CHARS)
        .collect();
    let mut tx = web.app.store.begin().await?;
    people::delete_expired_sessions(&mut tx, now, now - session::IDLE).await?;
    let opened = people::NewSession {
        token_sha256: &fresh.sha256,
        user: user.id(),
        csrf: &fresh.csrf,
        address,
        user_agent: &agent,
        created_at: now,
        expires_at: now + session::ABSOLUTE,
    };
    people::create_session(&mut tx, &opened).await?;
    if let Some(device) = new.device {
        people::put_device(&mut tx, user.id(), device, now).await?;
    }
    let line = people::Audit {
        id: web.app.ids.next(now),
        at: now,
        actor: &user.login,
        action: "sign_in",
        subject: "session",
        detail: address,
    };
    people::audit(&mut tx, &line).await?;
    tx.commit().await?;
    Ok(())
}

async fn log(web: &Web, actor: &str, action: &str, detail: &str) -> Result<(), WebError> {
    let now = web.app.clock.now();
    let mut tx = web.app.store.begin().await?;
    let id = web.app.ids.next(now);
    let line = people::Audit {
        id,
        at: now,
        actor,
        action,
        subject: "session",
        detail,
    };
    people::audit(&mut tx, &line).await?;
    tx.commit().await?;
    Ok(())
}

/// `POST /logout`
pub(crate) async fn logout(ctx: Ctx) -> Result<Response, WebError> {
    let mut tx = ctx.web.app.store.begin().await?;
    people::delete_session(&mut tx, ctx.viewer.user, &ctx.viewer.token_sha256).await?;
    ctx.audit(&mut tx, "sign_out", "session", "").await?;
    tx.commit().await?;
    let cookie = [(header::SET_COOKIE, session::forget_cookie())];
    Ok((cookie, Redirect::to("/login")).into_response())
}

/// Only addresses on this site: a path, not `//elsewhere` nor `/\elsewhere`.
pub(crate) fn inside(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//") && !next.contains('\\');
    if is_path && !next.chars().any(char::is_control) {
        next
    } else {
        "/"
    }
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn a_sign_in_never_leads_elsewhere() {
        for (next, to) in [
            ("/tickets?state=new", "/tickets?state=new"),
            ("", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nset-cookie: b", "/"),
        ] {
            assert_eq!(inside(next), to, "{next:?}");
        }
    }
}
