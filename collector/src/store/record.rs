//! The record: evidence, host events, alerts.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;
use watchkeep_core::{
    evidence::{Evidence, EvidenceKind},
    ids::{AlertId, ContractId, TicketId},
    rules::Priority,
    tickets::Firing,
};
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    dialect::insert_many,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};

const INSERT_EVIDENCE: &str = "INSERT INTO evidence \
    (id, host_id, kind, detail, valid_from, valid_to, recorded_at)";
// The window reaches from the last chain that began before it to the first that begins after it, so that
// what lies across its edges has both sides.
const EVIDENCE_OF: &str = "WITH edge AS (SELECT \
    COALESCE((SELECT MAX(valid_from) FROM evidence WHERE host_id = $1 AND valid_from < $2 \
        AND kind IN ('frames', 'resumed')), $2) AS first_at, \
    COALESCE((SELECT MIN(valid_from) FROM evidence WHERE host_id = $1 AND valid_from >= $3 \
        AND kind IN ('frames', 'resumed')), $3) AS last_at) \
    SELECT e.id, e.host_id, e.detail, e.valid_from, e.valid_to, e.recorded_at \
    FROM edge JOIN evidence e ON e.host_id = $1 AND e.valid_to >= edge.first_at \
    AND e.valid_from <= edge.last_at ORDER BY e.valid_from, e.id";
const ENROLMENT_OF: &str = "SELECT id, host_id, detail, valid_from, valid_to, recorded_at \
    FROM evidence WHERE host_id = $1 AND kind IN ('enrolled', 'retired') ORDER BY id";
const EVIDENCE_OF_CONTRACT: &str = "WITH edge AS (SELECT h.id AS host_id, \
    COALESCE((SELECT MAX(n.valid_from) FROM evidence n WHERE n.host_id = h.id \
        AND n.valid_from < $2 AND n.kind IN ('frames', 'resumed')), $2) AS first_at, \
    COALESCE((SELECT MIN(n.valid_from) FROM evidence n WHERE n.host_id = h.id \
        AND n.valid_from >= $3 AND n.kind IN ('frames', 'resumed')), $3) AS last_at \
    FROM host h WHERE h.contract_id = $1) \
    SELECT e.id, e.host_id, e.detail, e.valid_from, e.valid_to, e.recorded_at \
    FROM edge JOIN evidence e ON e.host_id = edge.host_id AND e.valid_to >= edge.first_at \
    AND e.valid_from <= edge.last_at ORDER BY e.valid_from, e.id";
const ENROLMENTS_OF_CONTRACT: &str = "SELECT e.id, e.host_id, e.detail, e.valid_from, e.valid_to, \
    e.recorded_at FROM host h JOIN evidence e ON e.host_id = h.id \
    WHERE h.contract_id = $1 AND e.kind IN ('enrolled', 'retired') ORDER BY e.id";
const EVIDENCE_OF_COLLECTOR: &str = "SELECT id, host_id, detail, valid_from, valid_to, \
    recorded_at FROM evidence WHERE host_id IS NULL AND valid_to >= $1 AND valid_from < $2 \
    ORDER BY valid_from, id";
const INSERT_EVENT: &str = "INSERT INTO host_event (id, host_id, kind, detail, at, recorded_at)";
const INSERT_ALERT: &str = "INSERT INTO alert (id, host_id, rule_id, check_key, severity, \
    priority, summary, evidence, raised_at, recorded_at, ticket_id)";
const CLEAR_ALERT: &str = "UPDATE alert SET cleared_at = $2, clear_reason = $3 \
    WHERE id = $1 AND cleared_at IS NULL RETURNING ticket_id";
const STILL_FIRING: &str = "SELECT COUNT(*), MIN(priority) FROM alert \
    WHERE ticket_id = $1 AND cleared_at IS NULL";
const UPDATE_ALERT: &str = "UPDATE alert SET summary = $2, evidence = $3 \
    WHERE id = $1 AND cleared_at IS NULL RETURNING ticket_id";

statements! {
    EVIDENCE_OF, ENROLMENT_OF, EVIDENCE_OF_CONTRACT, ENROLMENTS_OF_CONTRACT,
    EVIDENCE_OF_COLLECTOR, CLEAR_ALERT, STILL_FIRING, UPDATE_ALERT;
    rows INSERT_EVIDENCE 7, INSERT_EVENT 6, INSERT_ALERT 11
}

row! {
    /// Evidence as stored.
    struct EvidenceRow {
        id: i64,
        host_id: Option<Uuid>,
        detail: String,
        valid_from: i64,
        valid_to: i64,
        recorded_at: i64,
    }
}

