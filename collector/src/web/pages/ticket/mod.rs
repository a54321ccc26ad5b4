//! One ticket: what was observed, what happened since, and what can be done now.

mod act;
mod silence;

pub(crate) use act::act;

use askama::Template;
use axum::{
    extract::{Path, Query},
    response::Response,
};
use serde::Deserialize;
use uuid::Uuid;
use watchkeep_core::{alerts::AlertEvidence, ids::TicketId, wording};
use watchkeep_shared::DurationMs;

use self::silence::Silence;
use crate::{
    store::{
        people,
        views::{self, AlertView, TicketView},
    },
    tickets::TicketEvidence,
    web::{
        chart::{Chart, Options},
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        pages::{
            AlertRow, Choice, choices,
            machine::{self, Busiest},
            timeline::{DeliveryRow, EventRow, delivery_row, event_row},
        },
        parts::{Pill, Time, ticket_mark, ticket_state},
    },
};

const DELIVERIES: usize = 50;
/// Lines of the timeline on one page.
const EVENTS: usize = 100;
/// Times on hold that take one press: value, label, length.
const HOLDS: [(&str, &str, DurationMs); 4] = [
    ("hold_1h", "For 1 hour", DurationMs::from_hours(1)),
    ("hold_4h", "For 4 hours", DurationMs::from_hours(4)),
    ("hold_1d", "For 1 day", DurationMs::from_hours(24)),
    ("hold_1w", "For 1 week", DurationMs::from_hours(24 * 7)),
];
const PRIORITIES: [(&str, &str); 4] = [
    ("P1", "P1 – now"),
    ("P2", "P2 – within the hour"),
    ("P3", "P3 – today"),
    ("P4", "P4 – no rush"),
];

#[derive(Template)]
#[template(path = "pages/ticket.html", blocks = ["live", "events", "facts", "deliveries"])]
struct TicketPage {
    layout: Layout,
    number: i64,
    title: String,
    priority: String,
    state: Pill,
    mark: Option<Pill>,
    acts: Vec<Act>,
    waits: Vec<Act>,
    priorities: Vec<Choice>,
    assignee: String,
    /// Who it can be given to.
    people: Vec<Choice>,
    is_open: bool,
    opened: Time,
    facts: Facts,
    observed: Option<Observed>,
    chart: Option<Chart>,
    busiest: Option<Busiest>,
    silence: Option<Silence>,
    alerts: Vec<AlertRow>,
    events: Vec<EventRow>,
    /// Of the oldest line shown, if there are older ones.
    older: Option<i64>,
    /// The newest lines are not shown.
    is_older: bool,
    deliveries: Vec<DeliveryRow>,
}

/// A button.
#[derive(Debug)]
struct Act {
    value: &'static str,
    label: &'static str,
    icon: &'static str,
    class: &'static str,
}

struct Facts {
    first_response: Option<Time>,
    resolved: Option<Time>,
    escalates: Option<Time>,
    hold_until: Option<Time>,
    tier: i32,
    client: String,
    site: String,
    contract: Option<(String, String)>,
    host: Option<(String, String)>,
    check: String,
    previous: Option<i64>,
}

/// What the first alert of the ticket rests on.
struct Observed {
    summary: String,
    value: String,
    threshold: String,
    detail: String,
    lines: Vec<String>,
}

/// Which part of the timeline is shown.
#[derive(Debug, Deserialize)]
pub(crate) struct Shown {
    /// Lines before this one; absent: the newest.
    before: Option<i64>,
}

