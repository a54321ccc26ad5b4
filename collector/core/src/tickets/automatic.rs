//! What alerts do to tickets: open, attach, reopen, resolve, hand back. The `on_…` functions
//! decide; the others carry a decision out on the values.

use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Actor, Applied, Intent, News, PageReason, REOPEN_WINDOW, Step, Ticket, TicketEventKind,
    TicketState,
};
use crate::{
    alerts::{Cleared, Raised},
    ids::{ClientId, ContractId, TicketId},
};

/// What a new alert does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaiseDecision {
    /// A new ticket ([`open`]).
    OpenNew,
    /// The open ticket takes it in ([`attach`]).
    Attach,
    /// The lately resolved ticket opens again ([`reopen`]).
    Reopen,
    /// A new ticket that names the one before ([`open`]).
    OpenLinked {
        /// The one before.
        previous: TicketId,
    },
}

/// Decides what a new alert does. `existing` is the open ticket of the same (contract, host, check)
/// key or, if none is open, the one resolved last.
pub fn on_alert_raised(
    existing: Option<&Ticket>,
    raised: &Raised,
    now: UnixMillis,
) -> RaiseDecision {
    let Some(ticket) = existing.filter(|ticket| ticket.check.as_ref() == Some(&raised.check))
    else {
        return RaiseDecision::OpenNew;
    };
    if ticket.state.is_open() {
        return RaiseDecision::Attach;
    }
    let is_recent = ticket
        .resolved_at
        .is_some_and(|at| now.since(at) <= REOPEN_WINDOW);
    if ticket.state == TicketState::Resolved && is_recent {
        RaiseDecision::Reopen
    } else {
        RaiseDecision::OpenLinked {
            previous: ticket.id,
        }
    }
}

/// What a cleared alert does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClearDecision {
    /// The ticket is resolved by itself ([`auto_resolve`]).
    Resolve,
    /// A human has touched the ticket and has to resolve it ([`hand_back`]).
    HandBack,
    /// The ticket goes on ([`detach`] notes that the alert cleared).
    Nothing,
}

/// Decides what a cleared alert does; `still_firing` counts the other alerts of the ticket that
/// still fire.
pub const fn on_alert_cleared(
    ticket: &Ticket,
    still_firing: usize,
    _now: UnixMillis,
) -> ClearDecision {
    if !ticket.state.is_open() || still_firing > 0 {
        ClearDecision::Nothing
    } else if ticket.touched_by_human {
        ClearDecision::HandBack
    } else {
        ClearDecision::Resolve
    }
}

/// Whose ticket it will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTicket {
    /// Its identifier.
    pub id: TicketId,
    /// The number people call it by.
    pub number: i64,
    /// The client.
    pub client: ClientId,
    /// The contract that covers the host.
    pub contract: Option<ContractId>,
    /// The host.
    pub host: Option<HostId>,
    /// The host's name, for the title; empty for none.
    pub host_name: String,
    /// The resolved ticket about the same key before it.
    pub previous: Option<TicketId>,
}

/// Opens a ticket for a new alert and pages tier 1.
pub fn open(new: NewTicket, raised: &Raised, now: UnixMillis) -> Applied {
    let NewTicket {
        id,
        number,
        client,
        contract,
        host,
        host_name,
        previous,
    } = new;
    let title = if host_name.is_empty() {
        raised.summary.clone()
    } else {
        host_name + ": " + &raised.summary
    };
    let ticket = Ticket {
        id,
        number,
        client,
        contract,
        host,
        check: Some(raised.check.clone()),
        title,
        priority: raised.priority,
        severity: raised.severity,
        state: TicketState::New,
        opened_at: now,
        episode_at: now,
        acknowledged_at: None,
        first_response_at: None,
        resolved_at: None,
        touched_by_human: false,
        assignee: None,
        tier: 1,
        previous,
    };
    let mut step = Step::new(&ticket, Actor::System, now);
    step.event(TicketEventKind::Opened { previous });
    step.event(attached(raised));
    step.send(Intent::Page {
        tier: 1,
        reason: PageReason::Opened,
    });
    step.applied
}

