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
