//! One contract and month: the figure with both bounds, the uptime calendar, hosts, outages, link
//! incidents; the same as JSON and CSV.

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
    ledger::{ContractClass, DayCell, DayClass, HostReport, MonthReport, UnknownRule},
};
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    contracts::{share, verdict},
    host::state_word,
};
use crate::{
    reports::{self, ReportError},
    store::views::{self, ContractView},
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        parts::{Pill, Time, pill},
    },
};

/// Outages and link incidents that the page lists; the files have all.
const LISTED: usize = 40;

#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    month: String,
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
    hosts: Vec<HostRow>,
    outages: Vec<OutageRow>,
    more_outages: usize,
    links: Vec<LinkRow>,
}

struct Day {
    number: String,
    class: &'static str,
    icon: &'static str,
    text: String,
    /// For narrow screens.
    short: String,
    title: String,
}

struct HostRow {
    id: String,
    name: String,
    headline: String,
    low: String,
    high: String,
    coverage: String,
    down: String,
    unknown: String,
}

struct OutageRow {
    host: String,
    host_id: String,
    from: Time,
    length: String,
    state: Pill,
    cause: String,
    ongoing: bool,
    at: UnixMillis,
}

struct LinkRow {
    host: String,
    host_id: String,
    from: Time,
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
    Query(wanted): Query<Wanted>,
) -> Result<Response, WebError> {
    let (contract, report) = report(&ctx, &id, &wanted.month).await?;
    let figures = report.availability;
    let first = Date::strptime("%Y-%m-%d", format!("{}-01", report.month))
        .map_err(|error| WebError::Internal(error.to_string()))?;
    let (outages, more_outages) = outages(&ctx, &report);
    let running = ctx.now < report.window.to;
    html(&ContractPage {
        layout: ctx.layout("contracts").await?,
        name: contract.name,
        client: contract.client,
        kind: kind_word(&contract.kind),
        zone: report.zone.clone(),
        rule: rule_text(report.unknown_rule),
        month_name: first.strftime("%B %Y").to_string(),
        before: step(first, -1),
        after: (!running).then(|| step(first, 1)),
        running,
        state: verdict(&figures, contract.target_pct),
        headline: share(figures.headline),
        target: format::availability(contract.target_pct / 100.0),
        low: share(figures.a_min),
        high: share(figures.a_max),
        coverage: share(figures.coverage),
        down: format::span(DurationMs(figures.totals.down_ms)),
        unknown: format::span(DurationMs(figures.totals.unknown_ms)),
        blanks: vec![(); usize::try_from(first.weekday().to_monday_zero_offset()).unwrap_or(0)],
        days: report.days.iter().map(day).collect(),
        hosts: report.hosts.iter().map(host_row).collect(),
        outages,
        more_outages,
        links: links(&ctx, &report),
        month: report.month,
        id,
    })
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

fn day(cell: &DayCell) -> Day {
    let totals = cell.totals;
    let share = |part: i64| part as f64 / totals.counted_ms().max(1) as f64;
    let up = format::availability(share(totals.up_ms));
    let short = format::short_share(share(totals.up_ms));
    let number = cell
        .date
        .rsplit('-')
        .next()
        .unwrap_or_default()
        .trim_start_matches('0')
        .to_owned();
    let spans = |name: &str, ms: i64| {
        if ms == 0 {
            String::new()
        } else {
            format!(", {} {name}", format::span(DurationMs(ms)))
        }
    };
    let (class, icon, text, word) = match cell.class {
        DayClass::Up => ("up", "up", "100 %".to_owned(), "up all day"),
        DayClass::Down => ("down", "crit", up, "outage"),
        DayClass::Unknown => ("unknown", "unknown", up, "partly unknown"),
        DayClass::Excluded => (
            "none",
            "pause",
            "excluded".to_owned(),
            "excluded by agreement",
        ),
        DayClass::NotCounted => ("none", "", "–".to_owned(), "not counted"),
        DayClass::Future => ("none", "", String::new(), "not yet"),
    };
    let title = format!(
        "{}: {word}{}{}{}",
        cell.date,
        spans("down", totals.down_ms),
        spans("unknown", totals.unknown_ms),
        spans("excluded", totals.excluded_ms),
    );
    Day {
        number,
        class,
        icon,
        short: if text.ends_with('%') {
            short
        } else {
            String::new()
        },
        text,
        title,
    }
}

fn host_row(host: &HostReport) -> HostRow {
    let figures = host.availability;
    HostRow {
        id: host.host.to_string(),
        name: host.name.clone(),
        headline: share(figures.headline),
        low: share(figures.a_min),
        high: share(figures.a_max),
        coverage: share(figures.coverage),
        down: format::span(DurationMs(figures.totals.down_ms)),
        unknown: format::span(DurationMs(figures.totals.unknown_ms)),
    }
}

/// All hosts' outages, newest first, and how many were left out.
fn outages(ctx: &Ctx, report: &MonthReport) -> (Vec<OutageRow>, usize) {
    let mut rows: Vec<OutageRow> = Vec::new();
    for host in &report.hosts {
        for outage in &host.outages {
            let (tone, icon) = match outage.class {
                ContractClass::Down => ("crit", "crit"),
                ContractClass::Unknown => ("warn", "unknown"),
                _ => ("idle", "info"),
            };
            rows.push(OutageRow {
                host: host.name.clone(),
                host_id: host.host.to_string(),
                from: Time::new(outage.from, ctx.now),
                length: format::span(DurationMs(outage.duration_ms)),
                state: pill(tone, icon, state_word(outage.state)),
                cause: outage.cause_text.clone(),
                ongoing: outage.ongoing,
                at: outage.from,
            });
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.at));
    let more = rows.len().saturating_sub(LISTED);
    rows.truncate(LISTED);
    (rows, more)
}

fn links(ctx: &Ctx, report: &MonthReport) -> Vec<LinkRow> {
    let mut rows: Vec<(UnixMillis, LinkRow)> = Vec::new();
    for host in &report.hosts {
        for link in &host.link_incidents {
            let row = LinkRow {
                host: host.name.clone(),
                host_id: host.host.to_string(),
                from: Time::new(link.from, ctx.now),
                length: format::span(link.to.since(link.from)),
                frames: link.frames_late,
            };
            rows.push((link.from, row));
        }
    }
    rows.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    rows.into_iter().take(LISTED).map(|(_, row)| row).collect()
}

/// `GET /contracts/{id}/report.json?month=YYYY-MM`
pub(crate) async fn json(
    ctx: Ctx,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, WebError> {
    let (contract, report) = report(&ctx, &id, &wanted.month).await?;
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
    Query(wanted): Query<Wanted>,
) -> Result<Response, WebError> {
    let (contract, report) = report(&ctx, &id, &wanted.month).await?;
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
