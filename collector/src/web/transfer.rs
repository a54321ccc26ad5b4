//! How answers travel: a block that the page has already is not sent again, and what is sent is
//! compressed.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use tower_http::compression::CompressionLayer;

/// Blocks are far smaller.
const MAX_BLOCK_BYTES: usize = 16 * 1024 * 1024;

/// Compresses what is worth it; streams of events are left as they are.
pub(super) fn compression() -> CompressionLayer {
    CompressionLayer::new().gzip(true)
}

/// Answers to requests that another site caused are not compressed: from their length that site could
/// guess, letter by letter, what the page holds beside what the address brought into it.
pub(super) fn keep_plain_for_other_sites(headers: &mut HeaderMap) {
    let site = headers.get("sec-fetch-site");
    let is_ours = site.is_none_or(|site| site == "same-origin" || site == "none");
    if !is_ours {
        headers.remove(header::ACCEPT_ENCODING);
    }
}

/// Gives each block of a page a tag of its content; a page that has this content already is answered without it.
pub(super) async fn blocks(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_block = request.method() == Method::GET && headers.contains_key("hx-request");
    let known = headers.get(header::IF_NONE_MATCH).cloned();
    let response = next.run(request).await;
    if !is_block || response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_BLOCK_BYTES).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let digest = URL_SAFE_NO_PAD.encode(&Sha256::digest(&bytes)[..15]);
    let tag = HeaderValue::from_str(&format!("W/\"{digest}\""));
    let Ok(tag) = tag else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    if known.as_ref() == Some(&tag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    parts.headers.insert(header::ETAG, tag);
    Response::from_parts(parts, Body::from(bytes))
}
