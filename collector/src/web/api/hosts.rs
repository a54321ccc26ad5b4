//! The fleet, page by page, and one host.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, Query},
};
use serde::{Deserialize, Serialize};
use watchkeep_shared::wire::heartbeat::Service;

use super::host_id;
use crate::{
    fleet::{self, Row},
    health::{Health, Signals},
    store::views,
    web::{context::Ctx, error::WebError, pages::fleet as fleet_page},
};

/// Hosts in one answer.
const MAX_HOSTS: usize = 1_000;
const DEFAULT_HOSTS: usize = 100;

#[derive(Debug, Serialize)]
pub(super) struct FleetPage {
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
pub(super) struct Part {
    limit: String,
    after: String,
}

/// `GET /fleet?q=WORDS&client=ID&site=ID&state=STATE&sort=COLUMN&limit=N&after=CURSOR`
pub(super) async fn fleet_list(
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
pub(super) struct Host {
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

pub(super) async fn host(ctx: Ctx, Path(id): Path<String>) -> Result<Json<Host>, WebError> {
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
