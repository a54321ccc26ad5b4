//! What people do with tickets.

use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    Actor, Applied, Episode, Intent, News, Phase, Step, Ticket, TicketContext, TicketEventKind,
    TicketState, WaitingOn,
};
use crate::{ids::UserId, rules::Priority};

/// Longest note, bytes.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;
/// Longest time on hold.
pub const MAX_HOLD: DurationMs = DurationMs::from_hours(24 * 366);

/// What a person wants done with a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take it on: the first response, which ends the paging.
    Acknowledge,
    /// Give it to a person, or to nobody.
    Assign {
        /// The person, with their name.
        to: Option<(UserId, String)>,
    },
    /// Write something.
    Note {
        /// Whether the customer must not see it.
        internal: bool,
        text: String,
    },
    /// Set it open or waiting; resolved and closed do as [`Action::Resolve`] and [`Action::Close`],
    /// refused while something fires.
    SetState(TicketState),
    /// Leave it waiting until an instant, then open it again.
    Hold {
        /// When it opens again.
        until: UnixMillis,
    },
    /// The cause is gone.
    Resolve(IfFiring),
    /// It is finished.
    Close(IfFiring),
    /// Open it again.
    Reopen,
    /// Change its priority.
    SetPriority(Priority),
}

/// What resolving and closing do while alerts of the ticket fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfFiring {
    /// They are refused.
    Refuse,
    /// They are done all the same; if something still fires after [`super::REOPEN_WINDOW`], the
    /// ticket opens again.
    Anyway,
}

/// A ticket's state does not allow an action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ticket is {}: {reason}", state.text())]
pub struct InvalidTransition {
    /// The ticket's state.
    pub state: TicketState,
    /// Why the action is refused.
    pub reason: Refusal,
}

/// Why an action is refused, with what to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Watchkeep itself may not do it.
    #[error("only a person can do this")]
    OnlyPeople,
    /// Watchkeep itself may not resolve what a person has worked on.
    #[error("a person has worked on it, so a person has to resolve it")]
    PersonResolves,
    /// It is resolved or closed.
    #[error("reopen it first")]
    ReopenFirst,
    #[error("it does not need to be reopened")]
    AlreadyOpen,
    /// There is no way back to new.
    #[error("it cannot become new again; set it to open")]
    NeverNew,
    /// A hold that would be over at once.
    #[error("the date is not in the future; choose a later one")]
    HoldOver,
    /// A hold that nobody would remember.
    #[error("the date is too far ahead; choose one within a year")]
    HoldTooLong,
    /// A note without text.
    #[error("the note is empty; write some text")]
    EmptyNote,
    /// A note that is too long.
    #[error("the note is too long; shorten it to {MAX_NOTE_BYTES} bytes")]
    LongNote,
    /// Alerts fire.
    #[error(
        "{} still firing; wait until {} recovered, or resolve it anyway",
        alerts(*count),
        if *count == 1 { "it has" } else { "they have" }
    )]
    StillFiring {
        /// How many.
        count: u32,
    },
    /// Another ticket about the same is open.
    #[error("ticket #{number} about the same check is open; continue there")]
    NewerOpen { number: i64 },
}

fn alerts(count: u32) -> String {
    match count {
        1 => "1 alert is".to_owned(),
        count => format!("{count} alerts are"),
    }
}

