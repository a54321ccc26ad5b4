//! A mount that never answers, with the default rules: a ticket about it, which ends when it answers,
//! and none about the host, whose heartbeats go on.

use std::time::Duration;

use anyhow::Result;
use watchkeep_tests::{
    both_stores,
    harness::{Agent, Collector, DatabaseKind, Settings, wait_for},
    store::Store,
};

use crate::fuse::FuseMount;

/// Twenty seconds of it raise the ticket, thirty without it end it.
const SOON: Duration = Duration::from_mins(3);

both_stores!(a_mount_that_hangs_is_a_ticket_and_the_host_is_not_silent);

async fn a_mount_that_hangs_is_a_ticket_and_the_host_is_not_silent(
    kind: DatabaseKind,
) -> Result<()> {
    let settings = Settings {
        interval_ms: 500,
        ..Settings::product_defaults()
    };
    let mut collector = Collector::create(kind, &settings).await?;
    collector.start().await?;
    let mut agent = Agent::enroll(&collector.token(1).await?).await?;
    let point = agent.state().with_file_name("served");
    std::fs::create_dir(&point)?;
    agent.start_in_mount_namespace()?;
    let store = collector.store().await?;
    agent.heartbeats(&store, 3).await;

    let pid = agent.id().expect("it runs");
    let mount = FuseMount::mount(pid, &point);
    let check = format!("disk.hung:{}", point.display());
    alerts(&store, &agent, &check, (1, 0)).await;
    let beaten = agent.heartbeats(&store, 0).await;
    agent.heartbeats(&store, beaten + 5).await;
    mount.answer();
    alerts(&store, &agent, &check, (0, 1)).await;

    let silences = format!(
        "SELECT COUNT(*) FROM alert WHERE check_key = 'host' AND host_id = {}",
        store.id(agent.host().uuid())
    );
    assert_eq!(store.int(&silences).await?, 0);
    agent.stop().await?;
    collector.stop().await
}

/// Waits for so many alerts of a check: open ones, and ones that ended.
async fn alerts(store: &Store, agent: &Agent, check: &str, wanted: (i64, i64)) {
    let count = |condition: &str| {
        format!(
            "SELECT COUNT(*) FROM alert WHERE check_key = '{check}' AND {condition} AND host_id = {}",
            store.id(agent.host().uuid())
        )
    };
    let what = format!("alerts of {check}, open and ended: {wanted:?}");
    wait_for(&what, SOON, async || {
        let open = store.int(&count("cleared_at IS NULL")).await?;
        let ended = store.int(&count("cleared_at IS NOT NULL")).await?;
        Ok(((open, ended) == wanted).then_some(()))
    })
    .await;
}
