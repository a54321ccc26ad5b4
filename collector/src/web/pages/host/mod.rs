//! One host: how it is, what runs on it, what its logs said, charts, tickets.

mod clock;
pub(crate) mod edit;
mod events;
mod proposals;
mod services;
mod strip;
pub(crate) mod watch;

pub(super) use strip::state_word;

use askama::Template;
use axum::{
    extract::{Path, Query},
    response::Response,
};
use serde::Deserialize;
use serde_json::json;
use watchkeep_core::{ledger::Span, policy::Level, wording};
use watchkeep_shared::{
    DurationMs, HostId,
    wire::heartbeat::{GoodbyeReason, RejectReason},
};

use self::{
    events::LogRow,
    proposals::Proposals,
    services::{RuleRow, ServiceRow},
    strip::Strip,
};
use crate::{
    health::{Health, Signals},
    links::{Piece, linked},
    live::HostNow,
    policies::view::PolicyView,
    store::{
        descriptions,
        views::{self, TicketView},
    },
    web::{
        api::host_id,
        chart::{self, Chart},
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        pages::{AlertRow, machine},
        parts::{self, Pill, TicketRows, Time},
    },
};

/// Ranges of the charts: in the address, on the button, length.
const RANGES: [(&str, DurationMs); 4] = [
    ("1h", DurationMs::from_hours(1)),
    ("6h", DurationMs::from_hours(6)),
    ("24h", DurationMs::from_hours(24)),
    ("7d", DurationMs::from_hours(168)),
];
/// The longest of them.
const CHARTS_SPAN: DurationMs = RANGES[3].1;
const TICKETS: usize = 20;
/// A difference of clocks that is worth a warning.
const SKEW_WORTH_SAYING_MS: i64 = 2_000;

#[derive(Debug, Deserialize)]
pub(crate) struct Params {
    #[serde(default)]
    range: String,
    /// `all`: every proposal is shown.
    #[serde(default)]
    found: String,
}

