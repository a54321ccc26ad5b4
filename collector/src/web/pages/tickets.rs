//! The ticket queue: what is open, most urgent and oldest first; what is done, newest first.

use askama::Template;
use axum::{
    extract::{Query, RawQuery},
    response::Response,
};
use serde::Deserialize;
use uuid::Uuid;
use watchkeep_core::{ids::SiteId, search::Words};
use watchkeep_shared::HostId;

use crate::{
    store::{
        fleet,
        views::{self, Alerts, Assignee, OPEN_STATES, TicketFilter, TicketView},
    },
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        pages::{Choice, choices, client_choices},
        parts::TicketRows,
    },
};

const PRIORITIES: [&str; 4] = ["P1", "P2", "P3", "P4"];
const ASSIGNEES: [(&str, &str); 3] = [
    ("", "All assignees"),
    ("me", "Assigned to me"),
    ("nobody", "Unassigned"),
];

const ALERTS: [(&str, &str); 3] = [
    ("", "Firing or not"),
    ("firing", "Still firing"),
    ("recovered", "Recovered"),
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Params {
    /// Empty for the open ones, or `new`, `waiting`, `resolved`, `closed`, `all`.
    state: String,
    priority: String,
    client: String,
    /// `me`, `nobody`, or a user's id.
    assignee: String,
    /// `firing` or `recovered`; empty for both.
    alerts: String,
    /// The id of a site: its hosts' tickets and its own.
    site: String,
    /// The id of a host.
    host: String,
    q: String,
    after: String,
}

impl Params {
    /// The address of the page after a cursor.
    fn after(&self, cursor: &str) -> String {
        self.with(&[("after", cursor)])
    }

    /// The address of the list with some parameters changed, from its begin.
    fn with(&self, changes: &[(&str, &str)]) -> String {
        let own = [
            ("state", &*self.state),
            ("priority", &self.priority),
            ("client", &self.client),
            ("site", &self.site),
            ("host", &self.host),
            ("assignee", &self.assignee),
            ("alerts", &self.alerts),
            ("q", &self.q),
            ("after", ""),
        ];
        format::link("/tickets", &format::changed(own, changes))
    }
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
    alerts: Vec<Choice>,
    /// Filters that links set and the form keeps.
    only: Vec<Only>,
    filtered: bool,
    /// How many tickets the queue has; `None` for the archive, which is not counted.
    total: Option<i64>,
    rows: TicketRows,
    /// The address of this list.
    back: String,
    searched_above: Option<i64>,
    next: String,
}

/// A filter that a link of another page set.
struct Only {
    /// The parameter and its value.
    name: &'static str,
    value: String,
    label: String,
    /// The address of the list without it.
    without: String,
}

/// A page of tickets.
pub(crate) struct Found {
    pub(crate) tickets: Vec<TicketView>,
    /// Cursor of the next page.
    pub(crate) next: Option<String>,
    /// A search has read the tickets above this number; the next page continues below it.
    pub(crate) searched_above: Option<i64>,
    /// How many tickets the queue has; `None` for the archive, which is not counted.
    pub(crate) total: Option<i64>,
}

/// The tickets that match the filters. A number finds its ticket whatever the other filters say.
pub(crate) async fn find(ctx: &Ctx, params: &Params) -> Result<Found, WebError> {
    let (states, is_queue) = states(&params.state)?;
    let store = &ctx.web.app.store;
    let typed = params.q.trim().trim_start_matches('#');
    if typed.bytes().all(|byte| byte.is_ascii_digit())
        && let Some(ticket) = views::ticket(store, typed).await?
    {
        return Ok(Found {
            tickets: vec![ticket],
            next: None,
            searched_above: None,
            total: None,
        });
    }
    let filter = filter(ctx, params, states, typed)?;
    // One more than shown, to know whether there is a next page.
    let limit = views::PAGE_ROWS + 1;
    let (mut found, searched_above, total) = if is_queue {
        let (priority, number) = params.after.split_once('-').unwrap_or_default();
        let after = (priority, number.parse().unwrap_or(0));
        let found = views::queue(store, &filter, after, limit).await?;
        let total = views::queue_count(store, &filter).await?;
        (found, None, Some(total))
    } else {
        let before = params.after.parse().unwrap_or(i64::MAX);
        let archive = views::archive(store, &filter, before, limit).await?;
        (archive.tickets, archive.continue_before, None)
    };
    let next = if found.len() < limit {
        searched_above.map(|number| number.to_string())
    } else {
        found.truncate(views::PAGE_ROWS);
        found.last().map(|last| {
            if is_queue {
                format!("{}-{}", last.priority, last.number)
            } else {
                last.number.to_string()
            }
        })
    };
    Ok(Found {
        tickets: found,
        next,
        searched_above: searched_above.map(|number| number - 1),
        total,
    })
}

fn filter(
    ctx: &Ctx,
    params: &Params,
    states: &[&'static str],
    typed: &str,
) -> Result<TicketFilter, WebError> {
    if !params.priority.is_empty() && !PRIORITIES.contains(&params.priority.as_str()) {
        return Err(WebError::Bad("priority: one of P1, P2, P3, P4".to_owned()));
    }
    let id = |text: &str, what: &str| {
        text.parse::<Uuid>()
            .map_err(|_| WebError::Bad(format!("{what} id")))
    };
    let optional_id = |text: &str, what: &str| match text {
        "" => Ok(None),
        text => id(text, what).map(Some),
    };
    Ok(TicketFilter {
        states: states.to_vec(),
        priority: params.priority.clone(),
        client: optional_id(&params.client, "client: not a client's")?,
        site: optional_id(&params.site, "site: not a site's")?.map(SiteId),
        host: optional_id(&params.host, "host: not a host's")?.map(HostId),
        assignee: match params.assignee.as_str() {
            "" => None,
            "me" => Some(Assignee::Person(ctx.viewer.user.uuid())),
            "nobody" => Some(Assignee::Nobody),
            text => Some(Assignee::Person(id(
                text,
                "assignee: `me`, `nobody` or a user's",
            )?)),
        },
        alerts: match params.alerts.as_str() {
            "" => None,
            "firing" => Some(Alerts::Firing),
            "recovered" => Some(Alerts::Recovered),
            _ => return Err(WebError::Bad("alerts: `firing` or `recovered`".to_owned())),
        },
        words: Words::new(typed),
    })
}

/// The filters that the form has no field for.
async fn only(ctx: &Ctx, params: &Params) -> Result<Vec<Only>, WebError> {
    let store = &ctx.web.app.store;
    let mut only = Vec::new();
    if !params.site.is_empty() {
        let sites = fleet::sites(store).await?;
        let site = sites.iter().find(|site| site.id.to_string() == params.site);
        let name = site.map_or("not known", |site| &site.name);
        only.push(Only {
            name: "site",
            value: params.site.clone(),
            label: format!("Site {name}"),
            without: params.with(&[("site", "")]),
        });
    }
    if let Ok(id) = params.host.parse() {
        let host = views::host(store, HostId(id)).await?;
        let name = host.as_ref().map_or("not known", |host| &host.name);
        only.push(Only {
            name: "host",
            value: params.host.clone(),
            label: format!("Host {name}"),
            without: params.with(&[("host", "")]),
        });
    }
    Ok(only)
}

/// The stored words of a choice, and whether the list is a queue to work on.
fn states(word: &str) -> Result<(&'static [&'static str], bool), WebError> {
    Ok(match word {
        "" | "open" => (&OPEN_STATES, true),
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
pub(crate) async fn page(
    ctx: Ctx,
    RawQuery(query): RawQuery,
    Query(params): Query<Params>,
) -> Result<Response, WebError> {
    let address = params.after(&params.after);
    if let Some(elsewhere) = ctx.shorter_address(query.as_deref(), &address) {
        return Ok(elsewhere);
    }
    let found = find(&ctx, &params).await?;
    let chosen = if params.state == "open" {
        ""
    } else {
        &params.state
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
            &params.priority,
        ),
        clients: client_choices(&ctx, &params.client).await?,
        assignees: choices(ASSIGNEES, &params.assignee),
        alerts: choices(ALERTS, &params.alerts),
        only: only(&ctx, &params).await?,
        filtered: params.after("") != "/tickets",
        total: found.total,
        back: address,
        rows: TicketRows::selectable(&found.tickets, ctx.now),
        searched_above: found.searched_above,
        next: found
            .next
            .map_or_else(String::new, |after| params.after(&after)),
        q: params.q,
    };
    if ctx.wants_block("live") {
        html(&page.as_live())
    } else {
        html(&page)
    }
}
