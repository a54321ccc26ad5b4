//! Escalation, one step: a ticket that nobody acknowledged in time goes to tier 2, which is paged.

use watchkeep_shared::{DurationMs, UnixMillis};

use super::{Actor, Applied, Intent, PageReason, Step, Ticket, TicketEventKind};
use crate::rules::Priority;

/// The last tier that time alone reaches.
const LAST_TIER: u8 = 2;

/// How long the first tier has to acknowledge; `None`: it is never escalated.
const fn patience(priority: Priority) -> Option<DurationMs> {
    match priority {
        Priority::P1 => Some(DurationMs::from_mins(5)),
        Priority::P2 => Some(DurationMs::from_mins(15)),
        Priority::P3 => Some(DurationMs::from_mins(60)),
        Priority::P4 => None,
    }
}

/// When the ticket is to be escalated, if nothing happens before; `None` for never.
pub fn escalation_due_at(ticket: &Ticket) -> Option<UnixMillis> {
    let waits =
        ticket.state.is_open() && ticket.acknowledged_at.is_none() && ticket.tier < LAST_TIER;
    let patience = patience(ticket.priority).filter(|_| waits)?;
    Some(ticket.episode_at + patience)
}

/// Escalates the ticket if that is due; `None` if it is not, so a late or doubled call does no
/// harm.
pub fn escalate(ticket: &Ticket, now: UnixMillis) -> Option<Applied> {
    escalation_due_at(ticket).filter(|due| *due <= now)?;
    let tier = ticket.tier + 1;
    let mut step = Step::new(ticket, Actor::System, now);
    step.applied.ticket.tier = tier;
    step.event(TicketEventKind::Escalated { tier });
    step.send(Intent::Page {
        tier,
        reason: PageReason::Escalated,
    });
    Some(step.applied)
}
