//! A host at its limits hurts only itself.

use uuid::Uuid;
use watchkeep_collector::{
    ingest::seal,
    store::{fleet, heartbeats, views},
};
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis, metric,
    wire::heartbeat::{Ack, Batch, Frame, Schema, Service, ServiceStatus},
};

use crate::{
    pipeline::{Rig, batch, frame},
    scenario::Probe,
    support::{Bench, NOW, both, place, uuid_literal},
};

both!(
    a_host_that_floods_lists_of_names_is_heard_and_hurts_nobody,
    lists_of_names_are_known_after_a_restart_and_pruned_when_unused,
    a_list_with_a_newline_in_a_name_is_not_taken_for_another,
    a_host_whose_alerts_change_all_the_time_is_judged_again_later,
);

/// A further host at the same site.
pub(crate) async fn another_host(bench: &Bench) -> HostId {
    let site = fleet::sites(&bench.app.store).await.unwrap()[0].id.into();
    let host = fleet::NewHost {
        id: HostId(Uuid::new_v4()),
        site,
        name: "web2".to_owned(),
        agent_version: "0.1.0".to_owned(),
        enrolled_at: NOW,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    fleet::insert_host(&mut tx, &host).await.unwrap();
    tx.commit().await.unwrap();
    host.id
}

fn list(names: &[&str]) -> Schema {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    Schema {
        id: metric::schema_id(&names),
        names,
    }
}

/// A frame that uses a list, each value 5.
fn frame_of(seq: u64, list: &Schema) -> Frame {
    let mut frame = frame(seq, ServiceStatus::Running);
    frame.schema = list.id;
    frame.values = vec![Some(5.0); list.names.len()];
    frame
}

/// The same of a host that beats every 200 ms.
fn quick_frame_of(seq: u64, list: &Schema) -> Frame {
    let mut frame = frame_of(seq, list);
    frame.clocks.boot_ms = 1_000_000 + seq as i64 * 200;
    frame.clocks.mono_ms = frame.clocks.boot_ms;
    frame.interval_ms = 200;
    frame
}

/// A batch of frames that brings lists.
fn batch_of(frames: Vec<Frame>, lists: Vec<Schema>) -> (UnixMillis, Batch) {
    let (at, mut batch) = batch(frames);
    batch.schemas = lists;
    (at, batch)
}

/// Sends a batch, and again: once the second answer is here, pages show what the first one brought.
async fn send(bench: &Bench, rig: &Rig, host: HostId, (at, batch): (UnixMillis, Batch)) -> Ack {
    bench.clock.set(at);
    let ack = rig.send(host, at, batch.clone()).await;
    rig.send(host, at, batch).await;
    ack
}

async fn lists_of(bench: &Bench, host: HostId) -> usize {
    let lists = heartbeats::schemas_of(&bench.app.store, host).await;
    lists.unwrap().len()
}

async fn a_host_that_floods_lists_of_names_is_heard_and_hurts_nobody(bench: Bench) {
    let flooder = place(&bench.app).await.host;
    let other = another_host(&bench).await;
    let rig = Rig::start(&bench).await;
    let usual = list(&["cpu.busy_pct"]);
    let first = batch_of(vec![frame_of(1, &usual)], vec![usual]);
    send(&bench, &rig, other, first).await;
    let mut seq = 1;
    let mut newest = String::new();
    for round in 0..40 {
        let lists: Vec<Schema> = (0..8)
            .map(|n| list(&["cpu.busy_pct", &format!("invented.{round}.{n}")]))
            .collect();
        let frames = lists.iter().map(|list| {
            seq += 1;
            quick_frame_of(seq, list)
        });
        let frames = frames.collect();
        newest = lists[7].names[1].clone();
        let ack = send(&bench, &rig, flooder, batch_of(frames, lists)).await;
        // Every heartbeat is taken, with or without its values.
        assert_eq!((ack.accepted, ack.unknown_schemas.len()), (8, 0));
        // What it says of a service is judged.
        assert_eq!(lists_of(&bench, flooder).await.max(64), 64);
    }
    let now = bench.app.live.host(flooder).unwrap();
    assert_eq!(now.services.len(), 1);
    assert!(
        !now.names.iter().any(|name| **name == *newest),
        "its values are not"
    );
    let events = views::host_events(&bench.app.store, flooder, NOW, ["limited"; 2], 10).await;
    let events = events.unwrap();
    assert!(!events.is_empty() && events.len() <= 2, "{events:?}");
    // Another host's new mount is taken.
    for n in 1..=40 {
        let mounted = list(&["cpu.busy_pct", &format!("disk.used_pct:/mnt/{n}")]);
        let frames = vec![frame_of(seq + n, &mounted)];
        let ack = send(&bench, &rig, other, batch_of(frames, vec![mounted.clone()])).await;
        assert_eq!((ack.accepted, ack.unknown_schemas.len()), (1, 0));
        let now = bench.app.live.host(other).unwrap();
        assert_eq!(now.value(&mounted.names[1]), Some(5.0));
    }
    rig.stop().await;
}

async fn lists_of_names_are_known_after_a_restart_and_pruned_when_unused(bench: Bench) {
    let host = place(&bench.app).await.host;
    let rig = Rig::start(&bench).await;
    let (first, second) = (list(&["cpu.busy_pct"]), list(&["cpu.busy_pct", "load.1m"]));
    let frames = vec![frame_of(1, &first)];
    send(&bench, &rig, host, batch_of(frames, vec![first.clone()])).await;
    let frames = vec![frame_of(2, &second)];
    send(&bench, &rig, host, batch_of(frames, vec![second.clone()])).await;
    drop(rig);
    let rig = Rig::start(&bench).await;
    for (seq, list) in [(3, &first), (4, &second)] {
        let ack = send(
            &bench,
            &rig,
            host,
            batch_of(vec![frame_of(seq, list)], vec![]),
        )
        .await;
        assert_eq!(
            (ack.accepted, ack.unknown_schemas.len()),
            (1, 0),
            "{list:?}"
        );
    }
    assert_eq!(lists_of(&bench, host).await, 2);
    // It goes on with one of them; the other one is dropped, and pruned once its rows are sealed.
    let later = NOW + DurationMs::from_hours(3);
    let mut seq = 5;
    while lists_of(&bench, host).await == 2 {
        let mut frame = frame_of(seq, &second);
        frame.clocks.boot_ms += DurationMs::from_hours(3).0;
        let (at, batch) = batch_of(vec![frame], vec![]);
        send(&bench, &rig, host, (at, batch)).await;
        seq += 1;
        assert!(seq < 300, "the list is never dropped");
    }
    assert!(bench.app.clock.now() >= later);
    rig.stop().await;
    let stored = async |list: &Schema| {
        let found = heartbeats::names_of(&bench.app.store, &[list.id]).await;
        found.unwrap().contains_key(&list.id)
    };
    assert!(stored(&first).await, "rows of the tail may refer to it");
    let day = NOW + DurationMs::from_hours(24);
    bench.clock.set(day);
    seal::seal(&bench.app, day).await.unwrap();
    seal::seal(&bench.app, day).await.unwrap();
    assert!(!stored(&first).await && stored(&second).await);
}

async fn a_list_with_a_newline_in_a_name_is_not_taken_for_another(bench: Bench) {
    let host = place(&bench.app).await.host;
    let rig = Rig::start(&bench).await;
    // Joined by newlines both are the same text, so both have the same identifier.
    let (whole, split) = (list(&["load.1m\nload.5m"]), list(&["load.1m", "load.5m"]));
    assert_eq!(whole.id, split.id);
    let frames = vec![frame_of(1, &whole)];
    let ack = send(&bench, &rig, host, batch_of(frames, vec![whole])).await;
    assert_eq!(ack.accepted, 1);
    assert_eq!(lists_of(&bench, host).await, 0);
    let other = another_host(&bench).await;
    let frames = vec![frame_of(1, &split)];
    let ack = send(&bench, &rig, other, batch_of(frames, vec![split])).await;
    assert_eq!(ack.accepted, 1);
    assert_eq!(
        bench.app.live.host(other).unwrap().value("load.5m"),
        Some(5.0)
    );
    // Other unsafe characters are replaced where the name is stored and shown.
    let odd = list(&["disk.used_pct:/mnt/\u{202e}\u{1}"]);
    let frames = vec![frame_of(2, &odd)];
    send(&bench, &rig, other, batch_of(frames, vec![odd])).await;
    let shown = bench.app.live.host(other).unwrap();
    assert_eq!(&*shown.names[0], "disk.used_pct:/mnt/\u{fffd}\u{fffd}");
    rig.stop().await;
}

/// A frame of a host on which so many services have failed, and all others that were there are gone.
fn failing(seq: u64, names: std::ops::Range<usize>) -> Frame {
    let mut frame = frame(seq, ServiceStatus::Running);
    frame.clocks.boot_ms = 1_000_000 + seq as i64 * 5;
    frame.clocks.mono_ms = frame.clocks.boot_ms;
    frame.services = Some(
        names
            .map(|n| Service {
                key: format!("systemd:job-{n}.service"),
                status: ServiceStatus::Failed,
                detail: None,
            })
            .collect(),
    );
    frame
}

/// Alerts of a host that were raised, and those that fire.
async fn alerts(bench: &Bench, host: HostId) -> (i64, i64) {
    let host = uuid_literal(&bench.url, host.uuid());
    let mut probe = Probe::connect(&bench.url).await;
    let count =
        |condition: &str| format!("SELECT COUNT(*) FROM alert WHERE host_id = {host} {condition}");
    let all: Vec<(i64,)> = probe.rows(count("")).await;
    let firing: Vec<(i64,)> = probe.rows(count("AND cleared_at IS NULL")).await;
    (all[0].0, firing[0].0)
}

async fn a_host_whose_alerts_change_all_the_time_is_judged_again_later(bench: Bench) {
    let flapping = place(&bench.app).await.host;
    let other = another_host(&bench).await;
    let rig = Rig::start(&bench).await;
    // Each frame ends 100 alerts and raises 100.
    let frames = (1..=100).map(|seq| {
        let first = seq as usize % 2 * 1_000;
        failing(seq, first..first + 100)
    });
    let (at, batch) = batch_of(frames.collect(), vec![list(&["cpu.busy_pct"])]);
    let ack = send(&bench, &rig, flapping, (at, batch)).await;
    assert_eq!(ack.accepted, 100, "every frame is taken");
    let (raised, firing) = alerts(&bench, flapping).await;
    assert!((200..=700).contains(&raised), "{raised} alerts");
    assert_eq!(firing, 100);
    let events = views::host_events(&bench.app.store, flapping, NOW, ["limited"; 2], 10).await;
    assert_eq!(events.unwrap().len(), 1);
    // Nobody else is at a limit.
    let frames = vec![failing(1, 0..3)];
    let (at, batch) = batch_of(frames, vec![list(&["cpu.busy_pct"])]);
    send(&bench, &rig, other, (at, batch)).await;
    assert_eq!(alerts(&bench, other).await, (3, 3));
    // What it said last counts once it is judged again, though it is not said again.
    let (at, mut batch) = batch_of(vec![failing(101, 0..1)], vec![]);
    send(&bench, &rig, flapping, (at, batch.clone())).await;
    let at = at + DurationMs::from_mins(11);
    let mut frame = failing(102, 0..0);
    frame.services = None;
    frame.clocks.boot_ms += DurationMs::from_mins(11).0;
    frame.clocks.wall_ms = at.0;
    batch.sent = frame.clocks;
    batch.frames = vec![frame];
    send(&bench, &rig, flapping, (at, batch)).await;
    assert_eq!(alerts(&bench, flapping).await.1, 1);
    rig.stop().await;
}
