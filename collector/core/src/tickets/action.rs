//! What people do with tickets.

use watchkeep_shared::UnixMillis;

use super::{Actor, Applied, Intent, News, Step, Ticket, TicketEventKind, TicketState};
use crate::{ids::UserId, rules::Priority};

/// Longest note, bytes.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;

/// What someone wants done with a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take it on: the first human response, after which no page goes out.
    Acknowledge,
    /// Give it to someone, or to nobody.
    Assign {
        /// Who, with their name.
        to: Option<(UserId, String)>,
    },
    /// Write something.
    Note {
        /// Whether the customer must not see it.
        internal: bool,
        /// The text.
        text: String,
    },
    /// Set it open or waiting; resolved and closed do as [`Action::Resolve`] and [`Action::Close`].
    SetState(TicketState),
    /// The trouble is gone.
    Resolve,
    /// Done with.
    Close,
    /// It is not done with after all.
    Reopen,
    /// Act sooner or later than was thought.
    SetPriority(Priority),
}

/// A ticket's state does not allow an action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ticket is {state}: {reason}")]
pub struct InvalidTransition {
    /// Where the ticket stands.
    pub state: TicketState,
    /// Why the action is refused, for people.
    pub reason: &'static str,
}

/// Applies an action. What is so already gives no events and is no error, so that a second click
/// does no harm. By a human, every action touches the ticket; acknowledging, setting a state,
/// resolving, closing and a public note are a response as well.
pub fn apply(
    ticket: &Ticket,
    action: Action,
    actor: Actor,
    now: UnixMillis,
) -> Result<Applied, InvalidTransition> {
    let mut step = Step::new(ticket, actor, now);
    match action {
        Action::Acknowledge => acknowledge(&mut step)?,
        Action::Assign { to } => assign(&mut step, to)?,
        Action::Note { internal, text } => note(&mut step, internal, text)?,
        Action::SetState(TicketState::Resolved) | Action::Resolve => resolve(&mut step)?,
        Action::SetState(TicketState::Closed) | Action::Close => close(&mut step)?,
        Action::SetState(to) => set_state(&mut step, to)?,
        Action::Reopen => reopen(&mut step)?,
        Action::SetPriority(to) => set_priority(&mut step, to)?,
    }
    if step.actor.is_human() && !step.applied.events.is_empty() {
        step.applied.ticket.touched_by_human = true;
    }
    Ok(step.applied)
}

fn refuse(step: &Step, reason: &'static str) -> InvalidTransition {
    InvalidTransition {
        state: step.applied.ticket.state,
        reason,
    }
}

/// Marks a human's response: stops the paging, and is the first response if there was none.
fn respond(step: &mut Step) {
    let now = step.now;
    let ticket = &mut step.applied.ticket;
    if !step.actor.is_human() || ticket.acknowledged_at.is_some() {
        return;
    }
    ticket.acknowledged_at = Some(now);
    ticket.first_response_at.get_or_insert(now);
    step.send(Intent::CancelPages);
}

fn acknowledge(step: &mut Step) -> Result<(), InvalidTransition> {
    let state = step.applied.ticket.state;
    if !step.actor.is_human() {
        return Err(refuse(step, "only a person can acknowledge it"));
    }
    if !state.is_open() {
        return Err(refuse(
            step,
            "there is nothing to acknowledge; reopen it first",
        ));
    }
    if step.applied.ticket.acknowledged_at.is_some() {
        return Ok(());
    }
    respond(step);
    if state == TicketState::New {
        step.applied.ticket.state = TicketState::Open;
    }
    step.event(TicketEventKind::Acknowledged);
    if let (None, Actor::User { id, name }) = (step.applied.ticket.assignee, &step.actor) {
        let (id, name) = (*id, name.clone());
        step.applied.ticket.assignee = Some(id);
        step.event(TicketEventKind::Assigned {
            to: Some(id),
            name: Some(name),
        });
    }
    Ok(())
}

