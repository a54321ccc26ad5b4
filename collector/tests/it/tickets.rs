//! Tickets in the store: one open ticket a key, a timeline, messages, and no page after an
//! acknowledgement.

use uuid::Uuid;
use watchkeep_collector::{
    store::{outbox, tickets as rows, views},
    tickets,
};
use watchkeep_core::{
    alerts::{AlertEvidence, Raised},
    ids::{AlertId, TicketId, UserId},
    rules::{CheckKey, Priority, RuleId, Severity},
    tickets::{Action, Actor, Applied, NewTicket, TicketState, open, open_key},
};
use watchkeep_shared::DurationMs;

use crate::support::{Bench, NOW, Place, both, place};

both!(
    a_ticket_reads_back_as_it_was_written,
    a_second_open_ticket_of_a_key_is_refused_by_the_database,
    two_people_acknowledge_at_once_and_one_event_is_written,
    an_unanswered_ticket_is_escalated_once
);

fn raised() -> Raised {
    Raised {
        alert: AlertId(Uuid::new_v4()),
        rule: RuleId("cpu-busy".to_owned()),
        check: CheckKey::metric("cpu.busy_pct"),
        severity: Severity::Critical,
        priority: Priority::P1,
        at: NOW,
        summary: "CPU busy: 99 % (above 90 %)".to_owned(),
        evidence: AlertEvidence {
            value: Some(99.0),
            threshold: Some(90.0),
            ..Default::default()
        },
    }
}

async fn opened(bench: &Bench, place: &Place) -> Applied {
    let mut tx = bench.app.store.begin().await.unwrap();
    let new = NewTicket {
        id: TicketId(Uuid::new_v4()),
        number: rows::next_number(&mut tx).await.unwrap(),
        client: place.client,
        contract: Some(place.contract),
        host: Some(place.host),
        host_name: "web1".to_owned(),
        previous: None,
    };
    let applied = open(new, &raised(), NOW);
    tickets::write(&bench.app, &mut tx, &applied, NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    applied
}

async fn a_ticket_reads_back_as_it_was_written(bench: Bench) {
    let place = place(&bench.app).await;
    let applied = opened(&bench, &place).await;
    assert_eq!(applied.ticket.number, 1_001);
    let read = rows::read(&bench.app.store, applied.ticket.id)
        .await
        .unwrap();
    assert_eq!(read.as_ref(), Some(&applied.ticket));
    assert_eq!(
        rows::open(&bench.app.store).await.unwrap(),
        std::slice::from_ref(&applied.ticket)
    );
    let key = open_key(
        Some(place.contract),
        Some(place.host),
        &CheckKey::metric("cpu.busy_pct"),
    );
    let mut tx = bench.app.store.begin().await.unwrap();
    assert_eq!(
        rows::by_key(&mut tx, &key).await.unwrap(),
        Some(applied.ticket)
    );
}

async fn a_second_open_ticket_of_a_key_is_refused_by_the_database(bench: Bench) {
    let place = place(&bench.app).await;
    let first = opened(&bench, &place).await.ticket;
    let mut second = first.clone();
    second.id = TicketId(Uuid::new_v4());
    second.number += 1;
    let mut tx = bench.app.store.begin().await.unwrap();
    let error = rows::put(&mut tx, &second, NOW).await.unwrap_err();
    assert!(error.is_unique_violation(), "{error}");
    drop(tx);
    // Once the first is done with, there may be another.
    let mut done = first;
    done.state = TicketState::Resolved;
    done.resolved_at = Some(NOW);
    let mut tx = bench.app.store.begin().await.unwrap();
    rows::put(&mut tx, &done, NOW).await.unwrap();
    rows::put(&mut tx, &second, NOW).await.unwrap();
    tx.commit().await.unwrap();
}

async fn two_people_acknowledge_at_once_and_one_event_is_written(bench: Bench) {
    let place = place(&bench.app).await;
    let id = opened(&bench, &place).await.ticket.id;
    let act = |n: u128| {
        let actor = Actor::User {
            id: UserId(Uuid::from_u128(n)),
            name: format!("person {n}"),
        };
        tickets::act(&bench.app, id, Action::Acknowledge, actor)
    };
    let (first, second) = tokio::join!(act(1), act(2));
    first.unwrap();
    second.unwrap();
    let ticket = rows::read(&bench.app.store, id).await.unwrap().unwrap();
    assert_eq!(ticket.state, TicketState::Open);
    assert_eq!(ticket.first_response_at, Some(NOW));
    let events = views::ticket_events(&bench.app.store, id, 100)
        .await
        .unwrap();
    let acknowledged = events.iter().filter(|event| event.kind == "acknowledged");
    assert_eq!(acknowledged.count(), 1);
    assert_eq!(outbox::next_due(&bench.app.store).await.unwrap(), None);
}

async fn an_unanswered_ticket_is_escalated_once(bench: Bench) {
    let place = place(&bench.app).await;
    let id = opened(&bench, &place).await.ticket.id;
    let early = NOW + DurationMs(5 * 60_000 - 1);
    assert_eq!(tickets::escalate_due(&bench.app, early).await.unwrap(), 0);
    let due = NOW + DurationMs::from_mins(5);
    assert_eq!(tickets::escalate_due(&bench.app, due).await.unwrap(), 1);
    assert_eq!(tickets::escalate_due(&bench.app, due).await.unwrap(), 0);
    assert_eq!(
        rows::read(&bench.app.store, id)
            .await
            .unwrap()
            .unwrap()
            .tier,
        2
    );
}