/// Applies an action. One that changes nothing gives no events and is no error, so that a second
/// click does no harm. By a person, every action touches the ticket. Acknowledging, assigning it to
/// oneself, setting a state, resolving, closing and a public note are a response as well.
///
/// # Errors
/// The ticket's state does not allow it.
pub fn apply(
    ticket: &Ticket,
    action: Action,
    actor: Actor,
    context: TicketContext<'_>,
) -> Result<Applied, InvalidTransition> {
    let mut step = Step::new(ticket, actor, context);
    match action {
        Action::Acknowledge => acknowledge(&mut step),
        Action::Assign { to } => assign(&mut step, to),
        Action::Note { internal, text } => note(&mut step, internal, text),
        Action::SetState(TicketState::Resolved) => resolve(&mut step, IfFiring::Refuse),
        Action::Resolve(if_firing) => resolve(&mut step, if_firing),
        Action::SetState(TicketState::Closed) => close(&mut step, IfFiring::Refuse),
        Action::Close(if_firing) => close(&mut step, if_firing),
        Action::SetState(to) => set_state(&mut step, to),
        Action::Hold { until } => hold(&mut step, until),
        Action::Reopen => reopen(&mut step),
        Action::SetPriority(to) => set_priority(&mut step, to),
    }
    .map_err(|reason| InvalidTransition {
        state: ticket.state,
        reason,
    })?;
    if step.actor.is_human() && !step.applied.events.is_empty() {
        step.applied.ticket.touched_by_human = true;
    }
    Ok(step.done())
}

/// Ends the paging of this episode.
fn take(step: &mut Step<'_>) {
    let at = step.context.now;
    let ticket = &mut step.applied.ticket;
    if step.actor.is_human() && ticket.episode.is_unanswered() {
        ticket.episode.phase = Phase::Taken { at };
        step.send(Intent::CancelPages);
    }
}

/// Counts as a person's response, the first if there was none, and ends the paging.
fn respond(step: &mut Step<'_>) {
    if step.actor.is_human() {
        let now = step.context.now;
        step.applied.ticket.first_response_at.get_or_insert(now);
        take(step);
    }
}

