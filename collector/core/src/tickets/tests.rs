//! The state machine by cases, then by random steps with its invariants checked after each.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    alerts::{AlertEvidence, Cleared, Raised},
    ids::AlertId,
    rules::RuleId,
};

const fn at(secs: i64) -> UnixMillis {
    UnixMillis(1_700_000_000_000 + secs * 1_000)
}

fn raised(secs: i64, severity: Severity, priority: Priority) -> Raised {
    Raised {
        alert: AlertId(Uuid::from_u128(secs as u128 + 1)),
        rule: RuleId("disk".to_owned()),
        check: CheckKey::metric("disk.used_pct:/"),
        severity,
        priority,
        at: at(secs),
        summary: "Disk full: disk.used_pct:/ is 97 % (above 95 %)".to_owned(),
        evidence: AlertEvidence {
            value: Some(97.0),
            threshold: Some(95.0),
            ..AlertEvidence::default()
        },
    }
}

fn warning(secs: i64) -> Raised {
    raised(secs, Severity::Warning, Priority::P3)
}

fn cleared(secs: i64) -> Cleared {
    Cleared {
        alert: AlertId(Uuid::from_u128(7)),
        rule: RuleId("disk".to_owned()),
        check: CheckKey::metric("disk.used_pct:/"),
        at: at(secs),
        value: Some(60.0),
        reason: "disk.used_pct:/ is 60 % (below 80 %)".to_owned(),
    }
}

fn new_ticket() -> NewTicket {
    NewTicket {
        id: TicketId(Uuid::from_u128(1)),
        number: 1,
        client: ClientId(Uuid::from_u128(2)),
        contract: Some(ContractId(Uuid::from_u128(3))),
        host: Some(HostId(Uuid::from_u128(4))),
        host_name: "web-1".to_owned(),
        previous: None,
    }
}

fn opened() -> Ticket {
    open(new_ticket(), &warning(0), at(0)).ticket
}

fn anna() -> Actor {
    Actor::User {
        id: UserId(Uuid::from_u128(5)),
        name: "Anna".to_owned(),
    }
}

fn act(ticket: &Ticket, action: Action, secs: i64) -> Applied {
    apply(ticket, action, anna(), at(secs)).expect("the action is allowed")
}

fn kinds(applied: &Applied) -> Vec<&'static str> {
    let kind = |event: &TicketEvent| match event.kind {
        TicketEventKind::Opened { .. } => "opened",
        TicketEventKind::AlertAttached { .. } => "attached",
        TicketEventKind::AlertCleared { .. } => "cleared",
        TicketEventKind::Acknowledged => "acknowledged",
        TicketEventKind::Assigned { .. } => "assigned",
        TicketEventKind::StateChanged { .. } => "state",
        TicketEventKind::Note { .. } => "note",
        TicketEventKind::PriorityChanged { .. } => "priority",
        TicketEventKind::Escalated { .. } => "escalated",
        TicketEventKind::Reopened => "reopened",
        TicketEventKind::Resolved { auto: true } => "auto-resolved",
        TicketEventKind::Resolved { auto: false } => "resolved",
        TicketEventKind::Closed => "closed",
        TicketEventKind::HandedBack => "handed back",
        TicketEventKind::NotificationSent { .. } => "sent",
    };
    applied.events.iter().map(kind).collect()
}

fn pages(applied: &Applied) -> usize {
    let is_page = |intent: &&Intent| matches!(intent, Intent::Page { .. });
    applied.notify.iter().filter(is_page).count()
}

#[test]
fn an_alert_opens_a_ticket_with_its_evidence_and_pages_the_first_tier() {
    assert_eq!(
        on_alert_raised(None, &warning(0), at(0)),
        RaiseDecision::OpenNew
    );
    let applied = open(new_ticket(), &warning(0), at(0));
    assert_eq!(kinds(&applied), ["opened", "attached"]);
    assert_eq!(applied.ticket.state, TicketState::New);
    assert_eq!(
        applied.ticket.title,
        "web-1: Disk full: disk.used_pct:/ is 97 % (above 95 %)"
    );
    assert_eq!(
        applied.notify,
        [Intent::Page {
            tier: 1,
            reason: PageReason::Opened
        }]
    );
    let key = applied.ticket.open_key().expect("it is open and automatic");
    assert!(key.ends_with("/disk.used_pct:/"), "{key}");
    assert_eq!(key.matches('/').count(), 3, "{key}");
}

