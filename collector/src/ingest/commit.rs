//! One transaction for a whole round: heartbeats, evidence, events, alerts with their tickets and
//! messages, and the states of hosts that changed.

mod machine;
mod raise;

use std::collections::BTreeSet;

use watchkeep_core::{
    alerts::{AlertChange, AlertEvidence, Cleared, Raised, Updated},
    evidence::Evidence,
    ids::{AlertId, ClientId, ContractId, TicketId},
    incidents::IncidentScope,
    tickets::{self, Ticket, TicketContext},
};
use watchkeep_shared::{HostId, UnixMillis};

use super::incidents::{self, IncidentWrites};
use crate::{
    app::App,
    own::{self, HoldUpReport},
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
    /// Hosts whose agent has another version than before.
    pub(super) agent_versions: Vec<(HostId, String)>,
    /// What changes about incidents.
    pub(super) incidents: Vec<IncidentWrites>,
    /// Changes by people that the round follows.
    pub(super) host_changes: Vec<fleet::HostChange>,
    /// The collector itself was held up, for long enough to say so.
    pub(super) held_up: Option<HoldUpReport>,
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
            && self.agent_versions.is_empty()
            && self.incidents.is_empty()
            && self.host_changes.is_empty()
            && self.held_up.is_none()
            && !self.alive
    }

    /// All hosts of which something is written.
    pub(super) fn hosts(&self) -> BTreeSet<HostId> {
        let heartbeats = self.heartbeats.iter().map(|row| row.host);
        let evidence = self.evidence.iter().filter_map(|row| row.host);
        let events = self.events.iter().map(|row| row.host);
        let changes = self.changes.iter().map(|(subject, _)| subject.host);
        let states = self.states.iter().map(|row| row.host);
        let quarantined = self.quarantined.iter().map(|(host, _)| *host);
        let versions = self.agent_versions.iter().map(|(host, _)| *host);
        let host_changes = self.host_changes.iter().map(|change| change.host);
        heartbeats
            .chain(evidence)
            .chain(events)
            .chain(changes)
            .chain(states)
            .chain(quarantined)
            .chain(versions)
            .chain(host_changes)
            .collect()
    }

    /// Takes apart: what belongs to no single host together with these hosts' rows if `shared`, and
    /// the rest.
    pub(super) fn split(self, hosts: &BTreeSet<HostId>, shared: bool) -> (Self, Self) {
        let is_in = |host: HostId| hosts.contains(&host);
        let (heartbeats, other_heartbeats) =
            self.heartbeats.into_iter().partition(|row| is_in(row.host));
        let (evidence, other_evidence) = self
            .evidence
            .into_iter()
            .partition(|row| row.host.map_or(shared, is_in));
        let (events, other_events) = self.events.into_iter().partition(|row| is_in(row.host));
        let (changes, other_changes) = self
            .changes
            .into_iter()
            .partition(|(subject, _)| is_in(subject.host));
        let (states, other_states) = self.states.into_iter().partition(|row| is_in(row.host));
        let (quarantined, other_quarantined) = self
            .quarantined
            .into_iter()
            .partition(|(host, _)| is_in(*host));
        let (agent_versions, other_versions) = self
            .agent_versions
            .into_iter()
            .partition(|(host, _)| is_in(*host));
        let (host_changes, other_host_changes) = self
            .host_changes
            .into_iter()
            .partition(|change| is_in(change.host));
        let (schemas, other_schemas) = give(self.schemas, shared);
        let (incidents, other_incidents) = give(self.incidents, shared);
        let (held_up, other_held_up) = give(self.held_up, shared);
        let taken = Self {
            schemas,
            heartbeats,
            evidence,
            events,
            changes,
            states,
            quarantined,
            agent_versions,
            incidents,
            host_changes,
            held_up,
            alive: self.alive && shared,
        };
        let rest = Self {
            schemas: other_schemas,
            heartbeats: other_heartbeats,
            evidence: other_evidence,
            events: other_events,
            changes: other_changes,
            states: other_states,
            quarantined: other_quarantined,
            agent_versions: other_versions,
            incidents: other_incidents,
            host_changes: other_host_changes,
            held_up: other_held_up,
            alive: self.alive && !shared,
        };
        (taken, rest)
    }

    /// Two parts to commit one after the other: first what belongs to no single host, then half of
    /// the hosts each time. `Err` with the whole if it can't be divided.
    pub(super) fn halves(self) -> Result<(Self, Self), Box<Self>> {
        let hosts = self.hosts();
        let is_shared = self.alive
            || !self.schemas.is_empty()
            || !self.incidents.is_empty()
            || self.held_up.is_some()
            || self.evidence.iter().any(|row| row.host.is_none());
        if is_shared && !hosts.is_empty() {
            return Ok(self.split(&BTreeSet::new(), true));
        }
        if hosts.len() < 2 {
            return Err(Box::new(self));
        }
        let half = hosts.iter().take(hosts.len() / 2).copied().collect();
        Ok(self.split(&half, false))
    }
}

