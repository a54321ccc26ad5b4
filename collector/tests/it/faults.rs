//! Failures of the store, injected where a real one comes from: nothing needs a restart, nothing is
//! lost, nothing is doubled.

use std::sync::Arc;

use tokio::sync::mpsc;
use uuid::Uuid;
use watchkeep_collector::{
    app::App,
    ingest::{Inbox, NotTaken, Pipeline, metrics::Metrics},
    policies::{self, Person},
    process::Process,
    store::{
        StoreError,
        faults::{Failure, Point},
        fleet, heartbeats, views,
    },
    tickets,
};
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis,
    wire::heartbeat::{Ack, Batch, ServiceStatus},
};

use crate::{
    pipeline::{batch, frame},
    support::{Answer, Bench, NOW, arrival, both, place},
};

both!(
    no_failure_of_a_transaction_outlives_it,
    a_transaction_with_a_failed_statement_can_not_be_committed,
    after_failed_commits_heartbeats_are_taken_again,
    a_commit_of_unknown_outcome_is_read_back,
    a_store_that_fails_for_long_is_one_outage,
    workers_go_on_after_a_failed_commit
);

const POINTS: [Point; 6] = [
    Point::Begin,
    Point::Statement,
    Point::Commit,
    Point::Committed,
    Point::Rollback,
    Point::Read,
];
const FAILURES: [Failure; 3] = [
    Failure::ConnectionLost,
    Failure::DiskFull,
    Failure::DiskError,
];

async fn make_client(app: &App, name: &str) -> Result<(), StoreError> {
    let mut tx = app.store.begin().await?;
    fleet::ensure_client(&mut tx, name, NOW).await?;
    tx.commit().await
}

async fn roll_back(app: &App) -> Result<(), StoreError> {
    let mut tx = app.store.begin().await?;
    fleet::ensure_client(&mut tx, "never", NOW).await?;
    tx.rollback().await
}

async fn clients(app: &App) -> Result<Vec<String>, StoreError> {
    let rows = views::clients(&app.store).await?;
    Ok(rows.into_iter().map(|row| row.name).collect())
}

async fn no_failure_of_a_transaction_outlives_it(bench: Bench) {
    let app = &bench.app;
    let mut expected = Vec::new();
    for (i, (point, failure)) in POINTS
        .iter()
        .flat_map(|point| FAILURES.map(|failure| (*point, failure)))
        .enumerate()
    {
        app.store.faults().arm(point, failure, 1);
        let name = format!("c{i:02}");
        let outcomes = [
            make_client(app, &name).await.is_ok(),
            roll_back(app).await.is_ok(),
            clients(app).await.is_ok(),
        ];
        let failed = outcomes.iter().filter(|ok| !**ok).count();
        assert_eq!(failed, 1, "{point:?} {failure:?}");
        if outcomes[0] || point == Point::Committed {
            expected.push(name);
        }
        // The same connections' successors.
        let name = format!("c{i:02} after");
        make_client(app, &name).await.unwrap();
        roll_back(app).await.unwrap();
        expected.push(name);
        let mut found = clients(app).await.unwrap();
        found.sort_unstable();
        assert_eq!(found, expected, "{point:?} {failure:?}");
        assert_eq!(app.store.outage(), None, "{point:?} {failure:?}");
    }
}

async fn a_transaction_with_a_failed_statement_can_not_be_committed(bench: Bench) {
    let app = &bench.app;
    let mut tx = app.store.begin().await.unwrap();
    fleet::ensure_client(&mut tx, "first", NOW).await.unwrap();
    app.store
        .faults()
        .arm(Point::Statement, Failure::DiskError, 1);
    fleet::ensure_client(&mut tx, "second", NOW)
        .await
        .unwrap_err();
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, StoreError::Aborted), "{error}");
    assert_eq!(clients(app).await.unwrap(), [""; 0]);
}

/// A pipeline whose rounds a test starts by hand.
pub(crate) struct Rig {
    app: App,
    inbox: Inbox,
    pipeline: Pipeline,
    pub(crate) metrics: Arc<Metrics>,
}

impl Rig {
    pub(crate) async fn start(bench: &Bench) -> Self {
        let app = App {
            process: Process::new(),
            ..bench.app.clone()
        };
        let (inbox, queue) = mpsc::channel(64);
        let metrics = Arc::new(Metrics::default());
        let node = Uuid::from_u128(9);
        let pipeline = Pipeline::begin(app.clone(), node, Arc::clone(&metrics), queue)
            .await
            .unwrap();
        Self {
            app,
            inbox,
            pipeline,
            metrics,
        }
    }

    async fn send(&mut self, host: HostId, batch: (UnixMillis, Batch)) -> Result<Ack, NotTaken> {
        let mut answers = self.send_all(vec![(host, batch)]).await;
        answers.remove(0)
    }

    /// Sends batches of several hosts in one round; the answers in the same order.
    pub(crate) async fn send_all(
        &mut self,
        batches: Vec<(HostId, (UnixMillis, Batch))>,
    ) -> Vec<Result<Ack, NotTaken>> {
        let mut waiting = Vec::new();
        for (host, batch) in batches {
            waiting.push(self.queue(host, batch).await);
        }
        self.pipeline.turn().await.unwrap();
        let mut answers = Vec::new();
        for answer in waiting {
            answers.push(answer.await.unwrap());
        }
        answers
    }

