//! What alerts do.

use super::*;

#[test]
fn an_alert_opens_a_ticket_with_its_evidence_and_pages_the_first_tier() {
    assert_eq!(
        on_alert_raised(None, &critical(0), at(0)),
        RaiseDecision::OpenNew
    );
    let applied = open(new_ticket(), &critical(0), context(0));
    assert_eq!(kinds(&applied), ["opened", "attached"]);
    let ticket = &applied.ticket;
    assert_eq!(ticket.state, TicketState::New);
    assert_eq!(ticket.title, "web-1: Disk / 97 % full (limit 95 %)");
    assert_eq!((ticket.firing.count(), ticket.is_recovered()), (1, false));
    assert_eq!(applied.notify, [page(1, PageReason::Opened)]);
    assert_eq!(applied.escalate_at, Some(at(15 * 60)));
    let key = ticket.open_key().expect("it is open and automatic");
    assert!(key.ends_with("/disk.used_pct:/"), "{key}");
    assert_eq!(key.matches('/').count(), 3, "{key}");
}

#[test]
fn a_notice_and_a_ticket_of_the_queue_wake_nobody_and_never_escalate() {
    let applied = open(new_ticket(), &warning(0), context(0));
    assert_eq!(applied.notify, [called(PageReason::Opened)]);
    assert_eq!(applied.escalate_at, None);
    assert_eq!(escalate(&applied.ticket, context(99_999)), None);

    let quiet = raised(0, Severity::Info, Priority::P4);
    let applied = open(new_ticket(), &quiet, context(0));
    assert_eq!((applied.notify, applied.escalate_at), (vec![], None));
    let over = recovered(&applied.ticket, 60);
    assert_eq!(over.notify, [Intent::CancelPages], "no notice either");
}

#[test]
fn an_untouched_ticket_resolves_by_itself_and_opens_again_within_the_window() {
    let ticket = opened();
    let one = Firing::new(1, Some(Priority::P3));
    assert_eq!(on_alert_cleared(&ticket, one), ClearDecision::Nothing);
    let resolved = recovered(&ticket, 60);
    assert_eq!(kinds(&resolved), ["cleared", "auto-resolved"]);
    assert_eq!(
        resolved.notify,
        [Intent::CancelPages, notice(News::Resolved)]
    );
    let ticket = resolved.ticket;
    assert_eq!(
        (ticket.resolved_at, ticket.open_key()),
        (Some(at(60)), None)
    );
    assert_eq!(recheck(&ticket, context(99_999)), None, "nothing fires");

    let window = REOPEN_WINDOW.0 / 1_000;
    let decide = |secs| on_alert_raised(Some(&ticket), &critical(secs), at(secs));
    assert_eq!(decide(60 + window), RaiseDecision::Reopen);
    let previous = ticket.id;
    assert_eq!(decide(61 + window), RaiseDecision::OpenLinked { previous });
    let again = reopen(&ticket, &critical(70), context(70));
    assert_eq!(kinds(&again), ["reopened", "attached"]);
    assert_eq!(
        (again.ticket.state, again.ticket.resolved_at),
        (TicketState::New, None)
    );
    assert_eq!(again.notify, [page(1, PageReason::Reopened)]);
}

#[test]
fn a_breach_after_the_resolution_begins_an_episode_of_its_own_priority() {
    let ticket = recovered(&act(&opened(), Action::Acknowledge, 10).ticket, 15).ticket;
    let ticket = act(&ticket, Action::Resolve(IfFiring::Refuse), 20).ticket;
    let again = reopen(&ticket, &critical(30), context(30));
    assert_eq!(again.notify, [page(1, PageReason::Reopened)]);
    assert_eq!(
        again.ticket.episode,
        Episode {
            since: at(30),
            phase: Phase::Unanswered {
                paged_at: Some(at(30))
            }
        }
    );
    assert_eq!(
        again.ticket.first_response_at,
        Some(at(10)),
        "it counts once"
    );
    assert_eq!(again.escalate_at, Some(at(30 + 15 * 60)));
    let taken = act(&again.ticket, Action::Acknowledge, 40);
    assert_eq!(taken.ticket.first_response_at, Some(at(10)));
    assert_eq!(taken.escalate_at, None);

    // The disk that was full is only filling this time: nobody is woken for that.
    let milder = reopen(&ticket, &warning(30), context(30));
    assert_eq!(milder.ticket.priority, Priority::P3);
    assert_eq!(milder.ticket.severity, Severity::Warning);
    assert_eq!(milder.notify, [called(PageReason::Reopened)]);
}

#[test]
fn a_closed_ticket_is_not_opened_again_by_an_alert() {
    let ticket = recovered(&act(&opened(), note(true), 5).ticket, 9).ticket;
    let ticket = act(&ticket, Action::Close(IfFiring::Refuse), 10).ticket;
    let decision = on_alert_raised(Some(&ticket), &warning(11), at(11));
    let previous = ticket.id;
    assert_eq!(decision, RaiseDecision::OpenLinked { previous });
}

#[test]
fn a_touched_ticket_is_handed_back_and_never_escalates() {
    let ticket = act(&opened(), note(true), 5).ticket;
    assert_eq!(
        ticket.first_response_at, None,
        "an internal note is no response"
    );
    assert!(escalation_due_at(&ticket, &DEFAULT_TABLE, at(5)).is_some());
    let applied = recovered(&ticket, 9);
    assert_eq!(kinds(&applied), ["cleared", "handed back"]);
    assert_eq!(
        applied.notify,
        [Intent::CancelPages, notice(News::HandedBack)]
    );
    assert!(applied.ticket.state.is_open() && applied.ticket.is_recovered());
    assert_eq!(applied.escalate_at, None);
    assert_eq!(escalate(&applied.ticket, context(99_999)), None);
    let by_system = apply(
        &applied.ticket,
        Action::Resolve(IfFiring::Refuse),
        Actor::System,
        context(9),
    );
    let error = by_system.expect_err("a person resolves it");
    assert_eq!(error.reason, Refusal::PersonResolves);
}

