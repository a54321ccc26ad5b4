//! A ticket's timeline and its messages as text.

use watchkeep_core::tickets::{Actor, EpisodeReason, TicketEventKind, TicketState};

use crate::{
    links::{Piece, linked},
    notify::endpoint::name_of,
    store::views::{DeliveryView, TicketEventView},
    web::{
        context::Ctx,
        parts::{Pill, Time, pill, severity},
    },
};

/// One line of a ticket's timeline.
pub(crate) struct EventRow {
    pub(crate) at: Time,
    pub(crate) tone: &'static str,
    pub(crate) icon: &'static str,
    pub(crate) who: String,
    pub(crate) what: String,
    /// An instant behind the text.
    pub(crate) until: Option<Time>,
    pub(crate) note: Vec<Piece>,
    pub(crate) public: bool,
}

/// A message sent, or to be sent.
pub(crate) struct DeliveryRow {
    pub(crate) kind: &'static str,
    pub(crate) channel: String,
    pub(crate) state: Pill,
    pub(crate) at: Time,
    pub(crate) error: String,
}

/// What happened, for people; `None` for a line that can't be read, which is logged.
pub(crate) fn event_row(ctx: &Ctx, event: &TicketEventView) -> Option<EventRow> {
    let kind = match serde_json::from_str::<TicketEventKind>(&event.detail) {
        Ok(kind) => kind,
        Err(error) => {
            tracing::warn!(event.id = event.id, "corrupt ticket_event.detail: {error}");
            return None;
        }
    };
    let actor = serde_json::from_str(&event.actor).unwrap_or(Actor::System);
    let until = match &kind {
        TicketEventKind::StateChanged { until, .. } => until.map(|at| ctx.time(at.0)),
        _ => None,
    };
    let (note, public) = match &kind {
        TicketEventKind::Note { internal, text } => (linked(text), !internal),
        _ => (Vec::new(), false),
    };
    let (tone, icon, what) = described(kind, &actor);
    let who = match actor {
        Actor::User { name, .. } => name,
        Actor::Link { sent_to } => format!("{sent_to} (by link)"),
        Actor::System => "Watchkeep".to_owned(),
    };
    Some(EventRow {
        at: ctx.time(event.at),
        tone,
        icon,
        who,
        what,
        until,
        note,
        public,
    })
}

/// An event as tone, icon and text behind the actor's name.
fn described(kind: TicketEventKind, actor: &Actor) -> (&'static str, &'static str, String) {
    match kind {
        TicketEventKind::Opened { .. } => ("info", "ticket", "opened the ticket".to_owned()),
        TicketEventKind::AlertAttached {
            summary,
            severity: level,
            ..
        } => {
            let (tone, icon) = severity(level.as_str());
            (tone, icon, format!("alert: {summary}"))
        }
        TicketEventKind::AlertUpdated { summary, .. } => {
            ("warn", "warn", format!("alert, with more: {summary}"))
        }
        TicketEventKind::AlertCleared { reason, .. } => {
            ("ok", "up", format!("alert recovered: {reason}"))
        }
        TicketEventKind::Acknowledged => {
            ("info", "check", "acknowledged; paging stopped".to_owned())
        }
        TicketEventKind::Assigned { to: Some(to), .. } if matches!(actor, Actor::User { id, .. } if *id == to) => {
            ("", "user", "took the ticket".to_owned())
        }
        TicketEventKind::Assigned {
            name: Some(name), ..
        } => ("", "user", format!("assigned it to {name}")),
        TicketEventKind::Assigned { .. } => ("", "user", "unassigned it".to_owned()),
        TicketEventKind::StateChanged { from, to, until } => {
            moved(from, to, until.is_some(), actor.is_human())
        }
        TicketEventKind::Note { internal: true, .. } => {
            ("", "note", "wrote an internal note".to_owned())
        }
        TicketEventKind::Note {
            internal: false, ..
        } => ("info", "note", "wrote a public note".to_owned()),
        TicketEventKind::PriorityChanged { from, to } => (
            "",
            "bell",
            format!("changed the priority from {from} to {to}"),
        ),
        TicketEventKind::EpisodeStarted { .. }
        | TicketEventKind::Paged { .. }
        | TicketEventKind::Escalated { .. }
        | TicketEventKind::Reopened { .. } => ("warn", "bell", called(&kind)),
        TicketEventKind::Resolved { auto, still_firing } => {
            ("ok", "check", resolved(auto, still_firing))
        }
        TicketEventKind::Closed => ("", "check", "closed it".to_owned()),
        TicketEventKind::HandedBack => (
            "ok",
            "up",
            "recovered; please review and resolve".to_owned(),
        ),
        TicketEventKind::NotificationSent {
            channel,
            to,
            outcome,
        } => {
            let tone = if outcome.contains("not delivered") {
                "warn"
            } else {
                ""
            };
            (tone, "mail", format!("{channel} to {to}: {outcome}"))
        }
    }
}

