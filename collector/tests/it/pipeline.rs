//! The pipeline on a real store, without a network: what is acknowledged is committed, what is
//! repeated changes nothing, and a restart knows what it knew.

use std::sync::Arc;

use tokio::sync::mpsc;
use uuid::Uuid;
use watchkeep_collector::{
    app::App,
    ingest::{Inbox, Pipeline, metrics::Metrics},
    policies::{self, HostPolicy, Person},
    process::Process,
    store::{fleet, heartbeats, tickets as rows},
};
use watchkeep_core::{authority::HostTrust, tickets::TicketState};
use watchkeep_shared::{
    BootId, HostId, InstanceId, UnixMillis, metric,
    wire::{
        heartbeat::{Ack, Batch, Clocks, Frame, Schema, Service, ServiceStatus},
        host::Want,
        policy::{Item, ServiceCheck},
    },
};

use crate::support::{Bench, NOW, arrival, both, place};

both!(
    acknowledged_is_committed_and_a_repeat_is_a_no_op,
    a_restart_knows_what_was_taken_and_what_fires,
    an_unknown_schema_is_asked_for,
    an_alert_about_memory_asks_for_the_busiest_processes_once,
    a_hosts_own_list_reaches_its_agent_alone,
    a_missing_unit_is_a_fault_only_where_it_is_expected
);

/// A running pipeline.
pub(crate) struct Rig {
    inbox: Inbox,
    process: Process,
}

impl Rig {
    pub(crate) async fn start(bench: &Bench) -> Self {
        let process = Process::new();
        let app = App {
            process: process.clone(),
            ..bench.app.clone()
        };
        let (inbox, queue) = mpsc::channel(64);
        let metrics = Arc::new(Metrics::default());
        let node = Uuid::from_u128(9);
        let pipeline = Pipeline::begin(app, node, metrics, queue).await.unwrap();
        process.spawn_essential("pipeline", pipeline.run());
        Self { inbox, process }
    }

    pub(crate) async fn send(&self, host: HostId, at: UnixMillis, batch: Batch) -> Ack {
        let (arrival, answer) = arrival(host, at, batch);
        self.inbox.send(arrival).await.unwrap();
        answer.await.unwrap().unwrap()
    }

    /// The same with a certificate of some CA.
    pub(crate) async fn send_as(
        &self,
        host: HostId,
        trust: HostTrust,
        at: UnixMillis,
        batch: Batch,
    ) -> Ack {
        let (mut arrival, answer) = arrival(host, at, batch);
        arrival.trust = trust;
        self.inbox.send(arrival).await.unwrap();
        answer.await.unwrap().unwrap()
    }

    pub(crate) async fn stop(self) {
        self.process.stop.cancel();
        self.process.wait().await;
        assert!(!self.process.has_failed());
    }
}

fn names() -> Vec<String> {
    vec!["cpu.busy_pct".to_owned()]
}

pub(crate) fn frame(seq: u64, service: ServiceStatus) -> Frame {
    let boot_ms = 1_000_000 + seq as i64 * 10_000;
    Frame {
        boot: None,
        instance: None,
        seq,
        clocks: Clocks {
            wall_ms: NOW.0,
            mono_ms: boot_ms,
            boot_ms,
        },
        interval_ms: 10_000,
        schema: metric::schema_id(&names()),
        values: vec![Some(5.0)],
        services: Some(vec![Service {
            key: "process:nginx".to_owned(),
            status: service,
            detail: None,
        }]),
        events: Vec::new(),
    }
}

/// A batch sent when its last frame was made.
pub(crate) fn batch(frames: Vec<Frame>) -> (UnixMillis, Batch) {
    let mut sent = frames.last().unwrap().clocks;
    let at = UnixMillis(NOW.0 + sent.boot_ms - 1_000_000);
    sent.wall_ms = at.0;
    let schema = Schema {
        id: metric::schema_id(&names()),
        names: names(),
    };
    let batch = Batch {
        v: 1,
        agent_version: "0.1.0".to_owned(),
        boot: BootId(Uuid::from_u128(1)),
        instance: InstanceId(Uuid::from_u128(2)),
        sent,
        policy_version: 0,
        trusts: Vec::new(),
        refused: None,
        troubles: None,
        schemas: vec![schema],
        frames,
    };
    (at, batch)
}

