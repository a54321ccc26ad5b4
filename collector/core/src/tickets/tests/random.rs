//! Random steps, with invariants that hold after each.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Raise(Severity, Priority),
    /// One of the firing alerts recovers, by place.
    Clear(usize),
    Act(Action, Actor),
    Escalate,
    Recheck,
    EndHold,
    Pass(i64),
}

/// What a ticket's alerts truly are, beside the ticket.
#[derive(Debug, Default)]
struct Truth {
    firing: Vec<(Severity, Priority)>,
    /// The most urgent and the worst of what a person has answered in this episode.
    answered: Option<(Priority, Severity)>,
}

fn action() -> impl Strategy<Value = Action> {
    let if_firing = || proptest::sample::select(vec![IfFiring::Refuse, IfFiring::Anyway]);
    prop_oneof![
        2 => Just(Action::Acknowledge),
        1 => Just(to_anna()),
        1 => Just(to_ben()),
        1 => Just(Action::Assign { to: None }),
        1 => any::<bool>().prop_map(note),
        2 => proptest::sample::select(TicketState::ALL.to_vec()).prop_map(Action::SetState),
        1 => (0_i64..5_000).prop_map(|secs| Action::Hold { until: at(secs) }),
        1 => if_firing().prop_map(Action::Resolve),
        1 => if_firing().prop_map(Action::Close),
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
        4 => Just(anna()),
        1 => Just(Actor::System),
        1 => Just(Actor::Link { sent_to: "+33 1".to_owned() }),
    ];
    prop_oneof![
        4 => (severity, priority()).prop_map(|(severity, priority)| Op::Raise(severity, priority)),
        5 => (0_usize..4).prop_map(Op::Clear),
        4 => (action(), actor).prop_map(|(action, actor)| Op::Act(action, actor)),
        2 => Just(Op::Escalate),
        2 => Just(Op::Recheck),
        2 => Just(Op::EndHold),
        4 => (1_i64..2_000).prop_map(Op::Pass),
    ]
}

fn firing(truth: &Truth) -> Firing {
    let most_urgent = truth.firing.iter().map(|(_, priority)| *priority).min();
    Firing::new(truth.firing.len() as u32, most_urgent)
}

/// What one step did, if it did anything.
fn step(ticket: &Ticket, truth: &mut Truth, op: &Op, secs: i64) -> Option<Applied> {
    match op {
        Op::Raise(severity, priority) => {
            let alert = raised(secs, *severity, *priority);
            let applied = match on_alert_raised(Some(ticket), &alert, at(secs)) {
                RaiseDecision::Attach => attach(ticket, &alert, context(secs)),
                RaiseDecision::Reopen => reopen(ticket, &alert, context(secs)),
                RaiseDecision::OpenLinked { .. } | RaiseDecision::OpenNew => return None,
            };
            truth.firing.push((*severity, *priority));
            Some(applied)
        }
        Op::Clear(place) => {
            if truth.firing.is_empty() {
                return None;
            }
            truth.firing.remove(place % truth.firing.len());
            let still = firing(truth);
            Some(clear(ticket, &cleared(secs), still, context(secs)))
        }
        Op::Act(action, actor) => apply(ticket, action.clone(), actor.clone(), context(secs)).ok(),
        Op::Escalate => escalate(ticket, context(secs)),
        Op::Recheck => recheck(ticket, context(secs)),
        Op::EndHold => end_hold(ticket, context(secs)),
        Op::Pass(_) => None,
    }
}

type Check = Result<(), TestCaseError>;

/// No page after an answer unless something worse began; none about what is over; none for what is
/// below P2.
fn pages_are_right(before: &Ticket, truth: &Truth, op: &Op, applied: &Applied) -> Check {
    let pages = applied.notify.iter().filter(|one| is_page(**one)).count();
    prop_assert!(pages <= 1);
    if pages == 0 {
        return Ok(());
    }
    let ticket = &applied.ticket;
    prop_assert!(ticket.state.is_open(), "a page about what is over");
    prop_assert!(!truth.firing.is_empty(), "a page about what recovered");
    prop_assert!(ticket.episode.is_unanswered());
    prop_assert!(ticket.paging_priority() <= Priority::P2, "woken for less");
    prop_assert!(!matches!(op, Op::Act(..)), "a person's act paged");
    if let Some((priority, severity)) = truth.answered {
        let Op::Raise(new_severity, new_priority) = op else {
            return Err(TestCaseError::fail("paged after an answer by time alone"));
        };
        prop_assert!(
            *new_priority < priority || *new_severity > severity,
            "paged after an answer for what is no worse"
        );
    }
    if before.episode.is_over() {
        prop_assert!(
            matches!(op, Op::Raise(..) | Op::Recheck),
            "a page after the end without a new episode"
        );
    }
    Ok(())
}

