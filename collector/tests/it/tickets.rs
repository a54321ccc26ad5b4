//! Tickets in the store: one open ticket a key, a timeline, messages, and no page after an
//! acknowledgement.

use uuid::Uuid;
use watchkeep_collector::{
    store::{delivery, tickets as rows, views},
    tickets,
};
use watchkeep_core::{
    alerts::{AlertEvidence, Raised},
    ids::{AlertId, TicketId, UserId},
    rules::{CheckKey, Priority, RuleId, Severity},
    tickets::{
        Action, Actor, Applied, NewTicket, Phase, TicketContext, TicketState, open, open_key,
    },
};
use watchkeep_shared::DurationMs;

use crate::{
    scenario::Probe,
    support::{Bench, NOW, Place, both, place},
};

both!(
    a_ticket_reads_back_as_it_was_written,
    every_phase_reads_back_as_it_was_written,
    a_second_open_ticket_of_a_key_is_refused_by_the_database,
    a_ticket_that_cannot_be_read_does_not_hold_up_the_others,
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

fn context(bench: &Bench) -> TicketContext<'_> {
    TicketContext {
        now: NOW,
        paging: &bench.app.config.paging,
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
    let applied = open(new, &raised(), context(bench));
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
    let error = rows::put(&mut tx, &second, None, NOW).await.unwrap_err();
    assert!(error.is_unique_violation(), "{error}");
    drop(tx);
    // Once the first is done with, there may be another.
    let mut done = first.clone();
    done.state = TicketState::Resolved;
    done.resolved_at = Some(NOW);
    done.episode.phase = Phase::Over {
        at: NOW,
        taken_at: None,
        recheck_at: None,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    rows::put(&mut tx, &done, None, NOW).await.unwrap();
    rows::put(&mut tx, &second, None, NOW).await.unwrap();
    tx.commit().await.unwrap();
    // The first can't be reopened by hand while the second is open.
    let error = tickets::act(&bench.app, done.id, Action::Reopen, anna())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the ticket is resolved: ticket #1002 about the same check is open; continue there"
    );
}

fn anna() -> Actor {
    Actor::User {
        id: UserId(Uuid::from_u128(1)),
        name: "Anna".to_owned(),
    }
}

async fn every_phase_reads_back_as_it_was_written(bench: Bench) {
    let place = place(&bench.app).await;
    let mut ticket = opened(&bench, &place).await.ticket;
    let later = Some(NOW + DurationMs::from_mins(30));
    for phase in [
        Phase::Unanswered { paged_at: None },
        Phase::Unanswered {
            paged_at: Some(NOW),
        },
        Phase::Taken { at: NOW },
        Phase::Over {
            at: NOW,
            taken_at: None,
            recheck_at: None,
        },
        Phase::Over {
            at: NOW,
            taken_at: Some(NOW),
            recheck_at: later,
        },
    ] {
        ticket.episode.phase = phase;
        let mut tx = bench.app.store.begin().await.unwrap();
        rows::put(&mut tx, &ticket, None, NOW).await.unwrap();
        tx.commit().await.unwrap();
        let read = rows::read(&bench.app.store, ticket.id).await.unwrap();
        assert_eq!(read.as_ref(), Some(&ticket));
    }
}

async fn a_ticket_that_cannot_be_read_does_not_hold_up_the_others(bench: Bench) {
    let place = place(&bench.app).await;
    let broken = opened(&bench, &place).await.ticket.id;
    let mut tx = bench.app.store.begin().await.unwrap();
    let mut other = rows::by_id(&mut tx, broken).await.unwrap().unwrap();
    other.id = TicketId(Uuid::from_u128(2));
    other.number += 1;
    other.check = Some(CheckKey::metric("mem.used_pct"));
    let due = NOW + DurationMs::from_mins(5);
    rows::put(&mut tx, &other, Some(due), NOW).await.unwrap();
    tx.commit().await.unwrap();
    let mut probe = Probe::connect(&bench.url).await;
    let broken: Vec<(i64,)> = probe
        .rows("UPDATE ticket SET severity = 'purple' WHERE number = 1001 RETURNING number")
        .await;
    assert_eq!(broken, [(1_001,)]);
    assert_eq!(tickets::carry_out_due(&bench.app, due).await.unwrap(), 1);
    let read = rows::read(&bench.app.store, other.id).await.unwrap();
    assert_eq!(read.unwrap().tier, 2);
    assert_eq!(rows::due(&bench.app.store, due).await.unwrap(), []);
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
    let events = views::ticket_events(&bench.app.store, id, None, 100)
        .await
        .unwrap();
    let acknowledged = events.iter().filter(|event| event.kind == "acknowledged");
    assert_eq!(acknowledged.count(), 1);
    let queues = delivery::queues(&bench.app.store).await.unwrap();
    assert!(queues.is_empty(), "{queues:?}");
}

async fn an_unanswered_ticket_is_escalated_once(bench: Bench) {
    let place = place(&bench.app).await;
    let id = opened(&bench, &place).await.ticket.id;
    let early = NOW + DurationMs(5 * 60_000 - 1);
    assert_eq!(tickets::carry_out_due(&bench.app, early).await.unwrap(), 0);
    let due = NOW + DurationMs::from_mins(5);
    assert_eq!(tickets::carry_out_due(&bench.app, due).await.unwrap(), 1);
    assert_eq!(tickets::carry_out_due(&bench.app, due).await.unwrap(), 0);
    assert_eq!(
        rows::read(&bench.app.store, id)
            .await
            .unwrap()
            .unwrap()
            .tier,
        2
    );
}
