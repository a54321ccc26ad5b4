//! Several tickets of the queue are acknowledged at once. Each is acknowledged by itself; the answer
//! says for each what was done, or why not.

use std::collections::BTreeSet;

use askama::Template;
use axum::{extract::RawForm, response::Response};
use watchkeep_core::{ids::TicketId, tickets::Action};

use crate::{
    store::{
        people,
        views::{self, PAGE_ROWS, TicketView},
    },
    tickets::{ActError, act_audited},
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
    },
};

#[derive(Template)]
#[template(path = "pages/acknowledged.html")]
struct AcknowledgedPage {
    layout: Layout,
    done: Vec<Line>,
    not_done: Vec<Line>,
    /// The list that it came from.
    back: String,
}

/// A ticket and what became of it.
struct Line {
    number: i64,
    title: String,
    /// Why it was not acknowledged.
    reason: String,
}

/// `POST /tickets/acknowledge`
pub(crate) async fn act(ctx: Ctx, RawForm(body): RawForm) -> Result<Response, WebError> {
    let mut numbers = BTreeSet::new();
    let mut back = "/tickets".to_owned();
    for (name, value) in form_urlencoded::parse(&body) {
        match &*name {
            "ticket" => {
                let number = value.parse::<i64>();
                let number =
                    number.map_err(|_| WebError::Bad("ticket: not a number".to_owned()))?;
                numbers.insert(number);
            }
            // Only to a list of our own.
            "back" if value.starts_with("/tickets?") => back = value.into_owned(),
            _ => {}
        }
    }
    if numbers.is_empty() {
        return Err(WebError::Bad("select at least one ticket".to_owned()));
    }
    if numbers.len() > PAGE_ROWS {
        return Err(WebError::Bad(format!("select at most {PAGE_ROWS} tickets")));
    }
    let (mut done, mut not_done) = (Vec::new(), Vec::new());
    for number in numbers {
        let ticket = views::ticket(&ctx.web.app.store, &number.to_string()).await?;
        let outcome = match &ticket {
            Some(ticket) => acknowledge(&ctx, ticket).await,
            None => Err("there is no ticket with this number".to_owned()),
        };
        let line = Line {
            number,
            title: ticket.map_or_else(String::new, |ticket| ticket.title),
            reason: outcome.clone().err().unwrap_or_default(),
        };
        let list = if outcome.is_ok() {
            &mut done
        } else {
            &mut not_done
        };
        list.push(line);
    }
    html(&AcknowledgedPage {
        layout: ctx.layout("tickets").await?,
        done,
        not_done,
        back,
    })
}

/// Acknowledges one ticket, or says why not.
async fn acknowledge(ctx: &Ctx, ticket: &TicketView) -> Result<(), String> {
    if ticket.is_open() && ticket.acknowledged_at.is_some() {
        let by = ticket.assignee_name.as_deref();
        let by = by.map_or_else(String::new, |name| format!(", assigned to {name}"));
        return Err(format!("it is acknowledged already{by}"));
    }
    let subject = format!("ticket {}", ticket.number);
    let line = people::Audit {
        id: ctx.web.app.ids.next(ctx.now),
        at: ctx.now,
        actor: &ctx.viewer.login,
        action: "ticket_acknowledge",
        subject: &subject,
        detail: "one of several",
    };
    let id = TicketId(ticket.id);
    let done = act_audited(
        &ctx.web.app,
        id,
        Action::Acknowledge,
        ctx.actor(),
        Some(&line),
    )
    .await;
    done.map_err(|error| match error {
        ActError::NotFound => "there is no ticket with this number".to_owned(),
        ActError::Invalid(error) => error.to_string(),
        ActError::Store(_) => "it could not be stored; try again".to_owned(),
    })
}
