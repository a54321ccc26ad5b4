//! The fleet: what is wrong now first, then every host. States come from memory, names and tickets
//! from the store.

use std::{cmp::Ordering, collections::HashMap};

use askama::Template;
use axum::{extract::Query, response::Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use watchkeep_shared::{HostId, metric};

use crate::{
    health::{Health, Signals},
    live::HostNow,
    store::views::{self, HostView},
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        pages::{
            Choice, choices, client_choices,
            troubles::{Trouble, troubles},
        },
        parts::{self, Gauge, Pill, Time},
    },
};

/// Troubles that the page lists; the rest is counted.
const TROUBLES: usize = 12;
/// Hosts on one page.
const HOSTS: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    q: String,
    client: String,
    site: String,
    state: String,
    after: String,
}

#[derive(Template)]
#[template(path = "pages/fleet.html", blocks = ["live"])]
struct FleetPage {
    layout: Layout,
    q: String,
    clients: Vec<Choice>,
    sites: Vec<Choice>,
    states: Vec<Choice>,
    filtered: bool,
    total: usize,
    up: usize,
    silent: usize,
    rejected: usize,
    waiting: usize,
    firing: usize,
    services_down: usize,
    open_tickets: i64,
    troubles: Vec<Trouble>,
    more_troubles: usize,
    rows: Vec<HostRow>,
    found: usize,
    next: String,
}

/// One line of the host table.
struct HostRow {
    id: String,
    name: String,
    client: String,
    site: String,
    state: Pill,
    alerts: u32,
    cpu: Gauge,
    memory: Gauge,
    disk: Gauge,
    services: String,
    services_down: usize,
    seen: Option<Time>,
    tickets: i64,
}

/// One host with what is true of it now.
#[derive(Debug)]
pub(crate) struct HostState {
    pub(crate) host: HostView,
    pub(crate) now: Option<HostNow>,
    pub(crate) health: Health,
    pub(crate) tickets: i64,
}

impl HostState {
    /// The newest heartbeat, while heartbeats arrive: what a host last said is not how it is now.
    pub(crate) fn current(&self) -> Option<&HostNow> {
        self.now.as_ref().filter(|_| self.health.is_up())
    }

    pub(crate) fn services_down(&self) -> usize {
        let services = self.current().into_iter().flat_map(HostNow::services_here);
        services.filter(|service| service.status.is_fault()).count()
    }

    /// The fullest disk: mount point and percentage.
    pub(crate) fn worst_disk(&self) -> Option<(&str, f64)> {
        let now = self.current()?;
        let mut worst: Option<(&str, f64)> = None;
        for (name, value) in now.names.iter().zip(&now.values) {
            if let (("disk.used_pct", Some(mount)), Some(value)) = (metric::split(name), *value)
                && worst.is_none_or(|(_, most)| value > most)
            {
                worst = Some((mount, value));
            }
        }
        worst
    }

    fn key(&self) -> (Health, &str, String) {
        (self.health, &self.host.name, self.host.id.to_string())
    }
}

/// Every host that is not retired, the worst first, then by name.
pub(crate) async fn states(ctx: &Ctx) -> Result<Vec<HostState>, WebError> {
    let app = &ctx.web.app;
    let hosts = views::hosts(&app.store).await?;
    let tickets: HashMap<HostId, i64> = views::open_tickets_by_host(&app.store)
        .await?
        .into_iter()
        .collect();
    let live = app.live.hosts();
    let mut states: Vec<HostState> = hosts
        .into_iter()
        .map(|host| {
            let id = HostId(host.id);
            let now = live.get(&id).cloned();
            let health = Health::of(host.recorded(), now.as_ref().map(Signals::from));
            HostState {
                host,
                now,
                health,
                tickets: tickets.get(&id).copied().unwrap_or(0),
            }
        })
        .collect();
    drop(live);
    states.sort_by(|a, b| a.key().cmp(&b.key()));
    Ok(states)
}

/// `GET /`
pub(crate) async fn page(ctx: Ctx, Query(wanted): Query<Wanted>) -> Result<Response, WebError> {
    let all = states(&ctx).await?;
    let app = &ctx.web.app;
    let firing = views::firing(&app.store, views::PAGE_ROWS * 4).await?;
    let open_tickets = views::open_tickets(&app.store).await?;
    let troubles = troubles(&ctx, &all, &firing);
    let count = |health: Health| all.iter().filter(|one| one.health == health).count();
    let (rows, found, next) = rows(&ctx, &all, &wanted);
    let page = FleetPage {
        layout: ctx.layout("fleet").await?,
        clients: client_choices(&ctx, &wanted.client).await?,
        sites: site_choices(&all, &wanted.site),
        states: choices(
            [
                ("", "All states"),
                ("problem", "With problems"),
                ("up", "Up"),
                ("silent", "Silent"),
                ("rejected", "Quarantined or revoked"),
                ("waiting", "No data yet"),
            ],
            &wanted.state,
        ),
        filtered: [&wanted.q, &wanted.client, &wanted.site, &wanted.state]
            .iter()
            .any(|filter| !filter.is_empty()),
        total: all.len(),
        up: count(Health::Up) + count(Health::Alerting),
        silent: count(Health::Silent),
        rejected: count(Health::Quarantined) + count(Health::Revoked),
        waiting: count(Health::Waiting),
        firing: firing.len(),
        services_down: all.iter().map(HostState::services_down).sum(),
        open_tickets,
        more_troubles: troubles.len().saturating_sub(TROUBLES),
        troubles: troubles.into_iter().take(TROUBLES).collect(),
        rows,
        found,
        next,
        q: wanted.q,
    };
    if ctx.wants_block("live") {
        html(&page.as_live())
    } else {
        html(&page)
    }
}

