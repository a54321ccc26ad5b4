//! What is wrong now, for the top of the fleet's page.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
};

use uuid::Uuid;
use watchkeep_shared::UnixMillis;

use super::{AlertRow, fleet::HostState};
use crate::{
    health::Health,
    store::views,
    web::{context::Ctx, format, parts::Time},
};

/// From so many silent hosts of one site on, the site is named instead of each host.
const SITE_AT_ONCE: usize = 4;

/// Something that is wrong now.
pub(crate) struct Trouble {
    pub(crate) tone: &'static str,
    pub(crate) icon: &'static str,
    pub(crate) word: &'static str,
    pub(crate) title: String,
    pub(crate) href: String,
    pub(crate) host: String,
    pub(crate) host_href: String,
    pub(crate) what: String,
    pub(crate) since: Time,
    pub(crate) number: Option<i64>,
}

/// What is wrong now, the worst and then the newest first. Alerts of silent hosts are left out:
/// they say nothing new.
pub(crate) fn troubles(ctx: &Ctx, all: &[HostState], firing: &[views::AlertView]) -> Vec<Trouble> {
    let mut list = silences(ctx, all, firing);
    let silent: HashSet<Uuid> = all
        .iter()
        .filter(|one| one.health == Health::Silent)
        .map(|one| one.host.id)
        .collect();
    let others = firing
        .iter()
        .filter(|alert| !silent.contains(&alert.host_id));
    list.extend(others.map(|alert| alert_trouble(ctx, alert)));
    let rank = |tone: &str| match tone {
        "crit" => 0,
        "warn" => 1,
        _ => 2,
    };
    list.sort_by_key(|one| (rank(one.tone), Reverse(one.since.instant())));
    list
}

fn alert_trouble(ctx: &Ctx, alert: &views::AlertView) -> Trouble {
    let row = AlertRow::of(alert, ctx.now);
    let host_href = format!("/hosts/{}", row.host_id);
    Trouble {
        tone: row.tone,
        icon: row.icon,
        word: row.word,
        title: row.summary,
        href: row
            .number
            .map_or_else(|| host_href.clone(), |n| format!("/tickets/{n}")),
        host: row.host,
        host_href,
        what: format!("rule {}", row.rule),
        since: row.since,
        number: row.number,
    }
}

/// Silent hosts; where many of a site are, one line for the site.
fn silences(ctx: &Ctx, all: &[HostState], firing: &[views::AlertView]) -> Vec<Trouble> {
    let mut sites: BTreeMap<Uuid, Vec<&HostState>> = BTreeMap::new();
    for one in all.iter().filter(|one| one.health == Health::Silent) {
        sites.entry(one.host.site_id).or_default().push(one);
    }
    let mut list = Vec::new();
    for (site, hosts) in sites {
        if hosts.len() >= SITE_AT_ONCE {
            list.push(silent_site(ctx, site, &hosts));
        } else {
            list.extend(hosts.iter().map(|one| silent_host(ctx, one, firing)));
        }
    }
    list
}

fn last_seen(one: &HostState) -> UnixMillis {
    let enrolled = UnixMillis(one.host.enrolled_at);
    one.now.as_ref().map_or(enrolled, |now| now.last_seen_at)
}

fn silent_site(ctx: &Ctx, site: Uuid, hosts: &[&HostState]) -> Trouble {
    let newest = hosts.iter().map(|one| last_seen(one)).max();
    let (name, client) = hosts
        .first()
        .map_or(("", ""), |one| (&one.host.site, &one.host.client));
    let href = format::link("/", &[("state", "silent"), ("site", &site.to_string())]);
    Trouble {
        tone: "crit",
        icon: "silent",
        word: "Silent",
        title: format!("{} hosts at {name} are silent", hosts.len()),
        href: href.clone(),
        host: name.to_owned(),
        host_href: href,
        what: format!("{client} · probably the site or its internet connection"),
        since: Time::new(newest.unwrap_or(ctx.now), ctx.now),
        number: None,
    }
}

fn silent_host(ctx: &Ctx, one: &HostState, firing: &[views::AlertView]) -> Trouble {
    let alert = firing.iter().find(|alert| alert.host_id == one.host.id);
    let number = alert.and_then(|alert| alert.number);
    let host_href = format!("/hosts/{}", one.host.id);
    Trouble {
        tone: "crit",
        icon: "silent",
        word: "Silent",
        title: format!("{} is silent", one.host.name),
        href: number.map_or_else(|| host_href.clone(), |n| format!("/tickets/{n}")),
        host: one.host.name.clone(),
        host_href,
        what: format!(
            "{} · {} · last heartbeat {}",
            one.host.client,
            one.host.site,
            format::ago(last_seen(one), ctx.now)
        ),
        since: Time::new(last_seen(one), ctx.now),
        number,
    }
}
