//! History: the tail and the sealed chunks read as one, before, during and after sealing.

use std::{collections::HashMap, sync::Arc};

use prometheus_client::{encoding::text, registry::Registry};
use uuid::Uuid;
use watchkeep_collector::{
    history::LostRows,
    ids::RowIds,
    ingest::seal,
    series,
    store::{fleet, heartbeats, history, views},
};
use watchkeep_core::series::{self as codec, ChunkData, Names, Row, row};
use watchkeep_shared::{DurationMs, HostId, UnixMillis, ids::SchemaId, metric};

use crate::support::{Bench, NOW, Place, both, bytes_literal, execute, mark, place, uuid_literal};

const HOUR: DurationMs = DurationMs::from_hours(1);

both!(
    a_chart_is_the_same_before_and_after_sealing,
    late_rows_join_the_chunk_of_their_hour,
    chunks_past_their_retention_go,
    a_chunk_without_names_is_read_and_gets_them,
    what_is_wrong_with_one_host_is_set_aside_and_stops_nobody,
    more_rows_than_a_chunk_holds_are_thinned,
    a_large_fleet_is_sealed_in_passes_and_each_chunk_is_written_once,
);

fn names() -> Vec<String> {
    vec!["cpu.busy_pct".to_owned(), "load.1m".to_owned()]
}

fn interned() -> Names {
    names()
        .iter()
        .map(|name| Arc::from(name.as_str()))
        .collect()
}

fn schema() -> SchemaId {
    metric::schema_id(&names())
}

/// A heartbeat of a host, made at `made`, that arrives at `arrived`.
fn heartbeat(
    bench: &Bench,
    host: HostId,
    seq: u64,
    (made, arrived): (UnixMillis, UnixMillis),
) -> heartbeats::NewHeartbeat {
    let values = [Some(seq as f64), seq.is_multiple_of(2).then_some(0.5)];
    let mut mark = mark(seq, made);
    mark.arrived_at = arrived;
    heartbeats::NewHeartbeat {
        id: bench.app.ids.next(arrived),
        prev_id: 0,
        host,
        mark,
        interval_ms: 60_000,
        late: made != arrived,
        schema: schema(),
        values: row::encode(&values),
    }
}

async fn store(bench: &Bench, rows: &[heartbeats::NewHeartbeat]) {
    let mut schemas = heartbeats::SchemaWrites::default();
    for row in rows {
        if !schemas.used.contains(&(row.host, schema())) {
            schemas.use_list(row.host, schema(), Some(interned()));
        }
    }
    let mut tx = bench.app.store.begin().await.unwrap();
    heartbeats::write_schemas(&mut tx, &schemas, NOW)
        .await
        .unwrap();
    heartbeats::insert(&mut tx, rows).await.unwrap();
    tx.commit().await.unwrap();
}

/// Stores a heartbeat made at `made` that arrives at `arrived`; returns its row.
async fn beat(
    bench: &Bench,
    place: &Place,
    seq: u64,
    times: (UnixMillis, UnixMillis),
    prev_id: i64,
) -> i64 {
    let mut new = heartbeat(bench, place.host, seq, times);
    new.prev_id = prev_id;
    let id = new.id;
    store(bench, &[new]).await;
    let mut tx = bench.app.store.begin().await.unwrap();
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
    let names = names();
    let request = series::Request {
        names: &names,
        from: NOW,
        to: minute(600),
    };
    series::read(&bench.app, place.host, request).await.unwrap()
}

async fn chunks(bench: &Bench, place: &Place, host: HostId) -> Vec<(i64, Vec<u8>)> {
    let hours = history::Hours {
        client: place.client,
        host,
        from: NOW - HOUR,
        to: minute(600),
    };
    history::chunks(&bench.app.store, hours, 100).await.unwrap()
}

