//! What the steps of an incident do to its ticket.

use crate::{
    alerts::{Cleared, Raised},
    tickets::{
        Applied, Firing, NewTicket, RaiseDecision, Ticket, TicketContext, call_again, clear,
        on_alert_raised, open, reopen,
    },
};

/// An incident begins. `existing` is the open ticket of its check, or the one opened last; `raised`
/// is one alert for all hosts of the incident: its summary is the title. Calls people.
pub fn begin(
    existing: Option<&Ticket>,
    new: NewTicket,
    raised: &Raised,
    context: TicketContext<'_>,
) -> Applied {
    let decision = on_alert_raised(existing, raised, context.now);
    let mut applied = match (decision, existing) {
        (RaiseDecision::Attach, Some(ticket)) => call_again(ticket, raised, context),
        (RaiseDecision::Reopen, Some(ticket)) => reopen(ticket, raised, context),
        (RaiseDecision::OpenLinked { previous }, _) => {
            let new = NewTicket {
                previous: Some(previous),
                ..new
            };
            open(new, raised, context)
        }
        (_, _) => open(new, raised, context),
    };
    applied.ticket.title.clone_from(&raised.summary);
    applied
}

/// All hosts are back. `cleared` is that of the incident's alert.
pub fn end(ticket: &Ticket, cleared: &Cleared, context: TicketContext<'_>) -> Applied {
    clear(ticket, cleared, Firing::NONE, context)
}
