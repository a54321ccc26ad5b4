//! What is wrong now, for the top of the fleet's page.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use uuid::Uuid;
use watchkeep_core::{ids::AlertId, rules::Severity};
use watchkeep_shared::UnixMillis;

use super::AlertRow;
use crate::{
    fleet::Row,
    health::Health,
    live::FiringAlert,
    store::{StoreError, views},
    web::{context::Ctx, format, parts::Time},
};

/// From so many silent hosts of one site on, the site is named instead of each host.
const SITE_AT_ONCE: usize = 4;

/// Something that is wrong now.
pub(crate) struct Problem {
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

/// The worst problems, and how many there are in all.
#[derive(Default)]
pub(crate) struct Problems {
    pub(crate) shown: Vec<Problem>,
    pub(crate) total: usize,
    /// Alerts of silent hosts beside their silence: they say nothing new.
    pub(crate) alerts_of_silent: usize,
}

/// A problem before its text is read.
enum Candidate<'a> {
    SilentSite(Vec<&'a Row>),
    SilentHost(&'a Row),
    Alert(&'a Row, FiringAlert),
}

impl Candidate<'_> {
    /// The worst first, then the newest.
    fn rank(&self) -> (u8, Reverse<UnixMillis>) {
        match self {
            Self::SilentSite(rows) => (0, Reverse(newest(rows))),
            Self::SilentHost(row) => (0, Reverse(row.last_heartbeat_at())),
            Self::Alert(_, alert) => {
                let rank = match alert.severity {
                    Severity::Critical => 0,
                    Severity::Warning => 1,
                    Severity::Info => 2,
                };
                (rank, Reverse(alert.since))
            }
        }
    }

    /// The alert with more detail.
    fn alert(&self) -> Option<AlertId> {
        match self {
            Self::SilentSite(_) => None,
            Self::SilentHost(row) => row.silence(),
            Self::Alert(_, alert) => Some(alert.id),
        }
    }
}

/// The `limit` worst problems of these hosts. Of silent hosts only the silence is one.
pub(crate) async fn problems(
    ctx: &Ctx,
    rows: &[&Row],
    limit: usize,
) -> Result<Problems, StoreError> {
    let mut candidates = silences(rows);
    let hears = |row: &Row| !matches!(row.health, Health::Silent | Health::Revoked);
    let mut alerts_of_silent = 0;
    for row in rows {
        if !hears(row) {
            alerts_of_silent += row.firing() - usize::from(row.silence().is_some());
            continue;
        }
        let firing = row.now.iter().flat_map(|now| now.firing.iter());
        candidates.extend(firing.map(|alert| Candidate::Alert(row, *alert)));
    }
    let total = candidates.len();
    candidates.sort_by_key(Candidate::rank);
    candidates.truncate(limit);
    let ids: Vec<AlertId> = candidates.iter().filter_map(Candidate::alert).collect();
    let alerts = views::alerts(&ctx.web.app.store, &ids).await?;
    let alerts: HashMap<Uuid, views::AlertView> =
        alerts.into_iter().map(|one| (one.id, one)).collect();
    let shown = candidates.iter().filter_map(|candidate| {
        let alert = candidate.alert().and_then(|id| alerts.get(&id.uuid()));
        match candidate {
            Candidate::SilentSite(rows) => Some(silent_site(ctx, rows)),
            Candidate::SilentHost(row) => Some(silent_host(ctx, row, alert)),
            // Not there: it was cleared a moment ago.
            Candidate::Alert(row, _) => Some(firing_alert(ctx, row, alert?)),
        }
    });
    Ok(Problems {
        shown: shown.collect(),
        total,
        alerts_of_silent,
    })
}

/// Silent hosts; where many of a site are, one entry for the site.
fn silences<'a>(rows: &[&'a Row]) -> Vec<Candidate<'a>> {
    let mut sites: BTreeMap<usize, Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.health == Health::Silent) {
        sites.entry(row.host.site).or_default().push(row);
    }
    let mut candidates = Vec::new();
    for rows in sites.into_values() {
        if rows.len() >= SITE_AT_ONCE {
            candidates.push(Candidate::SilentSite(rows));
        } else {
            candidates.extend(rows.into_iter().map(Candidate::SilentHost));
        }
    }
    candidates
}

fn newest(rows: &[&Row]) -> UnixMillis {
    let newest = rows.iter().map(|row| row.last_heartbeat_at()).max();
    newest.unwrap_or(UnixMillis(0))
}

fn location(row: &Row) -> String {
    format!("{} · {}", row.host.view.client, row.host.view.site)
}

fn silent_site(ctx: &Ctx, rows: &[&Row]) -> Problem {
    let (name, client, site) = rows.first().map_or(("", "", Uuid::nil()), |row| {
        let host = &row.host.view;
        (&host.site, &host.client, host.site_id)
    });
    let href = format::link("/", &[("state", "silent"), ("site", &site.to_string())]);
    Problem {
        tone: "crit",
        icon: "silent",
        word: "Silent",
        title: format!("{} hosts at {name} are silent", rows.len()),
        href: href.clone(),
        host: name.to_owned(),
        host_href: href,
        what: format!("{client} · probably the site or its internet connection"),
        since: Time::new(newest(rows), ctx.now),
        number: None,
    }
}

fn silent_host(ctx: &Ctx, row: &Row, alert: Option<&views::AlertView>) -> Problem {
    let number = alert.and_then(|alert| alert.number);
    let host_href = format!("/hosts/{}", row.host.id());
    let at = row.last_heartbeat_at();
    Problem {
        tone: "crit",
        icon: "silent",
        word: "Silent",
        title: format!("{} is silent", row.host.view.name),
        href: number.map_or_else(|| host_href.clone(), |n| format!("/tickets/{n}")),
        host: row.host.view.name.clone(),
        host_href,
        what: format!(
            "{} · last heartbeat {}",
            location(row),
            format::ago(at, ctx.now)
        ),
        since: Time::new(at, ctx.now),
        number,
    }
}

fn firing_alert(ctx: &Ctx, row: &Row, alert: &views::AlertView) -> Problem {
    let alert = AlertRow::of(ctx, alert);
    let host_href = format!("/hosts/{}", row.host.id());
    Problem {
        tone: alert.tone,
        icon: alert.icon,
        word: alert.word,
        title: alert.summary,
        href: alert
            .number
            .map_or_else(|| host_href.clone(), |n| format!("/tickets/{n}")),
        host: row.host.view.name.clone(),
        host_href,
        what: format!("{} · rule {}", location(row), alert.rule),
        since: alert.since,
        number: alert.number,
    }
}
