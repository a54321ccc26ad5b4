//! The fleet: what is wrong now first, then a table of hosts. Filters choose what the whole page is
//! about; the state chooses rows of the table.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Query, RawQuery},
    response::Response,
};
use serde::Deserialize;
use uuid::Uuid;
use watchkeep_core::{ids::SiteId, search::Words};

use crate::{
    fleet::{Column, Filter, Row, Snapshot, Sort, Totals, sort},
    health::Health,
    store::{
        fleet as rows,
        views::{self, TicketFilter},
    },
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        pages::{
            Choice, choices, named_choices,
            problems::{Problem, Problems, problems},
        },
        parts::{self, Gauge, Pill, Time},
    },
};

/// Problems that the page lists; the rest is counted.
const PROBLEMS: usize = 12;
/// Hosts on one page.
const HOSTS: usize = 100;
/// Sites to choose from.
const SITES: usize = 1_000;
const STATES: [(&str, &str); 6] = [
    ("", "All states"),
    ("problem", "With problems"),
    ("up", "Up"),
    ("silent", "Silent"),
    ("rejected", "Quarantined or revoked"),
    ("waiting", "No data yet"),
];
/// The table's columns, and what each is sorted by.
const HEADINGS: [(&str, Column); 8] = [
    ("Host", Column::Name),
    ("State", Column::State),
    ("CPU", Column::Cpu),
    ("Memory", Column::Memory),
    ("Fullest disk", Column::Disk),
    ("Services", Column::Services),
    ("Tickets", Column::Tickets),
    ("Last heartbeat", Column::LastHeartbeat),
];

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Params {
    pub(crate) q: String,
    pub(crate) client: String,
    pub(crate) site: String,
    pub(crate) state: String,
    pub(crate) sort: String,
    /// `site`: hosts are grouped by site.
    pub(crate) group: String,
    /// From 1.
    pub(crate) page: String,
}

impl Params {
    /// Which hosts the page is about.
    pub(crate) fn filter(&self) -> Result<Filter, WebError> {
        let id = |text: &str, what: &str| match text {
            "" => Ok(None),
            text => text
                .parse::<Uuid>()
                .map(Some)
                .map_err(|_| WebError::Bad(format!("{what}: not the id of a {what}"))),
        };
        Ok(Filter {
            words: Words::new(&self.q),
            client: id(&self.client, "client")?,
            site: id(&self.site, "site")?,
        })
    }

    fn is_scoped(&self) -> bool {
        [&self.q, &self.client, &self.site]
            .iter()
            .any(|filter| !filter.is_empty())
    }

    /// This page's address with some parameters changed. The page number is not kept.
    fn with(&self, changes: &[(&str, &str)]) -> String {
        let own = [
            ("q", &*self.q),
            ("client", &self.client),
            ("site", &self.site),
            ("state", &self.state),
            ("sort", &self.sort),
            ("group", &self.group),
            ("page", ""),
        ];
        format::link("/", &format::changed(own, changes))
    }
}

#[derive(Template)]
#[template(path = "pages/fleet.html", blocks = ["live"])]
struct FleetPage {
    layout: Layout,
    params: Params,
    clients: Vec<Choice>,
    sites: Vec<Choice>,
    states: Vec<Choice>,
    sorts: Vec<Choice>,
    /// Search, client or site: the whole page is about a part of the fleet.
    scoped: bool,
    /// Hosts in all.
    fleet: usize,
    /// What to do while there is none.
    start: Option<Start>,
    totals: Totals,
    tickets: TicketTile,
    problems: Vec<Problem>,
    all_problems: usize,
    /// Alerts of silent hosts that are not among the problems.
    alerts_of_silent: usize,
    headings: Vec<Heading>,
    rows: Vec<HostLine>,
    found: usize,
    pages: Pages,
}

impl FleetPage {
    fn href(&self, changes: &[(&str, &str)]) -> String {
        self.params.with(changes)
    }
}

/// How many tickets are open, and where they are listed.
struct TicketTile {
    label: &'static str,
    count: i64,
    /// Empty if no list shows just these.
    href: String,
}

impl TicketTile {
    async fn of(ctx: &Ctx, params: &Params, totals: Totals) -> Result<Self, WebError> {
        let filter = params.filter()?;
        if !filter.words.is_empty() {
            return Ok(Self {
                label: "Open tickets of these hosts",
                count: totals.tickets as i64,
                href: String::new(),
            });
        }
        let filter = TicketFilter {
            client: filter.client,
            site: filter.site.map(SiteId),
            ..TicketFilter::open()
        };
        let parameters = [("client", &*params.client), ("site", &params.site)];
        Ok(Self {
            label: "Open tickets",
            count: views::queue_count(&ctx.web.app.store, &filter).await?,
            href: format::link("/tickets", &parameters),
        })
    }
}

