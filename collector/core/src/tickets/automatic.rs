//! What alerts do to tickets: open, attach, reopen, resolve, hand back. [`on_alert_raised`] and
//! [`on_alert_cleared`] decide; the others carry a decision out on the values.

use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Applied, Episode, EpisodeReason, Firing, News, PageReason, Phase, REOPEN_WINDOW, Step, Ticket,
    TicketContext, TicketEventKind, TicketState, surplus,
};
use crate::{
    alerts::{Cleared, Raised, Updated},
    ids::{ClientId, ContractId, TicketId},
    rules::CheckKey,
};

/// What a new alert does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaiseDecision {
    /// A new ticket ([`open`]).
    OpenNew,
    /// The open ticket takes it in ([`attach`]).
    Attach,
    /// The ticket opens again ([`reopen`]).
    Reopen,
    /// A new ticket that names the one before ([`open`]).
    OpenLinked {
        /// The one before.
        previous: TicketId,
    },
}

/// Decides what a new alert does. `existing` is the open ticket of the same (contract, host, check)
/// key or, if none is open, the one opened last. A ticket that was resolved lately opens again; so
/// does one, however old or closed, that a person resolved while it fired, as long as it does.
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
    let is_resolved_lately = ticket.state == TicketState::Resolved && is_recent;
    if is_resolved_lately || !ticket.firing.is_none() {
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
    /// The ticket is resolved by itself.
    Resolve,
    /// A person has worked on the ticket and has to resolve it.
    HandBack,
    /// The ticket stays as it is: another alert fires, or it is not open.
    Nothing,
}

/// Decides what a cleared alert does; `still` are the ticket's other alerts that fire.
pub const fn on_alert_cleared(ticket: &Ticket, still: Firing) -> ClearDecision {
    if !ticket.state.is_open() || !still.is_none() {
        ClearDecision::Nothing
    } else if ticket.touched_by_human {
        ClearDecision::HandBack
    } else {
        ClearDecision::Resolve
    }
}

/// The ticket to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTicket {
    pub id: TicketId,
    /// The number people call it by.
    pub number: i64,
    pub client: ClientId,
    /// The contract that covers the host.
    pub contract: Option<ContractId>,
    pub host: Option<HostId>,
    /// The host's name, for the title; empty for none.
    pub host_name: String,
    /// The resolved ticket about the same key before it.
    pub previous: Option<TicketId>,
}

/// Opens a ticket for a new alert and calls tier 1.
pub fn open(new: NewTicket, raised: &Raised, context: TicketContext<'_>) -> Applied {
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
        alert_priority: raised.priority,
        severity: raised.severity,
        state: TicketState::New,
        hold_until: None,
        firing: Firing::NONE.and(raised.priority),
        opened_at: context.now,
        episode: Episode::begin(context.now),
        first_response_at: None,
        resolved_at: None,
        touched_by_human: false,
        assignee: None,
        tier: 1,
        previous,
    };
    let mut step = Step::by_system(&ticket, context);
    step.event(TicketEventKind::Opened { previous });
    step.event(attached(raised));
    step.call(PageReason::Opened);
    step.done()
}

/// Adds a new alert to an open ticket.
///
/// - Nobody has answered: people are called again if the alert is worse than those before.
/// - A person has it: a worse alert begins a new episode; one that is not is a notice.
/// - Everything had recovered: a new episode.
pub fn attach(ticket: &Ticket, raised: &Raised, context: TicketContext<'_>) -> Applied {
    let mut step = Step::by_system(ticket, context);
    step.event(attached(raised));
    let is_worse = raised.priority < ticket.alert_priority || raised.severity > ticket.severity;
    match ticket.episode.phase {
        Phase::Over { .. } => {
            start_over(&mut step, raised);
            begin_episode(&mut step, EpisodeReason::FiresAgain);
            step.call(PageReason::FiresAgain);
        }
        Phase::Taken { .. } if is_worse => {
            take_in(&mut step, raised);
            begin_episode(&mut step, EpisodeReason::Worse);
            step.call(PageReason::Worse);
        }
        Phase::Taken { .. } => {
            take_in(&mut step, raised);
            // One that collects what is beyond a limit would send a notice for each.
            if ticket.check != Some(CheckKey::surplus()) {
                step.notify(News::AlertAttached);
            }
        }
        Phase::Unanswered { .. } => {
            take_in(&mut step, raised);
            if is_worse {
                step.call(PageReason::Worse);
            }
        }
    }
    surplus::retitle(&mut step.applied.ticket);
    step.done()
}