impl TryFrom<EvidenceRow> for Evidence {
    type Error = StoreError;

    fn try_from(row: EvidenceRow) -> Result<Self, StoreError> {
        let kind = serde_json::from_str(&row.detail)
            .map_err(|error| StoreError::corrupt("evidence", "detail", row.id, error))?;
        Ok(Self {
            host: row.host_id.map(HostId),
            kind,
            valid_from: UnixMillis(row.valid_from),
            valid_to: UnixMillis(row.valid_to),
            recorded_at: UnixMillis(row.recorded_at),
        })
    }
}

/// An alert about to be stored.
#[derive(Debug)]
pub struct NewAlert<'a> {
    pub id: AlertId,
    /// Whose it is.
    pub host: HostId,
    /// Rule and check.
    pub rule: &'a str,
    /// See the rules.
    pub check: &'a str,
    /// `info`, `warning`, `critical`.
    pub severity: &'a str,
    /// `p1` to `p4`.
    pub priority: &'a str,
    /// One line for people.
    pub summary: &'a str,
    /// JSON.
    pub evidence: String,
    pub raised_at: UnixMillis,
    /// When that was decided.
    pub recorded_at: UnixMillis,
    /// The ticket it belongs to.
    pub ticket: TicketId,
}

/// Something that happened on a host, about to be stored.
#[derive(Debug)]
pub struct NewEvent {
    pub id: i64,
    /// Whose it is.
    pub host: HostId,
    /// Name of the event's type on the wire, or `service`.
    pub kind: &'static str,
    /// JSON.
    pub detail: String,
    /// When it happened.
    pub at: UnixMillis,
    /// When we learned it.
    pub recorded_at: UnixMillis,
}

/// Appends evidence, each with its row's identifier.
pub async fn insert_evidence(tx: &mut Tx, rows: &[(i64, &Evidence)]) -> Result<(), StoreError> {
    let mut encoded = Vec::with_capacity(rows.len());
    for (id, evidence) in rows {
        let detail = serde_json::to_string(&evidence.kind)
            .map_err(|error| StoreError::corrupt("evidence", "detail", id, error))?;
        encoded.push((*id, *evidence, detail));
    }
    insert_many!(tx, INSERT_EVIDENCE, 7, &encoded, |query, row| query
        .bind(row.0)
        .bind(row.1.host.map(HostId::uuid))
        .bind(kind_name(&row.1.kind))
        .bind(row.2.as_str())
        .bind(row.1.valid_from.0)
        .bind(row.1.valid_to.0)
        .bind(row.1.recorded_at.0));
    Ok(())
}

/// A host's evidence that touches a window, from the last chain before it to the first one after it,
/// and its enrolment whenever that was.
pub async fn evidence_of(
    store: &Store,
    host: HostId,
    from: UnixMillis,
    to: UnixMillis,
) -> Result<Vec<Evidence>, StoreError> {
    let mut rows: Vec<EvidenceRow> = on_read!(store, c => sqlx::query_as(ENROLMENT_OF)
        .bind(host.uuid()).fetch_all(c).await)?;
    let window: Vec<EvidenceRow> = on_read!(store, c => sqlx::query_as(EVIDENCE_OF)
        .bind(host.uuid()).bind(from.0).bind(to.0).fetch_all(c).await)?;
    let known: Vec<i64> = rows.iter().map(|row| row.id).collect();
    rows.extend(window.into_iter().filter(|row| !known.contains(&row.id)));
    rows.into_iter().map(Evidence::try_from).collect()
}

/// The same of every host that a contract covers, in two reads.
pub async fn evidence_of_contract(
    store: &Store,
    contract: ContractId,
    from: UnixMillis,
    to: UnixMillis,
) -> Result<HashMap<HostId, Vec<Evidence>>, StoreError> {
    let mut rows: Vec<EvidenceRow> = on_read!(store, c => sqlx::query_as(ENROLMENTS_OF_CONTRACT)
        .bind(contract.uuid()).fetch_all(c).await)?;
    let window: Vec<EvidenceRow> = on_read!(store, c => sqlx::query_as(EVIDENCE_OF_CONTRACT)
        .bind(contract.uuid()).bind(from.0).bind(to.0).fetch_all(c).await)?;
    let known: HashSet<i64> = rows.iter().map(|row| row.id).collect();
    rows.extend(window.into_iter().filter(|row| !known.contains(&row.id)));
    let mut by_host: HashMap<HostId, Vec<Evidence>> = HashMap::new();
    for row in rows {
        let evidence = Evidence::try_from(row)?;
        if let Some(host) = evidence.host {
            by_host.entry(host).or_default().push(evidence);
        }
    }
    Ok(by_host)
}

