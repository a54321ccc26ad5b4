//! Carrying out what was decided about tickets: the ticket, its timeline and its messages are
//! written in one transaction. What to decide stands in `watchkeep_core::tickets`.

use serde::{Deserialize, Serialize};
use watchkeep_core::{
    ids::TicketId,
    tickets::{Action, Actor, Applied, Intent, InvalidTransition, Ticket, apply, escalate},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis, metric};

use crate::{
    app::App,
    live::Hint,
    notify::messages,
    series,
    store::{StoreError, Tx, outbox, people, tickets as rows},
};

/// How much of the metric before the breach a ticket keeps.
const EVIDENCE_SPAN: DurationMs = DurationMs::from_hours(1);
/// Tickets older than this are not given evidence any more: the collector was down for long.
const EVIDENCE_LOOK_BACK: DurationMs = DurationMs::from_hours(6);
/// Most points kept with a ticket.
const EVIDENCE_POINTS: usize = 720;

/// Why an action was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// There is no such ticket.
    #[error("there is no such ticket")]
    NotFound,
    /// The ticket does not allow it.
    #[error(transparent)]
    Invalid(#[from] InvalidTransition),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The metric around a breach, as kept with a ticket.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    let applied = apply(&before, action, actor, now)?;
    write(app, &mut tx, &applied, now).await?;
    if let Some(line) = audit {
        people::audit(&mut tx, line).await?;
    }
    tx.commit().await?;
    app.live.hint(Hint::Ticket(ticket.uuid()));
    Ok(())
}

/// Writes a step of a ticket: the ticket, its events, its messages.
pub async fn write(
    app: &App,
    tx: &mut Tx,
    applied: &Applied,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let ticket = &applied.ticket;
    rows::put(tx, ticket, now).await?;
    for event in &applied.events {
        rows::insert_event(tx, app.ids.next(now), ticket.id, event).await?;
    }
    for intent in &applied.notify {
        match intent {
            Intent::CancelPages => {
                outbox::cancel_pages(tx, ticket.id, now).await?;
            }
            Intent::Page { .. } | Intent::Notify { .. } => {
                for message in messages(&app.config, &app.ids, applied, *intent, now) {
                    outbox::insert(tx, &message, now).await?;
                }
            }
        }
    }
    Ok(())
}

/// Escalates what is due. Returns how many tickets were.
pub async fn escalate_due(app: &App, now: UnixMillis) -> Result<usize, StoreError> {
    let mut count = 0;
    for due in rows::due(&app.store, now).await? {
        let mut tx = app.store.begin().await?;
        // Read again inside the transaction: someone may have acknowledged it since.
        let Some(ticket) = rows::by_id(&mut tx, due.id).await? else {
            continue;
        };
        if let Some(applied) = escalate(&ticket, now) {
            write(app, &mut tx, &applied, now).await?;
            count += 1;
        } else {
            // Puts the due time right.
            rows::put(&mut tx, &ticket, now).await?;
        }
        tx.commit().await?;
        app.live.hint(Hint::Ticket(due.id.uuid()));
    }
    Ok(count)
}

/// Keeps the metric's last hour with tickets that have none yet. Returns how many got theirs.
pub async fn keep_evidence(app: &App, now: UnixMillis) -> Result<usize, StoreError> {
    let tickets = rows::without_evidence(&app.store, now - EVIDENCE_LOOK_BACK).await?;
    for ticket in &tickets {
        let evidence = evidence_of(app, ticket).await?;
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
    let (host, name) = (
        ticket.host,
        ticket.check.as_ref().map_or("", |check| check.as_str()),
    );
    let Some(host) = host.filter(|_| is_metric(name)) else {
        return Ok(TicketEvidence {
            metric: String::new(),
            points: Vec::new(),
        });
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
    let series = series::read(app, host, &names, until - EVIDENCE_SPAN, to).await?;
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

/// Whether a check is a metric's; the others are `service:…`, `log:…`, `host`, `clock`.
fn is_metric(check: &str) -> bool {
    let (family, _) = metric::split(check);
    !matches!(family, "" | "service" | "log" | "host" | "clock")
}
