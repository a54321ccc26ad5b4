//! Tickets: the work for people that alerts open, and what people do with it. Every function takes
//! a ticket and returns the next one with the events of its timeline and what to send
//! ([`Intent`]); the caller stores and sends all of it in one transaction.
//!
//! An *episode* ([`Episode`]) runs from an opening until everything recovered or a person resolved
//! the ticket. One answer of a person ends the paging of one episode; the first response, which the
//! SLA counts, happens once in a ticket's life. Who is called how is up to the table of priorities
//! ([`Paging`]): *calls* below means a page, a notice or nothing by that table. Only what pages
//! escalates. A ticket that a person touched is never resolved by itself: it is handed back.
//!
//! | what happens | episode | people | time |
//! |---|---|---|---|
//! | an alert opens the ticket | begins, unanswered | calls tier 1 | escalates if unanswered |
//! | one more alert, unanswered | continues | calls only if it is worse | as before |
//! | one more alert, taken | continues | a notice | never escalates |
//! | a worse alert, taken | a new one, unanswered | calls the ticket's tier | escalates if unanswered |
//! | an alert after all recovered (handed back) | a new one, unanswered | calls the ticket's tier | escalates if unanswered |
//! | an alert recovers, others fire | continues | queued pages go if what fires would not page | escalates by what fires |
//! | the last alert recovers, untouched: resolved | over | queued pages go; a notice | never |
//! | the last alert recovers, touched: handed back | over | queued pages go; a notice | never |
//! | an alert on a ticket resolved up to 30 min ago | a new one, unanswered | calls the ticket's tier | escalates if unanswered |
//! | an alert on a ticket closed, or resolved longer ago | another ticket | as an opening | as an opening |
//! | acknowledge; assign to oneself; set a state; a public note | taken | queued pages go | never escalates |
//! | assign to someone else | taken | queued pages go; a notice to the assignee | never escalates |
//! | an internal note; priority; unassign | as before | lower priority: queued pages may go | escalates by the priority |
//! | resolve or close, nothing fires | over | queued pages go; a notice | never |
//! | resolve or close, something fires | refused, or over if "anyway" | queued pages go; a notice | checked again after 30 min |
//! | checked again, still fires | a new one, unanswered | calls the ticket's tier | escalates if unanswered |
//! | the last alert recovers on a resolved ticket | over | nobody | no more check |
//! | reopened by a person | taken; over if nothing fires | nobody | never escalates |
//! | unanswered in time | continues | pages tier 2 | once |
//! | put on hold until an instant | taken | queued pages go | opens again then, with a notice |
//! | hours begin in which it pages | continues | pages the ticket's tier | escalates if unanswered |
//!
//! A host has only so many tickets; what breaches beyond that is collected in one ([`surplus`]).
//!
//! *Worse* is an alert that is more urgent, or more severe, than every other one of the episode. It
//! raises the ticket's priority, also if a person had chosen a lower one.
//!
//! Not here yet: SLA clocks, impact and urgency, links beyond the previous ticket, merging, time
//! entries, holidays; escalation has one step (tier 1 to 2). What a ticket's state does not allow
//! is refused ([`InvalidTransition`]) and changes nothing.

mod action;
mod automatic;
mod episode;
mod escalation;
mod event;
mod hours;
mod paging;
mod state;
pub mod surplus;

use serde::{Deserialize, Serialize};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::{
    ids::{ClientId, ContractId, TicketId, UserId},
    rules::{CheckKey, Priority, Severity},
};

pub use self::{
    action::{Action, IfFiring, InvalidTransition, MAX_HOLD, MAX_NOTE_BYTES, Refusal, apply},
    automatic::{
        ClearDecision, NewTicket, RaiseDecision, attach, call_again, clear, comment,
        on_alert_cleared, on_alert_raised, open, reopen, update,
    },
    episode::{Episode, Firing, Phase},
    escalation::{end_hold, escalate, escalation_due_at, recheck},
    event::{Actor, EpisodeReason, Intent, News, PageReason, TicketEvent, TicketEventKind},
    hours::{ParseHoursError, WeeklyHours},
    paging::{Paging, PagingRule, PagingSettings, UnknownZone, Urgency},
    state::{TicketState, WaitingOn},
};

/// For this long after its resolution a ticket is opened again by the same breach, rather than a
/// new one; and after this long one that was resolved while it fired is checked again.
pub const REOPEN_WINDOW: DurationMs = DurationMs::from_mins(30);

/// One piece of work for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub id: TicketId,
    /// The number people call it by.
    pub number: i64,
    /// The client it is for.
    pub client: ClientId,
    /// The contract that covers the host, if one does.
    pub contract: Option<ContractId>,
    /// The host it is about.
    pub host: Option<HostId>,
    /// The check it is about; with contract and host its key ([`open_key`]).
    pub check: Option<CheckKey>,
    /// One line.
    pub title: String,
    /// How soon people should act: that of its alerts, unless a person chose another.
    pub priority: Priority,
    /// The most urgent priority of the alerts of this episode.
    pub alert_priority: Priority,
    /// The worst severity of the alerts of this episode.
    pub severity: Severity,
    /// See [`TicketState`].
    pub state: TicketState,
    /// When it opens again by itself; only while it waits for a date.
    pub hold_until: Option<UnixMillis>,
    /// Its alerts that fire, also after a person resolved it.
    pub firing: Firing,
    pub opened_at: UnixMillis,
    /// Whether people are still being called.
    pub episode: Episode,
    /// When a person first responded, in the ticket's whole life.
    pub first_response_at: Option<UnixMillis>,
    /// When it was resolved; `None` unless it is resolved or closed.
    pub resolved_at: Option<UnixMillis>,
    /// Whether a person ever did anything with it.
    pub touched_by_human: bool,
    /// Who works on it.
    pub assignee: Option<UserId>,
    /// The line of support, 1 to 3.
    pub tier: u8,
    /// The resolved ticket about the same key before this one.
    pub previous: Option<TicketId>,
}

