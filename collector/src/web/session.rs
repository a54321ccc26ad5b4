//! Sessions and the guard in front of every handler: who is asking, and may this request change
//! anything.
//!
//! A session is a random 256-bit token in a cookie; the store has only its SHA-256. It ends 12
//! hours after its last use and 30 days after its start. Live refreshes of an open page are not
//! use. A request that may change state must come from our own pages (`Sec-Fetch-Site`, else
//! `Origin`) and, within a session, must carry the session's CSRF token.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use watchkeep_core::ids::UserId;
use watchkeep_shared::{DurationMs, UnixMillis};

use crate::{
    store::{StoreError, people},
    web::{
        PeerAddr, Web,
        error::WebError,
        format,
        pages::login,
        unsent::{self, Unsent},
    },
};

/// A session that is not used for this long ends.
pub(crate) const IDLE: DurationMs = DurationMs::from_hours(12);
/// A session ends after so long, used or not.
pub(crate) const ABSOLUTE: DurationMs = DurationMs::from_hours(30 * 24);
/// Use is written down at most this often.
const TOUCH_EVERY: DurationMs = DurationMs::from_mins(1);
/// The `__Host-` prefix binds the cookie to this host, over TLS, for all paths.
const COOKIE: &str = "__Host-watchkeep";
const THEME_COOKIE: &str = "watchkeep-theme";
/// A note of 20,000 characters, each percent-encoded as up to 12 bytes.
const MAX_FORM_BYTES: usize = 256 * 1024;
/// How long a form's body may take to arrive.
const FORM_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);
/// Names the browser of someone who has signed in before; see `limit`.
const DEVICE_COOKIE: &str = "__Host-watchkeep-device";
/// A browser that is not used for this long is unknown again.
pub(crate) const DEVICE_LIFE: DurationMs = DurationMs::from_hours(365 * 24);
/// Sent by the page's script with refreshes that no person asked for.
const LIVE_HEADER: &str = "x-live";
const PASSWORD_PAGE: &str = "/account/password";

/// Light, dark, or what the system prefers; kept in a cookie so that the first paint is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Theme {
    #[default]
    Auto,
    Light,
    Dark,
}

impl Theme {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match cookie(headers, THEME_COOKIE).as_deref() {
            Some("light") => Self::Light,
            Some("dark") => Self::Dark,
            _ => Self::Auto,
        }
    }

    /// As written in the page.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// Who is asking.
#[derive(Clone, Debug)]
pub(crate) struct Viewer {
    pub(crate) user: UserId,
    pub(crate) login: String,
    pub(crate) name: String,
    pub(crate) must_change: bool,
    pub(crate) csrf: String,
    pub(crate) token_sha256: Vec<u8>,
}

/// A new session: the cookie's value and what the store keeps.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) token: String,
    pub(crate) sha256: Vec<u8>,
    pub(crate) csrf: String,
}

impl Fresh {
    pub(crate) fn new() -> Self {
        let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let csrf = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        Self {
            sha256: Sha256::digest(token.as_bytes()).to_vec(),
            token,
            csrf,
        }
    }

    pub(crate) fn cookie(&self) -> String {
        private_cookie(COOKIE, &self.token, ABSOLUTE)
    }
}

/// Makes a browser forget its session.
pub(crate) fn forget_cookie() -> String {
    private_cookie(COOKIE, "", DurationMs(0))
}

/// A browser in which someone signed in: the cookie's value and what the store keeps.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) cookie: String,
    pub(crate) sha256: Vec<u8>,
}

impl Device {
    pub(crate) fn new() -> Self {
        let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        Self {
            cookie: private_cookie(DEVICE_COOKIE, &token, DEVICE_LIFE),
            sha256: Sha256::digest(token.as_bytes()).to_vec(),
        }
    }

    /// The digest of the browser's device cookie, if it sent one.
    pub(crate) fn sha256_of(headers: &HeaderMap) -> Option<Vec<u8>> {
        let token = cookie(headers, DEVICE_COOKIE)?;
        Some(Sha256::digest(token.as_bytes()).to_vec())
    }
}

/// A cookie for this host alone, over TLS, out of reach of scripts.
fn private_cookie(name: &'static str, value: &str, life: DurationMs) -> String {
    cookie::Cookie::build((name, value))
        .path("/")
        .max_age(time::Duration::milliseconds(life.0))
        .secure(true)
        .http_only(true)
        .same_site(cookie::SameSite::Lax)
        .build()
        .to_string()
}

/// The open session of a request, if there is one.
pub(crate) async fn viewer(web: &Web, headers: &HeaderMap) -> Result<Option<Viewer>, StoreError> {
    let Some(token) = cookie(headers, COOKIE) else {
        return Ok(None);
    };
    let sha256 = Sha256::digest(token.as_bytes()).to_vec();
    let Some(session) = people::session(&web.app.store, &sha256).await? else {
        return Ok(None);
    };
    let now = web.app.clock.now();
    if has_ended(&session, now) {
        return Ok(None);
    }
    let touched = UnixMillis(session.last_seen_at) + TOUCH_EVERY;
    if now >= touched && !headers.contains_key(LIVE_HEADER) {
        let mut tx = web.app.store.begin().await?;
        people::touch_session(&mut tx, &sha256, now).await?;
        tx.commit().await?;
    }
    Ok(Some(Viewer {
        user: UserId(session.user_id),
        login: session.login,
        name: session.name,
        must_change: session.must_change,
        csrf: session.csrf,
        token_sha256: sha256,
    }))
}

fn has_ended(session: &people::Session, now: UnixMillis) -> bool {
    now.0 >= session.expires_at || now >= UnixMillis(session.last_seen_at) + IDLE
}

