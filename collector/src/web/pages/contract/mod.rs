//! One contract and month: the figure with both bounds, the uptime calendar, hosts, outages, link
//! incidents; the same as JSON and CSV.

pub(super) mod figures;
mod outages;

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Path, Query},
    http::header,
    response::{IntoResponse, Response},
};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::Deserialize;
use watchkeep_core::{
    ids::ContractId,
    ledger::{HostReport, Interval, MonthReport, UnknownRule},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use self::{
    figures::{Day, day, headline, share, target, verdict},
    outages::{LISTED, OutageRow, Sites, outages},
};
use crate::{
    reports::{self, ReportError},
    store::views::{self, ContractView},
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        parts::{Pill, Time, TimeText},
    },
};

/// Most tickets that are searched for those of a month's outages.
const TICKETS: usize = 2_000;
/// Late heartbeats amend a month for this long after its end.
const PROVISIONAL_FOR: DurationMs = DurationMs::from_hours(7 * 24);

#[derive(Debug, Deserialize)]
pub(crate) struct Params {
    #[serde(default)]
    month: String,
    /// `all`: every outage is listed.
    #[serde(default)]
    list: String,
}

#[derive(Template)]
#[template(path = "pages/contract.html")]
struct ContractPage {
    layout: Layout,
    id: String,
    name: String,
    client: String,
    kind: &'static str,
    zone: String,
    rule: &'static str,
    month: String,
    month_name: String,
    before: String,
    after: Option<String>,
    running: bool,
    /// Whether the figures can still change.
    standing: String,
    provider: String,
    made_at: TimeText,
    excluded: bool,
    state: Option<Pill>,
    headline: String,
    target: String,
    low: String,
    high: String,
    coverage: String,
    down: String,
    unknown: String,
    blanks: Vec<()>,
    days: Vec<Day>,
    hosts: Vec<HostFigures>,
    outages: Vec<OutageRow>,
    more_outages: usize,
    links: Vec<LinkRow>,
    more_links: usize,
}

struct HostFigures {
    id: String,
    name: String,
    /// Its site, if another host of the contract has the same name.
    site: String,
    headline: String,
    low: String,
    high: String,
    coverage: String,
    down: String,
    unknown: String,
}

struct LinkRow {
    host: String,
    host_id: String,
    from: TimeText,
    length: String,
    frames: u64,
}

/// The month that an instant is in, `YYYY-MM`; UTC where the zone is not known.
pub(super) fn month_of(at: UnixMillis, zone: &str) -> String {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let at = Timestamp::from_millisecond(at.0).unwrap_or_default();
    at.to_zoned(zone).strftime("%Y-%m").to_string()
}

/// A contract's kind for people.
pub(super) fn kind_word(kind: &str) -> &'static str {
    match kind {
        "managed" => "Managed",
        "block_hours" => "Block hours",
        "time_and_material" => "Time and material",
        _ => "Other",
    }
}

async fn report(ctx: &Ctx, id: &str, month: &str) -> Result<(ContractView, MonthReport), WebError> {
    let none = || WebError::NotFound("there is no contract with this id");
    let id: ContractId = id.parse().map_err(|_| none())?;
    let contract = views::contract(&ctx.web.app.store, id)
        .await?
        .ok_or_else(none)?;
    let month = if month.is_empty() {
        month_of(ctx.now, &contract.zone)
    } else {
        month.to_owned()
    };
    let report = reports::month_live(&ctx.web.app, id, &month).await;
    let report = report.map_err(|error| match error {
        ReportError::Month(error) => WebError::Bad(error.to_string()),
        ReportError::Store(error) => WebError::Store(error),
    })?;
    Ok((contract, report.ok_or_else(none)?))
}