#[test]
fn an_untouched_ticket_resolves_by_itself_and_opens_again_within_the_window() {
    let ticket = opened();
    assert_eq!(on_alert_cleared(&ticket, 1, at(60)), ClearDecision::Nothing);
    assert_eq!(on_alert_cleared(&ticket, 0, at(60)), ClearDecision::Resolve);
    let resolved = auto_resolve(&ticket, &cleared(60), at(60));
    assert_eq!(kinds(&resolved), ["cleared", "auto-resolved"]);
    assert_eq!(resolved.notify[0], Intent::CancelPages);
    let ticket = resolved.ticket;
    assert_eq!(
        (ticket.resolved_at, ticket.open_key()),
        (Some(at(60)), None)
    );

    let window = REOPEN_WINDOW.0 / 1_000;
    let decide = |secs| on_alert_raised(Some(&ticket), &warning(secs), at(secs));
    assert_eq!(decide(60 + window), RaiseDecision::Reopen);
    let previous = ticket.id;
    assert_eq!(decide(61 + window), RaiseDecision::OpenLinked { previous });
    let again = reopen(&ticket, &warning(70), at(70));
    assert_eq!(kinds(&again), ["reopened", "attached"]);
    assert_eq!(
        (again.ticket.state, again.ticket.resolved_at),
        (TicketState::New, None)
    );
    assert_eq!(pages(&again), 1);
}

#[test]
fn a_breach_after_the_resolution_begins_an_episode_that_pages_again() {
    let ticket = act(&opened(), Action::Acknowledge, 10).ticket;
    let ticket = act(&ticket, Action::Resolve, 20).ticket;
    let again = reopen(&ticket, &warning(30), at(30));
    assert_eq!(pages(&again), 1);
    assert_eq!(again.ticket.acknowledged_at, None);
    assert_eq!(
        again.ticket.first_response_at,
        Some(at(10)),
        "it counts once"
    );
    assert_eq!(escalation_due_at(&again.ticket), Some(at(30 + 3_600)));
    let taken = act(&again.ticket, Action::Acknowledge, 40).ticket;
    assert_eq!(taken.first_response_at, Some(at(10)));
    assert_eq!(escalation_due_at(&taken), None);
}

#[test]
fn a_closed_ticket_is_never_opened_again_by_an_alert() {
    let ticket = act(&opened(), Action::Close, 10).ticket;
    let decision = on_alert_raised(Some(&ticket), &warning(11), at(11));
    let previous = ticket.id;
    assert_eq!(decision, RaiseDecision::OpenLinked { previous });
}

#[test]
fn a_touched_ticket_is_handed_back() {
    let note = Action::Note {
        internal: true,
        text: "looking".to_owned(),
    };
    let ticket = act(&opened(), note, 5).ticket;
    assert_eq!(
        ticket.first_response_at, None,
        "an internal note is no response"
    );
    assert_eq!(on_alert_cleared(&ticket, 0, at(9)), ClearDecision::HandBack);
    let applied = hand_back(&ticket, &cleared(9), at(9));
    assert_eq!(kinds(&applied), ["cleared", "handed back"]);
    assert!(applied.ticket.state.is_open());
    let system = apply(&ticket, Action::Resolve, Actor::System, at(9));
    assert!(system.is_err(), "{system:?}");
}

#[test]
fn an_acknowledgement_is_the_first_response_and_stops_the_paging() {
    let ticket = opened();
    let due = escalation_due_at(&ticket).expect("nobody has acknowledged it");
    assert_eq!(due, at(3_600));
    let applied = act(&ticket, Action::Acknowledge, 30);
    assert_eq!(kinds(&applied), ["acknowledged", "assigned"]);
    assert_eq!(applied.notify, [Intent::CancelPages]);
    let ticket = applied.ticket;
    assert_eq!(ticket.state, TicketState::Open);
    assert_eq!(ticket.first_response_at, Some(at(30)));
    assert_eq!(escalation_due_at(&ticket), None);
    assert_eq!(escalate(&ticket, at(99_999)), None);
    let again = act(&ticket, Action::Acknowledge, 40);
    assert_eq!((again.events, again.notify), (vec![], vec![]));
    let worse = attach(
        &ticket,
        &raised(50, Severity::Critical, Priority::P1),
        at(50),
    );
    assert_eq!(pages(&worse), 0);
    assert_eq!(worse.ticket.severity, Severity::Critical);
    assert_eq!(worse.ticket.priority, Priority::P3, "a human has it");
}

#[test]
fn the_holder_of_a_pages_link_may_acknowledge_without_becoming_the_assignee() {
    let link = Actor::Link {
        sent_to: "oncall@example.net".to_owned(),
    };
    let applied = apply(&opened(), Action::Acknowledge, link, at(30)).unwrap();
    assert_eq!(kinds(&applied), ["acknowledged"]);
    assert_eq!(applied.ticket.assignee, None);
    assert!(applied.ticket.touched_by_human);
}

