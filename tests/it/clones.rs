//! A machine that was copied: both are put into quarantine, a person gives the right one a new key.

use std::time::Duration;

use anyhow::Result;
use watchkeep_shared::HostId;
use watchkeep_tests::{
    both_stores,
    harness::{Agent, Collector, DatabaseKind, Settings, wait_for},
    store::Store,
};

const SOON: Duration = Duration::from_mins(2);

both_stores!(a_copied_machine_is_quarantined_until_it_has_a_new_key);

async fn a_copied_machine_is_quarantined_until_it_has_a_new_key(kind: DatabaseKind) -> Result<()> {
    let mut collector = Collector::create(kind, &Settings::default()).await?;
    collector.start().await?;
    let store = collector.store().await?;
    let mut right = Agent::enroll(&collector.token(1).await?).await?;
    // A host of its own at first; then its disk becomes a copy of the right one's.
    let mut copy = Agent::enroll(&collector.token(1).await?).await?;
    right.start()?;
    let count = right.heartbeats(&store, 3).await;
    // A restart is no clone.
    right.stop().await?;
    right.start()?;
    right.heartbeats(&store, count + 3).await;
    assert_eq!(open_tickets(&store, right.host()).await?, 0);

    for file in ["identity.json", "cert.pem", "key.pem", "ca.pem"] {
        std::fs::copy(right.state().join(file), copy.state().join(file))?;
    }
    copy.start()?;
    wait_for("a ticket about the identity", SOON, async || {
        Ok((open_tickets(&store, right.host()).await? == 1).then_some(()))
    })
    .await;
    for agent in [&right, &copy] {
        wait_for("the agent knows of its quarantine", SOON, async || {
            let status = agent.status().await?;
            Ok((status["connection"] == "quarantined").then_some(()))
        })
        .await;
    }

    right.stop().await?;
    let token = collector.rekey(right.host()).await?;
    right.enroll_again(&token).await?;
    right.start()?;
    let count = right.heartbeats(&store, 0).await;
    right.heartbeats(&store, count + 3).await;
    wait_for("the ticket resolves itself", SOON, async || {
        Ok((open_tickets(&store, right.host()).await? == 0).then_some(()))
    })
    .await;
    // The copy's certificate is no good any more.
    copy.kill()?;
    copy.start()?;
    wait_for("the copy is refused", SOON, async || {
        let status = copy.status().await?;
        Ok((status["connection"] == "revoked").then_some(()))
    })
    .await;
    right.stop().await?;
    copy.kill()?;
    collector.stop().await
}

/// Tickets about the host's identity that are not resolved.
async fn open_tickets(store: &Store, host: HostId) -> Result<i64> {
    store
        .int(&format!(
            "SELECT COUNT(*) FROM alert WHERE rule_id = 'cloned-identity' AND cleared_at IS NULL AND host_id = {}",
            store.id(host.uuid())
        ))
        .await
}
