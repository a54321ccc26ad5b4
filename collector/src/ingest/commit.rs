//! One transaction for a whole round: heartbeats, evidence, events, alerts with their tickets and
//! messages, and the states of hosts that changed.

use watchkeep_core::{
    alerts::{AlertChange, AlertEvidence, Cleared, Raised, Updated},
    evidence::Evidence,
    ids::{AlertId, ClientId, ContractId, TicketId},
    incidents::Scope,
    tickets::{self, NewTicket, RaiseDecision, Ticket, TicketContext, on_alert_raised, open_key},
};
use watchkeep_shared::{HostId, UnixMillis};

use super::incidents::{self, IncidentWrites};
use crate::{
    app::App,
    paging::PagingTables,
    store::{
        StoreError, Tx, fleet, heartbeats,
        leases::{self, Held},
        record, tickets as rows,
    },
};

/// Whom a change of an alert concerns.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) host: HostId,
    pub(super) name: String,
    pub(super) client: ClientId,
    pub(super) contract: Option<ContractId>,
}

/// Everything that a round writes.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) schemas: heartbeats::SchemaWrites,
    pub(super) heartbeats: Vec<heartbeats::NewHeartbeat>,
    pub(super) evidence: Vec<Evidence>,
    pub(super) events: Vec<record::NewEvent>,
    pub(super) changes: Vec<(Subject, AlertChange)>,
    pub(super) states: Vec<heartbeats::NewState>,
    /// Hosts whose identity turned out to be used twice, and when.
    pub(super) quarantined: Vec<(HostId, UnixMillis)>,
    /// What changes about incidents.
    pub(super) incidents: Vec<IncidentWrites>,
    /// Changes by people that the round follows.
    pub(super) host_changes: Vec<fleet::HostChange>,
    /// Renew the leases and note that the collector is alive.
    pub(super) alive: bool,
}

impl Writes {
    pub(super) fn is_empty(&self) -> bool {
        self.schemas.is_empty()
            && self.heartbeats.is_empty()
            && self.evidence.is_empty()
            && self.events.is_empty()
            && self.changes.is_empty()
            && self.states.is_empty()
            && self.quarantined.is_empty()
            && self.incidents.is_empty()
            && self.host_changes.is_empty()
            && !self.alive
    }
}

/// What a committed round did.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// Tickets that it touched.
    pub(super) tickets: Vec<TicketId>,
    /// The tickets of the incidents that it changed.
    pub(super) incidents: Vec<(Scope, TicketId)>,
}

/// Commits a round.
pub(super) async fn commit(
    app: &App,
    held: &Held,
    writes: &Writes,
    now: UnixMillis,
) -> Result<Committed, StoreError> {
    let mut tx = app.store.begin().await?;
    if writes.alive {
        leases::renew(&mut tx, held, now, super::pipeline::LEASE).await?;
    } else {
        leases::check(&mut tx, held).await?;
    }
    heartbeats::write_schemas(&mut tx, &writes.schemas, now).await?;
    heartbeats::insert(&mut tx, &writes.heartbeats).await?;
    let evidence: Vec<_> = writes
        .evidence
        .iter()
        .map(|row| (app.ids.next(now), row))
        .collect();
    record::insert_evidence(&mut tx, &evidence).await?;
    record::insert_events(&mut tx, &writes.events).await?;
    let mut done = Committed::default();
    let mut raises = Vec::new();
    let mut tables = PagingTables::new(app);
    for (subject, change) in &writes.changes {
        match change {
            AlertChange::Raised(raised) => {
                let ticket = raise(app, &mut tx, &mut tables, (subject, raised), now).await?;
                done.tickets.push(ticket.id);
                raises.push((subject, raised, ticket.number));
            }
            AlertChange::Updated(updated) => {
                let ticket = update(app, &mut tx, &mut tables, updated, now).await?;
                done.tickets.extend(ticket);
            }
            AlertChange::Cleared(cleared) => {
                let ticket = clear(app, &mut tx, &mut tables, cleared, now).await?;
                done.tickets.extend(ticket);
            }
        }
    }
    for incident in &writes.incidents {
        let ticket = incidents::write(app, &mut tx, incident, now).await?;
        done.tickets.push(ticket);
        done.incidents.push((incident.scope, ticket));
    }
    for (host, since) in &writes.quarantined {
        fleet::set_quarantine(&mut tx, *host, Some(*since)).await?;
    }
    for change in &writes.host_changes {
        fleet::drop_change(&mut tx, *change).await?;
    }
    heartbeats::put_states(&mut tx, &writes.states, now).await?;
    tx.commit().await?;
    // Not before: what was rolled back did not happen.
    for (subject, raised, ticket_number) in raises {
        tracing::info!(
            host.id = %subject.host,
            ticket.number = ticket_number,
            alert.rule = %raised.rule,
            "alert on {}: {}", subject.name, raised.summary
        );
    }
    Ok(done)
}

