//! "Watch this" and "Stop watching": the host's own list, by hand; and the host's policy for programs.
//!
//! Only what the agent proposed can be put on the list: the form names it, the check itself comes from
//! the agent's own words.

use axum::{
    Form, Json,
    extract::Path,
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;

use super::{
    proposals::{found, policy_line},
    services::policy,
};
use crate::{
    live::Hint,
    policies::{self, Person, WatchError, view::PolicyView},
    store::views::{self, HostView},
    web::{api::host_id, context::Ctx, error::WebError},
};

#[derive(Debug, Deserialize)]
pub(crate) struct WatchForm {
    /// Key of the check.
    key: String,
    /// The page showed all proposals.
    #[serde(default)]
    found: String,
}

/// `POST /hosts/{id}/watch`
pub(crate) async fn watch(
    ctx: Ctx,
    Path(id): Path<String>,
    Form(form): Form<WatchForm>,
) -> Result<Response, WebError> {
    let host = active(&ctx, &id).await?;
    let id = host_id(&id)?;
    let proposals = found(&ctx, id).await?;
    let proposal = proposals
        .iter()
        .filter_map(|one| one.check.known())
        .find(|check| policy_line(check).is_some_and(|(key, _)| key == form.key));
    let Some(check) = proposal else {
        return Err(WebError::Conflict(format!(
            "the agent on {} does not propose {} any more",
            host.name, form.key
        )));
    };
    policies::watch(&ctx.web.app, id, check, person(&ctx))
        .await
        .map_err(|error| match error {
            WatchError::Full => WebError::Conflict(error.to_string()),
            WatchError::Store(error) => WebError::Store(error),
        })?;
    Ok(back(&ctx, &host, &form))
}

/// `POST /hosts/{id}/unwatch`
pub(crate) async fn unwatch(
    ctx: Ctx,
    Path(id): Path<String>,
    Form(form): Form<WatchForm>,
) -> Result<Response, WebError> {
    let host = active(&ctx, &id).await?;
    let id = host_id(&id)?;
    // Twice is as good as once.
    policies::unwatch(&ctx.web.app, id, &form.key, person(&ctx)).await?;
    Ok(back(&ctx, &host, &form))
}

/// `GET /api/v1/hosts/{id}/policy`
pub(crate) async fn json(ctx: Ctx, Path(id): Path<String>) -> Result<Json<PolicyView>, WebError> {
    let id = host_id(&id)?;
    let host = views::host(&ctx.web.app.store, id).await?;
    let host = host.ok_or(WebError::NotFound("there is no host with this id"))?;
    let now = ctx.web.app.live.host(id);
    Ok(Json(policy(&ctx, &host, now.as_deref()).await?))
}

pub(super) async fn active(ctx: &Ctx, id: &str) -> Result<HostView, WebError> {
    let host = views::host(&ctx.web.app.store, host_id(id)?).await?;
    let host = host.ok_or(WebError::NotFound("there is no host with this id"))?;
    if host.retired_at.is_some() {
        return Err(WebError::Conflict(format!("{} was retired", host.name)));
    }
    Ok(host)
}

fn person(ctx: &Ctx) -> Person<'_> {
    Person {
        login: &ctx.viewer.login,
        name: &ctx.viewer.name,
    }
}

/// Back to the list of services, and other people's open pages look again.
fn back(ctx: &Ctx, host: &HostView, form: &WatchForm) -> Response {
    ctx.web.app.live.hint(Hint::Host(host.id.into()));
    let all = if form.found == "all" {
        "?found=all"
    } else {
        ""
    };
    Redirect::to(&format!("/hosts/{}{all}#services", host.id)).into_response()
}