fn acknowledge(step: &mut Step<'_>) -> Result<(), Refusal> {
    let ticket = &step.applied.ticket;
    if !step.actor.is_human() {
        return Err(Refusal::OnlyPeople);
    }
    if !ticket.state.is_open() {
        return Err(Refusal::ReopenFirst);
    }
    let is_recovered_and_known = ticket.episode.is_over() && ticket.state != TicketState::New;
    if ticket.episode.taken_at().is_some() && !ticket.episode.is_over() || is_recovered_and_known {
        return Ok(());
    }
    respond(step);
    if step.applied.ticket.state == TicketState::New {
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

/// To oneself it is a response. To someone else it ends the paging, since the ticket has an owner
/// whom a message reaches, and is no response yet. Taking the owner away resumes nothing.
fn assign(step: &mut Step<'_>, to: Option<(UserId, String)>) -> Result<(), Refusal> {
    if step.applied.ticket.state == TicketState::Closed {
        return Err(Refusal::ReopenFirst);
    }
    let (id, name) = to.unzip();
    let is_self = matches!(&step.actor, Actor::User { id: by, .. } if Some(*by) == id);
    let is_answer = id.is_some() && step.applied.ticket.episode.is_unanswered();
    if step.applied.ticket.assignee == id && !is_answer {
        return Ok(());
    }
    let is_open = step.applied.ticket.state.is_open();
    if is_open && is_self {
        respond(step);
    } else if is_open && id.is_some() {
        take(step);
    }
    if step.actor.is_human() && id.is_some() && step.applied.ticket.state == TicketState::New {
        step.applied.ticket.state = TicketState::Open;
    }
    step.applied.ticket.assignee = id;
    step.event(TicketEventKind::Assigned { to: id, name });
    if id.is_some() && !is_self {
        step.send(Intent::Notify {
            news: News::Assigned,
        });
    }
    Ok(())
}

fn note(step: &mut Step<'_>, internal: bool, text: String) -> Result<(), Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::EmptyNote);
    }
    if text.len() > MAX_NOTE_BYTES {
        return Err(Refusal::LongNote);
    }
    if !internal && step.applied.ticket.state.is_open() {
        respond(step);
    }
    step.event(TicketEventKind::Note { internal, text });
    Ok(())
}

fn set_state(step: &mut Step<'_>, to: TicketState) -> Result<(), Refusal> {
    let from = step.applied.ticket.state;
    if to == from && step.applied.ticket.hold_until.is_none() {
        return Ok(());
    }
    if to == TicketState::New {
        return Err(Refusal::NeverNew);
    }
    if !from.is_open() {
        return Err(Refusal::ReopenFirst);
    }
    respond(step);
    step.set_state(to);
    step.event(TicketEventKind::StateChanged {
        from,
        to,
        until: None,
    });
    Ok(())
}

fn hold(step: &mut Step<'_>, until: UnixMillis) -> Result<(), Refusal> {
    let now = step.context.now;
    let from = step.applied.ticket.state;
    if !from.is_open() {
        return Err(Refusal::ReopenFirst);
    }
    if !step.actor.is_human() {
        return Err(Refusal::OnlyPeople);
    }
    if until <= now {
        return Err(Refusal::HoldOver);
    }
    if until > now + MAX_HOLD {
        return Err(Refusal::HoldTooLong);
    }
    if step.applied.ticket.hold_until == Some(until) {
        return Ok(());
    }
    let to = TicketState::Waiting {
        on: WaitingOn::Scheduled,
    };
    respond(step);
    step.set_state(to);
    step.applied.ticket.hold_until = Some(until);
    step.event(TicketEventKind::StateChanged {
        from,
        to,
        until: Some(until),
    });
    Ok(())
}

fn resolve(step: &mut Step<'_>, if_firing: IfFiring) -> Result<(), Refusal> {
    let auto = !step.actor.is_human();
    let ticket = &step.applied.ticket;
    match ticket.state {
        TicketState::Resolved => return Ok(()),
        TicketState::Closed => return Err(Refusal::ReopenFirst),
        _ if auto && ticket.touched_by_human => return Err(Refusal::PersonResolves),
        _ => {}
    }
    refuse_if_firing(ticket, if_firing)?;
    respond(step);
    finish(step, TicketState::Resolved);
    step.event(TicketEventKind::Resolved {
        auto,
        still_firing: step.applied.ticket.firing.count(),
    });
    step.notify(News::Resolved);
    Ok(())
}

fn close(step: &mut Step<'_>, if_firing: IfFiring) -> Result<(), Refusal> {
    let ticket = &step.applied.ticket;
    if ticket.state == TicketState::Closed {
        return Ok(());
    }
    refuse_if_firing(ticket, if_firing)?;
    if ticket.state.is_open() {
        resolve(step, if_firing)?;
    }
    finish(step, TicketState::Closed);
    step.event(TicketEventKind::Closed);
    Ok(())
}

const fn refuse_if_firing(ticket: &Ticket, if_firing: IfFiring) -> Result<(), Refusal> {
    match if_firing {
        IfFiring::Refuse if !ticket.firing.is_none() => Err(Refusal::StillFiring {
            count: ticket.firing.count(),
        }),
        IfFiring::Refuse | IfFiring::Anyway => Ok(()),
    }
}

fn finish(step: &mut Step<'_>, to: TicketState) {
    let now = step.context.now;
    step.set_state(to);
    step.applied.ticket.resolved_at.get_or_insert(now);
    step.end_episode();
}

/// By a person, who has it then: nobody is called.
fn reopen(step: &mut Step<'_>) -> Result<(), Refusal> {
    if step.applied.ticket.state.is_open() {
        return Err(Refusal::AlreadyOpen);
    }
    if !step.actor.is_human() {
        return Err(Refusal::OnlyPeople);
    }
    let now: UnixMillis = step.context.now;
    let ticket = &mut step.applied.ticket;
    ticket.state = TicketState::Open;
    ticket.resolved_at = None;
    ticket.first_response_at.get_or_insert(now);
    let phase = if ticket.firing.is_none() {
        Phase::Over {
            at: now,
            taken_at: Some(now),
            recheck_at: None,
        }
    } else {
        Phase::Taken { at: now }
    };
    ticket.episode = Episode { since: now, phase };
    step.event(TicketEventKind::Reopened { still_firing: 0 });
    Ok(())
}

fn set_priority(step: &mut Step<'_>, to: Priority) -> Result<(), Refusal> {
    if step.applied.ticket.state == TicketState::Closed {
        return Err(Refusal::ReopenFirst);
    }
    step.change_priority(to);
    step.cancel_pages_below_page();
    Ok(())
}