/// `GET /tickets/{number or id}`
pub(crate) async fn page(
    ctx: Ctx,
    Path(key): Path<String>,
    Query(shown): Query<Shown>,
) -> Result<Response, WebError> {
    let store = &ctx.web.app.store;
    let ticket = find(&ctx, &key).await?;
    let id = TicketId(ticket.id);
    let alerts = views::alerts_of_ticket(store, id).await?;
    // One more than shown, to know whether there are older ones.
    let mut events = views::ticket_events(store, id, shown.before, EVENTS + 1).await?;
    let has_older = events.len() > EVENTS;
    if has_older {
        events.remove(0);
    }
    let deliveries = views::deliveries(store, id, DELIVERIES).await?;
    let opener = views::opener(store, id).await?;
    let opener = opener.as_ref();
    let page = TicketPage {
        layout: ctx.layout("tickets").await?,
        number: ticket.number,
        priority: ticket.priority.clone(),
        state: ticket_state(&ticket.state),
        mark: ticket_mark(&ticket),
        acts: acts(&ticket, ctx.viewer.user.uuid()),
        waits: waits(&ticket),
        priorities: choices(PRIORITIES, &ticket.priority),
        assignee: ticket.assignee_name.clone().unwrap_or_default(),
        people: assignees(&ctx, &ticket).await?,
        is_open: is_open(&ticket),
        opened: ctx.time(ticket.opened_at),
        facts: facts(&ctx, &ticket).await?,
        observed: opener.map(observed),
        chart: chart(&ctx, &ticket, opener).await?,
        silence: silence::silence(&ctx, &ticket, opener).await?,
        busiest: machine::busiest(&ctx, &ticket, opener).await?,
        alerts: alerts
            .iter()
            .map(|alert| AlertRow::of(&ctx, alert))
            .collect(),
        events: events
            .iter()
            .rev()
            .filter_map(|event| event_row(&ctx, event))
            .collect(),
        older: events.first().filter(|_| has_older).map(|event| event.id),
        is_older: shown.before.is_some(),
        deliveries: deliveries
            .iter()
            .map(|one| delivery_row(&ctx, one))
            .collect(),
        title: ticket.title,
    };
    match ctx.block() {
        Some("live") => html(&page.as_live()),
        Some("events") => html(&page.as_events()),
        Some("facts") => html(&page.as_facts()),
        Some("deliveries") => html(&page.as_deliveries()),
        _ => html(&page),
    }
}

fn is_open(ticket: &TicketView) -> bool {
    !matches!(ticket.state.as_str(), "resolved" | "closed")
}

/// The actions that the ticket's state allows; the first is the usual next step.
fn acts(ticket: &TicketView, viewer: Uuid) -> Vec<Act> {
    let act = |value, label, icon, class| Act {
        value,
        label,
        icon,
        class,
    };
    if !is_open(ticket) {
        let mut acts = vec![act("reopen", "Reopen", "bell", "")];
        match (ticket.state.as_str(), ticket.firing) {
            ("resolved", 0) => acts.push(act("close", "Close", "check", "")),
            ("resolved", _) => acts.push(act(
                "close_anyway",
                "Still firing: close anyway",
                "check",
                "",
            )),
            _ => {}
        }
        return acts;
    }
    let mut acts = Vec::new();
    let acknowledged = ticket.acknowledged_at.is_some();
    if !acknowledged && !ticket.is_recovered() {
        acts.push(act("acknowledge", "Acknowledge", "check", "primary"));
    }
    if ticket.assignee != Some(viewer) {
        acts.push(act("assign_me", "Assign to me", "user", ""));
    }
    acts.push(if ticket.firing > 0 {
        act(
            "resolve_anyway",
            "Still firing: resolve anyway",
            "check",
            "",
        )
    } else {
        act("resolve", "Resolve", "check", "primary")
    });
    if ticket.state.starts_with("waiting") {
        acts.push(act("open", "Resume", "play", ""));
    }
    acts
}

/// What an open ticket can be left waiting for.
fn waits(ticket: &TicketView) -> Vec<Act> {
    if !is_open(ticket) {
        return Vec::new();
    }
    let states = [
        ("wait_customer", "The customer", "waiting_customer"),
        ("wait_supplier", "A supplier", "waiting_supplier"),
    ];
    let states = states
        .into_iter()
        .filter(|(_, _, state)| ticket.state != *state);
    let holds = HOLDS.into_iter().map(|(value, label, _)| (value, label));
    states
        .map(|(value, label, _)| (value, label))
        .chain(holds)
        .map(|(value, label)| Act {
            value,
            label,
            icon: "pause",
            class: "quiet",
        })
        .collect()
}