#[test]
fn what_fires_again_after_it_was_handed_back_is_a_new_episode() {
    let ticket = act(&opened(), Action::Acknowledge, 5).ticket;
    let waiting = TicketState::Waiting {
        on: WaitingOn::Supplier,
    };
    let ticket = act(&ticket, Action::SetState(waiting), 6).ticket;
    let ticket = recovered(&ticket, 9).ticket;
    let again = attach(&ticket, &critical(20), context(20));
    assert_eq!(kinds(&again), ["attached", "episode", "state"]);
    assert_eq!(again.notify, [page(1, PageReason::FiresAgain)]);
    assert_eq!(again.ticket.state, TicketState::Open);
    assert_eq!(again.ticket.episode.since, at(20));
    assert_eq!(again.escalate_at, Some(at(20 + 15 * 60)));
}

#[test]
fn a_worse_alert_raises_priority_and_pages_once_more() {
    let ticket = open(new_ticket(), &warning(0), context(0)).ticket;
    let same = attach(&ticket, &warning(10), context(10));
    assert_eq!(
        (kinds(&same), same.notify),
        (vec!["attached"], vec![]),
        "nothing new"
    );
    assert_eq!(same.ticket.firing.count(), 2);
    let worse = attach(&ticket, &critical(20), context(20));
    assert_eq!(kinds(&worse), ["attached", "priority"]);
    assert_eq!(worse.notify, [page(1, PageReason::Worse)]);
    assert_eq!(worse.ticket.priority, Priority::P2);
    assert_eq!(
        worse.escalate_at,
        Some(at(20 + 15 * 60)),
        "tier 1 has its time from the page on"
    );
}

#[test]
fn a_worse_alert_after_an_acknowledgement_begins_a_new_episode() {
    let ticket = open(new_ticket(), &warning(0), context(0)).ticket;
    let ticket = act(&ticket, Action::Acknowledge, 10).ticket;
    let same = attach(&ticket, &warning(20), context(20));
    assert_eq!(same.notify, [notice(News::AlertAttached)]);
    assert_eq!(same.escalate_at, None);

    let worse = attach(&ticket, &critical(20), context(20));
    assert_eq!(kinds(&worse), ["attached", "priority", "episode"]);
    assert_eq!(worse.notify, [page(1, PageReason::Worse)]);
    assert_eq!(worse.ticket.priority, Priority::P2);
    assert_eq!(worse.ticket.episode.taken_at(), None);
    assert_eq!(worse.escalate_at, Some(at(20 + 15 * 60)));
    let answered = act(&worse.ticket, Action::Acknowledge, 30);
    assert_eq!(answered.notify, [Intent::CancelPages]);
    let flapping = attach(&answered.ticket, &critical(40), context(40));
    assert_eq!(flapping.notify, [notice(News::AlertAttached)]);

    let graver = raised(50, Severity::Critical, Priority::P3);
    let graver = attach(&ticket, &graver, context(50));
    assert_eq!(kinds(&graver), ["attached", "episode"]);
    assert_eq!(graver.notify, [called(PageReason::Worse)]);
}

#[test]
fn a_priority_that_a_person_chose_holds_until_something_more_urgent_fires() {
    let ticket = act(&opened(), Action::Acknowledge, 5).ticket;
    let ticket = act(&ticket, Action::SetPriority(Priority::P4), 6).ticket;
    let flapping = attach(&ticket, &critical(10), context(10)).ticket;
    assert_eq!(flapping.priority, Priority::P4);
    let over = recovered(&flapping, 15).ticket;
    let again = attach(&over, &critical(20), context(20));
    assert_eq!(again.ticket.priority, Priority::P4);
    assert_eq!(again.notify, [], "P4 only appears in the queue");
    let urgent = raised(30, Severity::Critical, Priority::P1);
    let urgent = attach(&over, &urgent, context(30));
    assert_eq!(urgent.ticket.priority, Priority::P1);
    assert_eq!(urgent.notify, [page(1, PageReason::FiresAgain)]);
}

#[test]
fn what_recovered_is_not_escalated_for_what_still_fires() {
    // The full disk (P2) is only filling (P3) again.
    let ticket = attach(&opened(), &warning(10), context(10)).ticket;
    let left = Firing::new(1, Some(Priority::P3));
    let milder = clear(&ticket, &cleared(60), left, context(60));
    assert_eq!(milder.notify, [Intent::CancelPages]);
    assert_eq!(milder.escalate_at, None);
    assert_eq!(milder.ticket.priority, Priority::P2, "it stays as it was");
    let full = attach(&milder.ticket, &critical(90), context(90));
    assert_eq!(
        full.escalate_at,
        Some(at(15 * 60)),
        "tier 1 was paged at the opening"
    );
}

#[test]
fn an_update_of_an_alert_is_a_notice_and_changes_nothing_else() {
    let ticket = act(&opened(), Action::Acknowledge, 5).ticket;
    let updated = crate::alerts::Updated {
        alert: AlertId(Uuid::from_u128(1)),
        rule: RuleId("agent".to_owned()),
        check: CheckKey::agent(),
        at: at(9),
        summary: "Agent degraded: spool: full; config: wrong".to_owned(),
        evidence: AlertEvidence::default(),
    };
    let applied = update(&ticket, &updated, context(9));
    assert_eq!(kinds(&applied), ["updated"]);
    assert_eq!(applied.notify, [notice(News::AlertUpdated)]);
    assert_eq!(applied.ticket, ticket);
}
