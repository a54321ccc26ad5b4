//! How long the collector takes to be ready again over a large store.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::{Row, Site, Size};
use crate::{
    fleet::{Options, Pace},
    harness::{DatabaseKind, Settings},
};

const AGENTS: usize = 10_000;
/// Heartbeats of each host in the tail, which is not sealed yet.
const TAIL: u32 = 100;

/// Kills a collector with 10,000 hosts and a long tail, and starts it again.
pub(super) async fn restart(kind: DatabaseKind, size: Size) -> Result<Vec<Row>> {
    let (agents, tail) = match size {
        Size::Standard => (AGENTS, TAIL),
        Size::Trial => (AGENTS / 100, TAIL / 10),
    };
    let mut settings = Settings::product_defaults();
    settings.interval_ms = 10_000;
    let mut site = Site::start(kind, &settings, agents).await?;
    let pace = Pace::Every(Duration::from_secs(10));
    let mut options = Options::new(pace, Duration::from_secs(1));
    options.prefill_frames = tail;
    let filled = site.run(agents, options).await?;
    let store = site.collector.store().await?;
    let rows = store.int("SELECT COUNT(*) FROM heartbeat").await?;
    let mib = store.bytes().await? as f64 / 1024.0 / 1024.0;
    drop(store);

    site.collector.kill()?;
    let started = Instant::now();
    site.collector.start().await?;
    site.collector.ready().await?;
    let seconds = started.elapsed().as_secs_f64();
    let usage = crate::fleet::observe::usage(site.collector.id().context("it runs")?)?;
    let note = format!(
        "{agents} hosts, {rows} heartbeats in the tail, {mib:.0} MiB, RSS {:.0} MiB",
        usage.rss_bytes as f64 / 1024.0 / 1024.0
    );
    let backlog = filled.connect.acked as f64 / filled.connect.seconds;
    Ok(vec![
        Row::new(format!("ready again after kill -9, {kind}"), seconds, "s")
            .at_most(10.0)
            .note(note),
        Row::new(
            format!("backlog taken in batches of 100, {kind}"),
            backlog,
            "/s",
        )
        .note(format!("{agents} agents, connecting included")),
    ])
}
