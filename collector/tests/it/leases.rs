//! A partition has one owner at a time, and an owner that lost it can't write.

use uuid::Uuid;
use watchkeep_collector::store::{StoreError, fleet::PARTITIONS, leases};
use watchkeep_shared::{DurationMs, UnixMillis};

use crate::support::{Bench, NOW, both};

const TERM: DurationMs = DurationMs::from_secs(15);

both!(
    one_owner_at_a_time,
    a_restarted_node_takes_its_own_back_at_once,
    of_two_claimers_one_wins
);

async fn one_owner_at_a_time(bench: Bench) {
    let store = &bench.app.store;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let first = leases::claim(store, a, NOW, TERM).await.unwrap();
    assert_eq!(first.parts, (0..PARTITIONS).collect::<Vec<_>>());
    let too_early = leases::claim(store, b, NOW + DurationMs(14_999), TERM)
        .await
        .unwrap();
    assert_eq!(too_early.parts, Vec::<i32>::new());
    let in_time = leases::claim(store, b, NOW + TERM, TERM).await.unwrap();
    assert_eq!(in_time.parts.len(), PARTITIONS as usize);
    // The first owner wakes up and is refused, in a check and in a renewal.
    let mut tx = store.begin().await.unwrap();
    assert!(matches!(
        leases::check(&mut tx, &first).await,
        Err(StoreError::LeaseLost)
    ));
    let late = leases::renew(&mut tx, &first, NOW + TERM, TERM).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)));
    drop(tx);
    let mut tx = store.begin().await.unwrap();
    leases::check(&mut tx, &in_time).await.unwrap();
}

async fn a_restarted_node_takes_its_own_back_at_once(bench: Bench) {
    let store = &bench.app.store;
    let node = Uuid::from_u128(1);
    let before = leases::claim(store, node, NOW, TERM).await.unwrap();
    let after = leases::claim(store, node, NOW + DurationMs(1), TERM)
        .await
        .unwrap();
    assert_eq!(after.parts.len(), PARTITIONS as usize);
    // What is left of the earlier run can't write any more.
    let mut tx = store.begin().await.unwrap();
    assert!(matches!(
        leases::check(&mut tx, &before).await,
        Err(StoreError::LeaseLost)
    ));
}

async fn of_two_claimers_one_wins(bench: Bench) {
    let store = &bench.app.store;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for round in 0..10 {
        let now = UnixMillis(NOW.0 + round * TERM.0);
        let (first, second) = tokio::join!(
            leases::claim(store, a, now, TERM),
            leases::claim(store, b, now, TERM)
        );
        let (first, second) = (first.unwrap(), second.unwrap());
        let mut both: Vec<i32> = first.parts.iter().chain(&second.parts).copied().collect();
        both.sort_unstable();
        assert_eq!(both, (0..PARTITIONS).collect::<Vec<_>>(), "round {round}");
    }
}
