//! One host: how it is, what runs on it, what its logs said, charts, tickets.

use askama::Template;
use axum::{
    extract::{Path, Query},
    response::Response,
};
use serde::Deserialize;
use watchkeep_core::ledger::{Interval, ObservedState};
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis,
    wire::{
        heartbeat::{Event, GoodbyeReason, Service, ServiceStatus},
        policy::ServiceCheck,
    },
};

use crate::{
    live::HostNow,
    store::views::{self, HostView},
    web::{
        api::host_id,
        chart::{self, Chart},
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        pages::{AlertRow, fleet::Health, machine},
        parts::{Pill, TicketRow, TicketRows, Time, pill},
    },
};

/// Ranges of the charts: in the address, on the button, length.
const RANGES: [(&str, DurationMs); 4] = [
    ("1h", DurationMs::from_hours(1)),
    ("6h", DurationMs::from_hours(6)),
    ("24h", DurationMs::from_hours(24)),
    ("7d", DurationMs::from_hours(168)),
];
const TICKETS: usize = 20;
const LOG_EVENTS: usize = 20;
const LOG_SPAN: DurationMs = DurationMs::from_hours(24 * 7);
/// A difference of clocks that is worth a warning.
const SKEW_WORTH_SAYING_MS: i64 = 2_000;
/// Width of the strip of states, in its own units.
const STRIP_WIDTH: i64 = 1_440;

#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    range: String,
}

#[derive(Template)]
#[template(path = "pages/host.html", blocks = ["live"])]
struct HostPage {
    layout: Layout,
    id: String,
    name: String,
    client: String,
    site: String,
    contract: Option<(String, String)>,
    state: Pill,
    retired: Option<Time>,
    enrolled: Time,
    agent_version: String,
    facts: Option<Facts>,
    machine: Vec<(&'static str, String)>,
    alerts: Vec<AlertRow>,
    services: Vec<ServiceRow>,
    proposals: Vec<ProposalRow>,
    snippet: String,
    strip: Option<Strip>,
    logs: Vec<LogRow>,
    clock: Vec<LogRow>,
    tickets: TicketRows,
    ranges: Vec<Range>,
    span_ms: i64,
    charts: Vec<Chart>,
}

/// What the newest heartbeat says of the machine.
struct Facts {
    seen: Time,
    uptime: String,
    booted: Option<Time>,
    load: String,
    memory: String,
    processes: String,
    interval: String,
    policy_version: String,
    skew: String,
    refused: Vec<(String, String)>,
    troubles: Vec<(String, String)>,
    goodbye: &'static str,
    quarantine: String,
    rejected: u64,
}

struct ServiceRow {
    name: String,
    kind: &'static str,
    detail: String,
    state: Pill,
}

/// Something that could be watched and is not.
struct ProposalRow {
    name: String,
    kind: &'static str,
    detail: String,
}

struct LogRow {
    at: Time,
    title: String,
    path: String,
    lines: Vec<String>,
}

struct Range {
    name: &'static str,
    ms: i64,
    href: String,
    chosen: bool,
}

/// The observed states of the last day.
pub(crate) struct Strip {
    pub(crate) width: i64,
    pub(crate) parts: Vec<StripPart>,
}

pub(crate) struct StripPart {
    pub(crate) class: &'static str,
    pub(crate) x: i64,
    pub(crate) width: i64,
    pub(crate) title: String,
}

/// `GET /hosts/{id}`
pub(crate) async fn page(
    ctx: Ctx,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
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
        .find(|(name, _)| *name == wanted.range)
        .unwrap_or(&RANGES[0]);
    let (proposals, snippet) = proposals(&ctx, id, now.as_ref()).await?;
    let page = HostPage {
        proposals,
        snippet,
        layout: ctx.layout("fleet").await?,
        state: state(&host, now.as_ref()),
        retired: host.retired_at.map(|at| ctx.time(at)),
        enrolled: ctx.time(host.enrolled_at),
        facts: now.as_ref().map(|now| facts(&ctx, now)),
        machine: machine::told(&ctx, id).await?,
        alerts: alerts
            .iter()
            .map(|alert| AlertRow::of(alert, ctx.now))
            .collect(),
        services: now.as_ref().map_or_else(Vec::new, services),
        strip: strip(&ctx, id).await?,
        logs: events(&ctx, id, ["log_match", "log_gap"]).await?,
        clock: events(&ctx, id, ["clock_step", "slept"]).await?,
        tickets: TicketRows {
            tickets: tickets
                .iter()
                .map(|ticket| TicketRow::of(ticket, ctx.now))
                .collect(),
        },
        ranges: RANGES
            .iter()
            .map(|(name, span)| Range {
                name,
                ms: span.0,
                href: format!("/hosts/{id}?range={name}"),
                chosen: *name == range.0,
            })
            .collect(),
        span_ms: range.1.0,
        charts: now.map_or_else(Vec::new, |now| chart::of_host(&id.to_string(), &now.names)),
        id: id.to_string(),
        name: host.name,
        client: host.client,
        site: host.site,
        contract: host.contract_id.map(|id| id.to_string()).zip(host.contract),
        agent_version: host.agent_version,
    };
    if ctx.wants_block("live") {
        html(&page.as_live())
    } else {
        html(&page)
    }
}

fn state(host: &HostView, now: Option<&HostNow>) -> Pill {
    if host.retired_at.is_some() {
        return pill("idle", "info", "Retired");
    }
    if now.is_some_and(|now| now.quarantine.is_some()) {
        return pill("crit", "warn", "Quarantined");
    }
    Health::of(now).pill()
}

fn facts(ctx: &Ctx, now: &HostNow) -> Facts {
    let text = |name: &str| {
        now.value(name)
            .map_or_else(|| "–".to_owned(), |v| format::value(v, format::unit(name)))
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
        interval: format::span(DurationMs(i64::from(now.interval_ms))),
        // A version is a hash of the policy; 0 stands for none.
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
        goodbye: match now.goodbye {
            None => "",
            Some(GoodbyeReason::Stop | GoodbyeReason::Other) => "Its agent was stopped.",
            Some(GoodbyeReason::Shutdown) => "It announced a shutdown or reboot.",
            Some(GoodbyeReason::Upgrade) => "Its agent is being upgraded.",
        },
        rejected: now.rejected,
    }
}

/// What does not run comes first.
fn services(now: &HostNow) -> Vec<ServiceRow> {
    let mut services: Vec<&Service> = now.services.iter().collect();
    services.sort_by_key(|one| (one.status == ServiceStatus::Running, one.key.clone()));
    services
        .into_iter()
        .map(|one| {
            let (kind, name) = one.key.split_once(':').unwrap_or(("service", &one.key));
            ServiceRow {
                name: name.to_owned(),
                kind: kind_word(kind),
                detail: one.detail.clone().unwrap_or_default(),
                // A silent host's services are as it last said.
                state: if now.silent {
                    pill("idle", "unknown", "Unknown")
                } else {
                    service_state(one.status)
                },
            }
        })
        .collect()
}

fn kind_word(kind: &str) -> &'static str {
    match kind {
        "process" => "process",
        "tcp" => "TCP port",
        "systemd" => "systemd unit",
        "winsvc" => "Windows service",
        "http" => "web page",
        "tls" => "TLS certificate",
        "certificate" => "certificate file",
        _ => "service",
    }
}

