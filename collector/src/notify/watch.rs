//! Watches over delivery. A page that reached nobody goes to everyone else who can be reached; a
//! recipient whose pages are not delivered gets a ticket about its channel, which goes out by the
//! others; and when it receives again, the ticket ends. All of it is read from stored rows, so that
//! a crash repeats nothing and forgets nothing.

use std::{collections::BTreeSet, time::Duration};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use watchkeep_core::{
    alerts::{AlertEvidence, Cleared, Raised},
    delivery::{
        CopyState, HAND_OVER_AFTER, HandOver, MessageKind, REPORT_AFTER, delivery_check, hand_over,
        is_about_delivery,
    },
    ids::{AlertId, TicketId},
    rules::{Priority, RuleId, Severity},
    tickets::{
        self, Actor, Firing, NewTicket, RaiseDecision, Ticket, TicketContext, TicketEvent,
        TicketEventKind, on_alert_raised, open_key,
    },
};
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    Body,
    endpoint::{self, Endpoint},
    health,
    message::{self, NewCopies, minutes},
};
use crate::{
    app::App,
    live::Hint,
    store::{
        StoreError, Tx,
        delivery::{self, Copy, Recipient},
        fleet, tickets as rows,
    },
};

/// How often undelivered pages are searched for.
const EVERY: Duration = Duration::from_secs(1);
/// Longest wait after the store failed.
const MAX_STORE_RETRY: Duration = Duration::from_secs(30);
/// How old the figures may be.
const REFRESH_AFTER: DurationMs = DurationMs::from_secs(5);
/// The rule of alerts about delivery.
const RULE: &str = "delivery";

/// Watches until the process stops.
pub(super) async fn run(app: App) -> Result<(), String> {
    let stop = app.process.stop.clone();
    let mut pause = EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        match watch(&app, app.clock.now()).await {
            Ok(()) => pause = EVERY,
            Err(error) => {
                pause = (pause * 2).min(MAX_STORE_RETRY);
                tracing::error!("failed to look for undelivered pages, retrying: {error}");
            }
        }
    }
}

/// Hands over, reports and ends reports, as is due, and reads the figures again if they are old.
pub async fn watch(app: &App, now: UnixMillis) -> Result<(), StoreError> {
    let pages = delivery::to_hand_over(&app.store, now - HAND_OVER_AFTER).await?;
    let messages: BTreeSet<i64> = pages.iter().map(message_of).collect();
    for message in messages {
        hand_over_page(app, message, now).await?;
    }
    for copy in delivery::to_report(&app.store, now - REPORT_AFTER).await? {
        report(app, &copy, now).await?;
    }
    for recipient in delivery::recipients(&app.store).await? {
        if recipient.reported_at.is_some() && recipient.failing_since.is_none() {
            let mut tx = app.store.begin().await?;
            if delivery::set_recovered(&mut tx, &recipient.channel, &recipient.address).await? {
                let to = endpoint::name_of(&recipient.channel, &recipient.address);
                let why = format!("{to} receives messages again");
                recovered(app, &mut tx, &recipient, &why).await?;
            }
            tx.commit().await?;
        }
    }
    let read_at = app.delivery.health().at;
    if read_at.is_none_or(|at| now.since(at) >= REFRESH_AFTER || at > now) {
        health::refresh(app).await?;
    }
    Ok(())
}

/// Rows of before messages had copies are their own first copy.
fn message_of(copy: &Copy) -> i64 {
    copy.message_id.unwrap_or(copy.id)
}

async fn hand_over_page(app: &App, message: i64, now: UnixMillis) -> Result<(), StoreError> {
    let mut tx = app.store.begin().await?;
    let copies = delivery::copies(&mut tx, message).await?;
    let Some(first) = copies.first() else {
        return Ok(());
    };
    let mut states = Vec::new();
    for copy in &copies {
        let state = copy.state.parse::<CopyState>();
        states.push(state.map_err(|e| StoreError::corrupt("outbox", "state", copy.id, e))?);
    }
    match hand_over(states, UnixMillis(first.created_at), now) {
        HandOver::Wait => return Ok(()),
        HandOver::NotNeeded => {}
        HandOver::Now => {
            if let Some(ticket) = unanswered(&mut tx, first).await? {
                send_to_others(app, &mut tx, &ticket, &copies, now).await?;
            }
        }
    }
    delivery::set_handed_over(&mut tx, message, now).await?;
    tx.commit().await?;
    hint(app, first.ticket_id);
    Ok(())
}

