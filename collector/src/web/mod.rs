//! The web pages and their API: server-rendered, kept live by server-sent events, usable as plain
//! links and forms.
//!
//! This module reads what it shows and hands every change to the services; it decides nothing. A
//! request passes, outermost first: the request id, errors and security headers (here); compression
//! and what the page has already (`transfer`); the guard (`session`); the handler. Nothing here imports or is imported by the pipeline.

mod announce;
mod api;
mod assets;
mod chart;
mod client;
mod context;
mod error;
mod events;
mod format;
mod health;
mod limit;
mod months;
mod pages;
mod parts;
pub mod password;
mod session;
mod transfer;
mod unsent;

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use crate::{app::App, fleet::Fleet};
use announce::Announcements;
use client::Clients;
use error::RequestInfo;
use limit::SignInLimits;
use months::Months;
use pages::rekey::NewTokens;
use password::Hasher;
use session::Theme;

pub use client::TokenError;

/// The address of the other end, put into a request's extensions by the listener.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddr(pub SocketAddr);

/// What the web port asks of the rest of the collector.
#[derive(Clone)]
pub struct Probes {
    /// Whether the pipeline takes heartbeats.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The collector's own metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) app: App,
    pub(crate) fleet: Arc<Fleet>,
    announcements: Arc<Announcements>,
    months: Arc<Months>,
    limits: Arc<SignInLimits>,
    clients: Arc<Clients>,
    hasher: Hasher,
    new_tokens: Arc<NewTokens>,
    probes: Probes,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web")
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// All pages, assets, events and `/api/v1`; ready as soon as the store answers.
pub fn router(app: App) -> Result<Router, TokenError> {
    let probes = Probes {
        ready: Arc::new(|| true),
        metrics: Arc::new(String::new),
    };
    router_with(app, probes)
}

/// As [`router`], with what only a running collector has.
pub fn router_with(app: App, probes: Probes) -> Result<Router, TokenError> {
    let clients = Arc::new(Clients::new(&app.config.web)?);
    let web = Web {
        clients,
        app,
        fleet: Arc::default(),
        announcements: Arc::default(),
        months: Arc::default(),
        limits: Arc::new(SignInLimits::new()),
        hasher: Hasher::new(),
        new_tokens: Arc::default(),
        probes,
    };
    Ok(routes()
        .layer(middleware::from_fn_with_state(web.clone(), session::guard))
        .layer(middleware::from_fn(transfer::blocks))
        .layer(transfer::compression())
        .layer(middleware::from_fn(outermost))
        .with_state(web))
}

fn routes() -> Router<Web> {
    Router::new()
        .route("/", get(pages::fleet::page))
        .route("/hosts/{id}", get(pages::host::page))
        .route(
            "/hosts/{id}/rekey",
            get(pages::rekey::page).post(pages::rekey::act),
        )
        .route(
            "/hosts/{id}/edit",
            get(pages::host::edit::page).post(pages::host::edit::act),
        )
        .route("/hosts/{id}/watch", post(pages::host::watch::watch))
        .route("/hosts/{id}/unwatch", post(pages::host::watch::unwatch))
        .route("/tickets", get(pages::tickets::page))
        .route("/tickets/acknowledge", post(pages::acknowledge::act))
        .route("/tickets/{id}", get(pages::ticket::page))
        .route("/tickets/{id}/act", post(pages::ticket::act))
        .route("/contracts", get(pages::contracts::page))
        .route("/contracts/{id}", get(pages::contract::page))
        .route("/contracts/{id}/report.json", get(pages::contract::json))
        .route("/contracts/{id}/report.csv", get(pages::contract::csv))
        .route("/login", get(pages::login::page).post(pages::login::submit))
        .route("/logout", post(pages::login::logout))
        .route("/health", get(pages::health::page))
        .route("/health/test", post(pages::health::test))
        .route("/health/send-again", post(pages::health::send_again))
        .route("/account", get(pages::account::page))
        .route(
            "/account/password",
            get(pages::account::password_page).post(pages::account::set_password),
        )
        .route("/account/sessions/revoke", post(pages::account::revoke))
        .route("/events", get(events::stream))
        .nest("/api/v1", api::routes())
        .route("/assets/{version}/{name}", get(assets::serve))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// The process is alive.
async fn healthz() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "ok" }))
}

/// For this machine's operators only: the metrics count customers' hosts and tickets.
async fn metrics(
    State(web): State<Web>,
    peer: Option<Extension<PeerAddr>>,
    headers: HeaderMap,
) -> Response {
    if web
        .clients
        .is_operator(peer.map(|Extension(peer)| peer.0), &headers)
    {
        return (web.probes.metrics)().into_response();
    }
    let text = "metrics are for this machine, or with the token of web.metrics_token_file\n";
    (StatusCode::FORBIDDEN, [(error::OWN_BODY, "1")], text).into_response()
}

/// Requests can be answered: the store answers, what is written to it is kept, and the pipeline takes
/// heartbeats. The details are
/// for this machine's operators only; anyone else gets the status code.
async fn readyz(
    State(web): State<Web>,
    peer: Option<Extension<PeerAddr>>,
    headers: HeaderMap,
) -> Response {
    let answers = crate::store::views::answers(&web.app.store).await;
    let store = match (answers, web.app.store.outage()) {
        (_, Some(outage)) => outage.kind.word(),
        (Err(_), None) => "failed",
        (Ok(()), None) => "ok",
    };
    let pipeline = (web.probes.ready)();
    let details = Json(serde_json::json!({
        "store": store,
        "pipeline": if pipeline { "ok" } else { "starting" },
        "channels": health::readiness(&web.app),
        "clock": web.app.clock.problem().unwrap_or_else(|| "ok".to_owned()),
    }));
    let status = if store == "ok" && pipeline {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if web
        .clients
        .is_operator(peer.map(|Extension(peer)| peer.0), &headers)
    {
        return (status, [(error::OWN_BODY, "1")], details).into_response();
    }
    let body = Json(serde_json::json!({ "ready": status == StatusCode::OK }));
    (status, [(error::OWN_BODY, "1")], body).into_response()
}

/// Names the request, gives errors their body, and sets the headers that every answer has.
async fn outermost(mut request: Request, next: Next) -> Response {
    transfer::keep_plain_for_other_sites(request.headers_mut());
    let request_info = RequestInfo {
        request_id: uuid::Uuid::new_v4().simple().to_string(),
        path: request.uri().path().to_owned(),
        theme: Theme::of(request.headers()),
    };
    let strict = wants_strict_transport(request.headers());
    let mut response = error::finish(next.run(request).await, &request_info);
    let headers = response.headers_mut();
    headers.remove(error::OWN_BODY);
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if strict {
        let value = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    // Assets alone may be kept; pages hold what only this person may see.
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Ok(value) = HeaderValue::from_str(&request_info.request_id) {
        headers.insert("x-request-id", value);
    }
    response
}

/// Strict transport binds every port of a host name, so not on `localhost`, which others share.
fn wants_strict_transport(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    host.is_some_and(|host| {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        name != "localhost" && !name.ends_with(".localhost")
    })
}