/// All of it to the first or to the second.
fn give<T: Default>(all: T, first: bool) -> (T, T) {
    if first {
        (all, T::default())
    } else {
        (T::default(), all)
    }
}

/// What a committed round did.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// Tickets that it touched.
    pub(super) tickets: Vec<TicketId>,
    /// The tickets of the incidents that it changed.
    pub(super) incidents: Vec<(IncidentScope, TicketId)>,
}

/// Commits a round.
pub(super) async fn commit(
    app: &App,
    held: &Held,
    writes: &Writes,
    now: UnixMillis,
) -> Result<Committed, StoreError> {
    let mut tx = app.store.begin().await?;
    let (done, raises) = match write(app, &mut tx, held, writes, now).await {
        Ok(written) => written,
        Err(error) => {
            // After a refused value the connection is as good as before.
            if error.is_data() {
                tx.rollback().await?;
            }
            return Err(error);
        }
    };
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

type Raises<'a> = Vec<(&'a Subject, &'a Raised, i64)>;

async fn write<'a>(
    app: &App,
    tx: &mut Tx,
    held: &Held,
    writes: &'a Writes,
    now: UnixMillis,
) -> Result<(Committed, Raises<'a>), StoreError> {
    if writes.alive {
        leases::renew(tx, held, now, super::pipeline::LEASE).await?;
    } else {
        leases::check(tx, held).await?;
    }
    heartbeats::write_schemas(tx, &writes.schemas, now).await?;
    heartbeats::insert(tx, &writes.heartbeats).await?;
    let evidence: Vec<_> = writes
        .evidence
        .iter()
        .map(|row| (app.ids.next(now), row))
        .collect();
    record::insert_evidence(tx, &evidence).await?;
    record::insert_events(tx, &writes.events).await?;
    machine::write(tx, &writes.events).await?;
    let mut done = Committed::default();
    let mut raises = Vec::new();
    let mut tables = PagingTables::new(app);
    for (subject, change) in &writes.changes {
        match change {
            AlertChange::Raised(raised) => {
                let ticket = raise::raise(app, tx, &mut tables, (subject, raised), now).await?;
                done.tickets.push(ticket.id);
                raises.push((subject, raised, ticket.number));
            }
            AlertChange::Updated(updated) => {
                let ticket = update(app, tx, &mut tables, updated, now).await?;
                done.tickets.extend(ticket);
            }
            AlertChange::Cleared(cleared) => {
                let ticket = clear(app, tx, &mut tables, cleared, now).await?;
                done.tickets.extend(ticket);
            }
        }
    }
    for incident in &writes.incidents {
        let ticket = incidents::write(app, tx, incident, now).await?;
        done.tickets.push(ticket);
        done.incidents.push((incident.scope, ticket));
    }
    if let Some(report) = writes.held_up {
        done.tickets.push(own::held_up(app, tx, report, now).await?);
    }
    for (host, since) in &writes.quarantined {
        fleet::set_quarantine(tx, *host, Some(*since)).await?;
    }
    for (host, version) in &writes.agent_versions {
        fleet::set_agent_version(tx, *host, version).await?;
    }
    for change in &writes.host_changes {
        fleet::drop_change(tx, *change).await?;
    }
    heartbeats::put_states(tx, &writes.states, now).await?;
    Ok((done, raises))
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
    let Some(ticket) = readable(tx, id).await? else {
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
    let Some(ticket) = readable(tx, id).await? else {
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

/// A ticket; `None` for one that is not there, and for one whose row can't be read, so that one
/// corrupt row holds up nothing else.
async fn readable(tx: &mut Tx, id: TicketId) -> Result<Option<Ticket>, StoreError> {
    match rows::by_id(tx, id).await {
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!("an alert changed whose ticket can't be read: {error}");
            Ok(None)
        }
        found => found,
    }
}