#[test]
fn a_worse_alert_raises_priority_and_pages_once_more() {
    let ticket = opened();
    let same = attach(&ticket, &warning(10), at(10));
    assert_eq!((kinds(&same), pages(&same)), (vec!["attached"], 0));
    let worse = attach(
        &ticket,
        &raised(20, Severity::Critical, Priority::P2),
        at(20),
    );
    assert_eq!(
        (kinds(&worse), pages(&worse)),
        (vec!["attached", "priority"], 1)
    );
    assert_eq!(worse.ticket.priority, Priority::P2);
    assert_eq!(escalation_due_at(&worse.ticket), Some(at(15 * 60)));
}

#[test]
fn escalation_pages_the_second_tier_once() {
    let ticket = opened();
    assert_eq!(escalate(&ticket, at(3_599)), None);
    let applied = escalate(&ticket, at(3_600)).expect("it is due");
    assert_eq!(kinds(&applied), ["escalated"]);
    assert_eq!(
        applied.notify,
        [Intent::Page {
            tier: 2,
            reason: PageReason::Escalated
        }]
    );
    assert_eq!(escalation_due_at(&applied.ticket), None);
}

#[test]
fn what_a_state_does_not_allow_is_refused() {
    let open = opened();
    let resolved = act(&open, Action::Resolve, 10).ticket;
    let closed = act(&resolved, Action::Close, 20).ticket;
    assert_eq!(
        closed.resolved_at,
        Some(at(10)),
        "closing is not resolving again"
    );
    let refused = [
        (&open, Action::Reopen),
        (&open, Action::SetState(TicketState::New)),
        (&resolved, Action::Acknowledge),
        (&resolved, Action::SetState(TicketState::Open)),
        (&closed, Action::Resolve),
        (&closed, Action::Assign { to: None }),
        (&closed, Action::SetPriority(Priority::P1)),
        (
            &open,
            Action::Note {
                internal: false,
                text: " \n".to_owned(),
            },
        ),
    ];
    for (ticket, action) in refused {
        let told = format!("{action:?} on {}", ticket.state);
        // Setting the state it has is no error, so New stands apart.
        if action == Action::SetState(TicketState::New) {
            assert!(
                apply(ticket, action, anna(), at(30))
                    .unwrap()
                    .events
                    .is_empty()
            );
            continue;
        }
        assert!(apply(ticket, action, anna(), at(30)).is_err(), "{told}");
    }
    let reopened = act(&closed, Action::Reopen, 40).ticket;
    assert_eq!(
        (reopened.state, reopened.resolved_at),
        (TicketState::Open, None)
    );
    let error = apply(&closed, Action::Resolve, anna(), at(30)).expect_err("it is closed");
    assert_eq!(
        error.to_string(),
        "ticket is closed: it is done with; reopen it first"
    );
}

#[test]
fn states_are_stored_as_words() {
    for state in TicketState::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(json, format!("\"{state}\""));
        assert_eq!(serde_json::from_str::<TicketState>(&json).unwrap(), state);
    }
    assert!("waiting".parse::<TicketState>().is_err());
}

#[derive(Clone, Debug)]
enum Op {
    Raise(Severity, Priority),
    Clear { still_firing: usize },
    Act(Action, Actor),
    Escalate,
    Pass(i64),
}

fn action() -> impl Strategy<Value = Action> {
    let other = || Some((UserId(Uuid::from_u128(6)), "Ben".to_owned()));
    prop_oneof![
        2 => Just(Action::Acknowledge),
        1 => Just(Action::Assign { to: other() }),
        1 => Just(Action::Assign { to: None }),
        1 => any::<bool>().prop_map(|internal| Action::Note { internal, text: "so".to_owned() }),
        2 => proptest::sample::select(TicketState::ALL.to_vec()).prop_map(Action::SetState),
        1 => Just(Action::Resolve),
        1 => Just(Action::Close),
        1 => Just(Action::Reopen),
        1 => priority().prop_map(Action::SetPriority),
    ]
}

fn priority() -> impl Strategy<Value = Priority> {
    proptest::sample::select(vec![Priority::P1, Priority::P2, Priority::P3, Priority::P4])
}

