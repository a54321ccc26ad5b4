//! What time alone does.

use super::*;

/// P2 pages in office hours only; P3 pages, and escalates, at all times.
fn table() -> Paging {
    let settings: PagingSettings = toml::from_str(
        "service_hours = \"mon-fri 08:00-18:00\"\n\
         p2 = { service_hours = \"page\", otherwise = \"notice\" }\n\
         p3 = \"page\"",
    )
    .expect("a table");
    Paging::default().with(&settings, "UTC").expect("a zone")
}

// Thursday, 2026-11-26, 22:00 UTC.
const NIGHT: UnixMillis = UnixMillis(1_795_730_400_000);
const OPENING: UnixMillis = UnixMillis(NIGHT.0 + 10 * 3_600_000);

fn at_table(paging: &Paging, now: UnixMillis) -> TicketContext<'_> {
    TicketContext { now, paging }
}

#[test]
fn escalation_pages_the_second_tier_once() {
    let ticket = opened();
    assert_eq!(escalate(&ticket, context(15 * 60 - 1)), None);
    let applied = escalate(&ticket, context(15 * 60)).expect("it is due");
    assert_eq!(kinds(&applied), ["escalated"]);
    assert_eq!(applied.notify, [page(2, PageReason::Escalated)]);
    assert_eq!(applied.escalate_at, None);
    assert_eq!(escalate(&applied.ticket, context(99_999)), None);
}

#[test]
fn a_ticket_of_the_night_pages_when_its_hours_begin_if_nobody_answered() {
    let paging = table();
    let applied = open(new_ticket(), &critical(0), at_table(&paging, NIGHT));
    assert_eq!(applied.notify, [called(PageReason::Opened)]);
    assert_eq!(applied.escalate_at, Some(OPENING));
    let ticket = applied.ticket;
    let early = UnixMillis(OPENING.0 - 1);
    assert_eq!(escalate(&ticket, at_table(&paging, early)), None);
    let morning = escalate(&ticket, at_table(&paging, OPENING)).expect("it is due");
    assert_eq!(kinds(&morning), ["paged"]);
    assert_eq!(morning.notify, [page(1, PageReason::HoursBegan)]);
    let tier_2 = OPENING + DurationMs::from_mins(15);
    assert_eq!(morning.escalate_at, Some(tier_2));

    let answered = apply(
        &ticket,
        Action::Acknowledge,
        anna(),
        at_table(&paging, early),
    );
    assert_eq!(answered.expect("it is open").escalate_at, None);
}

#[test]
fn an_escalation_does_not_page_outside_of_its_hours() {
    let paging = table();
    let evening = UnixMillis(OPENING.0 + (9 * 60 + 50) * 60_000);
    let applied = open(new_ticket(), &critical(0), at_table(&paging, evening));
    assert_eq!(applied.notify, [page(1, PageReason::Opened)]);
    // 18:05 on Friday is past the hours; they begin again on Monday.
    let monday = UnixMillis(OPENING.0 + 3 * 24 * 3_600_000);
    assert_eq!(applied.escalate_at, Some(monday));
    let late = at_table(&paging, UnixMillis(OPENING.0 + 11 * 3_600_000));
    assert_eq!(escalate(&applied.ticket, late), None);
}

#[test]
fn patience_goes_by_the_priority() {
    let paging = table();
    for (priority, minutes) in [
        (Priority::P1, Some(5)),
        (Priority::P3, Some(60)),
        (Priority::P4, None),
    ] {
        let alert = raised(0, Severity::Warning, priority);
        let applied = open(new_ticket(), &alert, at_table(&paging, NIGHT));
        let due = minutes.map(|minutes| NIGHT + DurationMs::from_mins(minutes));
        assert_eq!(applied.escalate_at, due, "{priority}");
    }
}

#[test]
fn a_ticket_on_hold_opens_by_itself_with_a_notice() {
    let until = at(4_000);
    let held = act(&opened(), Action::Hold { until }, 60);
    assert_eq!(kinds(&held), ["state"]);
    assert_eq!(held.notify, [Intent::CancelPages]);
    assert_eq!(held.escalate_at, None);
    assert_eq!(held.ticket.hold_until, Some(until));
    assert_eq!(held.ticket.state.as_str(), "waiting_scheduled");
    assert_eq!(end_hold(&held.ticket, context(3_999)), None);
    let back = end_hold(&held.ticket, context(4_000)).expect("it is over");
    assert_eq!(back.ticket.state, TicketState::Open);
    assert_eq!(back.notify, [notice(News::HoldEnded)]);
    assert_eq!(kinds(&back), ["state"]);
    assert_eq!(end_hold(&back.ticket, context(9_999)), None);
    // A later date, and then no date at all.
    let later = act(&held.ticket, Action::Hold { until: at(5_000) }, 70);
    assert_eq!(end_hold(&later.ticket, context(4_000)), None);
    let open = act(&later.ticket, Action::SetState(TicketState::Open), 80);
    assert_eq!(end_hold(&open.ticket, context(5_000)), None);
    // Something worse does not wait for the date.
    let worse = raised(90, Severity::Critical, Priority::P1);
    let worse = attach(&held.ticket, &worse, context(90));
    assert_eq!(worse.ticket.hold_until, None);
    assert_eq!(worse.notify, [page(1, PageReason::Worse)]);
}

#[test]
fn a_hold_ends_within_a_year_and_not_in_the_past() {
    let ticket = opened();
    let hold = |secs: i64| Action::Hold { until: at(secs) };
    assert_eq!(refused(&ticket, hold(99)), Refusal::HoldOver);
    let year = MAX_HOLD.0 / 1_000;
    assert_eq!(refused(&ticket, hold(99 + year + 1)), Refusal::HoldTooLong);
    let resolved = act(&ticket, Action::Resolve(IfFiring::Anyway), 5).ticket;
    assert_eq!(refused(&resolved, hold(200)), Refusal::ReopenFirst);
}
