//! The outbox delivers at least once, one worker at a time, pages before notices, and not after it
//! was cancelled.

use uuid::Uuid;
use watchkeep_collector::store::{
    StoreError, delivery,
    outbox::{self, Attempt, Claim, Finished, Message, NewMessage},
};
use watchkeep_core::delivery::MessageKind;
use watchkeep_shared::{DurationMs, UnixMillis};

use crate::support::{Bench, NOW, both};

const LEASE: DurationMs = DurationMs::from_mins(5);

both!(
    each_message_has_one_claimer,
    a_failed_message_comes_again_and_a_sent_one_does_not,
    a_lease_that_ran_out_is_claimed_again,
    pages_are_claimed_before_older_notices_of_their_channel_alone,
    leases_end_when_the_collector_starts_again
);

async fn put(bench: &Bench, channel: &'static str, kind: MessageKind, at: UnixMillis) {
    let mut tx = bench.app.store.begin().await.unwrap();
    let id = bench.app.ids.next(at);
    let message = NewMessage {
        id,
        message: id,
        ticket: None,
        channel,
        recipient: "tier1".to_owned(),
        tier: 1,
        kind,
        payload: "{}".to_owned(),
    };
    outbox::insert(&mut tx, &message, at).await.unwrap();
    tx.commit().await.unwrap();
}

async fn put_pages(bench: &Bench, count: usize) {
    for _ in 0..count {
        put(bench, "webhook", MessageKind::Page, NOW).await;
    }
}

fn by(token: u128, limit: usize) -> Claim<'static> {
    Claim {
        channel: "webhook",
        token: Uuid::from_u128(token),
        lease: LEASE,
        limit,
    }
}

async fn finish(
    bench: &Bench,
    message: &Message,
    token: u128,
    attempt: Attempt,
) -> Result<(), StoreError> {
    let finished = Finished {
        row: bench.app.ids.next(NOW),
        token: Uuid::from_u128(token),
        at: NOW,
        attempt,
    };
    outbox::finish(&bench.app.store, message, &finished).await
}

async fn each_message_has_one_claimer(bench: Bench) {
    put_pages(&bench, 12).await;
    let store = &bench.app.store;
    let claims = (0..4).map(|n| {
        let store = store.clone();
        async move { outbox::claim(&store, by(n, 16), NOW).await.unwrap() }
    });
    let claimed: Vec<_> = futures_join(claims).await;
    let mut ids: Vec<i64> = claimed.iter().flatten().map(|message| message.id).collect();
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!((ids.len(), count), (12, 12));
}

async fn a_failed_message_comes_again_and_a_sent_one_does_not(bench: Bench) {
    put_pages(&bench, 2).await;
    let store = &bench.app.store;
    let claimed = outbox::claim(store, by(1, 16), NOW).await.unwrap();
    assert_eq!(claimed.len(), 2);
    let again = NOW + DurationMs::from_secs(2);
    finish(&bench, &claimed[0], 1, Attempt::Sent).await.unwrap();
    let retry = Attempt::Retry(again, "no answer".to_owned());
    finish(&bench, &claimed[1], 1, retry).await.unwrap();
    let recipients = delivery::recipients(store).await.unwrap();
    assert_eq!(recipients[0].failing_since, Some(NOW.0));
    assert_eq!(recipients[0].last_sent_at, Some(NOW.0));
    let early = outbox::claim(store, by(1, 16), NOW).await.unwrap();
    assert!(early.is_empty());
    let second = outbox::claim(store, by(1, 16), again).await.unwrap();
    assert_eq!(second.len(), 1);
    assert_eq!((second[0].id, second[0].attempts), (claimed[1].id, 1));
    assert_eq!(second[0].first_failed_at, Some(NOW.0));
    finish(&bench, &second[0], 1, Attempt::Dead("gone".to_owned()))
        .await
        .unwrap();
    assert!(delivery::queues(store).await.unwrap().is_empty());
    assert_eq!(delivery::dead(store, 10).await.unwrap().len(), 1);
}

async fn a_lease_that_ran_out_is_claimed_again(bench: Bench) {
    put_pages(&bench, 1).await;
    let store = &bench.app.store;
    let first = outbox::claim(store, by(1, 16), NOW).await.unwrap();
    let second = outbox::claim(store, by(2, 16), NOW + LEASE).await.unwrap();
    assert_eq!(second.len(), 1);
    // The first worker was only slow: it may send, but no longer writes the outcome.
    let wanted = async |token| {
        outbox::still_wanted(store, first[0].id, Uuid::from_u128(token))
            .await
            .unwrap()
    };
    assert!(!wanted(1).await);
    assert!(wanted(2).await);
}

async fn pages_are_claimed_before_older_notices_of_their_channel_alone(bench: Bench) {
    let later = NOW + DurationMs::from_secs(1);
    for _ in 0..20 {
        put(&bench, "webhook", MessageKind::Notice, NOW).await;
    }
    put(&bench, "webhook", MessageKind::Page, later).await;
    put(&bench, "mail", MessageKind::Page, NOW).await;
    let store = &bench.app.store;
    let claimed = outbox::claim(store, by(1, 3), later).await.unwrap();
    let kinds: Vec<_> = claimed
        .iter()
        .map(|one| (one.channel.as_str(), one.kind.as_str()))
        .collect();
    let notice = ("webhook", "notice");
    assert_eq!(kinds, [("webhook", "page"), notice, notice]);
    assert!(claimed[1].id < claimed[2].id);
}

async fn leases_end_when_the_collector_starts_again(bench: Bench) {
    put_pages(&bench, 1).await;
    let store = &bench.app.store;
    outbox::claim(store, by(1, 1), NOW).await.unwrap();
    assert!(
        outbox::claim(store, by(2, 1), NOW)
            .await
            .unwrap()
            .is_empty()
    );
    outbox::release(store).await.unwrap();
    assert_eq!(outbox::claim(store, by(2, 1), NOW).await.unwrap().len(), 1);
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
