//! The collector is killed again and again under load: nothing acknowledged is lost, nothing is
//! stored twice, tickets are neither lost nor doubled, and its own absence is no host's outage.
//! tests/kill.sh repeats it with more kills.

use std::{
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rand::RngExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use watchkeep_tests::{
    both_stores,
    fleet::{
        self, Breach, Identities, Options, Outside, Pace, Report, journal::Journal, machine::Forced,
    },
    harness::{Collector, DatabaseKind, Settings, proxy::Line, wait_for},
    store::Store,
};

use crate::views;

const AGENTS: usize = 200;
/// Kills in the suite.
const KILLS: u32 = 20;
/// The variable that names another number of kills.
const KILLS_VARIABLE: &str = "WATCHKEEP_KILLS";
const BREACHING_AGENTS: usize = 20;
const INTERVAL_MS: u32 = 2_000;
const SOON: Duration = Duration::from_mins(2);

both_stores!(kills_lose_and_double_nothing);

async fn kills_lose_and_double_nothing(kind: DatabaseKind) -> Result<()> {
    let kills = match std::env::var(KILLS_VARIABLE) {
        Ok(text) => text.parse().context(KILLS_VARIABLE)?,
        Err(_) => KILLS,
    };
    let settings = Settings {
        interval_ms: INTERVAL_MS,
        // Long enough that agents come back in time after each kill: silence is not the subject.
        silence_after_ms: 30_000,
        grace_ms: 30_000,
        ..Settings::default()
    };
    let (mut collector, proxy) = Collector::create_behind_proxy(kind, &settings).await?;
    collector.start().await?;
    let identities = Identities::enrol(&collector.token(AGENTS).await?, AGENTS).await?;
    let journal = collector.path("journal");
    let stop = CancellationToken::new();
    let fleet_stop = stop.clone().drop_guard();
    let fleet = start_fleet(identities, &journal, stop);
    let store = collector.store().await?;
    let mut longest_start = Duration::ZERO;
    for kill in 0..kills {
        more_heartbeats(&store).await?;
        let moment = rand::rng().random_range(0..500);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        collector.kill().with_context(|| format!("kill {kill}"))?;
        let killed = Instant::now();
        collector.start().await?;
        longest_start = longest_start.max(killed.elapsed());
    }
    more_heartbeats(&store).await?;

    // Once more, and the agents are kept away: the gap is the collector's own until their frames arrive.
    proxy.set(Line::Close);
    collector.kill()?;
    // Longer than frames may lie apart without leaving a gap (the agents' `max_step_ms`).
    tokio::time::sleep(Duration::from_millis(u64::from(INTERVAL_MS) * 5)).await;
    collector.start().await?;
    the_gap_is_the_collectors(&collector, &store).await;
    proxy.set(Line::Pass);
    every_gap_is_proven_up(&collector, &store).await;
    drop(fleet_stop);
    let run = fleet.await??;

    assert_eq!((run.owed, run.lost), (0, 0), "{run}");
    assert!(run.rejected.is_empty(), "{run}");
    let stored = views::heartbeats(&store).await?;
    let acknowledged = Journal::read(&journal)?;
    let missing = acknowledged.difference(&stored).count();
    assert_eq!(missing, 0, "acknowledged heartbeats are missing; {run}");
    assert_eq!(stored.len() as u64, run.made, "{run}");
    tickets_and_gaps_are_right(&store, kills).await?;
    // The last kill is the one that keeps the agents away. Read by tests/kill.sh.
    writeln!(
        std::io::stdout(),
        "{kind:?}: {} kills, {} acknowledged, {} stored, longest start {} ms",
        kills + 1,
        acknowledged.len(),
        stored.len(),
        longest_start.as_millis()
    )?;
    collector.stop().await
}

fn start_fleet(
    identities: Identities,
    journal: &Path,
    stop: CancellationToken,
) -> JoinHandle<Result<Report>> {
    let pace = Pace::Every(Duration::from_millis(INTERVAL_MS.into()));
    let options = Options {
        journal: Some(journal.to_owned()),
        breach: Some(Breach {
            agents: BREACHING_AGENTS,
            forced: Forced {
                metric: "mem.used_pct".to_owned(),
                value: 99.0,
            },
            after: Duration::from_secs(10),
        }),
        log_matches_per_1000: 0,
        drain: SOON,
        ..Options::new(pace, Duration::from_mins(15))
    };
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(fleet::run(&identities, options, &Outside::default(), stop))
    })
}

/// Waits until half as many heartbeats as there are agents have been added.
async fn more_heartbeats(store: &Store) -> Result<()> {
    let sql = "SELECT COUNT(*) FROM heartbeat";
    let before = store.int(sql).await?;
    wait_for("the agents beat again", SOON, async || {
        let more = store.int(sql).await? - before;
        Ok((more >= AGENTS as i64 / 2).then_some(()))
    })
    .await;
    Ok(())
}

async fn tickets_and_gaps_are_right(store: &Store, kills: u32) -> Result<()> {
    let count = async |condition: &str| {
        store
            .int(&format!("SELECT COUNT(*) FROM ticket WHERE {condition}"))
            .await
    };
    let breaching = BREACHING_AGENTS as i64;
    assert_eq!(
        count("check_key = 'mem.used_pct' AND state = 'new'").await?,
        breaching
    );
    let others = "SELECT title FROM ticket WHERE check_key <> 'mem.used_pct'";
    let others = store.rows(others).await?;
    assert!(others.is_empty(), "false tickets: {others:?}");
    let hosts = "SELECT COUNT(DISTINCT host_id) FROM ticket";
    assert_eq!(store.int(hosts).await?, breaching);
    let opened = "SELECT COUNT(*) FROM ticket_event WHERE kind = 'opened'";
    assert_eq!(store.int(opened).await?, breaching);
    let gaps = "SELECT COUNT(*) FROM evidence WHERE host_id IS NULL AND kind = 'collector_down'";
    assert_eq!(store.int(gaps).await?, i64::from(kills) + 1);
    let numbers = "SELECT COUNT(DISTINCT number) FROM ticket";
    assert_eq!(store.int(numbers).await?, breaching);
    Ok(())
}

/// Waits until every host's present gap is put down to the collector.
async fn the_gap_is_the_collectors(collector: &Collector, store: &Store) {
    wait_for("the gap is the collector's own", SOON, async || {
        let report = collector.report().await?;
        for host in views::host_reports(&report)? {
            if views::state_ms(&host, "collector_down") == 0 {
                let evidence = views::evidence(store, &host).await?;
                anyhow::bail!("it is not for a host: {host}\n{evidence}");
            }
        }
        Ok(Some(()))
    })
    .await;
}

/// Waits until the backfill has proven every host up throughout, while the agents go on beating.
async fn every_gap_is_proven_up(collector: &Collector, store: &Store) {
    wait_for("the backfill proves every host up", SOON, async || {
        let report = collector.report().await?;
        for host in views::host_reports(&report)? {
            if !views::outages(&host).is_empty() {
                let evidence = views::evidence(store, &host).await?;
                anyhow::bail!("a host has outages: {host}\n{evidence}");
            }
        }
        for host in views::host_reports(&report)? {
            if views::state_ms(&host, "up_proven") == 0 {
                let evidence = views::evidence(store, &host).await?;
                anyhow::bail!("a host was not backfilled: {host}\n{evidence}");
            }
        }
        Ok(Some(()))
    })
    .await;
}