async fn raise(
    app: &App,
    tx: &mut Tx,
    tables: &mut PagingTables,
    (subject, raised): (&Subject, &Raised),
    now: UnixMillis,
) -> Result<Ticket, StoreError> {
    let paging = tables.of(tx, subject.contract).await?;
    let context = TicketContext {
        now,
        paging: &paging,
    };
    let key = open_key(subject.contract, Some(subject.host), &raised.check);
    let existing = rows::by_key(tx, &key).await?;
    let decision = on_alert_raised(existing.as_ref(), raised, now);
    let applied = match (decision, &existing) {
        (RaiseDecision::Attach, Some(ticket)) => tickets::attach(ticket, raised, context),
        (RaiseDecision::Reopen, Some(ticket)) => tickets::reopen(ticket, raised, context),
        (decision, _) => {
            let previous = match decision {
                RaiseDecision::OpenLinked { previous } => Some(previous),
                _ => None,
            };
            let new = NewTicket {
                id: TicketId(app.ids.uuid(now)),
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
    crate::tickets::write(app, tx, &applied, now).await?;
    let ticket = applied.ticket;
    let alert = new_alert(subject.host, raised, ticket.id, now)?;
    record::insert_alerts(tx, &[alert]).await?;
    Ok(ticket)
}

/// An alert as it is stored.
pub(super) fn new_alert(
    host: HostId,
    raised: &Raised,
    ticket: TicketId,
    now: UnixMillis,
) -> Result<record::NewAlert<'_>, StoreError> {
    let evidence = evidence_json(raised.alert, &raised.evidence)?;
    Ok(record::NewAlert {
        id: raised.alert,
        host,
        rule: raised.rule.as_str(),
        check: raised.check.as_str(),
        severity: raised.severity.as_str(),
        priority: raised.priority.as_str(),
        summary: &raised.summary,
        evidence,
        raised_at: raised.at,
        recorded_at: now,
        ticket,
    })
}

fn evidence_json(alert: AlertId, evidence: &AlertEvidence) -> Result<String, StoreError> {
    serde_json::to_string(evidence)
        .map_err(|error| StoreError::corrupt("alert", "evidence", alert, error))
}

async fn update(
    app: &App,
    tx: &mut Tx,
    tables: &mut PagingTables,
    updated: &Updated,
    now: UnixMillis,
) -> Result<Option<TicketId>, StoreError> {
    let evidence = evidence_json(updated.alert, &updated.evidence)?;
    let Some(id) = record::update_alert(tx, updated.alert, &updated.summary, &evidence).await?
    else {
        return Ok(None);
    };
    let Some(ticket) = rows::by_id(tx, id).await? else {
        return Ok(None);
    };
    let paging = tables.of(tx, ticket.contract).await?;
    let context = TicketContext {
        now,
        paging: &paging,
    };
    let applied = tickets::update(&ticket, updated, context);
    crate::tickets::write(app, tx, &applied, now).await?;
    Ok(Some(id))
}

async fn clear(
    app: &App,
    tx: &mut Tx,
    tables: &mut PagingTables,
    cleared: &Cleared,
    now: UnixMillis,
) -> Result<Option<TicketId>, StoreError> {
    let ended = record::clear_alert(tx, cleared.alert, cleared.at, &cleared.reason).await?;
    let Some((id, still)) = ended else {
        return Ok(None);
    };
    let Some(ticket) = rows::by_id(tx, id).await? else {
        return Ok(None);
    };
    let paging = tables.of(tx, ticket.contract).await?;
    let context = TicketContext {
        now,
        paging: &paging,
    };
    let applied = tickets::clear(&ticket, cleared, still, context);
    crate::tickets::write(app, tx, &applied, now).await?;
    Ok(Some(id))
}
