//! Lists of tickets, and one ticket with its timeline and its metric.

use axum::{
    Json,
    extract::{Path, Query},
};
use serde::{Deserialize, Serialize};
use watchkeep_core::ids::TicketId;

use super::series::{Column, Columns};
use crate::{
    store::views,
    tickets::TicketEvidence,
    web::{context::Ctx, error::WebError, pages::tickets},
};

#[derive(Debug, Serialize)]
struct Ticket {
    id: String,
    number: i64,
    title: String,
    priority: String,
    severity: String,
    state: String,
    tier: i32,
    client: String,
    contract: Option<String>,
    host_id: Option<String>,
    host: Option<String>,
    check: Option<String>,
    assignee: Option<String>,
    opened_at: i64,
    acknowledged_at: Option<i64>,
    /// How many of its alerts fire, also after it was resolved.
    firing: i32,
    /// It is open and all its alerts have recovered.
    recovered: bool,
    first_response_at: Option<i64>,
    resolved_at: Option<i64>,
}

impl Ticket {
    fn of(ticket: views::TicketView) -> Self {
        Self {
            firing: ticket.firing,
            recovered: ticket.is_recovered(),
            id: ticket.id.to_string(),
            number: ticket.number,
            title: ticket.title,
            priority: ticket.priority,
            severity: ticket.severity,
            state: ticket.state,
            tier: ticket.tier,
            client: ticket.client,
            contract: ticket.contract,
            host_id: ticket.host_id.map(|id| id.to_string()),
            host: ticket.host,
            check: ticket.check_key,
            assignee: ticket.assignee_name,
            opened_at: ticket.opened_at,
            acknowledged_at: ticket.acknowledged_at,
            first_response_at: ticket.first_response_at,
            resolved_at: ticket.resolved_at,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct TicketPage {
    tickets: Vec<Ticket>,
    /// Pass as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many tickets the filters find on all pages; only of open ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
}

pub(super) async fn list(
    ctx: Ctx,
    Query(params): Query<tickets::Params>,
) -> Result<Json<TicketPage>, WebError> {
    let found = tickets::find(&ctx, &params).await?;
    Ok(Json(TicketPage {
        tickets: found.tickets.into_iter().map(Ticket::of).collect(),
        next: found.next,
        total: found.total,
    }))
}

#[derive(Debug, Serialize)]
pub(super) struct TicketWithEvents {
    #[serde(rename = "ticket")]
    summary: Ticket,
    /// Oldest first.
    events: Vec<Event>,
    /// Pass as `before` for older events; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    older: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TicketQuery {
    before: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Event {
    at: i64,
    actor: serde_json::Value,
    detail: serde_json::Value,
}

/// Most lines of a timeline in one answer.
const MAX_EVENTS: usize = 500;

pub(super) async fn one(
    ctx: Ctx,
    Path(key): Path<String>,
    Query(query): Query<TicketQuery>,
) -> Result<Json<TicketWithEvents>, WebError> {
    let store = &ctx.web.app.store;
    let ticket = views::ticket(store, &key).await?;
    let ticket = ticket.ok_or(WebError::NotFound("there is no such ticket"))?;
    let id = TicketId(ticket.id);
    let events = views::ticket_events(store, id, query.before, MAX_EVENTS).await?;
    let first = events.first().filter(|_| events.len() == MAX_EVENTS);
    let older = first.map(|event| event.id);
    let events = events.iter().map(|event| Event {
        at: event.at,
        actor: serde_json::from_str(&event.actor).unwrap_or_default(),
        detail: serde_json::from_str(&event.detail).unwrap_or_default(),
    });
    Ok(Json(TicketWithEvents {
        events: events.collect(),
        older,
        summary: Ticket::of(ticket),
    }))
}

/// The metric around the breach, in the shape of a host's series.
pub(super) async fn evidence(ctx: Ctx, Path(key): Path<String>) -> Result<Json<Columns>, WebError> {
    let store = &ctx.web.app.store;
    let ticket = views::ticket(store, &key).await?;
    let ticket = ticket.ok_or(WebError::NotFound("there is no such ticket"))?;
    let body = views::ticket_evidence(store, TicketId(ticket.id)).await?;
    let body = body.ok_or(WebError::NotFound("no metric was kept with this ticket"))?;
    let evidence: TicketEvidence = serde_json::from_str(&body)
        .map_err(|error| WebError::Internal(format!("corrupt ticket_evidence.body: {error}")))?;
    let values: Vec<Option<f64>> = evidence.points.iter().map(|(_, value)| *value).collect();
    let at: Vec<i64> = evidence.points.iter().map(|(at, _)| *at).collect();
    let first = at.first().copied().unwrap_or(ticket.opened_at - 3_600_000);
    let last = at.last().copied().unwrap_or(ticket.opened_at);
    // A little room behind the breach, so that its mark can be seen.
    let room = (last - first) / 40;
    let column = Column {
        name: evidence.metric,
        min: values.clone(),
        max: values.clone(),
        mean: values,
    };
    Ok(Json(Columns {
        from: first,
        to: last.max(ticket.opened_at) + room,
        at,
        series: vec![column],
    }))
}
