//! The ticket queue: what is open, most urgent and oldest first; what is done, newest first.

use askama::Template;
use axum::{extract::Query, response::Response};
use serde::Deserialize;

use crate::{
    store::views::{self, TicketFilter, TicketView},
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        pages::{Choice, choices, client_choices},
        parts::{TicketRow, TicketRows},
    },
};

const PRIORITIES: [&str; 4] = ["P1", "P2", "P3", "P4"];
const ASSIGNEES: [(&str, &str); 2] = [("", "All assignees"), ("me", "Assigned to me")];
const MAX_SEARCH_CHARS: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    /// Empty for the open ones, or `new`, `waiting`, `resolved`, `closed`, `all`.
    state: String,
    priority: String,
    client: String,
    /// `me` for one's own.
    assignee: String,
    q: String,
    after: String,
}

#[derive(Template)]
#[template(path = "pages/tickets.html", blocks = ["live"])]
struct TicketsPage {
    layout: Layout,
    q: String,
    states: Vec<Choice>,
    priorities: Vec<Choice>,
    clients: Vec<Choice>,
    assignees: Vec<Choice>,
    filtered: bool,
    rows: TicketRows,
    next: String,
}

/// The tickets that are wanted, and the cursor of the next page.
pub(crate) async fn find(
    ctx: &Ctx,
    wanted: &Wanted,
) -> Result<(Vec<TicketView>, Option<String>), WebError> {
    let (states, is_queue) = states(&wanted.state)?;
    if !wanted.priority.is_empty() && !PRIORITIES.contains(&wanted.priority.as_str()) {
        return Err(WebError::Bad("priority: one of P1, P2, P3, P4".to_owned()));
    }
    let client = match wanted.client.as_str() {
        "" => None,
        id => Some(
            id.parse()
                .map_err(|_| WebError::Bad("client: not a client's id".to_owned()))?,
        ),
    };
    let search = wanted.q.trim().trim_start_matches('#');
    let filter = TicketFilter {
        states: states.to_vec(),
        priority: wanted.priority.clone(),
        client,
        assignee: (wanted.assignee == "me").then(|| ctx.viewer.user.uuid()),
        search: search.chars().take(MAX_SEARCH_CHARS).collect(),
    };
    let store = &ctx.web.app.store;
    // One more than shown tells whether there is a next page.
    let limit = views::PAGE_ROWS + 1;
    let mut found = if is_queue {
        let (priority, number) = wanted.after.split_once('-').unwrap_or_default();
        views::queue(
            store,
            &filter,
            (priority, number.parse().unwrap_or(0)),
            limit,
        )
        .await?
    } else {
        let before = wanted.after.parse().unwrap_or(i64::MAX);
        views::archive(store, &filter, before, limit).await?
    };
    if found.len() < limit {
        return Ok((found, None));
    }
    found.truncate(views::PAGE_ROWS);
    let next = found.last().map(|last| {
        if is_queue {
            format!("{}-{}", last.priority, last.number)
        } else {
            last.number.to_string()
        }
    });
    Ok((found, next))
}

/// The stored words of a choice, and whether the list is a queue to work on.
fn states(word: &str) -> Result<(&'static [&'static str], bool), WebError> {
    Ok(match word {
        "" | "open" => (
            &[
                "new",
                "open",
                "waiting_customer",
                "waiting_supplier",
                "waiting_scheduled",
            ],
            true,
        ),
        "new" => (&["new"], true),
        "waiting" => (
            &["waiting_customer", "waiting_supplier", "waiting_scheduled"],
            true,
        ),
        "resolved" => (&["resolved"], false),
        "closed" => (&["closed"], false),
        "all" => (
            &[
                "new",
                "open",
                "waiting_customer",
                "waiting_supplier",
                "waiting_scheduled",
                "resolved",
                "closed",
            ],
            false,
        ),
        _ => {
            let text = "state: one of open, new, waiting, resolved, closed, all";
            return Err(WebError::Bad(text.to_owned()));
        }
    })
}

/// `GET /tickets`
pub(crate) async fn page(ctx: Ctx, Query(wanted): Query<Wanted>) -> Result<Response, WebError> {
    let (found, next) = find(&ctx, &wanted).await?;
    let chosen = if wanted.state == "open" {
        ""
    } else {
        &wanted.state
    };
    let page = TicketsPage {
        layout: ctx.layout("tickets").await?,
        states: choices(
            [
                ("", "Open"),
                ("new", "New"),
                ("waiting", "Waiting"),
                ("resolved", "Resolved"),
                ("closed", "Closed"),
                ("all", "All"),
            ],
            chosen,
        ),
        priorities: choices(
            [
                ("", "All priorities"),
                ("P1", "P1"),
                ("P2", "P2"),
                ("P3", "P3"),
                ("P4", "P4"),
            ],
            &wanted.priority,
        ),
        clients: client_choices(&ctx, &wanted.client).await?,
        assignees: choices(ASSIGNEES, &wanted.assignee),
        filtered: [
            &wanted.q,
            &wanted.client,
            &wanted.priority,
            &wanted.assignee,
            &wanted.state,
        ]
        .iter()
        .any(|filter| !filter.is_empty()),
        rows: TicketRows {
            tickets: found
                .iter()
                .map(|ticket| TicketRow::of(ticket, ctx.now))
                .collect(),
        },
        next: next.map_or_else(String::new, |after| {
            format::link(
                "/tickets",
                &[
                    ("state", &wanted.state),
                    ("priority", &wanted.priority),
                    ("client", &wanted.client),
                    ("assignee", &wanted.assignee),
                    ("q", &wanted.q),
                    ("after", &after),
                ],
            )
        }),
        q: wanted.q,
    };
    if ctx.wants_block("live") {
        html(&page.as_live())
    } else {
        html(&page)
    }
}
