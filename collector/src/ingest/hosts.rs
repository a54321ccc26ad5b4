//! What the pipeline remembers of each host.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watchkeep_core::{
    alerts::HostAlerts,
    authority::HostTrust,
    host::HostState,
    ids::{ClientId, ContractId, SiteId},
    rules::{RuleKind, RulePack, Severity},
};
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis,
    ids::SchemaId,
    wire::heartbeat::{Batch, Service},
};

use super::{limits::HostLimits, rejections::Rejections, schemas::HostSchemas};
use crate::{
    config::Silence,
    live::{FiringAlert, HostNow},
    policies::{HostPolicy, Policies, PolicyScope},
    store::heartbeats::NewState,
};

/// A version of an agent is stored at most this often.
const VERSION_EVERY: DurationMs = DurationMs::from_mins(1);

/// One host in memory.
#[derive(Clone, Debug)]
pub(super) struct HostEntry {
    pub(super) id: HostId,
    pub(super) name: String,
    pub(super) client: ClientId,
    pub(super) site: SiteId,
    pub(super) contract: Option<ContractId>,
    pub(super) policy: Arc<HostPolicy>,
    /// The policy changed since services were last judged: which of them may be missing, too.
    pub(super) rejudge: bool,
    pub(super) state: HostState,
    pub(super) alerts: HostAlerts,
    /// Newest heartbeat row.
    pub(super) last_id: i64,
    /// Newest heartbeat row when the state was last written.
    pub(super) written_id: i64,
    pub(super) schemas: HostSchemas,
    pub(super) limits: HostLimits,
    pub(super) schema: Option<SchemaId>,
    pub(super) values: Vec<Option<f64>>,
    pub(super) values_at: UnixMillis,
    pub(super) rejected: Rejections,
    /// The version of its agent, as stored with the host, and when that changed last.
    pub(super) agent_version: (String, UnixMillis),
    /// Its written state could not be read: alerts that fire in the store are not in `alerts`.
    pub(super) is_state_lost: bool,
    /// The last arrival that is not in `state`: of late frames, or of a batch that was answered
    /// "busy". Not written: after a restart there is a grace period.
    pub(super) heard_at: Option<UnixMillis>,
    /// Since when all its certificates are revoked: it is not judged until it enrols again.
    pub(super) revoked_at: Option<UnixMillis>,
    /// When it was called silent, while it is.
    pub(super) silent_at: Option<UnixMillis>,
    /// The entry of the deadline heap that counts.
    pub(super) wake_at: Option<UnixMillis>,
}

/// What of a host is written to the store.
#[derive(Debug, Deserialize)]
pub(super) struct WrittenState {
    pub(super) host: HostState,
    pub(super) alerts: HostAlerts,
}

#[derive(Serialize)]
struct WrittenStateRef<'a> {
    host: &'a HostState,
    alerts: &'a HostAlerts,
}

impl HostEntry {
    /// Takes the host's policy as it is now.
    pub(super) fn take_policy(&mut self, policies: &Policies) {
        let scope = PolicyScope {
            client: self.client,
            site: self.site,
            contract: self.contract,
        };
        let policy = policies.of(self.id, scope);
        if !Arc::ptr_eq(&policy, &self.policy) {
            self.policy = policy;
            self.rejudge = true;
        }
    }

    /// Whether a service does not exist here and nobody expects it to.
    pub(super) fn is_not_here(&self, service: &Service) -> bool {
        self.state
            .is_not_here(service, self.policy.is_own(&service.key))
    }

    /// When the host becomes silent unless a heartbeat arrives before. See [`HostState::silence_deadline`].
    pub(super) fn silence_deadline(&self, silence: Silence) -> Option<UnixMillis> {
        if self.revoked_at.is_some() {
            return None;
        }
        let deadline = self
            .state
            .silence_deadline(silence.after(), silence.announced())?;
        let last = self.state.last?.arrived_at;
        let heard_later = self.heard_at.map_or(0, |at| at.since(last).0.max(0));
        Some(deadline + DurationMs(heard_later))
    }

    /// Whether a batch may be taken in, by the certificate that it came with. One that was issued
    /// after the revocation ends it.
    pub(super) fn is_accepted(&mut self, trust: &HostTrust) -> bool {
        // Certificates are dated to the second.
        let is_revoked = self
            .revoked_at
            .is_some_and(|at| trust.issued_at + DurationMs(999) < at);
        if !is_revoked {
            self.revoked_at = None;
        }
        !is_revoked
    }

    /// Takes the version that the running agent names. Returns whether it is to be stored: at most
    /// once a minute, whatever a host says.
    pub(super) fn take_version(&mut self, batch: &Batch, at: UnixMillis) -> bool {
        let is_of_running_agent = self
            .state
            .last
            .is_some_and(|last| last.instance == batch.instance);
        let (version, changed_at) = &mut self.agent_version;
        let is_news = is_of_running_agent
            && *version != batch.agent_version
            && at.since(*changed_at) >= VERSION_EVERY;
        if is_news {
            version.clone_from(&batch.agent_version);
            *changed_at = at;
        }
        is_news
    }

    /// A heartbeat arrived, though nothing of it was added to the host's state.
    pub(super) fn note_heard(&mut self, at: UnixMillis) {
        self.heard_at = self.heard_at.max(Some(at));
    }

    /// The state as it is to be written.
    pub(super) fn to_write(&self) -> Result<NewState, serde_json::Error> {
        let written = WrittenStateRef {
            host: &self.state,
            alerts: &self.alerts,
        };
        Ok(NewState {
            host: self.id,
            arrival_id: self.last_id,
            last_id: self.last_id,
            state: serde_json::to_string(&written)?,
        })
    }

    /// What pages show. Lists that are as they were are shared with the state `before`.
    pub(super) fn now(&self, rules: &RulePack, before: Option<&HostNow>) -> HostNow {
        let known = self.schema.and_then(|id| self.schemas.get(id));
        let services = before.map(|before| &before.services);
        HostNow {
            names: known.map_or_else(|| Arc::from([]), |schema| Arc::clone(&schema.names)),
            values: self.values.as_slice().into(),
            at: self.values_at,
            last_seen_at: self
                .state
                .last
                .map_or(UnixMillis(0), |last| last.arrived_at),
            silent: self.state.overdue,
            services: match services {
                Some(same) if same[..] == self.state.services[..] => Arc::clone(same),
                _ => self.state.services.as_slice().into(),
            },
            not_here: self
                .state
                .services
                .iter()
                .filter(|service| self.is_not_here(service))
                .map(|service| service.key.clone())
                .collect(),
            firing: self.firing(rules),
            skew_ms: self.state.skew_ms,
            policy_version: self.state.policy_version,
            refused: self.state.refused.clone(),
            troubles: self.state.troubles.clone(),
            goodbye: self.state.goodbye,
            quarantine: self.state.quarantine.clone(),
            rejected: self.rejected.all(),
            last_id: self.last_id,
            open_chain: self.state.open_evidence(self.id),
            interval_ms: self.state.interval_ms,
        }
    }

    fn firing(&self, rules: &RulePack) -> Arc<[FiringAlert]> {
        let firing = self.alerts.firing().map(|alert| {
            let rule = rules.rule(alert.rule);
            FiringAlert {
                id: alert.alert,
                // A rule that is no longer in the pack: its alerts end at the next start.
                severity: rule.map_or(Severity::Warning, |rule| rule.severity),
                is_silence: rule.is_some_and(|rule| matches!(rule.kind, RuleKind::Silent)),
                since: alert.since,
            }
        });
        firing.collect()
    }
}
