//! What the steps of an incident do to its ticket.

use watchkeep_shared::UnixMillis;

use crate::{
    alerts::{Cleared, Raised},
    tickets::{
        Actor, Applied, ClearDecision, Intent, NewTicket, PageReason, RaiseDecision, Ticket,
        TicketEvent, TicketEventKind, TicketState, auto_resolve, detach, hand_back,
        on_alert_cleared, on_alert_raised, open, reopen,
    },
};

/// An incident begins. `existing` is the open ticket of its check, or the one resolved last; `raised`
/// is an alert that stands for all hosts of the incident: its summary is the title. Pages.
pub fn begin(
    existing: Option<&Ticket>,
    new: NewTicket,
    raised: &Raised,
    now: UnixMillis,
) -> Applied {
    let mut applied = match (on_alert_raised(existing, raised, now), existing) {
        (RaiseDecision::Attach, Some(ticket)) => page_again(ticket, raised, now),
        (RaiseDecision::Reopen, Some(ticket)) => reopen(ticket, raised, now),
        (RaiseDecision::OpenLinked { previous }, _) => {
            let new = NewTicket {
                previous: Some(previous),
                ..new
            };
            open(new, raised, now)
        }
        (_, _) => open(new, raised, now),
    };
    applied.ticket.title.clone_from(&raised.summary);
    applied
}

/// Something new is wrong with an open incident: a new episode, which pages even if a person took on
/// the one before.
pub fn page_again(ticket: &Ticket, raised: &Raised, now: UnixMillis) -> Applied {
    let mut applied = note(ticket, None, now);
    let next = &mut applied.ticket;
    next.title.clone_from(&raised.summary);
    next.state = TicketState::New;
    next.acknowledged_at = None;
    next.episode_at = now;
    applied.events.push(TicketEvent {
        at: now,
        actor: Actor::System,
        kind: TicketEventKind::AlertAttached {
            alert: raised.alert,
            rule: raised.rule.clone(),
            check: raised.check.clone(),
            severity: raised.severity,
            summary: raised.summary.clone(),
            evidence: raised.evidence.clone(),
        },
    });
    applied.notify.push(Intent::Page {
        tier: ticket.tier,
        reason: PageReason::Worse,
    });
    applied
}

/// Hosts joined or came back: a line of the timeline, without a message.
pub fn note(ticket: &Ticket, text: Option<String>, now: UnixMillis) -> Applied {
    let event = |text| TicketEvent {
        at: now,
        actor: Actor::System,
        kind: TicketEventKind::Note {
            internal: true,
            text,
        },
    };
    Applied {
        ticket: ticket.clone(),
        events: text.map(event).into_iter().collect(),
        notify: Vec::new(),
    }
}

/// All hosts are back. `cleared` stands for all of them.
pub fn end(ticket: &Ticket, cleared: &Cleared, now: UnixMillis) -> Applied {
    match on_alert_cleared(ticket, 0, now) {
        ClearDecision::Resolve => auto_resolve(ticket, cleared, now),
        ClearDecision::HandBack => hand_back(ticket, cleared, now),
        ClearDecision::Nothing => detach(ticket, cleared, now),
    }
}
