//! A store of an earlier version works on after its migration.

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};
use uuid::Uuid;
use watchkeep_collector::{
    ingest::seal,
    series,
    store::{
        BeforeMigration, IfMissing, SCHEMA_VERSION, Store, StoreError, StoreUrl,
        fleet::partition_of,
        heartbeats, history,
        views::{self, TicketFilter},
    },
};
use watchkeep_core::{
    alerts::HostAlerts,
    host::HostState,
    ids::ClientId,
    search::Words,
    series::{self as codec, row},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis, metric, wire::heartbeat::ServiceStatus};

use crate::{
    pipeline::{Rig, batch, frame},
    support::{Bench, Kind, NOW, bytes_literal, execute, run_upgraded, uuid_literal},
};

const OLD: [(&str, &str, &str); 3] = [
    (
        "init",
        include_str!("../../migrations/sqlite/0001_init.sql"),
        include_str!("../../migrations/postgres/0001_init.sql"),
    ),
    (
        "quarantine",
        include_str!("../../migrations/sqlite/0002_quarantine.sql"),
        include_str!("../../migrations/postgres/0002_quarantine.sql"),
    ),
    (
        "policy",
        include_str!("../../migrations/sqlite/0003_policy.sql"),
        include_str!("../../migrations/postgres/0003_policy.sql"),
    ),
];

const CLIENT: Uuid = Uuid::from_u128(0xc1);
const HOST: Uuid = Uuid::from_u128(0xa5);

