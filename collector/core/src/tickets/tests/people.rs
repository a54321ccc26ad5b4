//! What people do.

use super::*;

#[test]
fn an_acknowledgement_is_the_first_response_and_stops_the_paging() {
    let ticket = opened();
    let applied = act(&ticket, Action::Acknowledge, 30);
    assert_eq!(kinds(&applied), ["acknowledged", "assigned"]);
    assert_eq!(applied.notify, [Intent::CancelPages]);
    assert_eq!(applied.escalate_at, None);
    let ticket = applied.ticket;
    assert_eq!(ticket.state, TicketState::Open);
    assert_eq!(ticket.first_response_at, Some(at(30)));
    assert_eq!(ticket.episode.taken_at(), Some(at(30)));
    assert_eq!(escalate(&ticket, context(99_999)), None);
    let again = act(&ticket, Action::Acknowledge, 40);
    assert_eq!((again.events, again.notify), (vec![], vec![]));
}

#[test]
fn the_holder_of_a_pages_link_may_acknowledge_without_becoming_the_assignee() {
    let link = Actor::Link {
        sent_to: "oncall@example.net".to_owned(),
    };
    let applied = apply(&opened(), Action::Acknowledge, link, context(30)).unwrap();
    assert_eq!(kinds(&applied), ["acknowledged"]);
    assert_eq!(applied.ticket.assignee, None);
    assert!(applied.ticket.touched_by_human);
}

#[test]
fn assigning_it_to_oneself_is_an_answer() {
    let applied = act(&opened(), to_anna(), 30);
    assert_eq!(kinds(&applied), ["assigned"]);
    assert_eq!(applied.notify, [Intent::CancelPages]);
    assert_eq!(applied.escalate_at, None);
    let ticket = applied.ticket;
    assert_eq!(ticket.state, TicketState::Open);
    assert_eq!(ticket.first_response_at, Some(at(30)));
    assert_eq!(escalate(&ticket, context(99_999)), None);
    // In a new episode the same person has to answer again, and may do it the same way.
    let worse = raised(40, Severity::Critical, Priority::P1);
    let worse = attach(&ticket, &worse, context(40)).ticket;
    let answered = act(&worse, to_anna(), 50);
    assert_eq!(answered.notify, [Intent::CancelPages]);
    let again = act(&answered.ticket, to_anna(), 60);
    assert_eq!((again.events, again.notify), (vec![], vec![]));
}

#[test]
fn assigning_it_to_somebody_else_stops_the_paging_and_is_no_response() {
    let applied = act(&opened(), to_ben(), 30);
    assert_eq!(
        applied.notify,
        [Intent::CancelPages, notice(News::Assigned)]
    );
    assert_eq!(applied.escalate_at, None);
    assert_eq!(applied.ticket.first_response_at, None);
    let nobody = act(&applied.ticket, Action::Assign { to: None }, 40);
    assert_eq!((nobody.notify, nobody.escalate_at), (vec![], None));
}

#[test]
fn what_fires_is_resolved_only_on_purpose_and_comes_back() {
    let ticket = act(&opened(), Action::Acknowledge, 10).ticket;
    for action in [
        Action::Resolve(IfFiring::Refuse),
        Action::Close(IfFiring::Refuse),
        Action::SetState(TicketState::Resolved),
        Action::SetState(TicketState::Closed),
    ] {
        let reason = refused(&ticket, action);
        assert_eq!(reason, Refusal::StillFiring { count: 1 });
    }
    let error = apply(
        &ticket,
        Action::Resolve(IfFiring::Refuse),
        anna(),
        context(20),
    );
    assert_eq!(
        error.expect_err("it fires").to_string(),
        "the ticket is open: 1 alert is still firing; wait until it has recovered, or resolve it \
         anyway"
    );
    for action in [
        Action::Resolve(IfFiring::Anyway),
        Action::Close(IfFiring::Anyway),
    ] {
        let done = act(&ticket, action, 20);
        assert!(done.ticket.is_resolved_while_firing());
        assert_eq!(
            done.notify,
            [Intent::CancelPages, notice(News::Resolved)],
            "the resolution is news"
        );
        let back_at = 20 + REOPEN_WINDOW.0 / 1_000;
        assert_eq!(recheck(&done.ticket, context(back_at - 1)), None);
        let back = recheck(&done.ticket, context(back_at)).expect("it still fires");
        assert_eq!(kinds(&back), ["reopened"]);
        assert_eq!(back.notify, [page(1, PageReason::StillFiring)]);
        assert_eq!(back.ticket.state, TicketState::New);
        assert_eq!(back.ticket.resolved_at, None);
        assert_eq!(back.escalate_at, Some(at(back_at + 15 * 60)));
        assert_eq!(recheck(&back.ticket, context(back_at)), None);
    }
}

