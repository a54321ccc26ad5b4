//! What is past its retention is deleted, and nothing else is.

use watchkeep_collector::{
    retention::{Expired, MAX_SET_ASIDE, expire},
    store::{people, record, set_aside, views},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::support::{
    Bench, Kind, NOW, both, bytes_literal, execute, place, run_with, uuid_literal,
};

const DAY: DurationMs = DurationMs::from_hours(24);

both!(
    what_is_past_its_retention_goes_and_machines_stay_described,
    of_very_many_damaged_parts_the_newest_stay,
);

async fn put_events(bench: &Bench, host: HostId, kind: &'static str, at: UnixMillis, count: usize) {
    let events: Vec<_> = (0..count)
        .map(|n| record::NewEvent {
            id: bench.app.ids.next(at),
            host,
            kind,
            detail: format!(r#"{{"type":"{kind}","n":{n}}}"#),
            at,
            recorded_at: at,
        })
        .collect();
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_events(&mut tx, &events).await.unwrap();
    tx.commit().await.unwrap();
}

async fn put_audit(bench: &Bench, at: UnixMillis) {
    let line = people::Audit {
        id: bench.app.ids.next(at),
        at,
        actor: "ada",
        action: "sign_in",
        subject: "session",
        detail: "",
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    people::audit(&mut tx, &line).await.unwrap();
    tx.commit().await.unwrap();
}

async fn put_aside(bench: &Bench, host: HostId, at: UnixMillis, reason: &str) {
    let aside = set_aside::Aside {
        part: set_aside::Part::Row,
        host,
        hour: at.0,
        reason: reason.to_owned(),
        body: vec![0xff],
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    set_aside::put(&mut tx, bench.app.ids.next(at), &aside, at)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn reasons(bench: &Bench) -> Vec<String> {
    let rows = set_aside::newest(&bench.app.store, 100).await.unwrap();
    rows.into_iter().map(|row| row.reason).collect()
}

async fn count(bench: &Bench, host: HostId, kind: &str) -> usize {
    let events = views::host_events(&bench.app.store, host, UnixMillis(0), [kind; 2], 10_000);
    events.await.unwrap().len()
}

async fn what_is_past_its_retention_goes_and_machines_stay_described(bench: Bench) {
    let host = place(&bench.app).await.host;
    // Identifiers grow: the oldest come first.
    let now = NOW + DurationMs(1_000 * DAY.0);
    put_audit(&bench, now - DurationMs(1_101 * DAY.0)).await;
    put_audit(&bench, now - DurationMs(1_099 * DAY.0)).await;
    let old = now - DurationMs(401 * DAY.0);
    put_events(&bench, host, "log_match", old, 2_500).await;
    put_events(&bench, host, "host_facts", old - DurationMs(1), 1).await;
    put_events(&bench, host, "host_facts", old, 1).await;
    put_events(&bench, host, "discovered", old, 1).await;
    let recent = now - DurationMs(399 * DAY.0);
    put_aside(&bench, host, now - DurationMs(91 * DAY.0), "old").await;
    put_aside(&bench, host, now - DurationMs(89 * DAY.0), "recent").await;
    put_events(&bench, host, "log_match", recent, 3).await;
    put_events(&bench, host, "discovered", recent, 1).await;

    let expired = expire(&bench.app, now).await.unwrap();
    // All old log matches, and the two descriptions that have a newer one.
    assert_eq!(
        expired,
        Expired {
            events: 2_502,
            audit: 1,
            set_aside: 1,
        }
    );
    assert_eq!(count(&bench, host, "log_match").await, 3);
    assert_eq!(count(&bench, host, "host_facts").await, 1);
    assert_eq!(count(&bench, host, "discovered").await, 1);
    let audit = people::audit_log(&bench.app.store, 10).await.unwrap();
    assert_eq!(audit.len(), 1);
    assert_eq!(reasons(&bench).await, ["recent"]);
    assert_eq!(expire(&bench.app, now).await.unwrap(), Expired::default());
}

async fn of_very_many_damaged_parts_the_newest_stay(bench: Bench) {
    let host = place(&bench.app).await.host;
    put_aside(&bench, host, NOW - DurationMs(2), "oldest").await;
    put_aside(&bench, host, NOW - DurationMs(1), "older").await;
    let first = bench.app.ids.next(NOW);
    let sql = format!(
        "INSERT INTO set_aside (id, at, host_id, kind, hour, reason, body) \
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
         SELECT {first} + i, {}, {}, 'row', 0, 'new', {} FROM n",
        MAX_SET_ASIDE - 1,
        NOW.0,
        uuid_literal(&bench.url, host.uuid()),
        bytes_literal(&bench.url, &[0xff]),
    );
    execute(&bench.url, &sql).await;
    let expired = expire(&bench.app, NOW).await.unwrap();
    assert_eq!(expired.set_aside, 1);
    let counts = set_aside::counts(&bench.app.store).await.unwrap();
    assert_eq!(counts[0].count, MAX_SET_ASIDE);
    let expired = expire(&bench.app, NOW).await.unwrap();
    assert_eq!(expired, Expired::default());
}

#[test]
fn the_settings_say_how_long() {
    let settings = "[history]\nevents_days = 2\naudit_days = 1\nset_aside_days = 3\n";
    run_with(Kind::Sqlite, settings, async |bench: Bench| {
        let host = place(&bench.app).await.host;
        // Identifiers grow: the oldest come first.
        put_aside(&bench, host, NOW - DurationMs(3 * DAY.0 + 1), "old").await;
        put_events(&bench, host, "slept", NOW - DurationMs(2 * DAY.0 + 1), 1).await;
        put_audit(&bench, NOW - DurationMs(DAY.0 + 1)).await;
        put_aside(&bench, host, NOW - DAY, "recent").await;
        put_events(&bench, host, "slept", NOW - DAY, 1).await;
        let expired = expire(&bench.app, NOW).await.unwrap();
        assert_eq!(
            expired,
            Expired {
                events: 1,
                audit: 1,
                set_aside: 1,
            }
        );
    });
}
