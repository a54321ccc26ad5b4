//! Open incidents in memory, and what a round changes about them. The rows are the truth: after a
//! start or a failed commit this is read again.
//!
//! - [`mod@write`]: the part of the round's transaction.

mod write;

use std::collections::{BTreeMap, HashMap};

use watchkeep_core::{
    alerts::{AlertChange, Cleared, Raised},
    ids::{AlertId, TicketId},
    incidents::{Due, Incident, IncidentScope, Open, Tally, text, text::Names},
    rules::RuleId,
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use super::commit::Subject;
use crate::store::{Store, StoreError, incidents as rows};

pub(super) use write::write;

/// Hosts that join or come back are listed in the timeline at most this often.
const NOTE_EVERY: DurationMs = DurationMs::from_secs(10);

/// All open incidents and their hosts.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    open: BTreeMap<IncidentScope, Active>,
    members: HashMap<HostId, Member>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    scope: IncidentScope,
    alert: AlertId,
}

#[derive(Debug)]
struct Active {
    /// `None` until the round that opens it is committed.
    ticket: Option<TicketId>,
    incident: Incident,
    /// What the title says.
    tally: Tally,
    /// Hosts that joined and came back since the last line of the timeline.
    joined: Names,
    back: Names,
    noted_at: UnixMillis,
}

/// What a round writes about one incident.
#[derive(Debug)]
pub(super) struct IncidentWrites {
    pub(super) scope: IncidentScope,
    /// `None` if this round opens it.
    ticket: Option<TicketId>,
    joined: Vec<Joined>,
    left: Vec<Cleared>,
    step: Step,
    incident: Incident,
}

/// A host that fell silent.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) subject: Subject,
    pub(super) raised: Raised,
}

/// How an incident begins, or begins again.
#[derive(Clone, Debug)]
struct Beginning {
    /// The rule about silence.
    rule: RuleId,
    tally: Tally,
    joined: Names,
}

/// What happens to the incident's ticket.
#[derive(Debug)]
enum Step {
    /// Hosts join or come back; nothing is said yet.
    Silent,
    /// It begins, or begins again.
    Begin(Beginning),
    /// A line of the timeline.
    Note(String),
    /// Those that are missing are reported.
    ReportMissing,
    /// It is over.
    End,
}

impl Incidents {
    /// Reads the open incidents.
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let mut incidents = Self::default();
        let mut scopes = HashMap::new();
        for row in rows::open(store).await? {
            let check = watchkeep_core::rules::CheckKey(row.scope.clone());
            let Some(scope) = IncidentScope::of_check(&check) else {
                let error =
                    StoreError::corrupt("incident", "scope", row.ticket_id, "it is no scope");
                tracing::error!("an incident is left out: {error}");
                continue;
            };
            scopes.insert(TicketId(row.ticket_id), scope);
            incidents.open.insert(scope, Active::read(&row));
        }
        for member in rows::members(store).await? {
            let Some(scope) = scopes.get(&member.ticket) else {
                continue;
            };
            incidents.enter(member.host, *scope, member.alert);
        }
        Ok(incidents)
    }

    fn enter(&mut self, host: HostId, scope: IncidentScope, alert: AlertId) {
        self.members.insert(host, Member { scope, alert });
        if let Some(active) = self.open.get_mut(&scope) {
            active.incident.away += 1;
            active.incident.total = active.incident.total.max(active.incident.away);
        }
    }

    /// Incidents that take in further hosts.
    pub(super) fn accepting(&self) -> Open {
        let accepting = || {
            self.open
                .iter()
                .filter(|(_, active)| active.incident.takes_in())
                .map(|(scope, _)| *scope)
        };
        Open {
            sites: accepting()
                .filter_map(|scope| match scope {
                    IncidentScope::Site(site) => Some(site),
                    IncidentScope::Fleet => None,
                })
                .collect(),
            fleet: accepting().any(|scope| scope == IncidentScope::Fleet),
        }
    }

    /// Whether the host's silence belongs to an incident.
    pub(super) fn has(&self, host: HostId) -> bool {
        self.members.contains_key(&host)
    }

    /// A silent host becomes part of an incident, which begins if it is not open.
    pub(super) fn join(
        &mut self,
        scope: IncidentScope,
        joined: Joined,
        tally: Tally,
        changes: &mut RoundChanges,
    ) {
        let Joined { subject, raised } = &joined;
        let now = raised.at;
        let active = self
            .open
            .entry(scope)
            .or_insert_with(|| Active::begin(now, tally));
        if active.ticket.is_none() || active.incident.is_reported {
            changes.begins.insert(scope, raised.rule.clone());
        }
        if active.incident.is_reported {
            // The hosts that were reported stay on the same ticket.
            let away = active.incident.away;
            active.incident = Active::begin(now, tally).incident;
            active.incident.total = away;
            active.incident.away = away;
            active.tally = tally;
        }
        active.incident.total += 1;
        active.joined.add(&subject.name);
        let (host, alert) = (subject.host, raised.alert);
        changes.of(scope).joined.push(joined);
        self.enter(host, scope, alert);
    }

    /// Takes out of a host's changes what ends its part in an incident.
    pub(super) fn take_left(
        &mut self,
        host: HostId,
        name: &str,
        alert_changes: &mut Vec<AlertChange>,
        changes: &mut RoundChanges,
    ) {
        let Some(member) = self.members.get(&host).copied() else {
            return;
        };
        let Some(cleared) = take_cleared(alert_changes, member.alert) else {
            return;
        };
        self.members.remove(&host);
        if let Some(active) = self.open.get_mut(&member.scope) {
            active.incident.away = active.incident.away.saturating_sub(1);
            active.incident.last_return_at = active.incident.last_return_at.max(Some(cleared.at));
            active.back.add(name);
        }
        changes.of(member.scope).left.push(cleared);
    }

    /// A host that is no longer watched is no part of an incident any more.
    pub(super) fn withdraw(
        &mut self,
        host: HostId,
        alert_changes: &mut Vec<AlertChange>,
        changes: &mut RoundChanges,
    ) {
        let Some(member) = self.members.remove(&host) else {
            return;
        };
        if let Some(active) = self.open.get_mut(&member.scope) {
            active.incident.away = active.incident.away.saturating_sub(1);
            active.incident.total = active.incident.total.saturating_sub(1);
        }
        if let Some(cleared) = take_cleared(alert_changes, member.alert) {
            changes.of(member.scope).left.push(cleared);
        }
    }

    /// What this round writes about incidents.
    /// Nobody is reported missing unless heartbeats could arrive (`is_listening`).
    pub(super) fn writes(
        &mut self,
        now: UnixMillis,
        is_listening: bool,
        changes: RoundChanges,
    ) -> Vec<IncidentWrites> {
        let RoundChanges { mut hosts, begins } = changes;
        let mut writes = Vec::new();
        for (scope, active) in &mut self.open {
            let hosts = hosts.remove(scope);
            let step = active.step(now, is_listening, begins.get(scope));
            if hosts.is_none() && matches!(step, Step::Silent) {
                continue;
            }
            let hosts = hosts.unwrap_or_default();
            writes.push(IncidentWrites {
                scope: *scope,
                ticket: active.ticket,
                joined: hosts.joined,
                left: hosts.left,
                step,
                incident: active.incident,
            });
        }
        writes
    }

    /// The round was committed: the tickets of its incidents are known, and ended ones are gone.
    pub(super) fn committed(&mut self, tickets: &[(IncidentScope, TicketId)]) {
        for (scope, ticket) in tickets {
            if let Some(active) = self.open.get_mut(scope) {
                active.ticket = Some(*ticket);
            }
        }
        self.open.retain(|_, active| active.incident.away > 0);
    }
}