#[test]
fn what_recovers_after_it_was_resolved_is_not_checked_again() {
    let done = act(&opened(), Action::Resolve(IfFiring::Anyway), 20).ticket;
    let left = Firing::new(1, Some(Priority::P3));
    let still = clear(&done, &cleared(30), left, context(30)).ticket;
    assert!(recheck(&still, context(99_999)).is_some());
    let over = recovered(&done, 30);
    assert_eq!((kinds(&over), over.notify), (vec!["cleared"], vec![]));
    assert_eq!(over.ticket.state, TicketState::Resolved);
    assert_eq!(recheck(&over.ticket, context(99_999)), None);
}

#[test]
fn one_more_alert_opens_what_was_resolved_or_closed_while_it_fired() {
    let window = REOPEN_WINDOW.0 / 1_000;
    for action in [
        Action::Resolve(IfFiring::Anyway),
        Action::Close(IfFiring::Anyway),
    ] {
        let done = act(&opened(), action, 20).ticket;
        let late = 21 + window;
        let decision = on_alert_raised(Some(&done), &warning(late), at(late));
        assert_eq!(decision, RaiseDecision::Reopen);
        let again = reopen(&done, &warning(late), context(late)).ticket;
        assert_eq!(again.firing.count(), 2);
        assert_eq!(again.priority, Priority::P2, "the other one still fires");
    }
}

#[test]
fn a_person_who_reopens_a_ticket_has_it() {
    let firing = act(&opened(), Action::Resolve(IfFiring::Anyway), 20).ticket;
    let back = act(&firing, Action::Reopen, 30);
    assert_eq!((&back.notify[..], back.escalate_at), (&[][..], None));
    assert_eq!(back.ticket.episode.phase, Phase::Taken { at: at(30) });
    assert_eq!(recheck(&back.ticket, context(99_999)), None);

    let over = recovered(&opened(), 20).ticket;
    let back = act(&over, Action::Reopen, 30).ticket;
    assert!(back.is_recovered());
    let again = attach(&back, &critical(40), context(40));
    assert_eq!(again.notify, [page(1, PageReason::FiresAgain)]);
}

#[test]
fn a_lower_priority_takes_waiting_pages_back_and_a_higher_one_pages() {
    let lower = act(&opened(), Action::SetPriority(Priority::P3), 10);
    assert_eq!(lower.notify, [Intent::CancelPages]);
    assert_eq!(lower.escalate_at, None);
    let notice_only = open(new_ticket(), &warning(0), context(0)).ticket;
    let higher = act(&notice_only, Action::SetPriority(Priority::P1), 10);
    assert_eq!(higher.escalate_at, Some(at(10)));
    let paged = escalate(&higher.ticket, context(10)).expect("it is due");
    assert_eq!(paged.notify, [page(1, PageReason::HoursBegan)]);
}

#[test]
fn what_a_state_does_not_allow_is_refused() {
    let open = opened();
    let resolved = recovered(&open, 10).ticket;
    let closed = act(&resolved, Action::Close(IfFiring::Refuse), 20).ticket;
    assert_eq!(
        closed.resolved_at,
        Some(at(10)),
        "closing is not resolving again"
    );
    let acknowledged = act(&open, Action::Acknowledge, 5).ticket;
    let empty = Action::Note {
        internal: false,
        text: " \n".to_owned(),
    };
    let long = Action::Note {
        internal: true,
        text: "x".repeat(MAX_NOTE_BYTES + 1),
    };
    for (ticket, action, reason) in [
        (&open, Action::Reopen, Refusal::AlreadyOpen),
        (
            &acknowledged,
            Action::SetState(TicketState::New),
            Refusal::NeverNew,
        ),
        (&resolved, Action::Acknowledge, Refusal::ReopenFirst),
        (
            &resolved,
            Action::SetState(TicketState::Open),
            Refusal::ReopenFirst,
        ),
        (
            &closed,
            Action::Resolve(IfFiring::Anyway),
            Refusal::ReopenFirst,
        ),
        (&closed, Action::Assign { to: None }, Refusal::ReopenFirst),
        (
            &closed,
            Action::SetPriority(Priority::P1),
            Refusal::ReopenFirst,
        ),
        (&open, empty, Refusal::EmptyNote),
        (&open, long, Refusal::LongNote),
    ] {
        let text = format!("{action:?} on {}", ticket.state);
        assert_eq!(refused(ticket, action), reason, "{text}");
    }
    let same = act(&open, Action::SetState(TicketState::New), 30);
    assert_eq!(same.events, [], "setting the state it has is no error");
    let reopened = act(&closed, Action::Reopen, 40).ticket;
    assert_eq!(
        (reopened.state, reopened.resolved_at),
        (TicketState::Open, None)
    );
    let error = apply(&closed, Action::Acknowledge, anna(), context(30)).expect_err("it is closed");
    assert_eq!(error.to_string(), "the ticket is closed: reopen it first");
}