/// Makes a store as the migrations before 0004 left it.
async fn older(url: &str) {
    let sqlite = url.strip_prefix("sqlite:");
    let migrations = OLD.iter().zip(1_i64..).map(|(migration, version)| {
        let (name, of_sqlite, of_postgres) = *migration;
        let sql = if sqlite.is_some() {
            of_sqlite
        } else {
            of_postgres
        };
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    if let Some(path) = sqlite {
        execute(url, "SELECT 1").await;
        let pool = sqlx::SqlitePool::connect(path).await.unwrap();
        migrator.run(&pool).await.unwrap();
        pool.close().await;
    } else {
        let pool = sqlx::PgPool::connect(url).await.unwrap();
        migrator.run(&pool).await.unwrap();
        pool.close().await;
    }
}

/// The names of the frames that [`frame`] makes.
fn names() -> Vec<String> {
    vec!["cpu.busy_pct".to_owned()]
}

/// A host with a row in the tail and the chunk of the hour before.
async fn fill(url: &str) {
    older(url).await;
    let uuid = |id| uuid_literal(url, id);
    let schema = metric::schema_id(&names()).0 as i64;
    // A chunk of version 1: one row of the value 7, an hour before.
    let mut plain = vec![1];
    plain.extend(schema.to_le_bytes());
    plain.extend([1, 1]);
    let at = zigzag_varint(NOW.0 - 1_800_000);
    plain.push(at.len() as u8);
    plain.extend(at);
    // One column of four bytes: unit 0, all present, 700 hundredths.
    plain.extend([4, 0, 0, 0xf8, 0x0a]);
    let mut chunk = vec![1, plain.len() as u8];
    chunk.extend(zstd::bulk::compress(&plain, 3).unwrap());
    let sql = format!(
        "INSERT INTO client (id, name, created_at) VALUES ({client}, 'Bakery', 0); \
         INSERT INTO site (id, client_id, name, created_at) VALUES ({site}, {client}, 'Oven', 0); \
         INSERT INTO host (id, client_id, site_id, part, name, agent_version, enrolled_at) \
         VALUES ({host}, {client}, {site}, {part}, 'web1', '0.1.0', 0); \
         INSERT INTO metric_schema (id, names, created_at) VALUES ({schema}, '[\"cpu.busy_pct\"]', 0), \
         (4711, '[\"load.1m\"]', 0); \
         INSERT INTO heartbeat (id, prev_id, host_id, boot, instance, seq, at, recorded_at, mono_ms, \
         boot_ms, interval_ms, late, schema_id, vals) VALUES ({id}, 0, {host}, {host}, {host}, 1, {now}, \
         {now}, 5, 5, 10000, FALSE, {schema}, {vals}); \
         INSERT INTO host_state (host_id, part, arrival_id, last_id, state, updated_at) \
         VALUES ({host}, {part}, {id}, {id}, '{state}', {now}); \
         INSERT INTO chunk (client_id, host_id, hour, body) VALUES ({client}, {host}, {hour}, {body})",
        client = uuid(CLIENT),
        site = uuid(Uuid::from_u128(0x51)),
        host = uuid(HOST),
        part = partition_of(HostId(HOST)),
        id = watchkeep_collector::ids::RowIds::first_at(NOW) + 1,
        now = NOW.0,
        vals = bytes_literal(url, &row::encode(&[Some(9.0)])),
        hour = NOW.0 - 3_600_000,
        body = bytes_literal(url, &chunk),
        state = serde_json::json!({
            "host": HostState::default(),
            "alerts": HostAlerts::default(),
        }),
    );
    execute(url, &sql).await;
}

fn zigzag_varint(value: i64) -> Vec<u8> {
    let mut rest = (value << 1) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

async fn points(bench: &Bench) -> Vec<(UnixMillis, Option<f64>)> {
    let names = names();
    let request = series::Request {
        names: &names,
        from: NOW - DurationMs::from_hours(2),
        to: NOW + DurationMs::from_hours(2),
    };
    let read = series::read(&bench.app, HostId(HOST), request).await;
    read.unwrap().remove(0).points
}

async fn history_and_lists_of_names_outlive_the_migration(bench: Bench) {
    let (host, schema) = (HostId(HOST), metric::schema_id(&names()));
    let lists = heartbeats::host_schemas(&bench.app.store).await.unwrap();
    assert_eq!(lists, [(host, schema, NOW)]);
    let range = history::TailRange {
        after: 0,
        before: i64::MAX,
        parts: partition_of(host)..partition_of(host) + 1,
    };
    let tail = history::sealable(&bench.app.store, &range, 10).await;
    assert_eq!(tail.unwrap().len(), 1, "by its partition");
    let (at, mut next) = batch(vec![frame(5, ServiceStatus::Running)]);
    // Before the start: a clock that jumps later would be a hold-up of the collector.
    bench.clock.set(at);
    let rig = Rig::start(&bench).await;
    let old = (NOW - DurationMs(1_800_000), Some(7.0));
    assert_eq!(points(&bench).await[0], old);
    // The agent need not send its list of names again.
    next.schemas.clear();
    assert_eq!(rig.send(host, at, next).await.accepted, 1);
    let expected = [old, (NOW, Some(9.0)), (at, Some(5.0))];
    assert_eq!(points(&bench).await, expected);
    rig.stop().await;
    let later = NOW + DurationMs::from_mins(70);
    bench.clock.set(later);
    assert_eq!(seal::seal(&bench.app, later).await.unwrap().rows, 2);
    assert_eq!(points(&bench).await, expected);
    // The list that no host uses is kept for old chunks, and goes with them.
    let unused = watchkeep_shared::ids::SchemaId(4711);
    let known = async || {
        let found = heartbeats::names_of(&bench.app.store, &[unused]).await;
        found.unwrap().len()
    };
    seal::seal(&bench.app, later).await.unwrap();
    assert_eq!(known().await, 1);
    let hours = history::Hours {
        client: ClientId(CLIENT),
        host,
        from: UnixMillis(0),
        to: later,
    };
    let chunks = history::chunks(&bench.app.store, hours, 10).await.unwrap();
    assert_eq!(codec::unnamed(&chunks[0].1).unwrap(), [schema]);
    assert_eq!(codec::unnamed(&chunks[1].1).unwrap(), []);
    let week = NOW + DurationMs::from_hours(7 * 24);
    bench.clock.set(week);
    seal::seal(&bench.app, week).await.unwrap();
    assert_eq!(known().await, 0);
}

#[test]
fn on_sqlite_history_and_lists_of_names_outlive_the_migration() {
    let story = history_and_lists_of_names_outlive_the_migration;
    run_upgraded(Kind::Sqlite, "", fill, story);
}

#[test]
fn on_postgres_history_and_lists_of_names_outlive_the_migration() {
    let story = history_and_lists_of_names_outlive_the_migration;
    run_upgraded(Kind::Postgres, "", fill, story);
}

/// A ticket opened by an earlier version, with letters beyond ASCII in its title.
async fn fill_ticket(url: &str) {
    fill(url).await;
    let uuid = |id| uuid_literal(url, id);
    let sql = format!(
        "INSERT INTO ticket (id, number, client_id, title, priority, severity, state, tier, \
         touched_by_human, opened_at, episode_at, updated_at) VALUES ({}, 1001, {}, \
         'ÉCLAIR auf Łódź1 GESTÖRT', 'P2', 'warning', 'open', 1, FALSE, 0, 0, 0)",
        uuid(Uuid::from_u128(0x71)),
        uuid(CLIENT),
    );
    execute(url, &sql).await;
}

async fn titles_of_before_are_found_in_any_letters(bench: Bench) {
    for (typed, found) in [
        ("éclair", 1),
        ("ECLAIR lodz", 1),
        ("gestört", 1),
        ("zürich", 0),
    ] {
        let filter = TicketFilter {
            words: Words::new(typed),
            ..TicketFilter::open()
        };
        let count = views::queue_count(&bench.app.store, &filter).await;
        assert_eq!(count.unwrap(), found, "{typed}");
    }
}

#[test]
fn on_sqlite_titles_of_before_are_found_in_any_letters() {
    let story = titles_of_before_are_found_in_any_letters;
    run_upgraded(Kind::Sqlite, "", fill_ticket, story);
}

#[test]
fn on_postgres_titles_of_before_are_found_in_any_letters() {
    let story = titles_of_before_are_found_in_any_letters;
    run_upgraded(Kind::Postgres, "", fill_ticket, story);
}

/// Whether the store has this program's version.
async fn is_current(url: &str) -> bool {
    let url = url.parse().unwrap();
    let store = Store::connect(&url, IfMissing::Fail).await.unwrap();
    let version = store.version().await.unwrap();
    store.close().await;
    version == SCHEMA_VERSION
}

async fn an_older_store_is_migrated_only_on_request(url: &str) {
    fill(url).await;
    let parsed: StoreUrl = url.parse().unwrap();
    // What `status` and the other verbs do.
    let error = Store::open_current(&parsed).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Older { found: 3, known } if known == SCHEMA_VERSION),
        "{error}"
    );
    assert!(error.to_string().contains("watchkeep-collector migrate"));
    assert!(!is_current(url).await);
    let store = Store::connect(&parsed, IfMissing::Fail).await.unwrap();
    let upgraded = store.upgrade(&parsed, BeforeMigration::Copy).await.unwrap();
    let upgraded = upgraded.unwrap();
    assert_eq!(upgraded.from, 3);
    // Once is enough.
    let again = store.upgrade(&parsed, BeforeMigration::Copy).await.unwrap();
    assert_eq!(again, None);
    store.close().await;
    assert!(is_current(url).await);
    let Some(path) = url.strip_prefix("sqlite:") else {
        assert_eq!(upgraded.copy, None);
        return;
    };
    let copy = upgraded.copy.unwrap().display().to_string();
    assert!(copy.starts_with(&format!("{path}.v3-")), "{copy}");
    // The copy is the older store, whole: it can be migrated in turn.
    let copy = format!("sqlite:{copy}");
    assert!(!is_current(&copy).await);
    let store = Store::open(&copy.parse().unwrap()).await.unwrap();
    let hosts = watchkeep_collector::store::fleet::hosts(&store).await;
    assert_eq!(hosts.unwrap().len(), 1);
    store.close().await;
}

#[test]
fn on_sqlite_an_older_store_is_migrated_only_on_request_and_copied_before() {
    run_upgraded(
        Kind::Sqlite,
        "",
        an_older_store_is_migrated_only_on_request,
        async |_: Bench| {},
    );
}

#[test]
fn on_postgres_an_older_store_is_migrated_only_on_request() {
    run_upgraded(
        Kind::Postgres,
        "",
        an_older_store_is_migrated_only_on_request,
        async |_: Bench| {},
    );
}

#[test]
fn a_store_that_can_not_be_copied_is_not_migrated() {
    let before = async |url: &str| {
        fill(url).await;
        let store = Store::connect(&url.parse().unwrap(), IfMissing::Fail)
            .await
            .unwrap();
        // The copy would be in a folder that does not exist.
        let elsewhere = StoreUrl::Sqlite("/nonexistent/store.db".into());
        let failed = store.upgrade(&elsewhere, BeforeMigration::Copy).await;
        assert!(matches!(failed, Err(StoreError::Copy { .. })), "{failed:?}");
        assert_eq!(store.version().await.unwrap(), 3);
        let done = store
            .upgrade(&elsewhere, BeforeMigration::NoCopy)
            .await
            .unwrap();
        assert_eq!(done.unwrap().copy, None);
        store.close().await;
    };
    run_upgraded(Kind::Sqlite, "", before, async |_: Bench| {});
}