/// A further host of the same client.
async fn host(bench: &Bench, id: Uuid) -> HostId {
    let site = fleet::sites(&bench.app.store).await.unwrap()[0].id.into();
    let new = fleet::NewHost {
        id: HostId(id),
        site,
        name: "other".to_owned(),
        agent_version: "0.1.0".to_owned(),
        enrolled_at: NOW,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    fleet::insert_host(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    new.id
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
    // A chart of it: five buckets of 26 minutes, over two chunks and the tail.
    let names = names();
    let request = series::Request {
        names: &names,
        from: NOW,
        to: minute(130),
    };
    let thinned = series::thinned(&bench.app, place.host, request, 5).await;
    let thinned = thinned.unwrap();
    let means: Vec<f64> = thinned[0]
        .buckets
        .iter()
        .map(|bucket| bucket.range.unwrap().mean)
        .collect();
    assert_eq!(means, [13.5, 39.5, 65.5, 91.5, 117.5]);
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
    assert_eq!(chunks(&bench, &place, place.host).await.len(), 2);
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
}

/// A chunk as version 1 wrote it: its columns have no names.
fn old_chunk(rows: Vec<Row>) -> Vec<u8> {
    let new = codec::encode(&ChunkData::from_rows(rows)).unwrap();
    // Version, length of the content, content: which begins with two counts of names, both 0.
    let at = new
        .iter()
        .skip(1)
        .position(|byte| byte & 0x80 == 0)
        .unwrap()
        + 2;
    let plain = zstd::bulk::decompress(&new[at..], 1 << 20).unwrap();
    let mut old = vec![1, plain.len() as u8 - 2];
    assert!(plain.len() < 0x80);
    old.extend(zstd::bulk::compress(&plain[2..], 3).unwrap());
    old
}

async fn a_chunk_without_names_is_read_and_gets_them(bench: Bench) {
    let place = place(&bench.app).await;
    let row = |n: i64| Row {
        at: minute(n),
        schema: schema(),
        values: vec![Some(n * 100), None],
    };
    let body = old_chunk(vec![row(1), row(2)]);
    let key = history::ChunkKey {
        client: place.client,
        host: place.host,
        hour: NOW.0,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    history::put_chunk(&mut tx, key, &body).await.unwrap();
    tx.commit().await.unwrap();
    // The list of names is that of an earlier version: no host uses it any more.
    let mut lists = heartbeats::SchemaWrites::default();
    lists.use_list(place.host, schema(), Some(interned()));
    let mut tx = bench.app.store.begin().await.unwrap();
    heartbeats::write_schemas(&mut tx, &lists, NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    execute(
        &bench.url,
        &format!(
            "DELETE FROM host_schema; UPDATE metric_schema SET unused_at = 1, chunks_through = {}",
            NOW.0
        ),
    )
    .await;
    let expected = [(minute(1), Some(1.0)), (minute(2), Some(2.0))];
    assert_eq!(read(&bench, &place).await[0].points, expected);
    // It is kept as long as a chunk may refer to it.
    seal::seal(&bench.app, minute(300)).await.unwrap();
    assert_eq!(read(&bench, &place).await[0].points, expected);
    // A late row joins the chunk, which holds its names from then on.
    let late = heartbeat(&bench, place.host, 30, (minute(30), minute(200)));
    let mut tx = bench.app.store.begin().await.unwrap();
    heartbeats::insert(&mut tx, &[late]).await.unwrap();
    tx.commit().await.unwrap();
    seal::seal(&bench.app, minute(300)).await.unwrap();
    execute(&bench.url, "UPDATE metric_schema SET chunks_through = 0").await;
    seal::seal(&bench.app, minute(300)).await.unwrap();
    let left = heartbeats::names_of(&bench.app.store, &[schema()]).await;
    assert_eq!(left.unwrap(), HashMap::new());
    let points = &read(&bench, &place).await[0].points;
    assert_eq!(points[..2], expected);
    assert_eq!(points[2..], [(minute(30), Some(30.0))]);
}

/// The figures of history, as in `/metrics`.
fn figures(bench: &Bench) -> String {
    let mut registry = Registry::default();
    bench.app.history.register(&mut registry);
    let mut figures = String::new();
    text::encode(&mut figures, &registry).unwrap();
    figures
}

async fn what_is_wrong_with_one_host_is_set_aside_and_stops_nobody(bench: Bench) {
    let place = place(&bench.app).await;
    let other = host(&bench, Uuid::new_v4()).await;
    let rows: Vec<_> = (0..20)
        .map(|n| {
            let host = if n % 2 == 0 { place.host } else { other };
            heartbeat(&bench, host, n + 1, (minute(n as i64), minute(n as i64)))
        })
        .collect();
    store(&bench, &rows).await;
    let url = &bench.url;
    // Of one host a row is damaged, one has a list of names that is lost, and the chunk is damaged.
    execute(
        url,
        &format!(
            "UPDATE heartbeat SET vals = {} WHERE id = {}; \
             UPDATE heartbeat SET schema_id = 4711 WHERE id = {}; \
             INSERT INTO chunk (client_id, host_id, hour, body) VALUES ({}, {}, {}, {})",
            bytes_literal(url, &[0xff]),
            rows[0].id,
            rows[2].id,
            uuid_literal(url, place.client.uuid()),
            uuid_literal(url, place.host.uuid()),
            NOW.0,
            bytes_literal(url, b"\x02nonsense"),
        ),
    )
    .await;
    let sealed = seal::seal(&bench.app, minute(70)).await.unwrap();
    let lost = LostRows {
        thinned: 0,
        unnamed: 1,
        unreadable: 2,
    };
    assert_eq!((sealed.rows, sealed.chunks, sealed.lost), (20, 2, lost));
    assert_eq!(history::oldest_id(&bench.app.store).await.unwrap(), None);
    for (host, rows) in [(place.host, 8), (other, 10)] {
        let chunks = chunks(&bench, &place, host).await;
        assert_eq!(codec::decode(&chunks[0].1).unwrap().len(), rows);
    }
    let kinds = ["history_lost", "history_lost"];
    let events = views::host_events(&bench.app.store, place.host, NOW, kinds, 10).await;
    let events = events.unwrap();
    assert_eq!(events.len(), 1);
    assert!(
        events[0].detail.contains("\"unreadable\":2"),
        "{}",
        events[0].detail
    );
    let figures = figures(&bench);
    for line in [
        "history_rows_lost_total{reason=\"unnamed\"} 1",
        "history_rows_lost_total{reason=\"unreadable\"} 2",
        "history_rows_lost_total{reason=\"thinned\"} 0",
        "history_set_aside{kind=\"row\"} 1",
        "history_set_aside{kind=\"chunk\"} 1",
    ] {
        assert!(figures.contains(line), "{line}: {figures}");
    }
    // Nothing is left to do.
    let again = seal::seal(&bench.app, minute(70)).await.unwrap();
    assert_eq!(again, seal::Sealed::default());
}

async fn more_rows_than_a_chunk_holds_are_thinned(bench: Bench) {
    let place = place(&bench.app).await;
    let other = host(&bench, Uuid::new_v4()).await;
    let mut rows: Vec<_> = (0..30_000)
        .map(|n| {
            let at = NOW + DurationMs(n * 100);
            heartbeat(&bench, place.host, n as u64 + 1, (at, at))
        })
        .collect();
    rows.push(heartbeat(&bench, other, 1, (minute(59), minute(59))));
    store(&bench, &rows).await;
    let sealed = seal::seal(&bench.app, minute(70)).await.unwrap();
    assert_eq!((sealed.rows, sealed.chunks), (30_001, 2));
    assert_eq!(sealed.lost.thinned, 15_000);
    assert_eq!(history::oldest_id(&bench.app.store).await.unwrap(), None);
    let chunk = &chunks(&bench, &place, place.host).await[0].1;
    let decoded = codec::decode(chunk).unwrap();
    assert_eq!(decoded.len(), 15_000);
    assert_eq!(decoded.segments()[0].times()[1], NOW + DurationMs(200));
}

async fn a_large_fleet_is_sealed_in_passes_and_each_chunk_is_written_once(bench: Bench) {
    let place = place(&bench.app).await;
    let mut hosts = Vec::new();
    for n in 0..16 {
        // Each in a partition of its own.
        hosts.push(host(&bench, Uuid::from_u128(0x1000 + n * 4)).await);
    }
    let mut rows = Vec::new();
    for n in 0..60 {
        for host in &hosts {
            rows.push(heartbeat(
                &bench,
                *host,
                n as u64 + 1,
                (minute(n), minute(n)),
            ));
        }
    }
    store(&bench, &rows).await;
    // Room for two hosts' rows.
    let sealed = seal::seal_within(&bench.app, minute(70), 2 * 60 * 80).await;
    let sealed = sealed.unwrap();
    assert_eq!((sealed.rows, sealed.chunks), (16 * 60, 16));
    assert_eq!(history::oldest_id(&bench.app.store).await.unwrap(), None);
    for host in hosts {
        let chunks = chunks(&bench, &place, host).await;
        assert_eq!(codec::decode(&chunks[0].1).unwrap().len(), 60);
    }
}
