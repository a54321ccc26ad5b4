//! History: the tail and the sealed chunks read as one, before, during and after sealing.

use watchkeep_collector::{
    ids::RowIds,
    ingest::seal,
    series,
    store::{heartbeats, history},
};
use watchkeep_core::series::row;
use watchkeep_shared::{DurationMs, UnixMillis, ids::SchemaId, metric};

use crate::support::{Bench, NOW, Place, both, mark, place};

const HOUR: DurationMs = DurationMs::from_hours(1);

both!(
    a_chart_is_the_same_before_and_after_sealing,
    late_rows_join_the_chunk_of_their_hour,
    chunks_past_their_retention_go
);

fn names() -> Vec<String> {
    vec!["cpu.busy_pct".to_owned(), "load.1m".to_owned()]
}

/// Stores a heartbeat made at `made` that arrives at `arrived`; returns its row.
async fn beat(
    bench: &Bench,
    place: &Place,
    seq: u64,
    (made, arrived): (UnixMillis, UnixMillis),
    prev_id: i64,
) -> i64 {
    let schema = metric::schema_id(&names());
    let values = [Some(seq as f64), seq.is_multiple_of(2).then_some(0.5)];
    let mut mark = mark(seq, made);
    mark.arrived_at = arrived;
    let new = heartbeats::NewHeartbeat {
        id: bench.app.ids.next(arrived),
        prev_id,
        host: place.host,
        mark,
        interval_ms: 60_000,
        late: made != arrived,
        schema,
        values: row::encode(&values),
    };
    let id = new.id;
    let mut tx = bench.app.store.begin().await.unwrap();
    heartbeats::insert_schema(&mut tx, schema, &names(), NOW)
        .await
        .unwrap();
    heartbeats::insert(&mut tx, &[new]).await.unwrap();
    let state = heartbeats::NewState {
        host: place.host,
        arrival_id: id,
        last_id: id,
        state: "{}".to_owned(),
    };
    heartbeats::put_states(&mut tx, &[state], NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    id
}

fn minute(n: i64) -> UnixMillis {
    NOW + DurationMs::from_mins(n)
}

async fn read(bench: &Bench, place: &Place) -> Vec<series::Series> {
    series::read(&bench.app, place.host, &names(), NOW, minute(600))
        .await
        .unwrap()
}

async fn a_chart_is_the_same_before_and_after_sealing(bench: Bench) {
    let place = place(&bench.app).await;
    let mut last = 0;
    for n in 0..130 {
        last = beat(&bench, &place, n as u64 + 1, (minute(n), minute(n)), last).await;
    }
    let before = read(&bench, &place).await;
    assert_eq!(before[0].points.len(), 130);
    assert_eq!(before[0].points[129], (minute(129), Some(130.0)));
    // Too early: the second hour ended less than five minutes ago, so only the first is sealed.
    let sealed = seal::seal(&bench.app, minute(124)).await.unwrap();
    assert_eq!((sealed.rows, sealed.chunks), (60, 1));
    let first = RowIds::first_at(minute(60));
    assert!(history::oldest_id(&bench.app.store).await.unwrap().unwrap() >= first);
    let known = |series: &series::Series| -> Vec<(UnixMillis, Option<f64>)> {
        series
            .points
            .iter()
            .copied()
            .filter(|(_, value)| value.is_some())
            .collect()
    };
    let after = read(&bench, &place).await;
    for (one, other) in before.iter().zip(&after) {
        assert_eq!(known(one), known(other), "{}", one.name);
    }
    // Again: nothing is left to do, and nothing changes.
    assert_eq!(seal::seal(&bench.app, minute(124)).await.unwrap().rows, 0);
    let sealed = seal::seal(&bench.app, minute(126)).await.unwrap();
    assert_eq!((sealed.rows, sealed.chunks), (60, 1));
    let after = read(&bench, &place).await;
    assert_eq!(known(&before[0]), known(&after[0]));
}

async fn late_rows_join_the_chunk_of_their_hour(bench: Bench) {
    let place = place(&bench.app).await;
    let first = beat(&bench, &place, 1, (minute(0), minute(0)), 0).await;
    let second = beat(&bench, &place, 3, (minute(20), minute(20)), first).await;
    assert_eq!(seal::seal(&bench.app, minute(70)).await.unwrap().chunks, 1);
    let live = beat(&bench, &place, 9, (minute(80), minute(80)), second).await;
    beat(&bench, &place, 2, (minute(10), minute(81)), live).await;
    let expected = [
        (minute(0), 1.0),
        (minute(10), 2.0),
        (minute(20), 3.0),
        (minute(80), 9.0),
    ]
    .map(|(at, value)| (at, Some(value)));
    assert_eq!(read(&bench, &place).await[0].points, expected);
    // The second hour's rows, by arrival: one belongs to the first hour's chunk.
    let sealed = seal::seal(&bench.app, minute(130)).await.unwrap();
    assert_eq!((sealed.rows, sealed.chunks), (2, 2));
    assert_eq!(read(&bench, &place).await[0].points, expected);
    let chunks = history::chunks(&bench.app.store, place.client, place.host, NOW, minute(600));
    assert_eq!(chunks.await.unwrap().len(), 2);
}

async fn chunks_past_their_retention_go(bench: Bench) {
    let place = place(&bench.app).await;
    beat(&bench, &place, 1, (minute(0), minute(0)), 0).await;
    assert_eq!(seal::seal(&bench.app, minute(70)).await.unwrap().chunks, 1);
    let week = DurationMs::from_hours(7 * 24);
    assert_eq!(seal::seal(&bench.app, NOW + week).await.unwrap().expired, 0);
    assert_eq!(
        seal::seal(&bench.app, NOW + week + HOUR)
            .await
            .unwrap()
            .expired,
        1
    );
    assert_eq!(read(&bench, &place).await[0].points, []);
    // A schema outlives its chunks: it is small, and others use it.
    let schemas = heartbeats::schemas(&bench.app.store).await.unwrap();
    assert_eq!(
        schemas,
        [(SchemaId(metric::schema_id(&names()).0), names())]
    );
}