/// Whether the session that opened a long-lived answer is still open.
pub(crate) async fn is_open(web: &Web, token_sha256: &[u8]) -> Result<bool, StoreError> {
    let session = people::session(&web.app.store, token_sha256).await?;
    Ok(session.is_some_and(|session| !has_ended(&session, web.app.clock.now())))
}

/// In front of everything: refuses changes that other sites ask for, and forged forms.
pub(super) async fn guard(
    State(web): State<Web>,
    request: Request,
    next: Next,
) -> Result<Response, WebError> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if is_stateless(&path) {
        return Ok(next.run(Request::from_parts(parts, body)).await);
    }
    let changes = !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && !comes_from_us(&web, &parts.headers) {
        return Err(WebError::Forbidden(
            "this request came from another site; open the page here and try again",
        ));
    }
    let viewer = viewer(&web, &parts.headers).await?;
    let mut body = body;
    let mut unsent = None;
    if changes {
        let bytes = match tokio::time::timeout(FORM_TIMEOUT, to_bytes(body, MAX_FORM_BYTES)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_)) => return Ok(StatusCode::PAYLOAD_TOO_LARGE.into_response()),
            Err(_) => return Ok(StatusCode::REQUEST_TIMEOUT.into_response()),
        };
        if let Some(viewer) = &viewer
            && path != "/login"
            && !has_token(&parts.headers, &bytes, &viewer.csrf)
        {
            if let Some(unsent) = Unsent::of(&path, &parts.headers, &bytes) {
                let (csrf, theme) = (viewer.csrf.clone(), Theme::of(&parts.headers));
                return Ok(unsent.page(StatusCode::FORBIDDEN, csrf, theme));
            }
            return Err(WebError::Forbidden(
                "the form's security token is missing or from an earlier sign-in; reload the page and try again",
            ));
        }
        unsent = Unsent::of(&path, &parts.headers, &bytes);
        body = Body::from(bytes);
    }
    if !is_public(&path) {
        match &viewer {
            None => return Ok(sign_in_first(&parts, unsent)),
            Some(viewer) if viewer.must_change && !may_precede_password(&path) => {
                let to = format::link(PASSWORD_PAGE, &[("next", goal(&parts))]);
                return Ok(away(&parts, &to));
            }
            Some(_) => {}
        }
    }
    if let Some(viewer) = viewer {
        parts.extensions.insert(viewer);
    }
    Ok(next.run(Request::from_parts(parts, body)).await)
}

fn is_stateless(path: &str) -> bool {
    path.starts_with("/assets/")
        || matches!(path, "/healthz" | "/readyz" | "/metrics" | "/favicon.ico")
}

fn is_public(path: &str) -> bool {
    path == "/login"
}

fn may_precede_password(path: &str) -> bool {
    matches!(path, PASSWORD_PAGE | "/logout")
}

/// The page that a request wants, or whose form it sends; empty for the fleet.
fn goal(parts: &Parts) -> &str {
    let page = if parts.method == Method::GET {
        path_and_query(&parts.uri)
    } else {
        unsent::page_of(parts.uri.path())
    };
    if page == "/" { "" } else { page }
}

fn sign_in_first(parts: &Parts, unsent: Option<Unsent>) -> Response {
    let path = parts.uri.path();
    // A refresh that no person asked for takes nobody away from what they are writing.
    if path.starts_with("/api/") || path == "/events" || parts.headers.contains_key(LIVE_HEADER) {
        return WebError::SignInFirst.into_response();
    }
    if let Some(unsent) = unsent {
        return login::first(&parts.headers, goal(parts), unsent);
    }
    away(parts, &format::link("/login", &[("next", goal(parts))]))
}

/// A redirect; for a block that htmx fetched, of the whole page.
fn away(parts: &Parts, to: &str) -> Response {
    if parts.headers.contains_key("hx-request") {
        return ([("hx-redirect", to.to_owned())], StatusCode::OK).into_response();
    }
    if parts.uri.path().starts_with("/api/") {
        return WebError::Forbidden("set a new password first").into_response();
    }
    Redirect::to(to).into_response()
}

fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |p| p.as_str())
}

fn comes_from_us(web: &Web, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    let Some(origin) = text("origin") else {
        // No browser: they all send at least one of the two with a form. Such a client carries no
        // cookies but those it was given on purpose, and still needs the token.
        return true;
    };
    let authority = |url: &str| {
        url.split_once("://")
            .map(|(_, rest)| rest.trim_end_matches('/').to_lowercase())
    };
    let Some(origin) = authority(origin) else {
        return false;
    };
    let host = text("host").map(str::to_lowercase);
    host.as_deref() == Some(&origin) || authority(&web.app.config.web.public_url) == Some(origin)
}

fn has_token(headers: &HeaderMap, body: &Bytes, expected: &str) -> bool {
    if let Some(value) = headers.get("x-csrf-token") {
        return same(value.as_bytes(), expected.as_bytes());
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
        return false;
    }
    // The token's letters need no encoding, so the raw field can be compared.
    body.split(|byte| *byte == b'&')
        .filter_map(|field| field.strip_prefix(b"csrf="))
        .any(|value| same(value, expected.as_bytes()))
}

/// Compares in constant time.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(cookie::Cookie::split_parse)
        .filter_map(Result::ok)
        .find(|one| one.name() == name)
        .map(|one| match one.value_raw() {
            Some(value) => Cow::Borrowed(value),
            None => Cow::Owned(one.value().to_owned()),
        })
}

/// The client's address, for the audit log and the limits.
pub(crate) fn address(web: &Web, peer: Option<&PeerAddr>, headers: &HeaderMap) -> IpAddr {
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| {
        web.clients.address(peer.0, headers)
    })
}