/// The head of a column.
struct Heading {
    label: &'static str,
    href: String,
    /// `ascending`, `descending`, or empty.
    sorted: &'static str,
}

/// Which page of the table is shown.
struct Pages {
    this: usize,
    all: usize,
    previous: Option<String>,
    next: Option<String>,
}

/// One line of the host table.
struct HostLine {
    /// Before the first host of a site, where hosts are grouped.
    group: Option<Group>,
    id: String,
    name: String,
    client: String,
    site: String,
    state: Pill,
    alerts: usize,
    cpu: Gauge,
    memory: Gauge,
    disk: Gauge,
    services: String,
    services_down: u32,
    /// Heartbeats arrive: when the newest did says nothing.
    up: bool,
    last_heartbeat: Option<Time>,
    tickets: u32,
    tickets_href: String,
}

/// A site in the table.
struct Group {
    client: String,
    site: String,
    hosts: usize,
    problems: usize,
}

/// Command lines that lead to the first host.
struct Start {
    config: String,
    /// A site that a token can be made for.
    site: Option<String>,
}

impl Start {
    async fn of(ctx: &Ctx) -> Result<Self, WebError> {
        let sites = rows::sites(&ctx.web.app.store).await?;
        Ok(Self {
            config: format::shell_word(&ctx.web.app.config.file),
            site: sites.first().map(|site| format::shell_word(&site.name)),
        })
    }
}

/// `GET /`
pub(crate) async fn page(
    ctx: Ctx,
    RawQuery(query): RawQuery,
    Query(params): Query<Params>,
) -> Result<Response, WebError> {
    let address = params.with(&[("page", &params.page)]);
    if let Some(elsewhere) = ctx.shorter_address(query.as_deref(), &address) {
        return Ok(elsewhere);
    }
    let app = &ctx.web.app;
    let snapshot = ctx.web.fleet.snapshot(app).await?;
    let scope = snapshot.select(&params.filter()?);
    let totals = Totals::of(scope.iter().copied());
    let scoped = params.is_scoped();
    let table = Table::new(&ctx, &scope, &params);
    // Who pages through hosts has seen the problems.
    let problems = if table.pages.this == 1 && params.state.is_empty() {
        problems(&ctx, &scope, PROBLEMS).await?
    } else {
        Problems::default()
    };
    let page = FleetPage {
        layout: ctx.layout("fleet").await?,
        clients: named_choices(&snapshot.directory.clients, "All clients", &params.client),
        sites: site_choices(&snapshot, &params.site),
        states: choices(STATES, &params.state),
        sorts: sort_choices(&params.sort),
        scoped,
        fleet: snapshot.rows().len(),
        start: match snapshot.rows() {
            [] => Some(Start::of(&ctx).await?),
            _ => None,
        },
        totals,
        tickets: TicketTile::of(&ctx, &params, totals).await?,
        all_problems: problems.total,
        alerts_of_silent: problems.alerts_of_silent,
        problems: problems.shown,
        headings: headings(&params),
        rows: table.rows,
        found: table.found,
        pages: table.pages,
        params,
    };
    if ctx.wants_block("live") {
        html(&page.as_live())
    } else {
        html(&page)
    }
}

fn site_choices(snapshot: &Snapshot, chosen: &str) -> Vec<Choice> {
    let mut list = choices([("", "All sites")], chosen);
    let sites = snapshot.directory.sites.iter().take(SITES);
    list.extend(sites.map(|site| {
        let value = site.id.to_string();
        Choice {
            chosen: value == chosen,
            value,
            label: format!("{} · {}", site.client, site.name),
        }
    }));
    list
}

/// For narrow screens, which have no column heads.
fn sort_choices(chosen: &str) -> Vec<Choice> {
    let columns = Column::ALL.into_iter().map(|column| {
        let label = match column {
            Column::State => "State, worst first",
            Column::Name => "Name",
            Column::Site => "Client and site",
            Column::Cpu => "CPU, busiest first",
            Column::Memory => "Memory, fullest first",
            Column::Disk => "Disk, fullest first",
            Column::Services => "Services down",
            Column::Tickets => "Open tickets",
            Column::LastHeartbeat => "Last heartbeat, oldest first",
        };
        (first_order(column), label)
    });
    columns
        .map(|(value, label)| Choice {
            chosen: value == chosen || (chosen.is_empty() && value == "state"),
            label: label.to_owned(),
            value,
        })
        .collect()
}