async fn acknowledged_is_committed_and_a_repeat_is_a_no_op(bench: Bench) {
    let place = place(&bench.app).await;
    let rig = Rig::start(&bench).await;
    let (at, first) = batch(vec![
        frame(1, ServiceStatus::Running),
        frame(2, ServiceStatus::Running),
    ]);
    let ack = rig.send(place.host, at, first.clone()).await;
    assert_eq!(ack.accepted, 2);
    assert_eq!(
        ack.policy.unwrap(),
        policy_of(&bench, place.host).await.wire
    );
    assert_eq!(
        heartbeats::tail_after(&bench.app.store, 0)
            .await
            .unwrap()
            .len(),
        2
    );
    let ack = rig.send(place.host, at, first).await;
    assert_eq!(ack.accepted, 2);
    let tail = heartbeats::tail_after(&bench.app.store, 0).await.unwrap();
    assert_eq!(tail.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2]);
    rig.stop().await;
}

async fn a_restart_knows_what_was_taken_and_what_fires(bench: Bench) {
    let place = place(&bench.app).await;
    let rig = Rig::start(&bench).await;
    let (at, up) = batch(vec![frame(1, ServiceStatus::Running)]);
    rig.send(place.host, at, up.clone()).await;
    let (at, down) = batch(vec![frame(2, ServiceStatus::Stopped)]);
    bench.clock.set(at);
    rig.send(place.host, at, down.clone()).await;
    let open = rows::open(&bench.app.store).await.unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    // Dropped in the middle of things: nothing is written at the end.
    drop(rig);
    let rig = Rig::start(&bench).await;
    let (_, late_copy) = batch(vec![frame(2, ServiceStatus::Stopped)]);
    rig.send(place.host, at, late_copy).await;
    assert_eq!(
        heartbeats::tail_after(&bench.app.store, 0)
            .await
            .unwrap()
            .len(),
        2
    );
    assert_eq!(rows::open(&bench.app.store).await.unwrap(), open);
    // The service is back: the same ticket is resolved, by the alert that fired before the restart.
    for seq in 3..=20 {
        let (at, back) = batch(vec![frame(seq, ServiceStatus::Running)]);
        bench.clock.set(at);
        rig.send(place.host, at, back).await;
    }
    let ticket = rows::read(&bench.app.store, open[0].id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ticket.state, TicketState::Resolved);
    rig.stop().await;
}

async fn an_unknown_schema_is_asked_for(bench: Bench) {
    let place = place(&bench.app).await;
    let rig = Rig::start(&bench).await;
    let (at, mut nameless) = batch(vec![frame(1, ServiceStatus::Running)]);
    nameless.schemas.clear();
    let ack = rig.send(place.host, at, nameless).await;
    assert_eq!(
        (ack.accepted, ack.unknown_schemas),
        (0, vec![metric::schema_id(&names())])
    );
    assert!(
        heartbeats::tail_after(&bench.app.store, 0)
            .await
            .unwrap()
            .is_empty()
    );
    rig.stop().await;
}

async fn an_alert_about_memory_asks_for_the_busiest_processes_once(bench: Bench) {
    let place = place(&bench.app).await;
    let rig = Rig::start(&bench).await;
    let names = vec!["mem.oom_kills".to_owned()];
    let mut asked = Vec::new();
    for (seq, kills) in [(1, 0.0), (2, 1.0), (3, 1.0)] {
        let mut frame = frame(seq, ServiceStatus::Running);
        frame.schema = metric::schema_id(&names);
        frame.values = vec![Some(kills)];
        let (at, mut batch) = batch(vec![frame]);
        batch.schemas[0] = Schema {
            id: metric::schema_id(&names),
            names: names.clone(),
        };
        asked.push(rig.send(place.host, at, batch).await.want);
    }
    assert_eq!(asked, [vec![], vec![Want::Processes], vec![]]);
    // A service that is down is not about what others use up.
    let (at, failed) = batch(vec![frame(4, ServiceStatus::Failed)]);
    assert_eq!(rig.send(place.host, at, failed).await.want, []);
    rig.stop().await;
}