/// The ticket of a page, if someone still is to be woken for it.
async fn unanswered(tx: &mut Tx, copy: &Copy) -> Result<Option<Ticket>, StoreError> {
    let Some(id) = copy.ticket_id else {
        return Ok(None);
    };
    let ticket = rows::by_id(tx, TicketId(id)).await?;
    Ok(ticket.filter(|ticket| ticket.state.is_open() && ticket.episode.is_unanswered()))
}

/// Sends a page that reached nobody to every recipient that has no copy of it.
async fn send_to_others(
    app: &App,
    tx: &mut Tx,
    ticket: &Ticket,
    copies: &[Copy],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let has_copy = |one: &Endpoint| {
        copies
            .iter()
            .any(|copy| one.is(&copy.channel, &copy.recipient))
    };
    let mut to = Vec::<Endpoint>::new();
    for one in endpoint::endpoints(&app.config) {
        if !has_copy(&one) && !to.iter().any(|other| other.is(one.channel, &one.recipient)) {
            to.push(one);
        }
    }
    if ticket.check.as_ref().is_some_and(is_about_delivery) {
        message::leave_out_failing(tx, &mut to).await?;
    }
    let Some((first, _)) = copies.split_first().filter(|_| !to.is_empty()) else {
        return Ok(());
    };
    let mut body: Body = serde_json::from_str(&first.payload)
        .map_err(|error| StoreError::corrupt("outbox", "payload", first.id, error))?;
    body.notes.extend(copies.iter().map(|copy| {
        let (to, error) = (
            endpoint::name_of(&copy.channel, &copy.recipient),
            error_of(copy),
        );
        let by = &copy.channel;
        format!("Sent to you because it was not delivered by {by} to {to}: {error}")
    }));
    let message = NewCopies {
        ticket: ticket.id,
        kind: MessageKind::Page,
        body: &body,
        first: Some(message_of(first)),
    };
    message::insert(app, tx, &message, &to, now).await?;
    for one in &to {
        let event = TicketEventKind::NotificationSent {
            channel: one.channel.to_owned(),
            to: one.name(),
            outcome: "queued too, because the message reached nobody else".to_owned(),
        };
        note(app, tx, ticket.id, event, now).await?;
    }
    Ok(())
}

/// Reports a page that was not delivered: on its ticket, and in the ticket about its channel.
async fn report(app: &App, copy: &Copy, now: UnixMillis) -> Result<(), StoreError> {
    let mut tx = app.store.begin().await?;
    delivery::set_copy_reported(&mut tx, copy.id, now).await?;
    let ticket = match copy.ticket_id {
        Some(id) => rows::by_id(&mut tx, TicketId(id)).await?,
        None => None,
    };
    let is_own = ticket
        .as_ref()
        .and_then(|ticket| ticket.check.as_ref())
        .is_some_and(is_about_delivery);
    let mut outcome = if copy.state == "dead" {
        format!("not delivered, given up: {}", error_of(copy))
    } else {
        let waited = minutes(now.since(UnixMillis(copy.created_at)));
        format!("not delivered for {waited}: {}", error_of(copy))
    };
    // What fails about a ticket on delivery is on that ticket's own timeline: it reports no more.
    if !is_own && let Some(number) = raise(app, &mut tx, copy, ticket.as_ref(), now).await? {
        outcome = format!("{outcome} (reported in ticket #{number})");
    }
    if let Some(ticket) = &ticket {
        let event = TicketEventKind::NotificationSent {
            channel: copy.channel.clone(),
            to: endpoint::name_of(&copy.channel, &copy.recipient),
            outcome,
        };
        note(app, &mut tx, ticket.id, event, now).await?;
    }
    tx.commit().await?;
    hint(app, copy.ticket_id);
    Ok(())
}

