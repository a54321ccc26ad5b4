//! The collector or its PostgreSQL server does not run for longer than a host may be silent: nobody
//! is called silent, the time is the collector's own, and heartbeats are taken again at once.
//! `tests/held_up.sh` makes it a minute, with the product's own limits. What only root can do to a
//! disk is in `tests/machine/disk.rs`.

use std::io::Write as _;

use anyhow::Result;
use watchkeep_tests::{
    both_stores,
    harness::{Collector, Database, DatabaseKind, PostgresServer},
    held_up::{Found, HeldUp, Times},
};

both_stores!(a_stopped_collector_bothers_nobody);

async fn a_stopped_collector_bothers_nobody(kind: DatabaseKind) -> Result<()> {
    let times = Times::of_environment()?;
    let collector = Collector::create(kind, &times.settings).await?;
    let mut held = HeldUp::start(collector, times).await?;
    let span = held
        .hold(
            async |collector| collector.pause(),
            async |collector| collector.resume(),
        )
        .await?;
    print(
        &format!("collector stopped, {kind:?}"),
        held.finish(span, true).await?,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_database_server_bothers_nobody() -> Result<()> {
    let times = Times::of_environment()?;
    let server = PostgresServer::start().await?;
    let database = Database::at(server.url());
    let collector = Collector::create_with(database, &times.settings).await?;
    let mut held = HeldUp::start(collector, times).await?;
    let span = held
        .hold(async |_| server.freeze(), async |_| server.thaw())
        .await?;
    print("PostgreSQL frozen", held.finish(span, true).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_server_that_is_down_bothers_nobody() -> Result<()> {
    let times = Times::of_environment()?;
    let mut server = PostgresServer::start().await?;
    let database = Database::at(server.url());
    let collector = Collector::create_with(database, &times.settings).await?;
    let mut held = HeldUp::start(collector, times).await?;
    server.go_down().await?;
    let span = held
        .hold(async |_| Ok(()), async |_| server.go_up().await)
        .await?;
    print("PostgreSQL down", held.finish(span, true).await?)
}

/// Read by `tests/held_up.sh`.
fn print(what: &str, found: Found) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "held up: {what}: {found}")?)
}
