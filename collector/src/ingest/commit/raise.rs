//! Which ticket a new alert goes to.

use watchkeep_core::{
    alerts::Raised,
    ids::TicketId,
    rules::CheckKey,
    tickets::{
        self, Applied, NewTicket, RaiseDecision, Ticket, TicketContext, on_alert_raised, open_key,
        surplus::{self, HostLimit},
    },
};
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{Subject, new_alert};
use crate::{
    app::App,
    paging::PagingTables,
    store::{StoreError, Tx, record, tickets as rows},
};

/// The time of [`HostLimit::hourly`].
const HOUR: DurationMs = DurationMs::from_hours(1);

/// An alert about to be stored.
#[derive(Clone, Copy)]
struct New<'a> {
    subject: &'a Subject,
    raised: &'a Raised,
    limit: HostLimit,
    context: TicketContext<'a>,
}

/// Stores a new alert, with the ticket that is opened, reopened or extended by it.
pub(super) async fn raise(
    app: &App,
    tx: &mut Tx,
    tables: &mut PagingTables,
    (subject, raised): (&Subject, &Raised),
    now: UnixMillis,
) -> Result<Ticket, StoreError> {
    let paging = tables.of(tx, subject.contract).await?;
    let new = New {
        subject,
        raised,
        limit: HostLimit::of(app.config.tickets.max_open_per_host),
        context: TicketContext {
            now,
            paging: &paging,
        },
    };
    let existing = existing(tx, subject, &raised.check).await?;
    let decision = on_alert_raised(existing.as_ref(), raised, now);
    let is_another = matches!(
        decision,
        RaiseDecision::OpenNew | RaiseDecision::OpenLinked { .. }
    );
    let applied = if is_another && is_at_limit(tx, &new).await? {
        collect(app, tx, &new).await?
    } else {
        apply(app, tx, &new, (decision, existing)).await?
    };
    crate::tickets::write(app, tx, &applied, now).await?;
    let ticket = applied.ticket;
    let alert = new_alert(subject.host, raised, ticket.id, now)?;
    record::insert_alerts(tx, &[alert]).await?;
    Ok(ticket)
}

async fn apply(
    app: &App,
    tx: &mut Tx,
    new: &New<'_>,
    (decision, existing): (RaiseDecision, Option<Ticket>),
) -> Result<Applied, StoreError> {
    let New {
        subject,
        raised,
        context,
        ..
    } = *new;
    let applied = match (decision, &existing) {
        (RaiseDecision::Attach, Some(ticket)) => tickets::attach(ticket, raised, context),
        (RaiseDecision::Reopen, Some(ticket)) => tickets::reopen(ticket, raised, context),
        (decision, _) => {
            let previous = match decision {
                RaiseDecision::OpenLinked { previous } => Some(previous),
                _ => None,
            };
            let new = NewTicket {
                id: TicketId(app.ids.uuid(context.now)),
                number: rows::next_number(tx).await?,
                client: subject.client,
                contract: subject.contract,
                host: Some(subject.host),
                host_name: subject.name.clone(),
                previous,
            };
            tickets::open(new, raised, context)
        }
    };
    Ok(applied)
}

/// Whether the host has as many tickets as it may have.
async fn is_at_limit(tx: &mut Tx, new: &New<'_>) -> Result<bool, StoreError> {
    if !surplus::is_limited(&new.raised.check) {
        return Ok(false);
    }
    let host = new.subject.host;
    if rows::count_open_of_host(tx, host).await? >= i64::from(new.limit.open) {
        return Ok(true);
    }
    let oldest = rows::nth_newest_of_host(tx, host, new.limit.hourly).await?;
    Ok(oldest.is_some_and(|at| new.context.now.since(at) < HOUR))
}

/// The alert goes to the ticket that collects what is beyond the limit.
async fn collect(app: &App, tx: &mut Tx, new: &New<'_>) -> Result<Applied, StoreError> {
    let existing = existing(tx, new.subject, &CheckKey::surplus()).await?;
    let decision = surplus::on_surplus_raised(existing.as_ref(), new.raised, new.context.now);
    let is_attached = decision == RaiseDecision::Attach;
    let applied = apply(app, tx, new, (decision, existing)).await?;
    if is_attached {
        return Ok(applied);
    }
    tracing::warn!(
        host.id = %new.subject.host,
        ticket.number = applied.ticket.number,
        "{} is at its limit of tickets, further breaches are collected in one",
        new.subject.name
    );
    Ok(surplus::explain(
        applied,
        new.limit,
        &new.subject.name,
        new.context,
    ))
}

/// The open ticket about a check, else the one opened last. An open one that can't be read is set
/// aside, so that it harms only itself: a new one is opened beside it.
async fn existing(
    tx: &mut Tx,
    subject: &Subject,
    check: &CheckKey,
) -> Result<Option<Ticket>, StoreError> {
    let key = open_key(subject.contract, Some(subject.host), check);
    match rows::by_key(tx, &key).await {
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!("a ticket is set aside, alerts go to a new one: {error}");
            rows::set_aside(tx, &key).await?;
            Ok(None)
        }
        other => other,
    }
}
