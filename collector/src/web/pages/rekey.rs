//! Re-enrolling a host: its certificates are revoked, and a token for the right machine is made.
//!
//! The first page asks; the answer to the press is a redirect to the second, so that a reload makes
//! no other token. The token itself is kept in memory for the session that made it, for
//! [`SHOWN_FOR`], and nowhere else.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use askama::Template;
use axum::{
    extract::Path,
    response::{IntoResponse, Redirect, Response},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::{
    identity::{self, CA_DIR, Cas},
    store::views::{self, HostView},
    web::{
        api::host_id,
        context::{Ctx, Layout, html},
        error::WebError,
    },
};

/// A reload within this time shows the token again.
const SHOWN_FOR: DurationMs = DurationMs::from_mins(15);
/// Tokens kept; the oldest goes when another comes.
const MAX_KEPT: usize = 100;

/// Tokens that were just made, for the sessions that made them.
#[derive(Debug, Default)]
pub(crate) struct NewTokens {
    kept: Mutex<HashMap<(Vec<u8>, HostId), Kept>>,
}

struct Kept {
    token: String,
    made_at: UnixMillis,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("made_at", &self.made_at)
            .finish_non_exhaustive()
    }
}

impl NewTokens {
    fn keep(&self, session: &[u8], host: HostId, kept: Kept) {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| kept.made_at.since(one.made_at) < SHOWN_FOR);
        if all.len() >= MAX_KEPT
            && let Some(oldest) = all
                .iter()
                .min_by_key(|(_, one)| one.made_at)
                .map(|(key, _)| key.clone())
        {
            all.remove(&oldest);
        }
        all.insert((session.to_vec(), host), kept);
    }

    fn find(&self, session: &[u8], host: HostId, now: UnixMillis) -> Option<String> {
        let all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.get(&(session.to_vec(), host))?;
        (now.since(found.made_at) < SHOWN_FOR).then(|| found.token.clone())
    }
}

#[derive(Template)]
#[template(path = "pages/rekey.html")]
struct RekeyPage {
    layout: Layout,
    id: String,
    name: String,
    whose: String,
    /// The token, once it is made.
    token: Option<String>,
}

/// `GET /hosts/{id}/rekey`
pub(crate) async fn page(ctx: Ctx, Path(id): Path<String>) -> Result<Response, WebError> {
    let host = active(&ctx, &id).await?;
    let tokens = &ctx.web.new_tokens;
    html(&RekeyPage {
        layout: ctx.layout("fleet").await?,
        token: tokens.find(&ctx.viewer.token_sha256, HostId(host.id), ctx.now),
        id: host.id.to_string(),
        whose: format!("{} · {}", host.client, host.site),
        name: host.name,
    })
}

/// `POST /hosts/{id}/rekey`
pub(crate) async fn act(ctx: Ctx, Path(id): Path<String>) -> Result<Response, WebError> {
    let host = HostId(active(&ctx, &id).await?.id);
    let app = &ctx.web.app;
    let cas = Cas::open(&app.config.data_dir.join(CA_DIR))
        .map_err(|error| WebError::Internal(error.to_string()))?;
    let token = identity::rekey(app, &cas, host, &ctx.viewer.login).await?;
    let kept = Kept {
        token: token.ok_or(NOT_ACTIVE)?.to_string(),
        made_at: ctx.now,
    };
    ctx.web
        .new_tokens
        .keep(&ctx.viewer.token_sha256, host, kept);
    Ok(Redirect::to(&format!("/hosts/{host}/rekey")).into_response())
}

const NOT_ACTIVE: WebError = WebError::NotFound("there is no such host, or it was retired");

async fn active(ctx: &Ctx, id: &str) -> Result<HostView, WebError> {
    let host = views::host(&ctx.web.app.store, host_id(id)?).await?;
    host.filter(|host| host.retired_at.is_none())
        .ok_or(NOT_ACTIVE)
}
