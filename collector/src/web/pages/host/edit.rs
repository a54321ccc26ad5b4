//! Name, address and notes of a host.

use askama::Template;
use axum::{
    Form,
    extract::Path,
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;

use crate::{
    hosts::{Change, DescribeError, MAX_ADDRESS_BYTES, MAX_NAME_BYTES, MAX_NOTES_BYTES, describe},
    store::{descriptions, views::HostView},
    web::{
        api::host_id,
        context::{Ctx, Layout, html},
        error::WebError,
    },
};

#[derive(Template)]
#[template(path = "pages/host_edit.html")]
struct EditPage {
    layout: Layout,
    id: String,
    whose: String,
    /// The name as it is now.
    title: String,
    reported_name: String,
    form: Wanted,
    error: String,
    max: [usize; 3],
}

#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    name: String,
    #[serde(default)]
    address: String,
    /// The notes. The name is that of all fields whose text outlives the end of a session.
    #[serde(default)]
    text: String,
}

/// `GET /hosts/{id}/edit`
pub(crate) async fn page(ctx: Ctx, Path(id): Path<String>) -> Result<Response, WebError> {
    let host = super::watch::active(&ctx, &id).await?;
    let now = descriptions::of(&ctx.web.app.store, host.id.into()).await?;
    let now = now.ok_or(WebError::NotFound("there is no host with this id"))?;
    let form = Wanted {
        name: now.name,
        address: now.address,
        text: now.notes,
    };
    html(&edit_page(&ctx, host, now.reported_name, form, String::new()).await?)
}

async fn edit_page(
    ctx: &Ctx,
    host: HostView,
    reported_name: String,
    form: Wanted,
    error: String,
) -> Result<EditPage, WebError> {
    Ok(EditPage {
        layout: ctx.layout("fleet").await?,
        id: host.id.to_string(),
        whose: format!("{} · {}", host.client, host.site),
        title: host.name,
        reported_name,
        form,
        error,
        max: [MAX_NAME_BYTES, MAX_ADDRESS_BYTES, MAX_NOTES_BYTES],
    })
}

/// `POST /hosts/{id}/edit`
pub(crate) async fn act(
    ctx: Ctx,
    Path(id): Path<String>,
    Form(form): Form<Wanted>,
) -> Result<Response, WebError> {
    let host = super::watch::active(&ctx, &id).await?;
    let id = host_id(&id)?;
    let change = Change {
        name: Some(form.name.clone()),
        address: Some(form.address.clone()),
        notes: Some(form.text.clone()),
    };
    match describe(&ctx.web.app, id, change, &ctx.viewer.login).await {
        Ok(_) => Ok(Redirect::to(&format!("/hosts/{id}")).into_response()),
        Err(DescribeError::NotFound) => Err(WebError::NotFound("there is no host with this id")),
        Err(DescribeError::Store(error)) => Err(error.into()),
        // What was typed stays in the form.
        Err(DescribeError::Invalid(error)) => {
            let now = descriptions::of(&ctx.web.app.store, id).await?;
            let reported = now.map(|now| now.reported_name).unwrap_or_default();
            html(&edit_page(&ctx, host, reported, form, error).await?)
        }
    }
}
