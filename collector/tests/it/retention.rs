//! Old events and old lines of the audit log go, and nothing else does.

use watchkeep_collector::{
    retention::{Expired, expire},
    store::{people, record, views},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::support::{Bench, Kind, NOW, both, place, run_with};

const DAY: DurationMs = DurationMs::from_hours(24);

both!(what_is_past_its_retention_goes_and_machines_stay_described);

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
    put_events(&bench, host, "log_match", recent, 3).await;
    put_events(&bench, host, "discovered", recent, 1).await;

    let expired = expire(&bench.app, now).await.unwrap();
    // All old log matches, and the two descriptions that have a newer one.
    assert_eq!(
        expired,
        Expired {
            events: 2_502,
            audit: 1
        }
    );
    assert_eq!(count(&bench, host, "log_match").await, 3);
    assert_eq!(count(&bench, host, "host_facts").await, 1);
    assert_eq!(count(&bench, host, "discovered").await, 1);
    let audit = people::audit_log(&bench.app.store, 10).await.unwrap();
    assert_eq!(audit.len(), 1);
    assert_eq!(expire(&bench.app, now).await.unwrap(), Expired::default());
}

#[test]
fn the_settings_say_how_long() {
    let settings = "[history]\nevents_days = 2\naudit_days = 1\n";
    run_with(Kind::Sqlite, settings, async |bench: Bench| {
        let host = place(&bench.app).await.host;
        put_events(&bench, host, "slept", NOW - DurationMs(2 * DAY.0 + 1), 1).await;
        put_audit(&bench, NOW - DurationMs(DAY.0 + 1)).await;
        put_events(&bench, host, "slept", NOW - DAY, 1).await;
        let expired = expire(&bench.app, NOW).await.unwrap();
        assert_eq!(
            expired,
            Expired {
                events: 1,
                audit: 1
            }
        );
    });
}
