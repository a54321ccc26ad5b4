//! Carries out what `watchkeep_core::tickets` decides: a ticket, its timeline and its messages are
//! written in one transaction.

use serde::{Deserialize, Serialize};
use watchkeep_core::{
    ids::TicketId,
    rules::CheckKey,
    tickets::{
        Action, Actor, Applied, Intent, InvalidTransition, Refusal, Ticket, TicketContext, apply,
        end_hold, escalate, escalation_due_at, open_key, recheck,
    },
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::{
    app::App,
    live::Hint,
    notify,
    paging::PagingTables,
    series,
    store::{StoreError, Tx, outbox, people, tickets as rows},
};

/// How much of the metric before the breach a ticket keeps.
const EVIDENCE_SPAN: DurationMs = DurationMs::from_hours(1);
/// Tickets older than this are not given evidence any more: the collector was down for long.
const EVIDENCE_LOOK_BACK: DurationMs = DurationMs::from_hours(6);
/// Most points kept with a ticket.
const EVIDENCE_POINTS: usize = 720;
/// How long a ticket that can't be escalated is left alone.
const RETRY_CORRUPT: DurationMs = DurationMs::from_hours(1);

/// Why an action was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// There is no such ticket.
    #[error("there is no such ticket")]
    NotFound,
    /// The ticket does not allow it.
    #[error(transparent)]
    Invalid(#[from] InvalidTransition),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The metric around a breach, as kept with a ticket.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TicketEvidence {
    /// The metric; empty if the check is not one.
    pub metric: String,
    /// `[milliseconds, value]`, oldest first.
    pub points: Vec<(i64, Option<f64>)>,
}

/// Does what a person asks, without a line in the audit log.
pub async fn act(
    app: &App,
    ticket: TicketId,
    action: Action,
    actor: Actor,
) -> Result<(), ActError> {
    act_audited(app, ticket, action, actor, None).await
}

/// Does what a person asks; the line of the audit log is written in the same transaction.
pub async fn act_audited(
    app: &App,
    ticket: TicketId,
    action: Action,
    actor: Actor,
    audit: Option<&people::Audit<'_>>,
) -> Result<(), ActError> {
    let now = app.clock.now();
    let mut tx = app.store.begin().await?;
    let before = rows::by_id(&mut tx, ticket)
        .await?
        .ok_or(ActError::NotFound)?;
    if action == Action::Reopen
        && let Some(number) = newer_open(&mut tx, &before).await?
    {
        let reason = Refusal::NewerOpen { number };
        let state = before.state;
        return Err(InvalidTransition { state, reason }.into());
    }
    let paging = PagingTables::new(app).of(&mut tx, before.contract).await?;
    let context = TicketContext {
        now,
        paging: &paging,
    };
    let applied = apply(&before, action, actor, context)?;
    write(app, &mut tx, &applied, now).await?;
    if let Some(line) = audit {
        people::audit(&mut tx, line).await?;
    }
    tx.commit().await?;
    app.live.hint(Hint::Ticket(ticket.uuid()));
    Ok(())
}

/// The number of another open ticket about the same.
async fn newer_open(tx: &mut Tx, ticket: &Ticket) -> Result<Option<i64>, StoreError> {
    let Some(check) = &ticket.check else {
        return Ok(None);
    };
    let key = open_key(ticket.contract, ticket.host, check);
    let newest = rows::by_key(tx, &key).await?;
    let other = newest.filter(|newest| newest.state.is_open() && newest.id != ticket.id);
    Ok(other.map(|newest| newest.number))
}

/// Writes a step of a ticket: the ticket, its events, its messages.
pub async fn write(
    app: &App,
    tx: &mut Tx,
    applied: &Applied,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let ticket = &applied.ticket;
    rows::put(tx, ticket, applied.escalate_at, now).await?;
    for event in &applied.events {
        rows::insert_event(tx, app.ids.next(now), ticket.id, event).await?;
    }
    for intent in &applied.notify {
        match intent {
            Intent::CancelPages => {
                outbox::cancel_pages(tx, ticket.id, now).await?;
            }
            Intent::Page { .. } | Intent::Notify { .. } => {
                notify::queue(app, tx, applied, *intent, now).await?;
            }
        }
    }
    Ok(())
}

/// Does what time brings: escalations, pages that waited for their hours, the second look at tickets
/// that were resolved while they fired, and the end of a time on hold. Returns how many tickets changed. One that can't be
/// read is put off and does not hold up the others.
pub async fn carry_out_due(app: &App, now: UnixMillis) -> Result<usize, StoreError> {
    let mut count = 0;
    for id in rows::due(&app.store, now).await? {
        match carry_out(app, id, now).await {
            Ok(has_changed) => count += usize::from(has_changed),
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(ticket.id = %id, "failed to escalate a ticket, retrying in 1 h: {error}");
                let mut tx = app.store.begin().await?;
                rows::postpone(&mut tx, id, now + RETRY_CORRUPT).await?;
                tx.commit().await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Reads the ticket again in a transaction: a person may have answered since it was listed.
async fn carry_out(app: &App, id: TicketId, now: UnixMillis) -> Result<bool, StoreError> {
    let mut tx = app.store.begin().await?;
    let Some(ticket) = rows::by_id(&mut tx, id).await? else {
        return Ok(false);
    };
    let paging = PagingTables::new(app).of(&mut tx, ticket.contract).await?;
    let context = TicketContext {
        now,
        paging: &paging,
    };
    let step = escalate(&ticket, context)
        .or_else(|| recheck(&ticket, context))
        .or_else(|| end_hold(&ticket, context));
    let has_changed = step.is_some();
    match step {
        // Cannot happen while every new alert goes to the open ticket of its key.
        Some(applied)
            if applied.ticket.state.is_open()
                && !ticket.state.is_open()
                && newer_open(&mut tx, &ticket).await?.is_some() =>
        {
            tracing::warn!(
                ticket.number = ticket.number,
                "a ticket still fires beside an open one of its key"
            );
            rows::postpone(&mut tx, id, now + RETRY_CORRUPT).await?;
        }
        Some(applied) => write(app, &mut tx, &applied, now).await?,
        // The table of priorities has changed since the due time was stored.
        None => {
            let due = escalation_due_at(&ticket, &paging, now);
            rows::put(&mut tx, &ticket, due, now).await?;
        }
    }
    tx.commit().await?;
    app.live.hint(Hint::Ticket(id.uuid()));
    Ok(has_changed)
}

/// Keeps the metric's last hour with tickets that have none yet. Returns how many got theirs.
pub async fn keep_evidence(app: &App, now: UnixMillis) -> Result<usize, StoreError> {
    let tickets = rows::without_evidence(&app.store, now - EVIDENCE_LOOK_BACK).await?;
    for ticket in &tickets {
        let evidence = match evidence_of(app, ticket).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(
                    ticket.number = ticket.number,
                    "the metric's history can't be kept with a ticket: {error}"
                );
                TicketEvidence::default()
            }
            other => other?,
        };
        let body = serde_json::to_string(&evidence)
            .map_err(|error| StoreError::corrupt("ticket_evidence", "body", ticket.id, error))?;
        let mut tx = app.store.begin().await?;
        rows::put_evidence(&mut tx, ticket.id, &body).await?;
        tx.commit().await?;
        app.live.hint(Hint::Ticket(ticket.id.uuid()));
    }
    Ok(tickets.len())
}

async fn evidence_of(app: &App, ticket: &Ticket) -> Result<TicketEvidence, StoreError> {
    let metric = ticket.check.as_ref().and_then(CheckKey::as_metric);
    let (Some(host), Some(name)) = (ticket.host, metric) else {
        return Ok(TicketEvidence::default());
    };
    let points = last_hour(app, host, name, ticket.opened_at).await?;
    Ok(TicketEvidence {
        metric: name.to_owned(),
        points,
    })
}

async fn last_hour(
    app: &App,
    host: HostId,
    name: &str,
    until: UnixMillis,
) -> Result<Vec<(i64, Option<f64>)>, StoreError> {
    let names = [name.to_owned()];
    // One millisecond more: the breach itself belongs to it.
    let to = until + DurationMs(1);
    let request = series::Request {
        names: &names,
        from: until - EVIDENCE_SPAN,
        to,
    };
    let series = series::read(app, host, request).await?;
    let points = series
        .into_iter()
        .next()
        .map(|series| series.points)
        .unwrap_or_default();
    let skip = points.len().saturating_sub(EVIDENCE_POINTS);
    Ok(points
        .into_iter()
        .skip(skip)
        .map(|(at, value)| (at.0, value))
        .collect())
}