fn assign(step: &mut Step, to: Option<(UserId, String)>) -> Result<(), InvalidTransition> {
    if step.applied.ticket.state == TicketState::Closed {
        return Err(refuse(step, "reopen it before assigning it"));
    }
    let (id, name) = to.unzip();
    if step.applied.ticket.assignee == id {
        return Ok(());
    }
    step.applied.ticket.assignee = id;
    step.event(TicketEventKind::Assigned { to: id, name });
    let is_self = matches!(&step.actor, Actor::User { id: by, .. } if Some(*by) == id);
    if id.is_some() && !is_self {
        step.send(Intent::Notify {
            news: News::Assigned,
        });
    }
    Ok(())
}

fn note(step: &mut Step, internal: bool, text: String) -> Result<(), InvalidTransition> {
    if text.trim().is_empty() {
        return Err(refuse(step, "a note needs some text"));
    }
    if text.len() > MAX_NOTE_BYTES {
        return Err(refuse(step, "a note has at most 65536 bytes"));
    }
    if !internal && step.applied.ticket.state.is_open() {
        respond(step);
    }
    step.event(TicketEventKind::Note { internal, text });
    Ok(())
}

fn set_state(step: &mut Step, to: TicketState) -> Result<(), InvalidTransition> {
    let from = step.applied.ticket.state;
    if to == from {
        return Ok(());
    }
    if to == TicketState::New {
        return Err(refuse(step, "it can't become new again; set it open"));
    }
    if !from.is_open() {
        return Err(refuse(step, "reopen it first"));
    }
    respond(step);
    step.applied.ticket.state = to;
    step.event(TicketEventKind::StateChanged { from, to });
    Ok(())
}

fn resolve(step: &mut Step) -> Result<(), InvalidTransition> {
    let auto = !step.actor.is_human();
    match step.applied.ticket.state {
        TicketState::Resolved => return Ok(()),
        TicketState::Closed => return Err(refuse(step, "it is done with; reopen it first")),
        _ if auto && step.applied.ticket.touched_by_human => {
            return Err(refuse(
                step,
                "a person has worked on it and has to resolve it",
            ));
        }
        _ => {}
    }
    respond(step);
    finish(step, TicketState::Resolved);
    step.event(TicketEventKind::Resolved { auto });
    step.send(Intent::Notify {
        news: News::Resolved,
    });
    Ok(())
}

fn close(step: &mut Step) -> Result<(), InvalidTransition> {
    let state = step.applied.ticket.state;
    if state == TicketState::Closed {
        return Ok(());
    }
    if state.is_open() {
        resolve(step)?;
    }
    finish(step, TicketState::Closed);
    step.event(TicketEventKind::Closed);
    Ok(())
}

fn finish(step: &mut Step, to: TicketState) {
    let now = step.now;
    let ticket = &mut step.applied.ticket;
    ticket.state = to;
    ticket.resolved_at.get_or_insert(now);
    step.send(Intent::CancelPages);
}

/// By a person's hand: they have it, so nobody is paged.
fn reopen(step: &mut Step) -> Result<(), InvalidTransition> {
    if step.applied.ticket.state.is_open() {
        return Err(refuse(step, "it is open already"));
    }
    respond(step);
    step.applied.ticket.state = TicketState::Open;
    step.applied.ticket.resolved_at = None;
    step.event(TicketEventKind::Reopened);
    Ok(())
}

fn set_priority(step: &mut Step, to: Priority) -> Result<(), InvalidTransition> {
    let from = step.applied.ticket.priority;
    if step.applied.ticket.state == TicketState::Closed {
        return Err(refuse(step, "reopen it before changing its priority"));
    }
    if from != to {
        step.applied.ticket.priority = to;
        step.event(TicketEventKind::PriorityChanged { from, to });
    }
    Ok(())
}