/// Opens a resolved ticket again for a new alert: a new episode, which calls the ticket's tier.
pub fn reopen(ticket: &Ticket, raised: &Raised, context: TicketContext<'_>) -> Applied {
    let mut step = Step::by_system(ticket, context);
    step.event(TicketEventKind::Reopened { still_firing: 0 });
    step.event(attached(raised));
    if ticket.firing.is_none() {
        start_over(&mut step, raised);
    } else {
        take_in(&mut step, raised);
    }
    let next = &mut step.applied.ticket;
    next.state = TicketState::New;
    next.resolved_at = None;
    next.episode = Episode::begin(context.now);
    step.call(PageReason::Reopened);
    step.done()
}

/// Notes that an alert recovered; `still` are the ticket's other alerts that fire. The last one
/// resolves the ticket or, if a person has worked on it, hands it back to that person. On a ticket
/// that was resolved before, it ends the check that was to come.
pub fn clear(
    ticket: &Ticket,
    cleared: &Cleared,
    still: Firing,
    context: TicketContext<'_>,
) -> Applied {
    let mut step = Step::by_system(ticket, context);
    step.event(TicketEventKind::AlertCleared {
        alert: cleared.alert,
        reason: cleared.reason.clone(),
        value: cleared.value,
    });
    step.applied.ticket.firing = still;
    surplus::retitle(&mut step.applied.ticket);
    match on_alert_cleared(ticket, still) {
        ClearDecision::Nothing => {
            let next = &mut step.applied.ticket;
            if let Phase::Over { recheck_at, .. } = &mut next.episode.phase
                && still.is_none()
            {
                *recheck_at = None;
            }
            step.cancel_pages_below_page();
        }
        ClearDecision::Resolve => {
            step.event(TicketEventKind::Resolved {
                auto: true,
                still_firing: 0,
            });
            step.set_state(TicketState::Resolved);
            step.applied.ticket.resolved_at = Some(context.now);
            step.end_episode();
            step.notify(News::Resolved);
        }
        ClearDecision::HandBack => {
            step.event(TicketEventKind::HandedBack);
            step.end_episode();
            step.notify(News::HandedBack);
        }
    }
    step.done()
}

/// Notes what more a firing alert has found: a notice, wherever the ticket is.
pub fn update(ticket: &Ticket, updated: &Updated, context: TicketContext<'_>) -> Applied {
    let mut step = Step::by_system(ticket, context);
    step.event(TicketEventKind::AlertUpdated {
        alert: updated.alert,
        summary: updated.summary.clone(),
        evidence: updated.evidence.clone(),
    });
    step.notify(News::AlertUpdated);
    step.done()
}

/// Calls people about an open ticket again, whatever they answered before: something worse is known
/// about it. The ticket's title becomes the alert's summary.
pub fn call_again(ticket: &Ticket, raised: &Raised, context: TicketContext<'_>) -> Applied {
    let mut step = Step::by_system(ticket, context);
    step.event(attached(raised));
    step.applied.ticket.title.clone_from(&raised.summary);
    begin_episode(&mut step, EpisodeReason::Worse);
    step.call(PageReason::Worse);
    step.done()
}

/// Adds a line of Watchkeep's own to the timeline; nobody is called.
pub fn comment(ticket: &Ticket, text: String, context: TicketContext<'_>) -> Applied {
    let mut step = Step::by_system(ticket, context);
    step.event(TicketEventKind::Note {
        internal: true,
        text,
    });
    step.done()
}

fn begin_episode(step: &mut Step<'_>, reason: EpisodeReason) {
    let now = step.context.now;
    step.event(TicketEventKind::EpisodeStarted { reason });
    let next = &mut step.applied.ticket;
    next.episode = Episode::begin(now);
    let from = next.state;
    if matches!(from, TicketState::Waiting { .. }) {
        step.set_state(TicketState::Open);
        step.event(TicketEventKind::StateChanged {
            from,
            to: TicketState::Open,
            until: None,
        });
    }
}

/// Adds an alert to those that fire. One that is more urgent than all before raises the priority,
/// also against what a person chose: they chose it for something less.
fn take_in(step: &mut Step<'_>, raised: &Raised) {
    let ticket = &mut step.applied.ticket;
    ticket.firing = ticket.firing.and(raised.priority);
    ticket.severity = ticket.severity.max(raised.severity);
    if raised.priority < ticket.alert_priority {
        ticket.alert_priority = raised.priority;
        let to = ticket.priority.min(raised.priority);
        step.change_priority(to);
    }
}

/// Takes an alert in after all others recovered: severity and priority are its own, unless a person
/// chose the priority for something that was no less urgent.
fn start_over(step: &mut Step<'_>, raised: &Raised) {
    let ticket = &mut step.applied.ticket;
    ticket.severity = raised.severity;
    if ticket.is_priority_chosen() {
        take_in(step, raised);
    } else {
        ticket.firing = Firing::NONE.and(raised.priority);
        ticket.alert_priority = raised.priority;
        step.change_priority(raised.priority);
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
