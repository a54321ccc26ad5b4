//! Errors of pages and of the API: one conversion table. A handler answers a [`WebError`]; the
//! outermost layer turns it into a page or into problem details (RFC 9457), with the request's id,
//! which the log line carries too. What went wrong inside is logged and never shown.

use std::sync::Arc;

use askama::Template;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    store::StoreError,
    web::{password::HashError, session::Theme},
};

/// Why a request gets no ordinary answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    /// There is nothing at this address.
    #[error("{0}")]
    NotFound(&'static str),
    /// The request can't be understood; the text names the field and what would be right.
    #[error("{0}")]
    Bad(String),
    /// The act does not fit the thing's state.
    #[error("{0}")]
    Conflict(String),
    /// The request may not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("sign in first")]
    SignInFirst,
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// A page could not be rendered.
    #[error("the page could not be rendered: {0}")]
    Template(#[from] askama::Error),
    /// A password could not be hashed.
    #[error("{0}")]
    Hash(#[from] HashError),
    /// Something else inside failed.
    #[error("{0}")]
    Internal(String),
}

impl WebError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Store(error) if error.is_outage() => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::SignInFirst => StatusCode::UNAUTHORIZED,
            Self::Store(_) | Self::Template(_) | Self::Hash(_) | Self::Internal(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

/// Travels in the response's extensions to the layer that knows the request.
#[derive(Clone, Debug)]
struct Failure(Arc<WebError>);

impl IntoResponse for WebError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Failure(Arc::new(self)));
        response
    }
}

/// What the outermost layer knows of the request.
#[derive(Debug)]
pub(super) struct RequestInfo {
    pub(super) request_id: String,
    pub(super) path: String,
    pub(super) theme: Theme,
}

#[derive(Template)]
#[template(path = "pages/error.html")]
struct ErrorPage<'a> {
    theme: Theme,
    status: u16,
    title: &'a str,
    detail: &'a str,
    request_id: &'a str,
}

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
}

/// Gives an error response its body; other responses pass.
pub(super) fn finish(response: Response, request_info: &RequestInfo) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let failure = response.extensions().get::<Failure>().cloned();
    // A page may answer 4xx with a body of its own, such as a form with messages.
    if failure.is_none() && response.headers().contains_key(OWN_BODY) {
        return response;
    }
    let detail = failure
        .as_ref()
        .map_or_else(|| general(status).to_owned(), |f| f.0.to_string());
    let shown = if status == StatusCode::SERVICE_UNAVAILABLE {
        // The store logs its outages itself, once each.
        general(status)
    } else if status.is_server_error() {
        tracing::error!(request.id = %request_info.request_id, http.path = %request_info.path,
            "failed to answer {}: {detail}", request_info.path);
        general(status)
    } else {
        &detail
    };
    let title = title(status);
    let mut body = if request_info.path.starts_with("/api/") {
        let problem = Problem {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail: shown,
            request_id: &request_info.request_id,
        };
        let mut json = Json(problem).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        json.headers_mut().insert(header::CONTENT_TYPE, kind);
        json
    } else {
        let page = ErrorPage {
            theme: request_info.theme,
            status: status.as_u16(),
            title,
            detail: shown,
            request_id: &request_info.request_id,
        };
        page.render()
            .map_or_else(|_| title.into_response(), |html| Html(html).into_response())
    };
    *body.status_mut() = status;
    if let Some(allow) = response.headers().get(header::ALLOW) {
        body.headers_mut().insert(header::ALLOW, allow.clone());
    }
    body
}

/// Marks an error response whose body is already for people; removed before it is sent.
pub(super) const OWN_BODY: &str = "x-own-body";

const fn title(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 422 => "Bad request",
        401 => "Sign in first",
        403 => "Not allowed",
        404 => "Page not found",
        405 => "Method not allowed",
        409 => "That is not possible now",
        413 => "The request is too large",
        415 => "This kind of content is not taken here",
        429 => "Too many tries",
        503 => "The store does not work",
        400..=499 => "The request was refused",
        _ => "Something went wrong",
    }
}

const fn general(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "Your session has ended or there was none.",
        404 => "The address may be mistyped, or what was here has been removed.",
        405 => "Pages are read with GET; changes are sent by their forms.",
        413 => "Forms may carry at most 256 KiB: shorten the text and send it again.",
        400..=499 => "Go back, check what was entered, and try again.",
        503 => {
            "The collector's database does not work at the moment. Agents keep their heartbeats \
              and send them later. The cause is in the collector's log."
        }
        _ => {
            "It was written to the collector's log with the request id below. Try again; if it \
              keeps failing, give that id to whoever runs this collector."
        }
    }
}