#[derive(Template)]
#[template(path = "pages/host.html", blocks = ["live", "details"])]
struct HostPage {
    layout: Layout,
    id: String,
    name: String,
    client: String,
    site: String,
    contract: Option<(String, String)>,
    state: Pill,
    retired: Option<Time>,
    revoked: bool,
    enrolled: Time,
    agent_version: String,
    facts: Option<Facts>,
    machine: Vec<(&'static str, String)>,
    /// The host name that the agent gave, if it is another.
    reported_name: String,
    address: Vec<Piece>,
    notes: Vec<Piece>,
    /// Alerts that fire, the worst.
    alerts: Vec<AlertRow>,
    /// How many fire in all.
    firing: usize,
    services: Vec<ServiceRow>,
    rules: Vec<RuleRow>,
    proposals: Proposals,
    all_found: bool,
    /// This page with all proposals.
    all_href: String,
    strip: Option<Strip>,
    /// Tickets and outages that the charts mark, JSON.
    chart_marks: String,
    logs: Vec<LogRow>,
    clock: Vec<LogRow>,
    left_out: Vec<LogRow>,
    tickets: TicketRows,
    ranges: Vec<Range>,
    span_ms: i64,
    charts: Vec<Chart>,
}

/// What the newest heartbeat reports about the machine.
struct Facts {
    seen: Time,
    uptime: String,
    booted: Option<Time>,
    load: String,
    memory: String,
    processes: String,
    clock: String,
    interval: String,
    interval_from: &'static str,
    policy_version: String,
    policy_waits: bool,
    skew: String,
    refused: Vec<(String, String)>,
    troubles: Vec<(String, String)>,
    goodbye: &'static str,
    quarantine: String,
    rejected: Vec<RejectedRow>,
}

/// Heartbeats that were rejected for one reason.
struct RejectedRow {
    count: u64,
    reason: &'static str,
    last: Time,
}

struct Range {
    name: &'static str,
    ms: i64,
    href: String,
    chosen: bool,
}

/// `GET /hosts/{id}`
pub(crate) async fn page(
    ctx: Ctx,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> Result<Response, WebError> {
    let id = host_id(&id)?;
    let store = &ctx.web.app.store;
    let host = views::host(store, id).await?;
    let host = host.ok_or(WebError::NotFound("there is no host with this id"))?;
    let now = ctx.web.app.live.host(id);
    let alerts = views::firing_of_host(store, id).await?;
    let tickets = views::tickets_of_host(store, id, TICKETS).await?;
    let range = RANGES
        .iter()
        .find(|(name, _)| *name == params.range)
        .unwrap_or(&RANGES[0]);
    let health = Health::of(host.recorded(), now.as_deref().map(Signals::from));
    let policy = services::policy(&ctx, &host, now.as_deref()).await?;
    let services = services::services(&ctx, &policy, now.as_deref(), health);
    let all_found = params.found == "all";
    let spans = strip::spans(&ctx, id, ctx.now - CHARTS_SPAN).await?;
    let described = descriptions::of(store, id).await?;
    let described = described.ok_or(WebError::NotFound("there is no host with this id"))?;
    let page = HostPage {
        address: linked(&described.address),
        notes: linked(&described.notes),
        reported_name: described.other_name().unwrap_or_default().to_owned(),
        proposals: proposals::proposals(&ctx, id, &services, all_found).await?,
        rules: services::log_rules(&policy),
        services,
        all_found,
        all_href: format::link(
            &format!("/hosts/{id}"),
            &[("range", range.0), ("found", "all")],
        ),
        layout: ctx.layout("fleet").await?,
        state: parts::health(health),
        retired: host.retired_at.map(|at| ctx.time(at)),
        revoked: host.revoked_at.is_some() && host.retired_at.is_none(),
        enrolled: ctx.time(host.enrolled_at),
        facts: now.as_deref().map(|now| facts(&ctx, now, &policy)),
        machine: machine::facts(&ctx, id).await?,
        firing: now.as_ref().map_or(alerts.len(), |now| now.firing.len()),
        alerts: alerts
            .iter()
            .map(|alert| AlertRow::of(&ctx, alert))
            .collect(),
        strip: strip::strip(&ctx, &spans),
        chart_marks: chart_marks(&tickets, &spans),
        logs: events::events(&ctx, id, ["log_match", "log_gap"]).await?,
        clock: events::events(&ctx, id, ["clock_step", "slept"]).await?,
        left_out: events::left_out(&ctx, id).await?,
        tickets: TicketRows::of(&tickets, ctx.now),
        ranges: ranges(id, range.0),
        span_ms: range.1.0,
        charts: now.map_or_else(Vec::new, |now| chart::of_host(&id.to_string(), &now.names)),
        id: id.to_string(),
        name: host.name,
        client: host.client,
        site: host.site,
        contract: host.contract_id.map(|id| id.to_string()).zip(host.contract),
        agent_version: host.agent_version,
    };
    match ctx.block() {
        Some("live") => html(&page.as_live()),
        Some("details") => html(&page.as_details()),
        _ => html(&page),
    }
}

fn ranges(host: HostId, chosen: &str) -> Vec<Range> {
    let range = |(name, span): &(&'static str, DurationMs)| Range {
        name,
        ms: span.0,
        href: format!("/hosts/{host}?range={name}"),
        chosen: *name == chosen,
    };
    RANGES.iter().map(range).collect()
}

/// What the charts mark beside their lines.
fn chart_marks(tickets: &[TicketView], spans: &[Span]) -> String {
    let tickets: Vec<_> = tickets
        .iter()
        .map(|ticket| json!({ "at": ticket.opened_at, "number": ticket.number }))
        .collect();
    json!({ "tickets": tickets, "outages": strip::shades(spans) }).to_string()
}

fn facts(ctx: &Ctx, now: &HostNow, policy: &PolicyView) -> Facts {
    let text = |name: &str| {
        now.value(name)
            .map_or_else(|| "–".to_owned(), |v| wording::value(name, v))
    };
    let uptime = now.value("system.uptime_s");
    let memory = match (now.value("mem.used_bytes"), now.value("mem.total_bytes")) {
        (Some(used), Some(total)) => format!("{} of {}", format::bytes(used), format::bytes(total)),
        _ => "–".to_owned(),
    };
    let load = ["load.1m", "load.5m", "load.15m"].map(text).join(" / ");
    let skew = now.skew_ms.abs();
    Facts {
        seen: Time::new(now.last_seen_at, ctx.now),
        uptime: text("system.uptime_s"),
        booted: uptime.map(|s| Time::new(now.at - DurationMs((s * 1000.0) as i64), ctx.now)),
        load,
        memory,
        processes: text("system.processes"),
        clock: clock::words(now),
        interval: format::span(DurationMs(i64::from(now.interval_ms))),
        interval_from: match policy.interval_ms.from {
            Level::Default => "",
            level => services::level_words(level),
        },
        policy_waits: now.policy_version != policy.version,
        // A version is a hash of the policy; 0 means none.
        policy_version: match now.policy_version {
            0 => String::new(),
            version => format!("{version:x}"),
        },
        skew: if skew < SKEW_WORTH_SAYING_MS {
            String::new()
        } else {
            let side = if now.skew_ms > 0 { "ahead" } else { "behind" };
            format!(
                "Its clock is {} {side} of the collector's.",
                format::span(DurationMs(skew))
            )
        },
        refused: now
            .refused
            .iter()
            .map(|one| (one.item.clone(), one.reason.clone()))
            .collect(),
        troubles: now
            .troubles
            .iter()
            .map(|one| (one.item.clone(), one.detail.clone()))
            .collect(),
        quarantine: now
            .quarantine
            .as_ref()
            .map(|found| found.detail.clone())
            .unwrap_or_default(),
        goodbye: now.goodbye.map_or("", goodbye_text),
        rejected: now
            .rejected
            .iter()
            .map(|one| RejectedRow {
                count: one.count,
                reason: rejection_words(one.reason),
                last: Time::new(one.last_at, ctx.now),
            })
            .collect(),
    }
}

/// Why heartbeats were rejected, for people.
const fn rejection_words(reason: RejectReason) -> &'static str {
    match reason {
        RejectReason::FromTheFuture => "their boot clock is ahead of the agent's own reading",
        RejectReason::TooOld => "older than 8 days",
        RejectReason::ValueCount => "the number of values differs from the number of metric names",
        RejectReason::OverLimit => "more values, services, events or text than the protocol allows",
        RejectReason::BadSequence => "the sequence number is out of range",
        RejectReason::BadText => "a service key or log rule has control characters in its name",
        RejectReason::Unstorable => "the collector's database refuses a value",
        RejectReason::Other => "another reason",
    }
}

/// Why an agent said that it ends, for people.
pub(super) const fn goodbye_text(reason: GoodbyeReason) -> &'static str {
    match reason {
        GoodbyeReason::Stop | GoodbyeReason::Other => "The agent was stopped.",
        GoodbyeReason::Shutdown => "The host announced a shutdown or reboot.",
        GoodbyeReason::Upgrade => "The agent is being upgraded.",
    }
}