/// Adds a new alert to an open ticket. One that is worse raises severity and, unless a human has
/// touched the ticket, priority; it pages if nobody has acknowledged the ticket.
pub fn attach(ticket: &Ticket, raised: &Raised, now: UnixMillis) -> Applied {
    let mut step = Step::new(ticket, Actor::System, now);
    step.event(attached(raised));
    take_in(&mut step, raised);
    let is_acknowledged = ticket.acknowledged_at.is_some();
    let is_worse = raised.priority < ticket.priority || raised.severity > ticket.severity;
    if is_acknowledged {
        step.send(Intent::Notify {
            news: News::AlertAttached,
        });
    } else if is_worse {
        step.send(Intent::Page {
            tier: ticket.tier,
            reason: PageReason::Worse,
        });
    }
    step.applied
}

/// Opens a lately resolved ticket again for a new alert: a new episode, which pages its tier.
pub fn reopen(ticket: &Ticket, raised: &Raised, now: UnixMillis) -> Applied {
    let mut step = Step::new(ticket, Actor::System, now);
    step.event(TicketEventKind::Reopened);
    step.event(attached(raised));
    take_in(&mut step, raised);
    let next = &mut step.applied.ticket;
    next.state = TicketState::New;
    next.resolved_at = None;
    next.acknowledged_at = None;
    next.episode_at = now;
    step.send(Intent::Page {
        tier: ticket.tier,
        reason: PageReason::Reopened,
    });
    step.applied
}

/// Notes that an alert cleared while the ticket goes on.
pub fn detach(ticket: &Ticket, cleared: &Cleared, now: UnixMillis) -> Applied {
    let mut step = Step::new(ticket, Actor::System, now);
    step.event(alert_cleared(cleared));
    step.applied
}

/// Resolves an untouched ticket whose last alert cleared.
pub fn auto_resolve(ticket: &Ticket, cleared: &Cleared, now: UnixMillis) -> Applied {
    let mut step = Step::new(ticket, Actor::System, now);
    step.event(alert_cleared(cleared));
    step.event(TicketEventKind::Resolved { auto: true });
    let next = &mut step.applied.ticket;
    next.state = TicketState::Resolved;
    next.resolved_at = Some(now);
    step.send(Intent::CancelPages);
    step.send(Intent::Notify {
        news: News::Resolved,
    });
    step.applied
}

/// Tells the human who touched the ticket that its last alert cleared. A page that has not gone
/// out is of no more use.
pub fn hand_back(ticket: &Ticket, cleared: &Cleared, now: UnixMillis) -> Applied {
    let mut step = Step::new(ticket, Actor::System, now);
    step.event(alert_cleared(cleared));
    step.event(TicketEventKind::HandedBack);
    step.send(Intent::CancelPages);
    step.send(Intent::Notify {
        news: News::HandedBack,
    });
    step.applied
}

fn take_in(step: &mut Step, raised: &Raised) {
    let ticket = &mut step.applied.ticket;
    ticket.severity = ticket.severity.max(raised.severity);
    let (from, to) = (ticket.priority, raised.priority);
    if to < from && !ticket.touched_by_human {
        ticket.priority = to;
        step.event(TicketEventKind::PriorityChanged { from, to });
    }
}

fn attached(raised: &Raised) -> TicketEventKind {
    TicketEventKind::AlertAttached {
        alert: raised.alert,
        rule: raised.rule.clone(),
        check: raised.check.clone(),
        severity: raised.severity,
        summary: raised.summary.clone(),
        evidence: raised.evidence.clone(),
    }
}

fn alert_cleared(cleared: &Cleared) -> TicketEventKind {
    TicketEventKind::AlertCleared {
        alert: cleared.alert,
        reason: cleared.reason.clone(),
        value: cleared.value,
    }
}