/// The collector's own record in a window.
pub async fn evidence_of_collector(
    store: &Store,
    from: UnixMillis,
    to: UnixMillis,
) -> Result<Vec<Evidence>, StoreError> {
    let rows: Vec<EvidenceRow> = on_read!(store, c => sqlx::query_as(EVIDENCE_OF_COLLECTOR)
        .bind(from.0).bind(to.0).fetch_all(c).await)?;
    rows.into_iter().map(Evidence::try_from).collect()
}

/// Appends host events.
pub async fn insert_events(tx: &mut Tx, rows: &[NewEvent]) -> Result<(), StoreError> {
    insert_many!(tx, INSERT_EVENT, 6, rows, |query, row| query
        .bind(row.id)
        .bind(row.host.uuid())
        .bind(row.kind)
        .bind(row.detail.as_str())
        .bind(row.at.0)
        .bind(row.recorded_at.0));
    Ok(())
}

/// Stores alerts.
pub async fn insert_alerts(tx: &mut Tx, alerts: &[NewAlert<'_>]) -> Result<(), StoreError> {
    insert_many!(tx, INSERT_ALERT, 11, alerts, |query, alert| query
        .bind(alert.id.uuid())
        .bind(alert.host.uuid())
        .bind(alert.rule)
        .bind(alert.check)
        .bind(alert.severity)
        .bind(alert.priority)
        .bind(alert.summary)
        .bind(alert.evidence.as_str())
        .bind(alert.raised_at.0)
        .bind(alert.recorded_at.0)
        .bind(alert.ticket.uuid()));
    Ok(())
}

/// Ends an alert. Returns its ticket; `None` if it had ended before.
pub async fn end_alert(
    tx: &mut Tx,
    alert: AlertId,
    at: UnixMillis,
    reason: &str,
) -> Result<Option<TicketId>, StoreError> {
    let row: Option<(Option<Uuid>,)> = on_tx!(tx, c => sqlx::query_as(CLEAR_ALERT)
        .bind(alert.uuid()).bind(at.0).bind(reason).fetch_optional(c).await)?;
    Ok(row.and_then(|(ticket,)| ticket.map(TicketId)))
}

/// Stores what more a firing alert has found. Returns its ticket; `None` if it has ended.
pub async fn update_alert(
    tx: &mut Tx,
    alert: AlertId,
    summary: &str,
    evidence: &str,
) -> Result<Option<TicketId>, StoreError> {
    let row: Option<(Option<Uuid>,)> = on_tx!(tx, c => sqlx::query_as(UPDATE_ALERT)
        .bind(alert.uuid()).bind(summary).bind(evidence).fetch_optional(c).await)?;
    Ok(row.and_then(|(ticket,)| ticket.map(TicketId)))
}

/// Ends an alert. Returns its ticket and those of that ticket's alerts that still fire; `None` if it
/// had ended before.
pub async fn clear_alert(
    tx: &mut Tx,
    alert: AlertId,
    at: UnixMillis,
    reason: &str,
) -> Result<Option<(TicketId, Firing)>, StoreError> {
    let Some(ticket) = end_alert(tx, alert, at, reason).await? else {
        return Ok(None);
    };
    let (count, priority): (i64, Option<String>) = on_tx!(tx, c => sqlx::query_as(STILL_FIRING)
        .bind(ticket.uuid()).fetch_one(c).await)?;
    let priority = priority.as_deref().map(str::parse::<Priority>).transpose();
    let priority =
        priority.map_err(|error| StoreError::corrupt("alert", "priority", ticket, error))?;
    let firing = Firing::new(u32::try_from(count).unwrap_or(u32::MAX), priority);
    Ok(Some((ticket, firing)))
}

const fn kind_name(kind: &EvidenceKind) -> &'static str {
    match kind {
        EvidenceKind::Enrolled => "enrolled",
        EvidenceKind::Retired => "retired",
        EvidenceKind::Frames { .. } => "frames",
        EvidenceKind::Overdue => "overdue",
        EvidenceKind::Resumed { .. } => "resumed",
        EvidenceKind::PreviousBoot { .. } => "previous_boot",
        EvidenceKind::Booted { .. } => "booted",
        EvidenceKind::Goodbye { .. } => "goodbye",
        EvidenceKind::CollectorDown => "collector_down",
    }
}