fn op() -> impl Strategy<Value = Op> {
    let severity =
        proptest::sample::select(vec![Severity::Info, Severity::Warning, Severity::Critical]);
    let actor = prop_oneof![
        3 => Just(anna()),
        1 => Just(Actor::System),
        1 => Just(Actor::Link { sent_to: "+33 1".to_owned() }),
    ];
    prop_oneof![
        4 => (severity, priority()).prop_map(|(severity, priority)| Op::Raise(severity, priority)),
        4 => (0_usize..2).prop_map(|still_firing| Op::Clear { still_firing }),
        3 => (action(), actor).prop_map(|(action, actor)| Op::Act(action, actor)),
        2 => Just(Op::Escalate),
        4 => (1_i64..2_000).prop_map(Op::Pass),
    ]
}

/// What one step did, if it did anything.
fn step(ticket: &Ticket, op: &Op, secs: i64) -> Option<Applied> {
    let now = at(secs);
    match op {
        Op::Raise(severity, priority) => {
            let raised = raised(secs, *severity, *priority);
            match on_alert_raised(Some(ticket), &raised, now) {
                RaiseDecision::Attach => Some(attach(ticket, &raised, now)),
                RaiseDecision::Reopen => Some(reopen(ticket, &raised, now)),
                RaiseDecision::OpenLinked { .. } | RaiseDecision::OpenNew => None,
            }
        }
        Op::Clear { still_firing } => match on_alert_cleared(ticket, *still_firing, now) {
            ClearDecision::Resolve => Some(auto_resolve(ticket, &cleared(secs), now)),
            ClearDecision::HandBack => Some(hand_back(ticket, &cleared(secs), now)),
            ClearDecision::Nothing => Some(detach(ticket, &cleared(secs), now)),
        },
        Op::Act(action, actor) => apply(ticket, action.clone(), actor.clone(), now).ok(),
        Op::Escalate => escalate(ticket, now),
        Op::Pass(_) => None,
    }
}

fn check(before: &Ticket, applied: &Applied) -> Result<(), TestCaseError> {
    let Applied { ticket, events, .. } = applied;
    let is_done = matches!(ticket.state, TicketState::Resolved | TicketState::Closed);
    prop_assert_eq!(ticket.resolved_at.is_some(), is_done);
    prop_assert_eq!(ticket.open_key().is_some(), ticket.state.is_open());
    prop_assert_eq!(is_done, !ticket.state.is_open());

    let is_new_episode = ticket.episode_at != before.episode_at;
    if before.acknowledged_at.is_some() && !is_new_episode {
        prop_assert_eq!(pages(applied), 0, "paged after the acknowledgement");
        prop_assert_eq!(ticket.acknowledged_at, before.acknowledged_at);
    }
    prop_assert!(pages(applied) <= 1);
    let is_acknowledged_now = before.acknowledged_at.is_none() && ticket.acknowledged_at.is_some();
    if is_acknowledged_now || is_done && before.state.is_open() {
        prop_assert!(applied.notify.contains(&Intent::CancelPages));
    }
    if is_acknowledged_now || ticket.touched_by_human != before.touched_by_human {
        prop_assert!(events.iter().any(|event| event.actor.is_human()));
    }
    if before.touched_by_human {
        prop_assert!(ticket.touched_by_human);
        let is_auto = |event: &TicketEvent| event.kind == TicketEventKind::Resolved { auto: true };
        prop_assert!(!events.iter().any(is_auto), "resolved by itself");
    }
    if before.first_response_at.is_some() {
        prop_assert_eq!(ticket.first_response_at, before.first_response_at);
    }
    prop_assert!(ticket.acknowledged_at.is_none() || ticket.first_response_at.is_some());
    prop_assert!(ticket.tier >= before.tier && (1..=3).contains(&ticket.tier));
    if ticket != before {
        prop_assert!(!events.is_empty(), "changed without a line in the timeline");
    }
    for event in events {
        let json = serde_json::to_string(event).expect("serializes");
        let back: TicketEvent = serde_json::from_str(&json).expect("deserializes");
        prop_assert_eq!(&back, event);
    }
    let json = serde_json::to_string(ticket).expect("serializes");
    let back: Ticket = serde_json::from_str(&json).expect("deserializes");
    prop_assert_eq!(&back, ticket);
    Ok(())
}

proptest! {
    #[test]
    fn random_steps_keep_the_invariants(ops in proptest::collection::vec(op(), 1..60)) {
        let mut ticket = opened();
        let mut secs = 0;
        for op in ops {
            secs += 1;
            if let Op::Pass(by) = op {
                secs += by;
            }
            if let Some(applied) = step(&ticket, &op, secs) {
                check(&ticket, &applied)?;
                ticket = applied.ticket;
            }
        }
    }
}