fn first_order(column: Column) -> String {
    let sign = if column.first_descending() { "-" } else { "" };
    format!("{sign}{}", column.as_str())
}

fn headings(params: &Params) -> Vec<Heading> {
    let sort = Sort::parse(&params.sort);
    let headings = HEADINGS.into_iter().map(|(label, column)| {
        let is_sorted = sort.column == column;
        let next = match (is_sorted, sort.descending) {
            (true, true) => column.as_str().to_owned(),
            (true, false) => format!("-{}", column.as_str()),
            (false, _) => first_order(column),
        };
        Heading {
            label,
            href: params.with(&[("sort", &next)]),
            sorted: match (is_sorted, sort.descending) {
                (false, _) => "",
                (true, false) => "ascending",
                (true, true) => "descending",
            },
        }
    });
    headings.collect()
}

/// The part of the table that one page shows.
struct Table {
    rows: Vec<HostLine>,
    /// Hosts on all pages.
    found: usize,
    pages: Pages,
}

impl Table {
    fn new(ctx: &Ctx, scope: &[&Row], params: &Params) -> Self {
        let mut found: Vec<&Row> = scope
            .iter()
            .filter(|row| row.health.is_selected_by(&params.state))
            .copied()
            .collect();
        let by_site = params.group == "site";
        let order = Sort {
            by_site,
            ..Sort::parse(&params.sort)
        };
        sort(&mut found, order);
        let all = found.len().div_ceil(HOSTS).max(1);
        let this = params.page.parse().unwrap_or(1).clamp(1, all);
        let shown = found.chunks(HOSTS).nth(this - 1).unwrap_or_default();
        let to = |page: usize| params.with(&[("page", &page.to_string())]);
        let mut rows: Vec<HostLine> = shown.iter().map(|row| host_row(ctx, row)).collect();
        if by_site {
            add_groups(&mut rows, shown, &found);
        }
        Self {
            rows,
            found: found.len(),
            pages: Pages {
                this,
                all,
                previous: (this > 1).then(|| to(this - 1)),
                next: (this < all).then(|| to(this + 1)),
            },
        }
    }
}

/// Puts a head before the first host of each site.
fn add_groups(rows: &mut [HostLine], shown: &[&Row], found: &[&Row]) {
    let mut counts: HashMap<usize, (usize, usize)> = HashMap::new();
    for row in found {
        let count = counts.entry(row.host.site).or_default();
        count.0 += 1;
        count.1 += usize::from(row.health.is_problem());
    }
    let mut last = None;
    for (line, row) in rows.iter_mut().zip(shown) {
        let site = row.host.site;
        if last.replace(site) != Some(site) {
            let (hosts, problems) = counts.get(&site).copied().unwrap_or_default();
            line.group = Some(Group {
                client: row.host.view.client.clone(),
                site: row.host.view.site.clone(),
                hosts,
                problems,
            });
        }
    }
}

fn host_row(ctx: &Ctx, row: &Row) -> HostLine {
    let host = &row.host.view;
    let figures = row.figures;
    let disk = row.worst_disk();
    HostLine {
        group: None,
        id: row.host.id().to_string(),
        name: host.name.clone(),
        client: host.client.clone(),
        site: host.site.clone(),
        state: parts::health(row.health),
        alerts: row.firing(),
        cpu: Gauge::percent(figures.cpu, "CPU busy"),
        memory: Gauge::percent(figures.memory, "memory used"),
        disk: Gauge::percent(
            disk.map(|(_, value)| value),
            disk.map_or_else(String::new, |(mount, _)| format!("fullest: {mount}")),
        ),
        services: match (figures.services, figures.services_down) {
            (0, _) => "–".to_owned(),
            (all, 0) => format!("{all} running"),
            (all, down) => format!("{down} of {all} down"),
        },
        services_down: figures.services_down,
        up: row.health.is_up(),
        last_heartbeat: (row.health != Health::Waiting)
            .then(|| Time::new(row.last_heartbeat_at(), ctx.now)),
        tickets: row.tickets,
        tickets_href: format::link("/tickets", &[("host", &host.id.to_string())]),
    }
}