/// Raises an alert about a recipient, once in each run of failures, on the ticket of its channel.
/// Returns that ticket's number; `None` if there is nothing to report.
async fn raise(
    app: &App,
    tx: &mut Tx,
    copy: &Copy,
    about: Option<&Ticket>,
    now: UnixMillis,
) -> Result<Option<i64>, StoreError> {
    let configured = endpoint::endpoints(&app.config);
    if !configured
        .iter()
        .any(|one| one.is(&copy.channel, &copy.recipient))
    {
        return Ok(None);
    }
    let check = delivery_check(&copy.channel);
    let existing = rows::by_key(tx, &open_key(None, None, &check)).await?;
    let known = delivery::recipients_in(tx).await?;
    let is_reported = known.iter().any(|one| {
        one.channel == copy.channel && one.address == copy.recipient && one.reported_at.is_some()
    });
    if let Some(ticket) = existing
        .as_ref()
        .filter(|ticket| is_reported && ticket.state.is_open())
    {
        return Ok(Some(ticket.number));
    }
    let raised = raised(copy, about, now);
    let paging = std::sync::Arc::clone(&app.config.paging);
    let context = TicketContext {
        now,
        paging: &paging,
    };
    let mut applied = match (on_alert_raised(existing.as_ref(), &raised, now), &existing) {
        (RaiseDecision::Attach, Some(ticket)) => tickets::attach(ticket, &raised, context),
        (RaiseDecision::Reopen, Some(ticket)) => tickets::reopen(ticket, &raised, context),
        (decision, _) => {
            let previous = match decision {
                RaiseDecision::OpenLinked { previous } => Some(previous),
                _ => None,
            };
            let new = NewTicket {
                id: TicketId(app.ids.uuid(now)),
                number: rows::next_number(tx).await?,
                client: fleet::ensure_client(tx, fleet::OWN_CLIENT, now).await?,
                contract: None,
                host: None,
                host_name: String::new(),
                previous,
            };
            tickets::open(new, &raised, context)
        }
    };
    // The alert names one recipient; the ticket is about the channel.
    applied.ticket.title = format!("Messages by {} are not delivered", copy.channel);
    crate::tickets::write(app, tx, &applied, now).await?;
    delivery::set_reported(tx, &copy.channel, &copy.recipient, now).await?;
    let ticket = &applied.ticket;
    tracing::error!(
        ticket.number = ticket.number,
        "pages by {} to {} are not delivered: {}",
        copy.channel,
        copy.recipient,
        error_of(copy)
    );
    hint(app, Some(ticket.id.uuid()));
    Ok(Some(ticket.number))
}

fn raised(copy: &Copy, about: Option<&Ticket>, now: UnixMillis) -> Raised {
    let to = endpoint::name_of(&copy.channel, &copy.recipient);
    let detail = about.map(|ticket| {
        format!(
            "The message was about ticket #{}: {}",
            ticket.number, ticket.title
        )
    });
    Raised {
        alert: alert_id(&copy.channel, &copy.recipient),
        rule: RuleId(RULE.to_owned()),
        check: delivery_check(&copy.channel),
        severity: Severity::Critical,
        priority: about.map_or(Priority::P2, |ticket| ticket.priority.min(Priority::P2)),
        at: now,
        summary: format!(
            "A message was not delivered by {} to {to}: {}",
            copy.channel,
            error_of(copy)
        ),
        evidence: AlertEvidence {
            detail,
            ..AlertEvidence::default()
        },
    }
}

/// Notes on the ticket of a channel that one of its recipients is no longer failing; with the last
/// one the ticket ends.
pub(super) async fn recovered(
    app: &App,
    tx: &mut Tx,
    recipient: &Recipient,
    why: &str,
) -> Result<(), StoreError> {
    let now = app.clock.now();
    let check = delivery_check(&recipient.channel);
    let Some(ticket) = rows::by_key(tx, &open_key(None, None, &check)).await? else {
        return Ok(());
    };
    let known = delivery::recipients_in(tx).await?;
    let still_failing = known.iter().filter(|one| {
        one.channel == recipient.channel
            && one.address != recipient.address
            && one.reported_at.is_some()
    });
    let cleared = Cleared {
        alert: alert_id(&recipient.channel, &recipient.address),
        rule: RuleId(RULE.to_owned()),
        check,
        at: now,
        value: None,
        reason: why.to_owned(),
    };
    let still = Firing::new(still_failing.count() as u32, ticket.firing.most_urgent());
    let paging = std::sync::Arc::clone(&app.config.paging);
    let context = TicketContext {
        now,
        paging: &paging,
    };
    let applied = tickets::clear(&ticket, &cleared, still, context);
    crate::tickets::write(app, tx, &applied, now).await?;
    hint(app, Some(ticket.id.uuid()));
    Ok(())
}

/// The alert about a recipient: always the same, so that its end finds its beginning.
fn alert_id(channel: &str, recipient: &str) -> AlertId {
    let hash = Sha256::digest(format!("{channel}/{recipient}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    AlertId(Uuid::from_bytes(bytes))
}

fn error_of(copy: &Copy) -> &str {
    copy.last_error
        .as_deref()
        .unwrap_or("not tried yet: the queue does not move")
}

async fn note(
    app: &App,
    tx: &mut Tx,
    ticket: TicketId,
    kind: TicketEventKind,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let event = TicketEvent {
        at: now,
        actor: Actor::System,
        kind,
    };
    rows::insert_event(tx, app.ids.next(now), ticket, &event).await
}

fn hint(app: &App, ticket: Option<Uuid>) {
    if let Some(id) = ticket {
        app.live.hint(Hint::Ticket(id));
    }
}
