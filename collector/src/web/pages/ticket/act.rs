//! What a person does with a ticket: the form's fields as an action.

use axum::{
    Form,
    extract::Path,
    response::{IntoResponse, Redirect, Response},
};
use jiff::{civil::DateTime, tz::TimeZone};
use serde::Deserialize;
use watchkeep_core::{
    ids::{TicketId, UserId},
    rules::Priority,
    tickets::{Action, IfFiring, TicketState, WaitingOn},
};
use watchkeep_shared::UnixMillis;

use super::{HOLDS, find};
use crate::{
    store::people,
    tickets::{ActError, act_audited},
    web::{context::Ctx, error::WebError},
};

#[derive(Deserialize)]
pub(crate) struct ActionForm {
    act: String,
    #[serde(default)]
    text: String,
    /// `internal` or `public`.
    #[serde(default)]
    audience: String,
    #[serde(default)]
    priority: String,
    /// A user's identifier; empty for nobody.
    #[serde(default)]
    user: String,
    /// As in `2026-11-28T14:30`, in `zone`.
    #[serde(default)]
    until: String,
    /// The browser's time zone; UTC without script.
    #[serde(default)]
    zone: String,
}

/// `POST /tickets/{number or id}/act`
pub(crate) async fn act(
    ctx: Ctx,
    Path(key): Path<String>,
    Form(form): Form<ActionForm>,
) -> Result<Response, WebError> {
    let ticket = find(&ctx, &key).await?;
    let action = action(&ctx, &form).await?;
    let (word, subject) = (
        format!("ticket_{}", form.act),
        format!("ticket {}", ticket.number),
    );
    let line = people::Audit {
        id: ctx.web.app.ids.next(ctx.now),
        at: ctx.now,
        actor: &ctx.viewer.login,
        action: &word,
        subject: &subject,
        detail: "",
    };
    let id = TicketId(ticket.id);
    let done = act_audited(&ctx.web.app, id, action, ctx.actor(), Some(&line)).await;
    done.map_err(|error| match error {
        ActError::NotFound => WebError::NotFound("there is no ticket with this number"),
        ActError::Invalid(error) => WebError::Conflict(error.to_string()),
        ActError::Store(error) => WebError::Store(error),
    })?;
    Ok(Redirect::to(&format!("/tickets/{}", ticket.number)).into_response())
}

async fn action(ctx: &Ctx, form: &ActionForm) -> Result<Action, WebError> {
    let waiting = |on| Action::SetState(TicketState::Waiting { on });
    Ok(match form.act.as_str() {
        "acknowledge" => Action::Acknowledge,
        "assign_me" => Action::Assign {
            to: Some((ctx.viewer.user, ctx.viewer.name.clone())),
        },
        "assign" => Action::Assign {
            to: user(ctx, &form.user).await?,
        },
        "unassign" => Action::Assign { to: None },
        "note" => {
            // The safe side, should the choice be missing.
            let internal = form.audience != "public";
            Action::Note {
                internal,
                text: form.text.trim().to_owned(),
            }
        }
        "wait_customer" => waiting(WaitingOn::Customer),
        "wait_supplier" => waiting(WaitingOn::Supplier),
        "hold" => Action::Hold {
            until: instant(&form.until, &form.zone)?,
        },
        "open" => Action::SetState(TicketState::Open),
        "resolve" => Action::Resolve(IfFiring::Refuse),
        "resolve_anyway" => Action::Resolve(IfFiring::Anyway),
        "reopen" => Action::Reopen,
        "close" => Action::Close(IfFiring::Refuse),
        "close_anyway" => Action::Close(IfFiring::Anyway),
        "priority" => {
            let priority = form.priority.parse::<Priority>();
            Action::SetPriority(priority.map_err(|e| WebError::Bad(format!("priority: {e}")))?)
        }
        other => {
            let Some((_, _, length)) = HOLDS.into_iter().find(|(value, _, _)| *value == other)
            else {
                return Err(WebError::Bad(format!(
                    "act: {other:?} is not an act on tickets"
                )));
            };
            Action::Hold {
                until: ctx.now + length,
            }
        }
    })
}

/// Whom a ticket is given to; nobody if the identifier is empty.
async fn user(ctx: &Ctx, id: &str) -> Result<Option<(UserId, String)>, WebError> {
    if id.is_empty() {
        return Ok(None);
    }
    let users = people::users(&ctx.web.app.store).await?;
    let user = users
        .into_iter()
        .find(|user| user.id.to_string() == id && user.disabled_at.is_none());
    let user =
        user.ok_or_else(|| WebError::Bad("user: nobody with this id can sign in".to_owned()))?;
    Ok(Some((UserId(user.id), user.name)))
}

/// What a field for date and time holds, in the browser's zone.
fn instant(text: &str, zone: &str) -> Result<UnixMillis, WebError> {
    let bad = |error: jiff::Error| WebError::Bad(format!("until: {error}"));
    let at = DateTime::strptime("%Y-%m-%dT%H:%M", text)
        .or_else(|_| DateTime::strptime("%Y-%m-%dT%H:%M:%S", text))
        .map_err(bad)?;
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let at = at.to_zoned(zone).map_err(bad)?;
    Ok(UnixMillis(at.timestamp().as_millisecond()))
}