/// What the agent found and nobody watches, and the lines that a policy would need for it.
async fn proposals(
    ctx: &Ctx,
    id: HostId,
    now: Option<&HostNow>,
) -> Result<(Vec<ProposalRow>, String), WebError> {
    let kinds = ["discovered", "discovered"];
    let events = views::host_events(&ctx.web.app.store, id, UnixMillis(0), kinds, 1).await?;
    let newest = events
        .first()
        .map(|event| serde_json::from_str(&event.detail));
    let Some(Ok(Event::Discovered { proposals, .. })) = newest else {
        return Ok((Vec::new(), String::new()));
    };
    let watched = now.map_or(&[][..], |now| &now.services);
    let (mut rows, mut snippet) = (Vec::new(), String::new());
    for proposal in proposals {
        let Some((key, line)) = proposal.check.known().and_then(policy_line) else {
            continue;
        };
        if watched.iter().any(|service| service.key == key) {
            continue;
        }
        let (kind, name) = key.split_once(':').unwrap_or(("", &key));
        rows.push(ProposalRow {
            name: name.to_owned(),
            kind: kind_word(kind),
            detail: proposal.detail.unwrap_or_default(),
        });
        snippet.push_str(&line);
        snippet.push('\n');
    }
    Ok((rows, snippet))
}

/// The key of a check and its line in the collector's settings.
fn policy_line(check: &ServiceCheck) -> Option<(String, String)> {
    let (kind, field, value) = match check {
        ServiceCheck::Systemd { unit } => ("systemd", "unit", unit),
        ServiceCheck::WindowsService { name } => ("winsvc", "name", name),
        ServiceCheck::Tcp { address } => ("tcp", "address", address),
        ServiceCheck::Certificate { path } => ("certificate", "path", path),
        ServiceCheck::Process { .. } | ServiceCheck::Http { .. } | ServiceCheck::Tls { .. } => {
            return None;
        }
    };
    // A JSON text is a TOML one too.
    let value = serde_json::to_string(value).ok()?;
    let line = format!("{{ type = \"{kind}\", {field} = {value} }},");
    Some((check.key(), line))
}