/// Everyone who can sign in, with who has it chosen.
async fn assignees(ctx: &Ctx, ticket: &TicketView) -> Result<Vec<Choice>, WebError> {
    let choice = |id: Option<Uuid>, label: String| Choice {
        value: id.map(|id| id.to_string()).unwrap_or_default(),
        label,
        chosen: ticket.assignee == id,
    };
    let users = people::users(&ctx.web.app.store).await?;
    let users = users
        .into_iter()
        .filter(|user| user.disabled_at.is_none() || ticket.assignee == Some(user.id));
    let mut all = vec![choice(None, "Unassigned".to_owned())];
    all.extend(users.map(|user| choice(Some(user.id), user.name)));
    Ok(all)
}

async fn facts(ctx: &Ctx, ticket: &TicketView) -> Result<Facts, WebError> {
    let previous = match ticket.previous_id {
        Some(id) => views::ticket_number(&ctx.web.app.store, TicketId(id)).await?,
        None => None,
    };
    let named =
        |id: Option<Uuid>, name: &Option<String>| id.map(|id| id.to_string()).zip(name.clone());
    Ok(Facts {
        first_response: ticket.first_response_at.map(|at| ctx.time(at)),
        resolved: ticket.resolved_at.map(|at| ctx.time(at)),
        escalates: ticket
            .escalate_at
            .filter(|_| is_open(ticket))
            .map(|at| ctx.time(at)),
        hold_until: ticket.hold_until.map(|at| ctx.time(at)),
        tier: ticket.tier,
        client: ticket.client.clone(),
        site: ticket.site.clone().unwrap_or_default(),
        contract: named(ticket.contract_id, &ticket.contract),
        host: named(ticket.host_id, &ticket.host),
        check: ticket.check_key.clone().unwrap_or_default(),
        previous,
    })
}

async fn find(ctx: &Ctx, key: &str) -> Result<TicketView, WebError> {
    let ticket = views::ticket(&ctx.web.app.store, key).await?;
    ticket.ok_or(WebError::NotFound("there is no ticket with this number"))
}

/// A broken evidence column costs the figures, never the page.
fn evidence(alert: &AlertView) -> AlertEvidence {
    serde_json::from_str(&alert.evidence).unwrap_or_else(|error| {
        tracing::warn!(alert.id = %alert.id, "corrupt alert.evidence: {error}");
        AlertEvidence::default()
    })
}

fn observed(alert: &AlertView) -> Observed {
    let evidence = evidence(alert);
    // The skew of a clock is in milliseconds, though its check is no metric.
    let name = match alert.check_key.as_str() {
        "clock" => "clock.offset_ms",
        name => name,
    };
    let value = evidence.value.map(|value| match evidence.threshold {
        Some(limit) => wording::value_against(name, value, limit),
        None => wording::value(name, value),
    });
    let threshold = evidence.threshold.map(|limit| wording::value(name, limit));
    Observed {
        summary: alert.summary.clone(),
        value: value.unwrap_or_default(),
        threshold: threshold.unwrap_or_default(),
        // The summary may say it already.
        detail: evidence
            .detail
            .filter(|text| !alert.summary.contains(text))
            .unwrap_or_default(),
        lines: evidence.lines,
    }
}

/// The hour before the breach, with the threshold and the breach marked.
async fn chart(
    ctx: &Ctx,
    ticket: &TicketView,
    alert: Option<&AlertView>,
) -> Result<Option<Chart>, WebError> {
    let body = views::ticket_evidence(&ctx.web.app.store, TicketId(ticket.id)).await?;
    let Some(body) = body else { return Ok(None) };
    let kept: TicketEvidence = serde_json::from_str(&body)
        .map_err(|error| WebError::Internal(format!("corrupt ticket_evidence.body: {error}")))?;
    if kept.metric.is_empty() || kept.points.is_empty() {
        return Ok(None);
    }
    let unit = format::unit(&kept.metric);
    let options = Options {
        src: format!("/api/v1/tickets/{}/evidence", ticket.number),
        unit,
        labels: vec![wording::label(&kept.metric)],
        max: (unit == "pct").then_some(100.0),
        fixed: true,
        threshold: alert.and_then(|alert| evidence(alert).threshold),
        mark: Some(ticket.opened_at),
        ..Options::default()
    };
    Ok(Some(Chart::new(
        format!("{}, the hour before", wording::label(&kept.metric)),
        &options,
    )))
}
