//! A host whose written state can't be read begins with a fresh one, so that nobody else is harmed
//! and the host itself is judged again. Alerts that the old state knew fire in the store and nowhere
//! else: with the host's first heartbeat they end, after what still breaches has been raised anew.

use watchkeep_core::{
    alerts::{AlertChange, Cleared},
    ids::AlertId,
    rules::{CheckKey, RuleId},
};
use watchkeep_shared::{HostId, UnixMillis};

use super::{Pipeline, Round, subject_of};
use crate::store::{StoreError, record::NewEvent, views};

/// The kind of the event that records it.
const KIND: &str = "state_lost";
/// Why the alerts end, for people.
const REASON: &str = "the collector lost this host's state; what still breaches fires again";

impl Pipeline {
    /// Ends what the lost state of a host knew, once the host sends heartbeats again.
    pub(super) async fn settle_lost_state(&mut self, host: HostId, round: &mut Round) {
        let is_lost = |entry: &super::HostEntry| entry.is_state_lost;
        if !self.hosts.get(&host).is_some_and(is_lost) {
            return;
        }
        let mut ended = match self.firing_in_store(host, round.now).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::warn!(host.id = %host, "failed to read a host's alerts, retrying with its next heartbeat: {error}");
                return;
            }
        };
        let Some(entry) = self.hosts.get_mut(&host) else {
            return;
        };
        entry.is_state_lost = false;
        let left = &mut round.incidents;
        self.incidents
            .take_left(host, &entry.name, &mut ended, left);
        let subject = subject_of(entry);
        let changes = ended.into_iter().map(|change| (subject.clone(), change));
        round.writes.changes.extend(changes);
        round.writes.events.push(NewEvent {
            id: self.app.ids.next(round.now),
            host,
            kind: KIND,
            detail: serde_json::json!({ "type": KIND }).to_string(),
            at: round.now,
            recorded_at: round.now,
        });
    }

    async fn firing_in_store(
        &self,
        host: HostId,
        at: UnixMillis,
    ) -> Result<Vec<AlertChange>, StoreError> {
        let rows = views::firing_of_host(&self.app.store, host).await?;
        let ended = rows.into_iter().map(|row| {
            AlertChange::Cleared(Cleared {
                alert: AlertId(row.id),
                rule: RuleId(row.rule_id),
                check: CheckKey(row.check_key),
                at,
                value: None,
                reason: REASON.to_owned(),
            })
        });
        Ok(ended.collect())
    }
}
