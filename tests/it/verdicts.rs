//! Why no heartbeats arrived: the agent alone was gone, or the machine rebooted. Two verdicts, and
//! the report says which.

use std::time::Duration;

use anyhow::Result;
use watchkeep_shared::{
    BootId, InstanceId,
    ids::random_uuid,
    wire::heartbeat::{Clocks, Event, PreviousBoot},
};
use watchkeep_tests::{
    both_stores,
    clock::clocks_now,
    harness::{
        Agent, Collector, DatabaseKind, Scripted, Settings, scripted::INTERVAL_MS, wait_for,
    },
    store::Store,
};

use crate::views;

const SOON: Duration = Duration::from_mins(1);

both_stores!(
    a_killed_agent_is_not_an_outage,
    another_boot_is_one,
    a_played_reboot_has_its_length
);

async fn a_killed_agent_is_not_an_outage(kind: DatabaseKind) -> Result<()> {
    let mut collector = Collector::create(kind, &Settings::default()).await?;
    collector.start().await?;
    let mut agent = Agent::enroll(&collector.token(1).await?).await?;
    agent.start()?;
    let store = collector.store().await?;
    agent.heartbeats(&store, 3).await;
    agent.kill()?;
    overdue(&store, &agent).await;
    agent.start()?;
    let count = agent.heartbeats(&store, 0).await;
    agent.heartbeats(&store, count + 3).await;

    let report = collector.report().await?;
    let host = views::host_report(&report, agent.host())?;
    assert!(views::state_ms(&host, "agent_stopped") > 0, "{host}");
    assert_eq!(views::state_ms(&host, "down_reboot"), 0, "{host}");
    assert_eq!(
        views::outages(&host),
        [("agent_stopped", "agent_restarted")],
        "{host}"
    );
    assert_eq!(host["availability"]["totals"]["down_ms"], 0, "{host}");
    agent.stop().await?;
    collector.stop().await
}

async fn another_boot_is_one(kind: DatabaseKind) -> Result<()> {
    let mut collector = Collector::create(kind, &Settings::default()).await?;
    collector.start().await?;
    let mut agent = Agent::enroll(&collector.token(1).await?).await?;
    agent.start()?;
    let store = collector.store().await?;
    agent.heartbeats(&store, 3).await;
    agent.kill()?;
    overdue(&store, &agent).await;
    agent.start_with_boot(Some(BootId(random_uuid())))?;
    let count = agent.heartbeats(&store, 0).await;
    agent.heartbeats(&store, count + 3).await;

    let report = collector.report().await?;
    let host = views::host_report(&report, agent.host())?;
    assert_eq!(views::state_ms(&host, "agent_stopped"), 0, "{host}");
    // Only the boot's name is played: the kernel's clock still says that it booted long before, so
    // the record refuses to say how long the machine was down.
    assert_eq!(
        views::outages(&host),
        [("unknown", "boot_time_unknown")],
        "{host}"
    );
    reboot_alert(&store, &agent).await;
    agent.stop().await?;
    collector.stop().await
}

/// A machine that was off for four seconds and beats again a second after its boot.
async fn a_played_reboot_has_its_length(kind: DatabaseKind) -> Result<()> {
    const OFF_MS: i64 = 4_000;
    const BOOTED_MS: i64 = 1_000;
    let mut collector = Collector::create(kind, &Settings::default()).await?;
    collector.start().await?;
    let mut agent = Scripted::enroll(&collector.token(1).await?).await?;
    let mut last = clocks_now();
    for _ in 0..4 {
        last = next_beat(last).await;
        let frame = agent.frame(last);
        let batch = agent.batch(last, vec![frame]);
        assert_eq!(agent.send_ok(&batch).await?.accepted, 1);
    }
    let first = wait_until(last.boot_ms + OFF_MS + BOOTED_MS).await;
    let before = std::mem::replace(&mut agent.boot, BootId(random_uuid()));
    agent.instance = InstanceId(random_uuid());
    agent.seq = 1;
    let boot_at = first.boot_ms - BOOTED_MS;
    let clocks = Clocks {
        mono_ms: first.boot_ms - boot_at,
        boot_ms: first.boot_ms - boot_at,
        ..first
    };
    let mut frame = agent.frame(clocks);
    // What the operating system kept: without it nothing proves how long the machine was off.
    frame.events = vec![Event::AgentStarted {
        clean_stop: Some(false),
        previous_boot: Some(PreviousBoot {
            boot: Some(before),
            last_seen_wall_ms: Some(last.wall_ms),
        }),
    }];
    let batch = agent.batch(clocks, vec![frame]);
    assert_eq!(agent.send_ok(&batch).await?.accepted, 1);

    let report = collector.report().await?;
    let host = views::host_report(&report, agent.host())?;
    assert_eq!(
        views::outages(&host),
        [("down_reboot", "boot_changed")],
        "{host}"
    );
    let down = views::state_ms(&host, "down_reboot");
    // Arrival is measured at the collector: a busy machine shifts both ends a little.
    assert!((down - OFF_MS).abs() < 1_000, "{down} ms down: {host}");
    assert!(
        views::state_ms(&host, "up_proven") > 0,
        "the second after the boot: {host}"
    );
    collector.stop().await
}

async fn next_beat(last: Clocks) -> Clocks {
    wait_until(last.boot_ms + i64::from(INTERVAL_MS)).await
}

async fn wait_until(boot_ms: i64) -> Clocks {
    wait_for("the machine's clock runs on", SOON, async || {
        let now = clocks_now();
        Ok((now.boot_ms >= boot_ms).then_some(now))
    })
    .await
}

/// Waits until the reboot, which nobody announced, is an alert.
async fn reboot_alert(store: &Store, agent: &Agent) {
    let sql = format!(
        "SELECT COUNT(*) FROM alert WHERE rule_id = 'unexpected-reboot' AND host_id = {}",
        store.id(agent.host().uuid())
    );
    wait_for("the reboot is an alert", SOON, async || {
        Ok((store.int(&sql).await? == 1).then_some(()))
    })
    .await;
}

/// Waits until the collector has noticed that the agent is overdue.
async fn overdue(store: &Store, agent: &Agent) {
    let sql = format!(
        "SELECT COUNT(*) FROM alert WHERE check_key = 'host' AND host_id = {}",
        store.id(agent.host().uuid())
    );
    wait_for("the host's silence is an alert", SOON, async || {
        Ok((store.int(&sql).await? > 0).then_some(()))
    })
    .await;
}
