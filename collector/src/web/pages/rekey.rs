//! A new key for a host: its certificates are revoked, and the token for the right machine is shown
//! once.

use askama::Template;
use axum::{extract::Path, response::Response};

use crate::{
    identity::{self, CA_DIR, Cas},
    web::{
        api::host_id,
        context::{Ctx, Layout, html},
        error::WebError,
    },
};

#[derive(Template)]
#[template(path = "pages/rekey.html")]
struct RekeyPage {
    layout: Layout,
    id: String,
    token: String,
}

/// `POST /hosts/{id}/rekey`
pub(crate) async fn act(ctx: Ctx, Path(id): Path<String>) -> Result<Response, WebError> {
    let host = host_id(&id)?;
    let app = &ctx.web.app;
    let cas = Cas::open(&app.config.data_dir.join(CA_DIR))
        .map_err(|error| WebError::Internal(error.to_string()))?;
    let token = identity::rekey(app, &cas, host).await?;
    let token = token.ok_or(WebError::NotFound(
        "there is no such host, or it was retired",
    ))?;
    ctx.audit("host_rekey", &format!("host {host}"), "").await?;
    html(&RekeyPage {
        layout: ctx.layout("fleet").await?,
        id: host.to_string(),
        token: token.to_string(),
    })
}