async fn policy_of(bench: &Bench, host: HostId) -> Arc<HostPolicy> {
    let row = fleet::host(&bench.app.store, host).await.unwrap().unwrap();
    bench.app.policies.of(host, (&row).into())
}

const ADA: Person<'_> = Person {
    login: "ada",
    name: "Ada",
};

fn unit() -> ServiceCheck {
    ServiceCheck::Systemd {
        unit: "shop.service".to_owned(),
    }
}

async fn a_hosts_own_list_reaches_its_agent_alone(bench: Bench) {
    let place = place(&bench.app).await;
    let other = another_host(&bench).await;
    let rig = Rig::start(&bench).await;
    let beat = async |host, seq, version| {
        let (at, mut batch) = batch(vec![frame(seq, ServiceStatus::Running)]);
        batch.policy_version = version;
        rig.send(host, at, batch).await.policy
    };
    let default = beat(place.host, 1, 0).await.unwrap();
    assert!(
        policies::watch(&bench.app, place.host, &unit(), ADA)
            .await
            .unwrap()
    );
    let own = beat(place.host, 2, default.version).await.unwrap();
    assert_eq!(own.services, [Item::Known(unit())]);
    assert_ne!(own.version, default.version);
    assert_eq!(beat(place.host, 3, own.version).await, None);
    assert_eq!(beat(other, 1, default.version).await, None);
    // A second time, and on a host that does not exist, nothing is added.
    for host in [place.host, HostId(Uuid::new_v4())] {
        let added = policies::watch(&bench.app, host, &unit(), ADA).await;
        assert!(!added.unwrap(), "{host}");
    }
    // A collector that starts later knows it, too.
    bench.app.policies.refresh(&bench.app.store).await.unwrap();
    assert_eq!(policy_of(&bench, place.host).await.wire, own);
    let key = unit().key();
    assert!(
        policies::unwatch(&bench.app, place.host, &key, ADA)
            .await
            .unwrap()
    );
    let back = beat(place.host, 4, own.version).await.unwrap();
    assert_eq!(back, default);
    assert!(
        !policies::unwatch(&bench.app, place.host, &key, ADA)
            .await
            .unwrap()
    );
    rig.stop().await;
}

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

async fn a_missing_unit_is_a_fault_only_where_it_is_expected(bench: Bench) {
    let place = place(&bench.app).await;
    let rig = Rig::start(&bench).await;
    let beat = async |seq, status: Option<ServiceStatus>| {
        let mut frame = frame(seq, ServiceStatus::Running);
        frame.services = status.map(|status| {
            vec![Service {
                key: unit().key(),
                status,
                detail: None,
            }]
        });
        let (at, batch) = batch(vec![frame]);
        bench.clock.set(at);
        rig.send(place.host, at, batch).await;
        rows::open(&bench.app.store).await.unwrap().len()
    };
    let not_here = || bench.app.live.host(place.host).unwrap().not_here.clone();
    // Asked for by a policy of many hosts, and never seen on this one.
    assert_eq!(beat(1, Some(ServiceStatus::NotFound)).await, 0);
    assert_eq!(beat(2, None).await, 0);
    assert_eq!(not_here(), [unit().key()]);
    // Someone wants it on this very host: the agent has nothing new to tell.
    policies::watch(&bench.app, place.host, &unit(), ADA)
        .await
        .unwrap();
    assert_eq!(beat(3, None).await, 1);
    assert_eq!(not_here(), [""; 0]);
    policies::unwatch(&bench.app, place.host, &unit().key(), ADA)
        .await
        .unwrap();
    assert_eq!(beat(4, None).await, 0);
    // It is installed, and vanishes.
    assert_eq!(beat(5, Some(ServiceStatus::Running)).await, 0);
    assert_eq!(beat(6, Some(ServiceStatus::NotFound)).await, 1);
    drop(rig);
    let rig = Rig::start(&bench).await;
    let (at, batch) = batch(vec![{
        let mut frame = frame(7, ServiceStatus::Running);
        frame.services = None;
        frame
    }]);
    rig.send(place.host, at, batch).await;
    assert_eq!(rows::open(&bench.app.store).await.unwrap().len(), 1);
    rig.stop().await;
}