fn moved(
    from: TicketState,
    to: TicketState,
    has_date: bool,
    by_person: bool,
) -> (&'static str, &'static str, String) {
    if has_date {
        ("", "pause", "put it on hold until".to_owned())
    } else if matches!(from, TicketState::Waiting { .. }) && !by_person {
        let text = "opened it again: no longer on hold";
        ("info", "play", text.to_owned())
    } else {
        let text = format!("set it from {} to {}", state_text(from), state_text(to));
        ("", "arrow", text)
    }
}

/// Why people were called, or may be from now on.
fn called(kind: &TicketEventKind) -> String {
    match kind {
        TicketEventKind::EpisodeStarted {
            reason: EpisodeReason::Worse,
        } => "worse than what was acknowledged; needs a new answer".to_owned(),
        TicketEventKind::EpisodeStarted {
            reason: EpisodeReason::FiresAgain,
        } => "fires again after it had recovered; needs a new answer".to_owned(),
        TicketEventKind::Paged { tier } => {
            format!("paged tier {tier}: still unanswered as its hours begin")
        }
        TicketEventKind::Escalated { tier } => {
            format!("escalated it to tier {tier}: nobody had acknowledged it")
        }
        TicketEventKind::Reopened { still_firing } if *still_firing > 0 => {
            format!("reopened it: {}", still(*still_firing))
        }
        _ => "reopened it".to_owned(),
    }
}

fn resolved(auto: bool, still_firing: u32) -> String {
    match (auto, still_firing) {
        (true, _) => "resolved it: recovered".to_owned(),
        (false, 0) => "resolved it".to_owned(),
        (false, count) => format!("resolved it although {}", still(count)),
    }
}

fn still(count: u32) -> String {
    match count {
        1 => "1 alert is still firing".to_owned(),
        count => format!("{count} alerts are still firing"),
    }
}

fn state_text(state: TicketState) -> String {
    state
        .as_str()
        .replace('_', " for ")
        .replace("for scheduled", "until a date")
}

/// State of a message.
pub(crate) fn delivery_row(ctx: &Ctx, one: &DeliveryView) -> DeliveryRow {
    DeliveryRow {
        kind: if one.kind == "page" {
            "Urgent message"
        } else {
            "Notice"
        },
        channel: format!(
            "{} to {}",
            one.channel,
            name_of(&one.channel, &one.recipient)
        ),
        state: match one.state.as_str() {
            "sent" => pill("ok", "check", "Delivered"),
            "pending" if one.attempts > 0 => {
                pill("warn", "wait", format!("Trying, {} failed", one.attempts))
            }
            "pending" => pill("info", "wait", "Queued"),
            "cancelled" => pill("idle", "info", "Cancelled"),
            _ => pill("crit", "crit", "Given up"),
        },
        at: ctx.time(one.done_at.unwrap_or(one.created_at)),
        error: one
            .last_error
            .clone()
            .filter(|_| one.state != "sent")
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use watchkeep_core::tickets::WaitingOn;

    use super::*;

    #[test]
    fn states_read_as_words() {
        assert_eq!(
            state_text(TicketState::Waiting {
                on: WaitingOn::Customer
            }),
            "waiting for customer"
        );
        assert_eq!(
            state_text(TicketState::Waiting {
                on: WaitingOn::Scheduled
            }),
            "waiting until a date"
        );
        assert_eq!(state_text(TicketState::New), "new");
    }
}