fn ticket_is_consistent(before: &Ticket, truth: &Truth, applied: &Applied) -> Check {
    let Applied {
        ticket,
        events,
        notify,
        escalate_at,
    } = applied;
    let is_done = !ticket.state.is_open();
    prop_assert_eq!(ticket.resolved_at.is_some(), is_done);
    prop_assert_eq!(ticket.open_key().is_some(), !is_done);
    prop_assert_eq!(ticket.firing, firing(truth));
    let is_on_hold = ticket.hold_until.is_some();
    prop_assert!(!is_on_hold || ticket.state.as_str() == "waiting_scheduled");
    prop_assert!(!is_done || ticket.episode.is_over());
    // Whatever fires has an open ticket, or will have one again.
    if let Phase::Over { recheck_at, .. } = ticket.episode.phase {
        let is_promised = recheck_at.is_some();
        prop_assert_eq!(is_promised, is_done && !ticket.firing.is_none());
    }
    if escalate_at.is_some() {
        prop_assert!(ticket.episode.is_unanswered() && !ticket.firing.is_none());
    }
    let ended = before.episode.is_unanswered() && !ticket.episode.is_unanswered();
    if ended {
        prop_assert!(notify.contains(&Intent::CancelPages));
    }
    if ticket.touched_by_human != before.touched_by_human {
        prop_assert!(events.iter().any(|event| event.actor.is_human()));
    }
    if before.touched_by_human {
        prop_assert!(ticket.touched_by_human);
        let is_auto = |event: &TicketEvent| {
            matches!(event.kind, TicketEventKind::Resolved { auto: true, .. })
        };
        prop_assert!(!events.iter().any(is_auto), "resolved by itself");
    }
    if before.first_response_at.is_some() {
        prop_assert_eq!(ticket.first_response_at, before.first_response_at);
    }
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

/// Follows what a person has answered, by the model's own rule: the worst that fired since the
/// episode began, once it is taken.
fn follow(truth: &mut Truth, applied: &Applied, worst: &mut Option<(Priority, Severity)>) {
    let Applied { ticket, events, .. } = applied;
    let is_new = events.iter().any(|event| {
        matches!(
            event.kind,
            TicketEventKind::EpisodeStarted { .. } | TicketEventKind::Reopened { .. }
        )
    });
    if is_new {
        truth.answered = None;
        let fired = truth
            .firing
            .iter()
            .map(|(severity, priority)| (*priority, *severity));
        *worst = fired.reduce(worse);
    }
    for event in events {
        if let TicketEventKind::AlertAttached { severity, .. } = &event.kind
            && let Some((_, priority)) = truth.firing.last()
        {
            let one = (*priority, *severity);
            *worst = Some(worst.map_or(one, |before| worse(before, one)));
        }
    }
    if matches!(ticket.episode.phase, Phase::Taken { .. }) {
        truth.answered = truth.answered.or(*worst);
    }
    if ticket.episode.is_over() {
        truth.answered = None;
    }
}

fn worse(one: (Priority, Severity), other: (Priority, Severity)) -> (Priority, Severity) {
    (one.0.min(other.0), one.1.max(other.1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn random_steps_keep_the_invariants(ops in proptest::collection::vec(op(), 1..60)) {
        let mut ticket = opened();
        let mut truth = Truth {
            firing: vec![(Severity::Critical, Priority::P2)],
            answered: None,
        };
        let mut worst = Some((Priority::P2, Severity::Critical));
        let mut secs = 0;
        for op in ops {
            secs += 1;
            if let Op::Pass(by) = op {
                secs += by;
            }
            if let Some(applied) = step(&ticket, &mut truth, &op, secs) {
                pages_are_right(&ticket, &truth, &op, &applied)?;
                ticket_is_consistent(&ticket, &truth, &applied)?;
                follow(&mut truth, &applied, &mut worst);
                ticket = applied.ticket;
            }
        }
        // What still fires is called for again in the end, if it is urgent and nobody has it.
        if ticket.is_resolved_while_firing() {
            let back = recheck(&ticket, context(secs + 3_600));
            prop_assert!(back.is_some_and(|back| back.ticket.state.is_open()));
        }
    }
}