    async fn queue(&mut self, host: HostId, (at, batch): (UnixMillis, Batch)) -> Answer {
        let (arrival, answer) = arrival(host, at, batch);
        self.inbox.send(arrival).await.unwrap();
        answer
    }

    async fn stored(&self) -> Vec<i64> {
        let tail = heartbeats::tail_after(&self.app.store, 0).await.unwrap();
        tail.iter().map(|row| row.seq).collect()
    }
}

fn beat(seq: u64) -> (UnixMillis, Batch) {
    batch(vec![frame(seq, ServiceStatus::Running)])
}

async fn after_failed_commits_heartbeats_are_taken_again(bench: Bench) {
    let place = place(&bench.app).await;
    let mut rig = Rig::start(&bench).await;
    let faults = bench.app.store.faults();
    let mut seq = 0;
    for point in [Point::Begin, Point::Statement, Point::Commit, Point::Read] {
        for failure in FAILURES {
            seq += 1;
            bench.clock.set(beat(seq).0);
            let expected: Vec<i64> = (1..seq as i64).collect();
            faults.arm_always(point, failure);
            for _ in 0..3 {
                if point != Point::Read {
                    let answer = rig.send(place.host, beat(seq)).await;
                    assert_eq!(answer.unwrap_err(), NotTaken::Busy, "{point:?} {failure:?}");
                }
                bench.clock.set(bench.app.clock.now() + DurationMs(100));
            }
            faults.disarm();
            assert_eq!(rig.stored().await, expected, "{point:?} {failure:?}");
            // Recovery is tried again within two seconds.
            bench
                .clock
                .set(bench.app.clock.now() + DurationMs::from_secs(2));
            assert_eq!(rig.send(place.host, beat(seq)).await.unwrap().accepted, 1);
        }
    }
    assert_eq!(rig.stored().await, (1..=seq as i64).collect::<Vec<_>>());
}

async fn a_commit_of_unknown_outcome_is_read_back(bench: Bench) {
    let place = place(&bench.app).await;
    let mut rig = Rig::start(&bench).await;
    let faults = bench.app.store.faults();
    assert_eq!(rig.send(place.host, beat(1)).await.unwrap().accepted, 1);
    faults.arm(Point::Committed, Failure::ConnectionLost, 1);
    assert_eq!(
        rig.send(place.host, beat(2)).await.unwrap_err(),
        NotTaken::Busy
    );
    // It is stored, and the agent sends it again.
    let again = rig.send(place.host, beat(2)).await.unwrap();
    assert_eq!((again.accepted, again.rejected.len()), (1, 0));
    assert_eq!(rig.send(place.host, beat(3)).await.unwrap().accepted, 1);
    assert_eq!(rig.stored().await, [1, 2, 3]);
}

async fn a_store_that_fails_for_long_is_one_outage(bench: Bench) {
    let app = &bench.app;
    assert_eq!(app.store.outage(), None);
    app.store
        .faults()
        .arm_always(Point::Commit, Failure::DiskFull);
    for _ in 0..50 {
        make_client(app, "nobody").await.unwrap_err();
        // Reading works, and that does not end it.
        clients(app).await.unwrap();
        let outage = app.store.outage().unwrap();
        assert_eq!(outage.kind.word(), "disk full", "{}", outage.text);
    }
    app.store.faults().disarm();
    make_client(app, "somebody").await.unwrap();
    assert_eq!(app.store.outage(), None);
}

async fn workers_go_on_after_a_failed_commit(bench: Bench) {
    let place = place(&bench.app).await;
    let mut rig = Rig::start(&bench).await;
    let (at, failed) = batch(vec![frame(1, ServiceStatus::Failed)]);
    bench.clock.set(at);
    rig.send(place.host, (at, failed)).await.unwrap();
    let app = &bench.app;
    let ada = Person {
        login: "ada",
        name: "Ada",
    };
    let check = watchkeep_shared::wire::policy::ServiceCheck::Systemd {
        unit: "nginx.service".to_owned(),
    };
    for point in [Point::Begin, Point::Statement, Point::Commit] {
        app.store.faults().arm(point, Failure::DiskError, 4);
        tickets::keep_evidence(app, at).await.unwrap_err();
        tickets::carry_out_due(app, at + DurationMs::from_hours(1))
            .await
            .unwrap_err();
        policies::watch(app, place.host, &check, ada)
            .await
            .unwrap_err();
        watchkeep_collector::ingest::seal::seal(app, at)
            .await
            .unwrap_err();
        assert!(app.store.outage().is_some(), "{point:?}");
    }
    assert_eq!(tickets::keep_evidence(app, at).await.unwrap(), 1);
    let later = at + DurationMs::from_hours(1);
    assert_eq!(tickets::carry_out_due(app, later).await.unwrap(), 1);
    assert!(policies::watch(app, place.host, &check, ada).await.unwrap());
    watchkeep_collector::ingest::seal::seal(app, later)
        .await
        .unwrap();
    assert_eq!(app.store.outage(), None);
}