impl Ticket {
    /// The key of the store's unique partial index, while the ticket is open and automatic.
    pub fn open_key(&self) -> Option<String> {
        let check = self.check.as_ref().filter(|_| self.state.is_open())?;
        Some(open_key(self.contract, self.host, check))
    }

    /// Whether it is open and all its alerts have recovered.
    pub const fn is_recovered(&self) -> bool {
        self.state.is_open() && self.episode.is_over()
    }

    /// Whether it is resolved or closed and something still fires.
    pub const fn is_resolved_while_firing(&self) -> bool {
        !self.state.is_open() && !self.firing.is_none()
    }

    /// The priority by which people are called: what a person chose, else that of what fires.
    pub fn paging_priority(&self) -> Priority {
        match self.firing.most_urgent() {
            Some(priority) if !self.is_priority_chosen() => priority,
            _ => self.priority,
        }
    }

    /// Whether a person chose another priority than that of the alerts.
    fn is_priority_chosen(&self) -> bool {
        self.priority != self.alert_priority
    }
}

/// The key under which at most one automatic ticket may be open: contract, host, check.
pub fn open_key(contract: Option<ContractId>, host: Option<HostId>, check: &CheckKey) -> String {
    let contract = contract.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let host = host.map_or_else(|| "-".to_owned(), |id| id.to_string());
    format!("{contract}/{host}/{check}")
}

/// What every step of a ticket depends on, apart from the ticket.
#[derive(Clone, Copy, Debug)]
pub struct TicketContext<'a> {
    /// The present.
    pub now: UnixMillis,
    /// The table of the ticket's contract.
    pub paging: &'a Paging,
}

/// What follows from one step of a ticket: store all of it together.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The ticket as it is now.
    pub ticket: Ticket,
    /// What to add to its timeline.
    pub events: Vec<TicketEvent>,
    /// What to send.
    pub notify: Vec<Intent>,
    /// When to call [`escalate`].
    pub escalate_at: Option<UnixMillis>,
}

/// A step in the making.
struct Step<'a> {
    applied: Applied,
    actor: Actor,
    context: TicketContext<'a>,
}

impl<'a> Step<'a> {
    fn new(ticket: &Ticket, actor: Actor, context: TicketContext<'a>) -> Self {
        let applied = Applied {
            ticket: ticket.clone(),
            events: Vec::new(),
            notify: Vec::new(),
            escalate_at: None,
        };
        Self {
            applied,
            actor,
            context,
        }
    }

    fn by_system(ticket: &Ticket, context: TicketContext<'a>) -> Self {
        Self::new(ticket, Actor::System, context)
    }

    fn done(mut self) -> Applied {
        let TicketContext { now, paging } = self.context;
        self.applied.escalate_at = escalation_due_at(&self.applied.ticket, paging, now);
        self.applied
    }

    fn event(&mut self, kind: TicketEventKind) {
        self.applied.events.push(TicketEvent {
            at: self.context.now,
            actor: self.actor.clone(),
            kind,
        });
    }

    fn send(&mut self, intent: Intent) {
        if !self.applied.notify.contains(&intent) {
            self.applied.notify.push(intent);
        }
    }

    /// How far the ticket's news reaches now.
    fn urgency(&self) -> Urgency {
        let TicketContext { now, paging } = self.context;
        paging.urgency(self.applied.ticket.paging_priority(), now)
    }

    /// Sends a notice, unless the ticket only appears in the queue.
    fn notify(&mut self, news: News) {
        if self.urgency() != Urgency::Queue {
            self.send(Intent::Notify { news });
        }
    }

    /// Calls people: pages the ticket's tier, or sends a notice, or nothing.
    fn call(&mut self, reason: PageReason) {
        if self.urgency() != Urgency::Page {
            self.notify(News::Call { reason });
            return;
        }
        let now = self.context.now;
        let ticket = &mut self.applied.ticket;
        let tier = ticket.tier;
        if let Phase::Unanswered { paged_at } = &mut ticket.episode.phase {
            paged_at.get_or_insert(now);
        }
        self.send(Intent::Page { tier, reason });
    }

    /// Ends the episode; a ticket that fires all the same is checked again later.
    fn end_episode(&mut self) {
        let at = self.context.now;
        let ticket = &mut self.applied.ticket;
        if !ticket.episode.is_over() {
            let recheck_at = (!ticket.firing.is_none()).then(|| at + REOPEN_WINDOW);
            ticket.episode.phase = Phase::Over {
                at,
                taken_at: ticket.episode.taken_at(),
                recheck_at,
            };
        }
        self.send(Intent::CancelPages);
    }

    /// Pages that wait are of no use once what fires would not page.
    fn cancel_pages_below_page(&mut self) {
        if self.applied.ticket.episode.is_unanswered() && self.urgency() != Urgency::Page {
            self.send(Intent::CancelPages);
        }
    }

    /// Another state; a date that it waited for no longer counts.
    fn set_state(&mut self, to: TicketState) {
        self.applied.ticket.state = to;
        self.applied.ticket.hold_until = None;
    }

    fn change_priority(&mut self, to: Priority) {
        let from = self.applied.ticket.priority;
        if from != to {
            self.applied.ticket.priority = to;
            self.event(TicketEventKind::PriorityChanged { from, to });
        }
    }
}

#[cfg(test)]
mod tests;