fn site_choices(all: &[HostState], chosen: &str) -> Vec<Choice> {
    let mut sites: Vec<(&str, String)> = all
        .iter()
        .map(|one| (one.host.site.as_str(), one.host.site_id.to_string()))
        .collect();
    sites.sort();
    sites.dedup();
    let mut list = choices([("", "All sites")], chosen);
    list.extend(sites.into_iter().map(|(name, id)| Choice {
        chosen: id == chosen,
        value: id,
        label: name.to_owned(),
    }));
    list
}

/// The table's page, how many hosts the filter finds, and the address of the next page.
fn rows(ctx: &Ctx, all: &[HostState], wanted: &Wanted) -> (Vec<HostRow>, usize, String) {
    let search = wanted.q.trim().to_lowercase();
    let is_wanted = |one: &&HostState| {
        let host = &one.host;
        one.health.is_selected_by(&wanted.state)
            && (wanted.client.is_empty() || host.client_id.to_string() == wanted.client)
            && (wanted.site.is_empty() || host.site_id.to_string() == wanted.site)
            && (search.is_empty()
                || [&host.name, &host.client, &host.site]
                    .iter()
                    .any(|text| text.to_lowercase().contains(&search)))
    };
    let found: Vec<&HostState> = all.iter().filter(is_wanted).collect();
    let start = cursor(&wanted.after).map_or(0, |after| {
        found.partition_point(|one| {
            one.key().cmp(&(after.0, &after.1, after.2.clone())) != Ordering::Greater
        })
    });
    let shown = &found[start..found.len().min(start + HOSTS)];
    let next = match shown.last() {
        Some(last) if start + shown.len() < found.len() => format::link(
            "/",
            &[
                ("q", &wanted.q),
                ("client", &wanted.client),
                ("site", &wanted.site),
                ("state", &wanted.state),
                ("after", &cursor_text(last)),
            ],
        ),
        _ => String::new(),
    };
    (
        shown.iter().map(|one| row(ctx, one)).collect(),
        found.len(),
        next,
    )
}

/// The last line of a page, so that the next begins behind it even when hosts come or go.
fn cursor_text(last: &HostState) -> String {
    let (health, name, id) = last.key();
    URL_SAFE_NO_PAD.encode(format!("{}\n{name}\n{id}", health.as_str()))
}

fn cursor(text: &str) -> Option<(Health, String, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let mut parts = text.split('\n');
    let (health, name, id) = (parts.next()?, parts.next()?, parts.next()?);
    let health = Health::ALL.into_iter().find(|one| one.as_str() == health)?;
    Some((health, name.to_owned(), id.to_owned()))
}

fn row(ctx: &Ctx, one: &HostState) -> HostRow {
    let now = one.current();
    let value = |name: &str| now.and_then(|now| now.value(name));
    let disk = one.worst_disk();
    let watched = now.map_or(0, |now| now.services_here().count());
    let down = one.services_down();
    HostRow {
        id: one.host.id.to_string(),
        name: one.host.name.clone(),
        client: one.host.client.clone(),
        site: one.host.site.clone(),
        state: parts::health(one.health),
        alerts: one.now.as_ref().map_or(0, |now| now.firing),
        cpu: Gauge::percent(value("cpu.busy_pct"), "CPU busy"),
        memory: Gauge::percent(value("mem.used_pct"), "memory used"),
        disk: Gauge::percent(
            disk.map(|(_, value)| value),
            disk.map_or_else(String::new, |(mount, _)| format!("fullest: {mount}")),
        ),
        services: match (watched, down) {
            (0, _) => "–".to_owned(),
            (all, 0) => format!("{all} running"),
            (all, down) => format!("{down} of {all} down"),
        },
        services_down: down,
        seen: one
            .now
            .as_ref()
            .map(|now| Time::new(now.last_seen_at, ctx.now)),
        tickets: one.tickets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_cursor_starts_at_the_beginning() {
        for text in ["", "%%%", "YQ", "dXAKYQ"] {
            assert_eq!(cursor(text), None, "{text}");
        }
        let text = URL_SAFE_NO_PAD.encode("up\nweb-1\n42");
        assert_eq!(
            cursor(&text),
            Some((Health::Up, "web-1".to_owned(), "42".to_owned()))
        );
    }
}