/// Takes the end of an alert out of a host's changes.
fn take_cleared(changes: &mut Vec<AlertChange>, alert: AlertId) -> Option<Cleared> {
    let ends = |change: &AlertChange| matches!(change, AlertChange::Cleared(cleared) if cleared.alert == alert);
    let at = changes.iter().position(ends)?;
    match changes.remove(at) {
        AlertChange::Cleared(cleared) => Some(cleared),
        AlertChange::Raised(_) | AlertChange::Updated(_) => None,
    }
}

impl Active {
    fn begin(now: UnixMillis, tally: Tally) -> Self {
        Self {
            ticket: None,
            incident: Incident {
                opened_at: now,
                total: 0,
                away: 0,
                last_return_at: None,
                is_reported: false,
            },
            tally,
            joined: Names::default(),
            back: Names::default(),
            noted_at: now,
        }
    }

    fn read(row: &rows::IncidentRow) -> Self {
        let opened_at = UnixMillis(row.opened_at);
        Self {
            ticket: Some(TicketId(row.ticket_id)),
            incident: Incident {
                opened_at,
                total: u32::try_from(row.total).unwrap_or(u32::MAX),
                away: 0,
                last_return_at: row.last_return_at.map(UnixMillis),
                is_reported: row.reported_at.is_some(),
            },
            ..Self::begin(opened_at, Tally::default())
        }
    }

    fn step(&mut self, now: UnixMillis, is_listening: bool, begins: Option<&RuleId>) -> Step {
        if let Some(rule) = begins {
            self.noted_at = now;
            self.back = Names::default();
            return Step::Begin(Beginning {
                rule: rule.clone(),
                tally: self.tally,
                joined: std::mem::take(&mut self.joined),
            });
        }
        match self.incident.due(now) {
            Some(Due::Resolve) => return Step::End,
            Some(Due::ReportMissing) if is_listening => {
                self.incident.is_reported = true;
                return Step::ReportMissing;
            }
            Some(Due::ReportMissing) | None => {}
        }
        if now.since(self.noted_at) < NOTE_EVERY {
            return Step::Silent;
        }
        let Some(text) = text::changes(&self.incident, &self.joined, &self.back) else {
            return Step::Silent;
        };
        self.noted_at = now;
        self.joined = Names::default();
        self.back = Names::default();
        Step::Note(text)
    }
}

/// What happened in a round, so far.
#[derive(Debug, Default)]
pub(super) struct RoundChanges {
    hosts: BTreeMap<IncidentScope, HostChanges>,
    /// Incidents that begin, or begin again, with the rule about silence.
    begins: BTreeMap<IncidentScope, RuleId>,
}

#[derive(Debug, Default)]
struct HostChanges {
    joined: Vec<Joined>,
    left: Vec<Cleared>,
}

impl RoundChanges {
    fn of(&mut self, scope: IncidentScope) -> &mut HostChanges {
        self.hosts.entry(scope).or_default()
    }
}
