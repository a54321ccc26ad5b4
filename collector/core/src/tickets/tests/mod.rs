//! The state machine of tickets: by cases, then by random steps with its invariants checked after
//! each.

mod alerts;
mod people;
mod random;
mod time;

use std::sync::LazyLock;

use uuid::Uuid;

use super::*;
use crate::{
    alerts::{AlertEvidence, Cleared, Raised},
    ids::AlertId,
    rules::RuleId,
};

static DEFAULT_TABLE: LazyLock<Paging> = LazyLock::new(Paging::default);

const fn at(secs: i64) -> UnixMillis {
    UnixMillis(1_700_000_000_000 + secs * 1_000)
}

fn context(secs: i64) -> TicketContext<'static> {
    TicketContext {
        now: at(secs),
        paging: &DEFAULT_TABLE,
    }
}

fn raised(secs: i64, severity: Severity, priority: Priority) -> Raised {
    Raised {
        alert: AlertId(Uuid::from_u128(secs as u128 + 1)),
        rule: RuleId("disk".to_owned()),
        check: CheckKey::metric("disk.used_pct:/"),
        severity,
        priority,
        at: at(secs),
        summary: "Disk / 97 % full (limit 95 %)".to_owned(),
        evidence: AlertEvidence {
            value: Some(97.0),
            threshold: Some(95.0),
            ..AlertEvidence::default()
        },
    }
}

/// Only a notice.
fn warning(secs: i64) -> Raised {
    raised(secs, Severity::Warning, Priority::P3)
}

/// Pages.
fn critical(secs: i64) -> Raised {
    raised(secs, Severity::Critical, Priority::P2)
}

fn cleared(secs: i64) -> Cleared {
    Cleared {
        alert: AlertId(Uuid::from_u128(7)),
        rule: RuleId("disk".to_owned()),
        check: CheckKey::metric("disk.used_pct:/"),
        at: at(secs),
        value: Some(60.0),
        reason: "60 %, below 80 %".to_owned(),
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

/// A P2 ticket that paged.
fn opened() -> Ticket {
    open(new_ticket(), &critical(0), context(0)).ticket
}

/// Its last alert recovers.
fn recovered(ticket: &Ticket, secs: i64) -> Applied {
    clear(ticket, &cleared(secs), Firing::NONE, context(secs))
}

fn anna() -> Actor {
    Actor::User {
        id: UserId(Uuid::from_u128(5)),
        name: "Anna".to_owned(),
    }
}

fn to_anna() -> Action {
    Action::Assign {
        to: Some((UserId(Uuid::from_u128(5)), "Anna".to_owned())),
    }
}

fn to_ben() -> Action {
    Action::Assign {
        to: Some((UserId(Uuid::from_u128(6)), "Ben".to_owned())),
    }
}

fn note(internal: bool) -> Action {
    Action::Note {
        internal,
        text: "looking".to_owned(),
    }
}

fn act(ticket: &Ticket, action: Action, secs: i64) -> Applied {
    apply(ticket, action, anna(), context(secs)).expect("the action is allowed")
}

fn refused(ticket: &Ticket, action: Action) -> Refusal {
    apply(ticket, action, anna(), context(99))
        .expect_err("the action is refused")
        .reason
}

fn kinds(applied: &Applied) -> Vec<&'static str> {
    let kind = |event: &TicketEvent| match event.kind {
        TicketEventKind::Opened { .. } => "opened",
        TicketEventKind::AlertAttached { .. } => "attached",
        TicketEventKind::AlertUpdated { .. } => "updated",
        TicketEventKind::AlertCleared { .. } => "cleared",
        TicketEventKind::Acknowledged => "acknowledged",
        TicketEventKind::Assigned { .. } => "assigned",
        TicketEventKind::StateChanged { .. } => "state",
        TicketEventKind::Note { .. } => "note",
        TicketEventKind::PriorityChanged { .. } => "priority",
        TicketEventKind::EpisodeStarted { .. } => "episode",
        TicketEventKind::Paged { .. } => "paged",
        TicketEventKind::Escalated { .. } => "escalated",
        TicketEventKind::Reopened { .. } => "reopened",
        TicketEventKind::Resolved { auto: true, .. } => "auto-resolved",
        TicketEventKind::Resolved { auto: false, .. } => "resolved",
        TicketEventKind::Closed => "closed",
        TicketEventKind::HandedBack => "handed back",
        TicketEventKind::NotificationSent { .. } => "sent",
    };
    applied.events.iter().map(kind).collect()
}

const fn page(tier: u8, reason: PageReason) -> Intent {
    Intent::Page { tier, reason }
}

const fn notice(news: News) -> Intent {
    Intent::Notify { news }
}

const fn called(reason: PageReason) -> Intent {
    Intent::Notify {
        news: News::Call { reason },
    }
}

const fn is_page(intent: Intent) -> bool {
    matches!(intent, Intent::Page { .. })
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

#[test]
fn events_that_were_stored_before_they_had_counts_still_read() {
    for text in [
        r#"{"kind":"reopened"}"#,
        r#"{"kind":"resolved","auto":false}"#,
    ] {
        let kind: TicketEventKind = serde_json::from_str(text).expect("an older event");
        assert_eq!(serde_json::to_string(&kind).expect("it has a form"), text);
    }
}
