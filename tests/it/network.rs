//! The customer's line breaks: frames spool, come back late, and prove the machine up. Up for
//! "server running", down for "reachable from us".

use std::time::Duration;

use anyhow::{Context, Result};
use watchkeep_shared::{DurationMs, UnixMillis};
use watchkeep_tests::{
    both_stores,
    clock::wall_now,
    harness::{Agent, Collector, DatabaseKind, Settings, proxy::Line, wait_for},
    store::Store,
};

use crate::views;

const SOON: Duration = Duration::from_mins(2);

/// How long the line is broken the second time, at least.
const OUTAGE: DurationMs = DurationMs::from_secs(9);
/// Frames that the agent keeps while the line is cut.
const SPOOLED_FRAMES: i64 = 14;

both_stores!(a_cut_line_is_proven_up_by_the_backfill);

async fn a_cut_line_is_proven_up_by_the_backfill(kind: DatabaseKind) -> Result<()> {
    let settings = Settings::default();
    let (mut collector, proxy) = Collector::create_behind_proxy(kind, &settings).await?;
    collector.start().await?;
    let mut agent = Agent::enroll(&collector.token(1).await?).await?;
    agent.start()?;
    let store = collector.store().await?;
    agent.heartbeats(&store, 5).await;

    // A dead route: nothing is refused, nothing arrives, and then all of it does.
    proxy.set(Line::Stall);
    silent_alert(&store, &agent, true).await;
    proxy.set(Line::Pass);
    silent_alert(&store, &agent, false).await;
    // A broken one, in two ways, for so long that the agent has much to send.
    let cut_at = wall_now();
    proxy.set(Line::Reset);
    silent_alert(&store, &agent, true).await;
    proxy.set(Line::Close);
    spooled(&agent, SPOOLED_FRAMES).await;
    cut_for(cut_at, OUTAGE).await;
    proxy.set(Line::Pass);
    silent_alert(&store, &agent, false).await;
    unbroken_chain(&store, &agent).await;

    let report = collector.report().await?;
    let host = views::host_report(&report, agent.host())?;
    // What is spooled is late but for the frames of the last two seconds, which are as fresh as live
    // ones; a second more is left for the way back.
    let proven_ms = OUTAGE.0 - 3_000;
    assert!(
        views::state_ms(&host, "up_proven") >= proven_ms,
        "{proven_ms}: {host}"
    );
    assert_eq!(views::outages(&host), [], "{host}");
    assert_eq!(host["availability"]["totals"]["down_ms"], 0, "{host}");
    assert_eq!(host["availability"]["headline"], 1.0, "{host}");
    let incidents = host["link_incidents"]
        .as_array()
        .context("link incidents")?;
    assert!(!incidents.is_empty(), "{host}");
    agent.stop().await?;
    collector.stop().await
}

/// Lets an outage last: its length is what the report has to account for.
async fn cut_for(cut_at: UnixMillis, outage: DurationMs) {
    wait_for("the outage is long enough", SOON, async || {
        Ok((wall_now().since(cut_at) >= outage).then_some(()))
    })
    .await;
}

/// Waits until the agent says that it keeps this many frames.
async fn spooled(agent: &Agent, frames: i64) {
    wait_for(&format!("{frames} frames are spooled"), SOON, async || {
        let kept = agent.status().await?["spool_frames"].as_i64().unwrap_or(0);
        anyhow::ensure!(kept >= frames, "{kept} are");
        Ok(Some(()))
    })
    .await;
}

/// Waits until the host's silence is an alert, or is one no more.
async fn silent_alert(store: &Store, agent: &Agent, wanted: bool) {
    let sql = format!(
        "SELECT COUNT(*) FROM alert WHERE check_key = 'host' AND cleared_at IS NULL AND host_id = {}",
        store.id(agent.host().uuid())
    );
    wait_for(
        &format!("the host's silence is an alert: {wanted}"),
        SOON,
        async || Ok(((store.int(&sql).await? > 0) == wanted).then_some(())),
    )
    .await;
}

/// Waits until no sequence number is missing.
async fn unbroken_chain(store: &Store, agent: &Agent) {
    let sql = format!(
        "SELECT MAX(seq) - COUNT(*) FROM heartbeat WHERE host_id = {}",
        store.id(agent.host().uuid())
    );
    wait_for("every spooled frame is in the store", SOON, async || {
        let missing = store.int(&sql).await?;
        assert!(missing >= 0, "a frame is stored twice");
        anyhow::ensure!(missing == 0, "{missing} are missing");
        Ok(Some(()))
    })
    .await;
}
