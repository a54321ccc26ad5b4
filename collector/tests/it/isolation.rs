//! A value that the database refuses harms the frame that it is in, and nothing else.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use watchkeep_collector::{ingest::NotTaken, store::heartbeats};
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis,
    wire::heartbeat::{Ack, Batch, RejectReason, ServiceStatus},
};

use crate::{
    faults::Rig,
    pipeline::{another_host, batch, frame},
    support::{Bench, both, place},
};

both!(
    one_refused_frame_is_rejected_and_all_others_are_taken,
    a_suspect_host_costs_the_others_nothing,
    a_deadline_that_can_not_be_stored_holds_nobody_up
);

/// The sequence number that the database refuses.
const POISON: u64 = 66;

/// Makes the database refuse rows of a table that fulfil a condition.
async fn refuse(bench: &Bench, table: &str, condition: impl Fn(&str) -> String) {
    if let Some(path) = bench.url.strip_prefix("sqlite:") {
        let mut connection = SqliteConnection::connect(path).await.unwrap();
        let sql = format!(
            "CREATE TRIGGER poison BEFORE INSERT ON {table} WHEN {} \
             BEGIN SELECT RAISE(ABORT, 'poison'); END",
            condition("NEW.")
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    } else {
        let mut connection = PgConnection::connect(&bench.url).await.unwrap();
        let sql = format!(
            "ALTER TABLE {table} ADD CONSTRAINT poison CHECK (NOT ({}))",
            condition("")
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

async fn refuse_poison(bench: &Bench) {
    refuse(bench, "heartbeat", |row| format!("{row}seq = {POISON}")).await;
}

fn beats(seqs: &[u64]) -> (UnixMillis, Batch) {
    let frames = seqs
        .iter()
        .map(|seq| frame(*seq, ServiceStatus::Running))
        .collect();
    batch(frames)
}

/// Numbers of accepted frames, and of rejected ones.
fn outcome(answer: &Result<Ack, NotTaken>) -> (u32, Vec<u64>) {
    let ack = answer.as_ref().unwrap();
    assert!(
        ack.rejected
            .iter()
            .all(|one| one.reason == RejectReason::Unstorable),
        "{ack:?}"
    );
    let rejected = ack.rejected.iter().map(|one| one.seq).collect();
    (ack.accepted, rejected)
}

async fn stored(bench: &Bench, host: HostId) -> Vec<i64> {
    let tail = heartbeats::tail_after(&bench.app.store, 0).await.unwrap();
    let mut seqs: Vec<i64> = tail
        .iter()
        .filter(|row| row.host_id == host.uuid())
        .map(|row| row.seq)
        .collect();
    seqs.sort_unstable();
    seqs
}

async fn one_refused_frame_is_rejected_and_all_others_are_taken(bench: Bench) {
    let first = place(&bench.app).await.host;
    let poisoned = another_host(&bench).await;
    let mut others = vec![first];
    for _ in 0..6 {
        others.push(another_host(&bench).await);
    }
    refuse_poison(&bench).await;
    bench.clock.set(beats(&[70]).0);
    let mut rig = Rig::start(&bench).await;
    let all = [60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70];
    let mut sent: Vec<_> = others.iter().map(|host| (*host, beats(&[1]))).collect();
    sent.insert(3, (poisoned, beats(&all)));
    let mut answers = rig.send_all(sent).await;
    assert_eq!(outcome(&answers.remove(3)), (10, vec![66]));
    for (host, answer) in others.iter().zip(&answers) {
        assert_eq!(outcome(answer), (1, vec![]));
        assert_eq!(stored(&bench, *host).await, [1]);
    }
    let taken = [60, 61, 62, 63, 64, 65, 67, 68, 69, 70];
    assert_eq!(stored(&bench, poisoned).await, taken);
    assert_eq!(rig.metrics.rounds_apart.get(), 1);
    // A collector that starts now knows the same: all of it is a repeat.
    let mut rig = Rig::start(&bench).await;
    let repeat: Vec<u64> = taken.map(|seq| seq as u64).to_vec();
    let answers = rig
        .send_all(vec![(poisoned, beats(&repeat)), (first, beats(&[1]))])
        .await;
    assert_eq!(outcome(&answers[0]), (10, vec![]));
    assert_eq!(outcome(&answers[1]), (1, vec![]));
    assert_eq!(stored(&bench, poisoned).await, taken);
}

async fn a_suspect_host_costs_the_others_nothing(bench: Bench) {
    let other = place(&bench.app).await.host;
    let poisoned = another_host(&bench).await;
    refuse_poison(&bench).await;
    bench.clock.set(beats(&[POISON]).0);
    let mut rig = Rig::start(&bench).await;
    for seq in 1..=20 {
        let answers = rig
            .send_all(vec![
                (poisoned, beats(&[POISON])),
                (other, beats(&[seq])),
                (poisoned, beats(&[POISON])),
                (poisoned, beats(&[POISON])),
            ])
            .await;
        assert_eq!(outcome(&answers[1]), (1, vec![]));
        assert_eq!(outcome(&answers[0]), (0, vec![POISON]));
        // Only a few of its batches are looked at in one round.
        if seq > 1 {
            assert_eq!(answers[3], Err(NotTaken::Busy));
        }
    }
    assert_eq!(rig.metrics.rounds_apart.get(), 1);
    assert_eq!(rig.metrics.failed_rounds.get(), 0);
    assert_eq!(stored(&bench, poisoned).await, [0; 0]);
    // After a minute without such a value the host is like all others.
    for _ in 0..11 {
        bench
            .clock
            .set(bench.app.clock.now() + DurationMs::from_secs(6));
        rig.send_all(Vec::new()).await;
    }
    let answers = rig
        .send_all(vec![(poisoned, beats(&[67])), (other, beats(&[73]))])
        .await;
    assert_eq!(outcome(&answers[0]), (1, vec![]));
    assert_eq!(outcome(&answers[1]), (1, vec![]));
    assert_eq!(stored(&bench, poisoned).await, [67]);
}

async fn a_deadline_that_can_not_be_stored_holds_nobody_up(bench: Bench) {
    let silent = place(&bench.app).await.host;
    let other = another_host(&bench).await;
    refuse(&bench, "alert", |row| {
        format!("{row}rule_id = 'host-silent'")
    })
    .await;
    let mut rig = Rig::start(&bench).await;
    rig.send_all(vec![(silent, beats(&[1])), (other, beats(&[1]))])
        .await;
    // For five minutes one host is silent, and its alert can't be stored.
    for seq in 2..=30 {
        let beat = beats(&[seq]);
        while bench.app.clock.now() + DurationMs::from_secs(1) < beat.0 {
            bench
                .clock
                .set(bench.app.clock.now() + DurationMs::from_secs(1));
            rig.send_all(vec![]).await;
        }
        bench.clock.set(beat.0);
        let answers = rig.send_all(vec![(other, beat)]).await;
        assert_eq!(outcome(&answers[0]), (1, vec![]), "{seq}");
    }
    assert_eq!(rig.metrics.failed_rounds.get(), 0);
    let tries = rig.metrics.rounds_apart.get();
    assert!((2..=6).contains(&tries), "tried {tries} times");
    assert_eq!(stored(&bench, other).await.len(), 30);
}
