//! `/api/v1`: what the pages' scripts read, as JSON. Instants are milliseconds since the Unix epoch,
//! UTC. Errors are problem details (RFC 9457).

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{Path, Query, RawQuery},
    routing::get,
};
use serde::{Deserialize, Serialize};
use watchkeep_core::ids::TicketId;
use watchkeep_shared::{DurationMs, HostId, UnixMillis, wire::heartbeat::Service};

use super::{
    Web,
    context::Ctx,
    error::WebError,
    pages::{self, fleet as fleet_page, tickets},
};
use crate::{
    fleet::{self, Row},
    health::{Health, Signals},
    series::{self, Thinned},
    store::views,
    tickets::TicketEvidence,
};

/// Hosts in one answer.
const MAX_HOSTS: usize = 1_000;
const DEFAULT_HOSTS: usize = 100;
/// Metrics in one request for series.
const MAX_METRICS: usize = 32;
/// Points of each.
const MAX_POINTS: usize = 2_000;
const DEFAULT_POINTS: usize = 300;
/// Longest range: a quarter.
const MAX_RANGE: DurationMs = DurationMs::from_hours(24 * 92);

/// The routes below `/api/v1`.
pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/fleet", get(fleet_list))
        .route("/hosts/{id}", get(host))
        .route("/hosts/{id}/policy", get(pages::host::watch::json))
        .route("/hosts/{id}/series", get(host_series))
        .route("/tickets", get(ticket_list))
        .route("/tickets/{id}", get(ticket))
        .route("/tickets/{id}/evidence", get(ticket_evidence))
}

#[derive(Debug, Serialize)]
struct FleetPage {
    hosts: Vec<FleetHost>,
    /// Hosts on all pages.
    total: usize,
    /// Pass as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct FleetHost {
    id: String,
    name: String,
    client: String,
    site: String,
    contract: Option<String>,
    /// `up`, `alerting`, `silent`, `quarantined`, `revoked` or `waiting`.
    state: Health,
    last_seen_at: Option<i64>,
    firing: usize,
    services_down: u32,
    open_tickets: u32,
    cpu_busy_pct: Option<f64>,
    mem_used_pct: Option<f64>,
    worst_disk_used_pct: Option<f64>,
}

