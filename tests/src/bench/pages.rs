//! How long pages and the API take over a large store: 10,000 hosts, 500,000 tickets, a year of
//! history. Measured at a browser on a kept connection, so TLS and the loopback are in it.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Row, Size};
use crate::{
    clock::wall_now,
    fleet::{connection::Connection, tls::Trust},
    harness::{Collector, DatabaseKind, Settings},
    loopback::Target,
    seed::{Amount, id_of, seed, sign_in},
};

const TOKEN: &str = "a-session-of-the-measurement";
/// Requests of each address.
const REQUESTS: usize = 40;
/// Most that a page or an answer of the API may take.
const TARGET_MS: f64 = 50.0;

/// Seeds a store, starts the collector over it, and asks for every page and every route.
pub(super) async fn pages(
    kind: DatabaseKind,
    size: Size,
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<Row>> {
    let amount = match size {
        Size::Standard => Amount {
            hosts: 10_000,
            tickets: 500_000,
            days: 365,
        },
        Size::Trial => Amount {
            hosts: 100,
            tickets: 2_000,
            days: 40,
        },
    };
    let mut settings = Settings::product_defaults();
    // The hosts that were seeded send nothing more.
    settings.silence_after_ms = 3_000_000;
    let mut collector = Collector::create(kind, &settings).await?;
    let started = Instant::now();
    seed(collector.store_url(), amount, wall_now(), tell).await?;
    sign_in(collector.store_url(), &Sha256::digest(TOKEN), wall_now()).await?;
    let mut rows = vec![
        Row::new(
            format!("seeding a year of history, {kind}"),
            started.elapsed().as_secs_f64(),
            "s",
        )
        .note(format!(
            "{} hosts, {} tickets",
            amount.hosts, amount.tickets
        )),
    ];
    tell("the collector's start");
    let started = Instant::now();
    collector.start().await?;
    collector.ready().await?;
    rows.push(Row::new(
        format!("ready over it, {kind}"),
        started.elapsed().as_secs_f64(),
        "s",
    ));
    let ca = std::fs::read_to_string(collector.path("data/ca/ca.pem"))?;
    let target = Target::parse(&collector.web_url())?;
    let mut web = Connection::open(&target, Trust::new(&ca)?.anonymous()?).await?;
    for (name, path) in addresses(amount) {
        let (median, p99) = time(&mut web, &target.authority, &path)
            .await
            .with_context(|| path.clone())?;
        tell(&format!("{name} on {kind}: p99 {p99:.1} ms"));
        rows.push(
            Row::new(format!("{name}, {kind}, p99"), p99, "ms")
                .at_most(TARGET_MS)
                .note(format!("median {median:.1} ms")),
        );
    }
    Ok(rows)
}

/// What is asked for, with a name for people.
fn addresses(amount: Amount) -> Vec<(&'static str, String)> {
    let (client, contract) = (id_of(1, 17), id_of(2, 17));
    let (host, deep) = (id_of(4, 17), id_of(4, 3));
    let ticket = 1_001 + amount.tickets - 3;
    let now = wall_now().0;
    let series = |host, days: i64| {
        format!(
            "/api/v1/hosts/{host}/series?metric=cpu.busy_pct&metric=mem.used_pct&from={}&to={now}",
            now - days * 86_400_000
        )
    };
    vec![
        ("fleet", "/".to_owned()),
        ("fleet, worst disk first", "/?sort=-disk".to_owned()),
        ("fleet, grouped by site", "/?group=site".to_owned()),
        ("fleet, search by words", "/?q=client+17".to_owned()),
        ("fleet, page 50", "/?page=50".to_owned()),
        ("host", format!("/hosts/{host}")),
        ("host with a long history", format!("/hosts/{deep}")),
        ("re-key", format!("/hosts/{host}/rekey")),
        ("queue", "/tickets".to_owned()),
        ("queue of a client", format!("/tickets?client={client}")),
        ("queue, search", "/tickets?q=srv-17".to_owned()),
        ("all tickets", "/tickets?state=all".to_owned()),
        ("closed tickets", "/tickets?state=closed".to_owned()),
        (
            "all tickets, priority",
            "/tickets?state=all&priority=P3".to_owned(),
        ),
        (
            "all tickets, search that finds nothing",
            "/tickets?state=all&q=nothing".to_owned(),
        ),
        (
            "all tickets of a client",
            format!("/tickets?state=all&client={client}"),
        ),
        ("ticket", format!("/tickets/{ticket}")),
        ("contracts", "/contracts".to_owned()),
        ("contract, this month", format!("/contracts/{contract}")),
        ("report, JSON", format!("/contracts/{contract}/report.json")),
        ("report, CSV", format!("/contracts/{contract}/report.csv")),
        ("health", "/health".to_owned()),
        ("account", "/account".to_owned()),
        ("API: fleet", "/api/v1/fleet".to_owned()),
        ("API: host", format!("/api/v1/hosts/{host}")),
        (
            "API: an hour of a host's values",
            series(host, 0).replace(&format!("from={now}"), &format!("from={}", now - 3_600_000)),
        ),
        ("API: a day of a host's values", series(deep, 1)),
        ("API: a week of a host's values", series(deep, 7)),
        ("API: tickets", "/api/v1/tickets".to_owned()),
        ("API: ticket", format!("/api/v1/tickets/{ticket}")),
    ]
}

/// Median and 99th percentile, milliseconds, after a first request that fills caches.
async fn time(web: &mut Connection, authority: &str, path: &str) -> Result<(f64, f64)> {
    let mut took = Vec::with_capacity(REQUESTS);
    for i in 0..=REQUESTS {
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, authority)
            .header(header::COOKIE, format!("__Host-watchkeep={TOKEN}"))
            .header(header::ACCEPT_ENCODING, "gzip")
            .body(Full::<Bytes>::default())?;
        let started = Instant::now();
        let answer = web.request(request).await?;
        let elapsed = started.elapsed();
        anyhow::ensure!(answer.status == 200, "status {}", answer.status);
        if i > 0 {
            took.push(elapsed);
        }
        // So that ticks of background work fall between requests too.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort_unstable();
    let at =
        |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    Ok((at(0.5), at(0.99)))
}