/// `GET /contracts/{id}?month=YYYY-MM`
pub(crate) async fn page(
    ctx: Ctx,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> Result<Response, WebError> {
    let (contract, report) = report(&ctx, &id, &params.month).await?;
    let figures = report.availability;
    let totals = figures.totals;
    let rule = report.unknown_rule;
    let zone = TimeZone::get(&report.zone).unwrap_or(TimeZone::UTC);
    let first = Date::strptime("%Y-%m-%d", format!("{}-01", report.month))
        .map_err(|error| WebError::Internal(error.to_string()))?;
    let store = &ctx.web.app.store;
    let contract_id = ContractId(contract.id);
    let tickets = views::outage_tickets(store, contract_id, report.window, TICKETS).await?;
    let listed = if params.list == "all" {
        usize::MAX
    } else {
        LISTED
    };
    let sites = sites(&ctx, &report).await?;
    let links = links(&ctx, &report, &zone);
    let more_links = links.len().saturating_sub(listed);
    let (outages, more_outages) = outages(&ctx, &report, &zone, (&tickets, &sites), listed);
    let running = ctx.now < report.window.to;
    html(&ContractPage {
        layout: ctx.layout("contracts").await?,
        name: contract.name,
        client: contract.client,
        kind: kind_word(&contract.kind),
        zone: report.zone.clone(),
        rule: rule_text(rule),
        month_name: first.strftime("%B %Y").to_string(),
        before: step(first, -1),
        after: (!running).then(|| step(first, 1)),
        running,
        standing: item_status(&ctx, report.window, &zone),
        provider: ctx.web.app.config.web.provider.clone(),
        made_at: ctx.time(ctx.now.0).zoned(&zone),
        excluded: totals.excluded_ms > 0,
        state: verdict(&figures, contract.target_pct, !running),
        headline: headline(totals, rule),
        target: target(contract.target_pct),
        low: share(totals.a_min()),
        high: share(totals.a_max()),
        coverage: share(totals.coverage()),
        down: format::span(DurationMs(totals.down_ms)),
        unknown: format::span(DurationMs(totals.unknown_ms)),
        blanks: vec![(); usize::try_from(first.weekday().to_monday_zero_offset()).unwrap_or(0)],
        days: report.days.iter().map(|cell| day(cell, rule)).collect(),
        hosts: report
            .hosts
            .iter()
            .map(|host| host_row(host, rule, &sites))
            .collect(),
        outages,
        more_outages,
        links: links.into_iter().take(listed).collect(),
        more_links,
        month: report.month,
        id,
    })
}

/// The sites of hosts that their names do not tell apart.
async fn sites(ctx: &Ctx, report: &MonthReport) -> Result<Sites, WebError> {
    let mut names: HashMap<&str, usize> = HashMap::new();
    for host in &report.hosts {
        *names.entry(&host.name).or_default() += 1;
    }
    let twice = |name: &str| names.get(name).is_some_and(|count| *count > 1);
    if !names.values().any(|count| *count > 1) {
        return Ok(Sites::new());
    }
    let snapshot = ctx.web.fleet.snapshot(&ctx.web.app).await?;
    let hosts = snapshot.rows().iter().map(|row| &row.host.view);
    Ok(hosts
        .filter(|view| twice(&view.name))
        .map(|view| (HostId(view.id), view.site.clone()))
        .collect())
}

/// Whether a month's figures can still change, for people.
fn item_status(ctx: &Ctx, window: Interval, zone: &TimeZone) -> String {
    let final_at = window.to + PROVISIONAL_FOR;
    if ctx.now < window.to {
        "Provisional: the month is not over".to_owned()
    } else if ctx.now < final_at {
        let until = format::zoned(final_at, zone);
        format!("Provisional: late heartbeats are accepted until {until}")
    } else {
        "Final".to_owned()
    }
}

fn step(first: Date, months: i32) -> String {
    let moved = first.checked_add(jiff::Span::new().months(months));
    moved.map_or_else(|_| String::new(), |date| date.strftime("%Y-%m").to_string())
}

const fn rule_text(rule: UnknownRule) -> &'static str {
    match rule {
        UnknownRule::CountAsUp => "unknown time counts as up",
        UnknownRule::CountAsDown => "unknown time counts as down",
        UnknownRule::Exclude => "unknown time is left out",
    }
}

fn host_row(host: &HostReport, rule: UnknownRule, sites: &Sites) -> HostFigures {
    let totals = host.availability.totals;
    HostFigures {
        id: host.host.to_string(),
        name: host.name.clone(),
        site: sites.get(&host.host).cloned().unwrap_or_default(),
        headline: headline(totals, rule),
        low: share(totals.a_min()),
        high: share(totals.a_max()),
        coverage: share(totals.coverage()),
        down: format::span(DurationMs(totals.down_ms)),
        unknown: format::span(DurationMs(totals.unknown_ms)),
    }
}

fn links(ctx: &Ctx, report: &MonthReport, zone: &TimeZone) -> Vec<LinkRow> {
    let mut rows: Vec<(UnixMillis, LinkRow)> = Vec::new();
    for host in &report.hosts {
        for link in &host.link_incidents {
            let row = LinkRow {
                host: host.name.clone(),
                host_id: host.host.to_string(),
                from: Time::new(link.from, ctx.now).zoned(zone),
                length: format::span(link.to.since(link.from)),
                frames: link.frames_late,
            };
            rows.push((link.from, row));
        }
    }
    rows.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    rows.into_iter().map(|(_, row)| row).collect()
}

/// `GET /contracts/{id}/report.json?month=YYYY-MM`
pub(crate) async fn json(
    ctx: Ctx,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> Result<Response, WebError> {
    let (contract, report) = report(&ctx, &id, &params.month).await?;
    Ok(download(
        &contract,
        &report,
        "json",
        "application/json",
        report.to_json(),
    ))
}

/// `GET /contracts/{id}/report.csv?month=YYYY-MM`
pub(crate) async fn csv(
    ctx: Ctx,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> Result<Response, WebError> {
    let (contract, report) = report(&ctx, &id, &params.month).await?;
    let body = report
        .to_csv()
        .map_err(|error| WebError::Internal(error.to_string()))?;
    Ok(download(
        &contract,
        &report,
        "csv",
        "text/csv; charset=utf-8",
        body,
    ))
}

fn download(
    contract: &ContractView,
    report: &MonthReport,
    end: &str,
    media_type: &'static str,
    body: String,
) -> Response {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = contract.name.chars().map(plain).collect();
    let disposition = format!("attachment; filename=\"{name}-{}.{end}\"", report.month);
    let headers = [
        (header::CONTENT_TYPE, media_type.to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_the_contracts_zone() {
        // 2026-03-31T22:30:00Z is April in Paris already.
        let at = UnixMillis(1_774_996_200_000);
        assert_eq!(month_of(at, "UTC"), "2026-03");
        assert_eq!(month_of(at, "Europe/Paris"), "2026-04");
        let first = Date::constant(2026, 1, 1);
        assert_eq!(step(first, -1), "2025-12");
        assert_eq!(step(first, 1), "2026-02");
    }
}