fn service_state(status: ServiceStatus) -> Pill {
    match status {
        ServiceStatus::Running => pill("ok", "up", "Running"),
        ServiceStatus::Stopped => pill("crit", "crit", "Stopped"),
        ServiceStatus::Failed => pill("crit", "crit", "Failed"),
        ServiceStatus::RestartLoop => pill("crit", "crit", "Restart loop"),
        ServiceStatus::Stuck => pill("crit", "crit", "Stuck"),
        ServiceStatus::Masked => pill("crit", "crit", "Masked"),
        ServiceStatus::NotFound => pill("crit", "crit", "Not found"),
        ServiceStatus::Changing => pill("idle", "wait", "Changing"),
        ServiceStatus::Unknown => pill("idle", "unknown", "Unknown"),
    }
}

async fn events(ctx: &Ctx, id: HostId, kinds: [&str; 2]) -> Result<Vec<LogRow>, WebError> {
    let since = ctx.now - LOG_SPAN;
    let events = views::host_events(&ctx.web.app.store, id, since, kinds, LOG_EVENTS).await?;
    let rows = events
        .iter()
        .filter_map(|event| log_row(&event.detail, ctx.time(event.at)));
    Ok(rows.collect())
}

/// What the collector itself saw in a host's clocks.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ClockEvent {
    ClockStep { ms: i64 },
    Slept { ms: i64 },
}

fn log_row(detail: &str, at: Time) -> Option<LogRow> {
    if let Ok(event) = serde_json::from_str(detail) {
        let span = |ms: i64| format::span(DurationMs(ms.abs()));
        let title = match event {
            ClockEvent::ClockStep { ms } if ms < 0 => {
                format!("The wall clock was set back by {}", span(ms))
            }
            ClockEvent::ClockStep { ms } => format!("The wall clock was set ahead by {}", span(ms)),
            ClockEvent::Slept { ms } => format!("The machine slept for {}", span(ms)),
        };
        return Some(LogRow {
            at,
            title,
            path: String::new(),
            lines: Vec::new(),
        });
    }
    match serde_json::from_str(detail).ok()? {
        Event::LogMatch {
            rule,
            path,
            count,
            lines,
        } => {
            let title = format!(
                "{count} line{} matched {rule}",
                if count == 1 { "" } else { "s" }
            );
            Some(LogRow {
                at,
                title,
                path,
                lines,
            })
        }
        Event::LogGap {
            path,
            reason,
            bytes,
        } => {
            let reason = serde_json::to_value(reason).ok()?;
            let reason = reason.as_str().unwrap_or_default().replace('_', " ");
            let size = bytes.map_or_else(String::new, |n| format!(", {}", format::bytes(n as f64)));
            let title = format!("Part of the log could not be read: {reason}{size}");
            Some(LogRow {
                at,
                title,
                path,
                lines: Vec::new(),
            })
        }
        Event::AgentStarted { .. }
        | Event::Goodbye { .. }
        | Event::SpoolLoss { .. }
        | Event::Discovered { .. }
        | Event::HostFacts(_)
        | Event::Processes(_)
        | Event::Other => None,
    }
}

/// The states of the last day as parts of a strip; short ones keep a visible width.
async fn strip(ctx: &Ctx, id: HostId) -> Result<Option<Strip>, WebError> {
    let from = ctx.now - DurationMs::from_hours(24);
    let spans = crate::reports::observed(&ctx.web.app, id, Interval::new(from, ctx.now)).await?;
    let x = |at: UnixMillis| at.since(from).0 * STRIP_WIDTH / DurationMs::from_hours(24).0;
    let parts: Vec<StripPart> = spans
        .iter()
        .map(|span| StripPart {
            class: state_class(span.state),
            x: x(span.from),
            width: (x(span.to) - x(span.from)).max(2),
            title: format!(
                "{} for {}: {}",
                state_word(span.state),
                format::span(span.to.since(span.from)),
                span.cause.text()
            ),
        })
        .collect();
    Ok((!parts.is_empty()).then_some(Strip {
        width: STRIP_WIDTH,
        parts,
    }))
}

/// How a state is coloured.
pub(crate) const fn state_class(state: ObservedState) -> &'static str {
    match state {
        ObservedState::UpLive => "s-up",
        ObservedState::UpProven => "s-proven",
        ObservedState::DownReboot | ObservedState::HostFrozen => "s-down",
        ObservedState::AgentStopped
        | ObservedState::Stalled
        | ObservedState::CollectorDown
        | ObservedState::Silent
        | ObservedState::Unknown => "s-unknown",
        ObservedState::NotEnrolled | ObservedState::Retired => "s-none",
    }
}

/// A state's name for people.
pub(crate) const fn state_word(state: ObservedState) -> &'static str {
    match state {
        ObservedState::UpLive => "Up",
        ObservedState::UpProven => "Up, proven later",
        ObservedState::DownReboot => "Down: reboot",
        ObservedState::HostFrozen => "Down: frozen",
        ObservedState::AgentStopped => "Agent stopped",
        ObservedState::Stalled => "Agent stalled",
        ObservedState::CollectorDown => "Collector down",
        ObservedState::Silent => "Silent",
        ObservedState::Unknown => "Unknown",
        ObservedState::NotEnrolled => "Not enrolled",
        ObservedState::Retired => "Retired",
    }
}
