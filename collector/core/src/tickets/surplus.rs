//! The limit on tickets of one host. A host at its limit gets one more ticket, which collects all
//! further breaches: they still fire, page by their priority, and are listed in it. Checks of the
//! host as a whole ([`CheckKey::is_of_whole_host`]) are few and always have tickets of their own.

use watchkeep_shared::UnixMillis;

use super::{Applied, Ticket, TicketContext, TicketEvent, TicketEventKind};
use crate::{
    alerts::Raised,
    rules::CheckKey,
    tickets::{Actor, RaiseDecision, on_alert_raised},
};

/// Most tickets of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimit {
    /// Open at once.
    pub open: u32,
    /// Opened within an hour.
    pub hourly: u32,
}

impl HostLimit {
    /// The limit with this many open tickets.
    pub const fn of(open: u32) -> Self {
        Self {
            open,
            hourly: open.saturating_mul(2),
        }
    }

    /// Why breaches are collected, for the ticket's timeline.
    fn reason(self) -> String {
        let Self { open, hourly } = self;
        format!(
            "This host has {open} open tickets, or {hourly} were opened within an hour: the limit \
             (tickets.max_open_per_host). Further breaches are collected in this ticket."
        )
    }
}

/// Whether an alert on this check counts against the limit of its host.
pub fn is_limited(check: &CheckKey) -> bool {
    !check.is_of_whole_host()
}

/// Decides what an alert over the limit does. `existing` is the collecting ticket that is open or
/// was opened last.
pub fn on_surplus_raised(
    existing: Option<&Ticket>,
    raised: &Raised,
    now: UnixMillis,
) -> RaiseDecision {
    let collected = Raised {
        check: CheckKey::surplus(),
        ..raised.clone()
    };
    on_alert_raised(existing, &collected, now)
}

/// Makes the step that opened a ticket, or opened it again, one of the collecting ticket: its key,
/// its title, and why it is there.
pub fn explain(
    mut applied: Applied,
    limit: HostLimit,
    host_name: &str,
    context: TicketContext<'_>,
) -> Applied {
    let count = applied.ticket.firing.count();
    applied.ticket.check = Some(CheckKey::surplus());
    applied.ticket.title = format!("{host_name}: {}", words(count));
    applied.events.push(TicketEvent {
        at: context.now,
        actor: Actor::System,
        kind: TicketEventKind::Note {
            internal: true,
            text: limit.reason(),
        },
    });
    applied
}

/// Makes the title of a collecting ticket say how many of its alerts fire. Others are left as they
/// are, and so is the title once none fires.
pub(super) fn retitle(ticket: &mut Ticket) {
    let count = ticket.firing.count();
    if ticket.check.as_ref() != Some(&CheckKey::surplus()) || count == 0 {
        return;
    }
    if let Some((host_name, _)) = ticket.title.rsplit_once(": ") {
        ticket.title = format!("{host_name}: {}", words(count));
    }
}

fn words(count: u32) -> String {
    if count == 1 {
        "1 more check breaches".to_owned()
    } else {
        format!("{count} more checks breach")
    }
}
