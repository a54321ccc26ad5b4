//! What is known about a silent host: how it was before, whether it said goodbye, and whether it is
//! alone.

use watchkeep_core::{
    rules::{RuleId, RuleKind},
    wording,
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::{
    health::Health,
    links::{Piece, linked},
    series,
    store::{
        descriptions,
        views::{AlertView, TicketView},
    },
    web::{context::Ctx, error::WebError, pages::host::goodbye_text, parts::Time},
};

/// How far back the last values are looked for.
const LAST_WITHIN: DurationMs = DurationMs::from_mins(30);
/// Metrics that are shown, besides the fill of each disk.
const METRICS: [&str; 5] = [
    "cpu.busy_pct",
    "load.5m",
    "mem.used_pct",
    "swap.used_pct",
    UPTIME,
];
const UPTIME: &str = "system.uptime_s";
const DISK: &str = "disk.used_pct:";
/// Disks that are shown.
const DISKS: usize = 8;
/// Other silent hosts that are named.
const OTHERS: usize = 10;

/// What a silent host's ticket shows.
pub(super) struct Silence {
    /// Names and values of the last heartbeats.
    pub(super) last: Vec<(String, String)>,
    pub(super) last_at: Option<Time>,
    pub(super) booted: Option<Time>,
    pub(super) goodbye: &'static str,
    pub(super) address: Vec<Piece>,
    /// Other silent hosts of the site: identifier and name.
    pub(super) others: Vec<(String, String)>,
    pub(super) more_others: usize,
}

/// `None` for a ticket that is not about a silent host.
pub(super) async fn silence(
    ctx: &Ctx,
    ticket: &TicketView,
    opener: Option<&AlertView>,
) -> Result<Option<Silence>, WebError> {
    let app = &ctx.web.app;
    let is_silence = |alert: &&AlertView| {
        let rule = app.config.rules.rule(&RuleId(alert.rule_id.clone()));
        rule.is_some_and(|rule| matches!(rule.kind, RuleKind::Silent))
    };
    let (Some(host), Some(opener)) = (ticket.host_id, opener.filter(is_silence)) else {
        return Ok(None);
    };
    let host = HostId(host);
    let now = app.live.host(host);
    let names = now.as_ref().map(|now| wanted(&now.names));
    let last = last_values(
        ctx,
        host,
        &names.unwrap_or_default(),
        UnixMillis(opener.raised_at),
    )
    .await?;
    let uptime = last.iter().find(|(name, ..)| name == UPTIME);
    let booted =
        uptime.map(|(_, at, s)| Time::new(*at - DurationMs((s * 1_000.0) as i64), ctx.now));
    let address = descriptions::of(&app.store, host).await?;
    let others = others(ctx, ticket).await?;
    Ok(Some(Silence {
        last_at: last
            .iter()
            .map(|(_, at, _)| *at)
            .max()
            .map(|at| Time::new(at, ctx.now)),
        last: last
            .iter()
            .filter(|(name, ..)| name != UPTIME)
            .map(|(name, _, value)| (wording::label(name), wording::value(name, *value)))
            .collect(),
        booted,
        goodbye: now
            .filter(|now| now.silent)
            .and_then(|now| now.goodbye)
            .map_or("", goodbye_text),
        address: address.map(|one| linked(&one.address)).unwrap_or_default(),
        more_others: others.len().saturating_sub(OTHERS),
        others: others.into_iter().take(OTHERS).collect(),
    }))
}

fn wanted<S: AsRef<str>>(names: &[S]) -> Vec<String> {
    let has = |name: &str| names.iter().any(|one| one.as_ref() == name);
    let mut wanted: Vec<String> = METRICS
        .iter()
        .filter(|name| has(name))
        .map(|name| (*name).to_owned())
        .collect();
    let disks = names.iter().map(AsRef::as_ref);
    let disks = disks.filter(|name| name.starts_with(DISK)).take(DISKS);
    wanted.extend(disks.map(str::to_owned));
    wanted
}

/// The newest value of each metric up to an instant.
async fn last_values(
    ctx: &Ctx,
    host: HostId,
    names: &[String],
    until: UnixMillis,
) -> Result<Vec<(String, UnixMillis, f64)>, WebError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let request = series::Request {
        names,
        from: until - LAST_WITHIN,
        to: until + DurationMs(1),
    };
    let found = series::read(&ctx.web.app, host, request).await?;
    let last = found.into_iter().filter_map(|series| {
        let mut newest = series.points.iter().rev();
        let (at, value) = newest.find_map(|(at, value)| Some((*at, (*value)?)))?;
        Some((series.name, at, value))
    });
    Ok(last.collect())
}

async fn others(ctx: &Ctx, ticket: &TicketView) -> Result<Vec<(String, String)>, WebError> {
    let snapshot = ctx.web.fleet.snapshot(&ctx.web.app).await?;
    let silent = snapshot.rows().iter().filter(|row| {
        let view = &row.host.view;
        row.health == Health::Silent
            && ticket.site_id == Some(view.site_id)
            && ticket.host_id != Some(view.id)
    });
    let named = silent.map(|row| (row.host.view.id.to_string(), row.host.view.name.clone()));
    Ok(named.collect())
}