impl FleetHost {
    fn of(row: &Row) -> Self {
        let host = &row.host.view;
        Self {
            id: row.host.id().to_string(),
            name: host.name.clone(),
            client: host.client.clone(),
            site: host.site.clone(),
            contract: host.contract.clone(),
            state: row.health,
            last_seen_at: row.now.as_ref().map(|now| now.last_seen_at.0),
            firing: row.firing(),
            services_down: row.figures.services_down,
            open_tickets: row.tickets,
            cpu_busy_pct: row.figures.cpu,
            mem_used_pct: row.figures.memory,
            worst_disk_used_pct: row.figures.disk.map(|(_, value)| value),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Part {
    limit: String,
    after: String,
}

/// `GET /fleet?q=WORDS&client=ID&site=ID&state=STATE&sort=COLUMN&limit=N&after=CURSOR`
async fn fleet_list(
    ctx: Ctx,
    Query(params): Query<fleet_page::Params>,
    Query(part): Query<Part>,
) -> Result<Json<FleetPage>, WebError> {
    let limit = match part.limit.as_str() {
        "" => DEFAULT_HOSTS,
        text => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_HOSTS).contains(limit))
            .ok_or_else(|| WebError::Bad(format!("limit: from 1 to {MAX_HOSTS}")))?,
    };
    let after = match part.after.as_str() {
        "" => None,
        text => Some(fleet::Cursor::parse(text).ok_or_else(|| {
            WebError::Bad("after: not a cursor; pass `next` of the page before".to_owned())
        })?),
    };
    let snapshot = ctx.web.fleet.snapshot(&ctx.web.app).await?;
    let mut found = snapshot.select(&params.filter()?);
    found.retain(|row| row.health.is_selected_by(&params.state));
    let order = fleet::Sort::parse(&params.sort);
    fleet::sort(&mut found, order);
    let skipped = after.map_or(0, |after| fleet::skipped(&found, order, &after));
    let page = &found[skipped..found.len().min(skipped + limit)];
    let more = skipped + page.len() < found.len();
    let last = page.last().filter(|_| more);
    Ok(Json(FleetPage {
        hosts: page.iter().map(|row| FleetHost::of(row)).collect(),
        total: found.len(),
        next: last.map(|row| fleet::Cursor::of(row, order).text()),
    }))
}

#[derive(Debug, Serialize)]
struct Host {
    id: String,
    name: String,
    client: String,
    site: String,
    contract: Option<String>,
    agent_version: String,
    enrolled_at: i64,
    retired_at: Option<i64>,
    state: Health,
    last_seen_at: Option<i64>,
    policy_version: Option<u64>,
    /// The newest values by metric name; empty while no heartbeats arrive.
    values: BTreeMap<String, Option<f64>>,
    services: Vec<Service>,
}

async fn host(ctx: Ctx, Path(id): Path<String>) -> Result<Json<Host>, WebError> {
    let id = host_id(&id)?;
    let host = views::host(&ctx.web.app.store, id).await?;
    let host = host.ok_or(WebError::NotFound("there is no host with this id"))?;
    let now = ctx.web.app.live.host(id);
    let state = Health::of(host.recorded(), now.as_deref().map(Signals::from));
    // What a host last said is not how it is now.
    let current = now.as_deref().filter(|_| state.is_up());
    let values = current.map_or_else(BTreeMap::new, |now| {
        now.names
            .iter()
            .map(|name| name.as_ref().to_owned())
            .zip(now.values.iter().copied())
            .collect()
    });
    Ok(Json(Host {
        id: id.to_string(),
        name: host.name,
        client: host.client,
        site: host.site,
        contract: host.contract,
        agent_version: host.agent_version,
        enrolled_at: host.enrolled_at,
        retired_at: host.retired_at,
        state,
        last_seen_at: now.as_ref().map(|now| now.last_seen_at.0),
        policy_version: now.as_ref().map(|now| now.policy_version),
        values,
        services: current.map_or_else(Vec::new, |now| now.services.to_vec()),
    }))
}

pub(super) fn host_id(text: &str) -> Result<HostId, WebError> {
    text.parse()
        .map_err(|_| WebError::NotFound("there is no host with this id"))
}

/// Columns for a chart: one array of instants, one array a metric and kind, gaps as null.
#[derive(Debug, Serialize)]
struct Columns {
    from: i64,
    to: i64,
    at: Vec<i64>,
    series: Vec<Column>,
}

#[derive(Debug, Serialize)]
struct Column {
    name: String,
    mean: Vec<Option<f64>>,
    min: Vec<Option<f64>>,
    max: Vec<Option<f64>>,
}

#[derive(Debug, PartialEq)]
struct SeriesQuery {
    metrics: Vec<String>,
    from: UnixMillis,
    to: UnixMillis,
    points: usize,
}

/// `GET /hosts/{id}/series?metric=NAME&metric=NAME&from=MS&to=MS&points=N`
async fn host_series(
    ctx: Ctx,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Columns>, WebError> {
    let id = host_id(&id)?;
    let query = series_query(query.as_deref().unwrap_or_default(), ctx.now)?;
    let request = series::Request {
        names: &query.metrics,
        from: query.from,
        to: query.to,
    };
    let read = series::thinned(&ctx.web.app, id, request, query.points).await?;
    Ok(Json(columns(&read, &query)))
}

fn series_query(query: &str, now: UnixMillis) -> Result<SeriesQuery, WebError> {
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let number = |name: &str, default: i64| -> Result<i64, WebError> {
        let Some((_, text)) = pairs.iter().find(|(key, _)| key == name) else {
            return Ok(default);
        };
        text.parse()
            .map_err(|_| WebError::Bad(format!("{name}: {text:?} is not a whole number")))
    };
    let to = UnixMillis(number("to", now.0)?);
    let from = UnixMillis(number("from", to.0.saturating_sub(3_600_000))?);
    let metrics: Vec<String> = pairs
        .iter()
        .filter(|(key, _)| key == "metric")
        .map(|(_, name)| name.to_string())
        .collect();
    if metrics.is_empty() || metrics.len() > MAX_METRICS {
        let text = format!("metric: give 1 to {MAX_METRICS} of them, each as metric=NAME");
        return Err(WebError::Bad(text));
    }
    if from >= to || to.0.saturating_sub(from.0) > MAX_RANGE.0 {
        let text = "from, to: milliseconds, from before to, at most 92 days apart";
        return Err(WebError::Bad(text.to_owned()));
    }
    let points = number("points", DEFAULT_POINTS as i64)?;
    let points = usize::try_from(points)
        .ok()
        .filter(|n| (1..=MAX_POINTS).contains(n));
    let points = points.ok_or_else(|| WebError::Bad(format!("points: from 1 to {MAX_POINTS}")))?;
    Ok(SeriesQuery {
        metrics,
        from,
        to,
        points,
    })
}

/// Arranges the metrics' thinned points in columns. They come from the same frames, so points
/// of one part of the range have the same time.
fn columns(all: &[Thinned], query: &SeriesQuery) -> Columns {
    let whole = query.to.0 - query.from.0;
    let part = |at: UnixMillis| (at.0 - query.from.0) * query.points as i64 / whole.max(1);
    let mut at: BTreeMap<i64, i64> = BTreeMap::new();
    let mut found: Vec<BTreeMap<i64, [f64; 3]>> = Vec::with_capacity(all.len());
    for one in all {
        let mut parts = BTreeMap::new();
        for bucket in &one.buckets {
            let key = part(bucket.at);
            at.entry(key)
                .and_modify(|first| *first = bucket.at.0.min(*first))
                .or_insert(bucket.at.0);
            if let Some(range) = bucket.range {
                parts.insert(key, [range.mean, range.min, range.max]);
            }
        }
        found.push(parts);
    }
    let column = |parts: &BTreeMap<i64, [f64; 3]>, i: usize| {
        at.keys()
            .map(|key| parts.get(key).map(|range| rounded(range[i])))
            .collect()
    };
    Columns {
        from: query.from.0,
        to: query.to.0,
        series: all
            .iter()
            .zip(&found)
            .map(|(one, parts)| Column {
                name: one.name.clone(),
                mean: column(parts, 0),
                min: column(parts, 1),
                max: column(parts, 2),
            })
            .collect(),
        at: at.into_values().collect(),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[derive(Debug, Serialize)]
pub(super) struct Ticket {
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
struct TicketPage {
    tickets: Vec<Ticket>,
    /// Pass as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many tickets the filters find on all pages; only of open ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
}

async fn ticket_list(
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
struct TicketWithEvents {
    #[serde(rename = "ticket")]
    summary: Ticket,
    /// Oldest first.
    events: Vec<Event>,
    /// Pass as `before` for older events; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    older: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct TicketQuery {
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

async fn ticket(
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
async fn ticket_evidence(ctx: Ctx, Path(key): Path<String>) -> Result<Json<Columns>, WebError> {
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

#[cfg(test)]
mod tests {
    use watchkeep_core::series::{Point, downsample};

    use super::*;

    #[test]
    fn a_query_for_series_is_checked_field_by_field() {
        let now = UnixMillis(10_000_000_000);
        let good = series_query(
            "metric=cpu.busy_pct&metric=disk.used_pct%3A%2Fvar&points=10",
            now,
        );
        let good = good.unwrap();
        assert_eq!(good.metrics, ["cpu.busy_pct", "disk.used_pct:/var"]);
        assert_eq!(good.from, now - DurationMs::from_hours(1));
        for (query, field) in [
            ("", "metric"),
            ("metric=a&points=0", "points"),
            ("metric=a&points=9999", "points"),
            ("metric=a&from=x", "from"),
            ("metric=a&from=5&to=5", "from, to"),
            (
                "metric=a&from=-9000000000000000000&to=9000000000000000000",
                "from, to",
            ),
        ] {
            let error = series_query(query, now).unwrap_err().to_string();
            assert!(error.starts_with(field), "{query}: {error}");
        }
    }

    #[test]
    fn columns_stand_beside_each_other_and_gaps_are_null() {
        let at = |i: i64| UnixMillis(i * 1_000);
        let thinned = |name: &str, value: f64, seconds: &[i64]| {
            let points = seconds.iter().map(|i| Point { at: at(*i), value });
            let points: Vec<Point> = points.collect();
            Thinned {
                name: name.to_owned(),
                buckets: downsample(&points, at(0), at(100), 10),
            }
        };
        let all: Vec<i64> = (0..100).collect();
        let broken: Vec<i64> = (0..30).chain(60..100).collect();
        let all = [thinned("a", 1.0, &all), thinned("b", 2.0, &broken)];
        let query = SeriesQuery {
            metrics: vec![],
            from: at(0),
            to: at(100),
            points: 10,
        };
        let columns = columns(&all, &query);
        assert_eq!(columns.at.len(), 10);
        assert_eq!(columns.series[0].mean, vec![Some(1.0); 10]);
        assert!(columns.series[1].mean.contains(&None));
        assert_eq!(columns.series[1].mean.iter().flatten().count(), 7);
    }
}
