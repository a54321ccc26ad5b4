//! Rows that can't be read harm only the host or the ticket that they belong to.

use watchkeep_collector::{
    store::{tickets as rows, views},
    tickets::keep_evidence,
};
use watchkeep_shared::{
    HostId, UnixMillis,
    wire::{
        heartbeat::{Frame, RejectReason, ServiceStatus},
        policy::ServiceCheck,
    },
};

use crate::{
    pipeline::{Rig, another_host, batch, frame},
    scenario::Probe,
    support::{Bench, NOW, both, execute, place, uuid_literal},
};

both!(
    a_state_that_can_not_be_read_harms_only_its_own_host,
    an_unknown_item_of_a_hosts_list_leaves_the_rest,
    a_ticket_that_can_not_be_read_keeps_no_evidence_from_others,
    rejected_heartbeats_are_counted_by_reason,
    the_version_of_the_running_agent_is_stored
);

async fn beat(bench: &Bench, rig: &Rig, host: HostId, frame: Frame) {
    let (at, batch) = batch(vec![frame]);
    bench.clock.set(at);
    rig.send(host, at, batch).await;
}

/// Alerts of a host that fire in the store.
async fn firing(bench: &Bench, host: HostId) -> usize {
    let alerts = views::firing_of_host(&bench.app.store, host).await;
    alerts.unwrap().len()
}

