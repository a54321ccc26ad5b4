//! The outbox delivers at least once, one worker at a time, and not after it was cancelled.

use uuid::Uuid;
use watchkeep_collector::store::outbox::{self, Attempt, NewMessage};
use watchkeep_shared::DurationMs;

use crate::support::{Bench, NOW, both};

const LEASE: DurationMs = DurationMs::from_mins(5);

both!(
    each_message_has_one_claimer,
    a_failed_message_comes_again_and_a_sent_one_does_not,
    a_lease_that_ran_out_is_claimed_again
);

async fn put(bench: &Bench, count: usize) {
    let mut tx = bench.app.store.begin().await.unwrap();
    for _ in 0..count {
        let message = NewMessage {
            id: bench.app.ids.next(NOW),
            ticket: None,
            channel: "webhook",
            kind: "page",
            payload: "{}".to_owned(),
        };
        outbox::insert(&mut tx, &message, NOW).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn each_message_has_one_claimer(bench: Bench) {
    put(&bench, 12).await;
    let store = &bench.app.store;
    let claims = (0..4).map(|n| {
        let store = store.clone();
        async move {
            outbox::claim(&store, Uuid::from_u128(n), NOW, LEASE)
                .await
                .unwrap()
        }
    });
    let claimed: Vec<_> = futures_join(claims).await;
    let mut ids: Vec<i64> = claimed.iter().flatten().map(|message| message.id).collect();
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!((ids.len(), count), (12, 12));
}

async fn a_failed_message_comes_again_and_a_sent_one_does_not(bench: Bench) {
    put(&bench, 2).await;
    let store = &bench.app.store;
    let token = Uuid::from_u128(1);
    let claimed = outbox::claim(store, token, NOW, LEASE).await.unwrap();
    assert_eq!(claimed.len(), 2);
    let again = NOW + DurationMs::from_secs(2);
    let ids = || (bench.app.ids.next(NOW), NOW);
    outbox::finish(store, &claimed[0], token, Attempt::Sent, ids())
        .await
        .unwrap();
    outbox::finish(
        store,
        &claimed[1],
        token,
        Attempt::Retry(again, "no answer"),
        ids(),
    )
    .await
    .unwrap();
    assert_eq!(outbox::next_due(store).await.unwrap(), Some(again));
    assert!(
        outbox::claim(store, token, NOW, LEASE)
            .await
            .unwrap()
            .is_empty()
    );
    let second = outbox::claim(store, token, again, LEASE).await.unwrap();
    assert_eq!(second.len(), 1);
    assert_eq!((second[0].id, second[0].attempts), (claimed[1].id, 1));
    outbox::finish(store, &second[0], token, Attempt::Dead("gone"), ids())
        .await
        .unwrap();
    assert_eq!(outbox::next_due(store).await.unwrap(), None);
}

async fn a_lease_that_ran_out_is_claimed_again(bench: Bench) {
    put(&bench, 1).await;
    let store = &bench.app.store;
    let (died, next) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let first = outbox::claim(store, died, NOW, LEASE).await.unwrap();
    let second = outbox::claim(store, next, NOW + LEASE, LEASE)
        .await
        .unwrap();
    assert_eq!(second.len(), 1);
    // The first worker was only slow: it may send, but no longer writes the outcome.
    assert!(
        !outbox::still_wanted(store, first[0].id, died)
            .await
            .unwrap()
    );
    assert!(
        outbox::still_wanted(store, first[0].id, next)
            .await
            .unwrap()
    );
}

/// Runs futures at once, as tasks of their own.
#[expect(
    clippy::disallowed_methods,
    reason = "a test without a process to track its tasks"
)]
async fn futures_join<T: Send + 'static>(
    futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
