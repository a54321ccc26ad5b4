//! What time alone does to a ticket: an unanswered one escalates from tier 1 to tier 2 or pages
//! once its hours begin; one that was resolved while it fired is checked again; one that was put on
//! hold opens again.

use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    Applied, Episode, Intent, News, PageReason, Paging, Phase, Step, Ticket, TicketContext,
    TicketEventKind, TicketState,
};
use crate::rules::Priority;

/// The last tier that time alone reaches.
const LAST_TIER: u8 = 2;

/// How long the first tier has to answer a page; `None`: it is never escalated.
const fn patience(priority: Priority) -> Option<DurationMs> {
    match priority {
        Priority::P1 => Some(DurationMs::from_mins(5)),
        Priority::P2 => Some(DurationMs::from_mins(15)),
        Priority::P3 => Some(DurationMs::from_mins(60)),
        Priority::P4 => None,
    }
}

/// When [`escalate`] has something to do, at `now` at the earliest, if nothing happens before;
/// `None` for never.
pub fn escalation_due_at(ticket: &Ticket, paging: &Paging, now: UnixMillis) -> Option<UnixMillis> {
    let Phase::Unanswered { paged_at } = ticket.episode.phase else {
        return None;
    };
    let priority = ticket.paging_priority();
    let from = match paged_at {
        None => ticket.episode.since,
        Some(at) if ticket.tier < LAST_TIER => at + patience(priority)?,
        Some(_) => return None,
    };
    paging.next_page_at(priority, from.max(now))
}

/// Escalates the ticket, or sends the page that waited for its hours, if that is due; `None` if it
/// is not, so a late or doubled call does no harm.
pub fn escalate(ticket: &Ticket, context: TicketContext<'_>) -> Option<Applied> {
    let now = context.now;
    escalation_due_at(ticket, context.paging, now).filter(|due| *due <= now)?;
    let Phase::Unanswered { paged_at } = ticket.episode.phase else {
        return None;
    };
    let mut step = Step::by_system(ticket, context);
    if paged_at.is_none() {
        step.event(TicketEventKind::Paged { tier: ticket.tier });
        step.call(PageReason::HoursBegan);
        return Some(step.done());
    }
    let tier = ticket.tier + 1;
    step.applied.ticket.tier = tier;
    step.event(TicketEventKind::Escalated { tier });
    step.send(Intent::Page {
        tier,
        reason: PageReason::Escalated,
    });
    Some(step.done())
}

/// Opens a ticket that was put on hold until now: a line in its timeline, and a notice to whoever
/// has it. Nobody is paged. `None` if no hold is over.
pub fn end_hold(ticket: &Ticket, context: TicketContext<'_>) -> Option<Applied> {
    ticket.hold_until.filter(|until| *until <= context.now)?;
    let mut step = Step::by_system(ticket, context);
    let from = ticket.state;
    if !from.is_open() {
        step.applied.ticket.hold_until = None;
        return Some(step.done());
    }
    let to = TicketState::Open;
    step.set_state(to);
    step.event(TicketEventKind::StateChanged {
        from,
        to,
        until: None,
    });
    step.send(Intent::Notify {
        news: News::HoldEnded,
    });
    Some(step.done())
}

/// Opens a ticket again that was resolved or closed while it fired and still fires when its time
/// has come ([`Phase::Over`]). One that no longer fires is only taken off the list. `None` if
/// nothing is due.
pub fn recheck(ticket: &Ticket, context: TicketContext<'_>) -> Option<Applied> {
    let Phase::Over {
        at,
        taken_at,
        recheck_at: Some(due),
    } = ticket.episode.phase
    else {
        return None;
    };
    if due > context.now {
        return None;
    }
    let mut step = Step::by_system(ticket, context);
    if ticket.state.is_open() || ticket.firing.is_none() {
        step.applied.ticket.episode.phase = Phase::Over {
            at,
            taken_at,
            recheck_at: None,
        };
        return Some(step.done());
    }
    step.event(TicketEventKind::Reopened {
        still_firing: ticket.firing.count(),
    });
    let next = &mut step.applied.ticket;
    next.state = TicketState::New;
    next.resolved_at = None;
    next.episode = Episode::begin(context.now);
    step.call(PageReason::StillFiring);
    Some(step.done())
}