async fn a_state_that_can_not_be_read_harms_only_its_own_host(bench: Bench) {
    let broken = place(&bench.app).await.host;
    let other = another_host(&bench).await;
    let rig = Rig::start(&bench).await;
    for host in [broken, other] {
        beat(&bench, &rig, host, frame(1, ServiceStatus::Failed)).await;
        assert_eq!(firing(&bench, host).await, 1);
    }
    rig.stop().await;
    let host = uuid_literal(&bench.url, broken.uuid());
    let sql = format!("UPDATE host_state SET state = '{{' WHERE host_id = {host}");
    execute(&bench.url, &sql).await;
    let before = rows::open(&bench.app.store).await.unwrap();

    let rig = Rig::start(&bench).await;
    // Nobody would notice its silence otherwise.
    let now = bench.app.live.host(broken).unwrap();
    assert_ne!(now.last_seen_at, UnixMillis(0));
    for host in [broken, other] {
        beat(&bench, &rig, host, frame(2, ServiceStatus::Failed)).await;
    }
    // Of the host's two alerts the one that is in memory fires, and the ticket was never resolved.
    assert_eq!(firing(&bench, broken).await, 1);
    assert_eq!(firing(&bench, other).await, 1);
    let after = rows::open(&bench.app.store).await.unwrap();
    let numbers = |tickets: &[watchkeep_core::tickets::Ticket]| {
        let numbers = tickets.iter().map(|ticket| ticket.number);
        numbers.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(numbers(&after), numbers(&before));
    let events = views::host_events(
        &bench.app.store,
        broken,
        UnixMillis(0),
        ["state_lost"; 2],
        9,
    )
    .await;
    assert_eq!(events.unwrap().len(), 1);
    // It recovers: half a minute of it.
    for seq in 3..8 {
        for host in [broken, other] {
            beat(&bench, &rig, host, frame(seq, ServiceStatus::Running)).await;
        }
    }
    assert_eq!(rows::open(&bench.app.store).await.unwrap(), []);
    rig.stop().await;
}

async fn an_unknown_item_of_a_hosts_list_leaves_the_rest(bench: Bench) {
    let host = place(&bench.app).await.host;
    let id = uuid_literal(&bench.url, host.uuid());
    let check = r#"{"type":"systemd","unit":"shop.service"}"#;
    for (item, body) in [("eclipse", r#"{"type":"eclipse"}"#), ("shop", check)] {
        let sql = format!(
            "INSERT INTO host_watch (host_id, item, body, added_by, added_at) \
             VALUES ({id}, '{item}', '{body}', 'Ada', 1)"
        );
        execute(&bench.url, &sql).await;
    }
    execute(
        &bench.url,
        "UPDATE counter SET value = value + 1 WHERE name = 'policy'",
    )
    .await;
    bench.app.policies.refresh(&bench.app.store).await.unwrap();
    let rig = Rig::start(&bench).await;
    let (at, batch) = batch(vec![frame(1, ServiceStatus::Running)]);
    let policy = rig.send(host, at, batch).await.policy.unwrap();
    let shop = ServiceCheck::Systemd {
        unit: "shop.service".to_owned(),
    };
    let keys: Vec<String> = policy
        .services
        .iter()
        .filter_map(|item| match item {
            watchkeep_shared::wire::policy::Item::Known(check) => Some(check.key()),
            watchkeep_shared::wire::policy::Item::Unknown(_) => None,
        })
        .collect();
    assert_eq!(keys, [shop.key()]);
    rig.stop().await;
}

async fn a_ticket_that_can_not_be_read_keeps_no_evidence_from_others(bench: Bench) {
    let broken = place(&bench.app).await.host;
    let other = another_host(&bench).await;
    let rig = Rig::start(&bench).await;
    for host in [broken, other] {
        beat(&bench, &rig, host, frame(1, ServiceStatus::Failed)).await;
    }
    let host = uuid_literal(&bench.url, broken.uuid());
    let sql = format!("UPDATE ticket SET severity = 'eclipse' WHERE host_id = {host}");
    execute(&bench.url, &sql).await;
    assert_eq!(keep_evidence(&bench.app, NOW).await.unwrap(), 1);
    assert_eq!(rows::open(&bench.app.store).await.unwrap().len(), 1);
    rig.stop().await;
}

async fn rejected_heartbeats_are_counted_by_reason(bench: Bench) {
    let host = place(&bench.app).await.host;
    let rig = Rig::start(&bench).await;
    beat(&bench, &rig, host, frame(1, ServiceStatus::Running)).await;
    let mut frames = Vec::new();
    for seq in [2, 3] {
        let mut too_many = frame(seq, ServiceStatus::Running);
        too_many.values = vec![Some(1.0); 3];
        frames.push(too_many);
    }
    let mut unnamed = frame(4, ServiceStatus::Running);
    let services = unnamed.services.as_mut().unwrap();
    "process:\u{0}".clone_into(&mut services[0].key);
    frames.push(unnamed);
    let (at, batch) = batch(frames);
    bench.clock.set(at);
    let ack = rig.send(host, at, batch).await;
    assert_eq!((ack.accepted, ack.rejected.len()), (0, 3));
    // Once another answer is here, pages show what this batch brought.
    beat(&bench, &rig, host, frame(5, ServiceStatus::Running)).await;
    beat(&bench, &rig, host, frame(6, ServiceStatus::Running)).await;
    let now = bench.app.live.host(host).unwrap();
    let counts: Vec<_> = now
        .rejected
        .iter()
        .map(|one| (one.reason, one.count, one.last_at))
        .collect();
    assert_eq!(
        counts,
        [
            (RejectReason::ValueCount, 2, at),
            (RejectReason::BadText, 1, at)
        ]
    );
    rig.stop().await;
}

async fn the_version_of_the_running_agent_is_stored(bench: Bench) {
    let host = place(&bench.app).await.host;
    let rig = Rig::start(&bench).await;
    let mut probe = Probe::connect(&bench.url).await;
    // At most one change a minute: heartbeats are 10 s apart.
    for (seq, version, stored) in [
        (1, "0.2.0", "0.2.0"),
        (2, "0.3.0", "0.2.0"),
        (9, "0.3.0", "0.3.0"),
    ] {
        let (at, mut batch) = batch(vec![frame(seq, ServiceStatus::Running)]);
        batch.agent_version = version.to_owned();
        bench.clock.set(at);
        rig.send(host, at, batch).await;
        let rows: Vec<(String,)> = probe.rows("SELECT agent_version FROM host").await;
        assert_eq!(rows, [(stored.to_owned(),)], "after heartbeat {seq}");
    }
    rig.stop().await;
}
