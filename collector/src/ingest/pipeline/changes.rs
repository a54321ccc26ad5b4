//! Hosts that people renamed, retired, revoked or enrolled again, from the command line or a page. The
//! change itself is a row of the store; the pipeline looks at it within a second, or at the next
//! start, and ends what the host left behind in one transaction.

use std::time::Duration;

use tokio::sync::mpsc;
use watchkeep_core::{
    alerts::{Unwatched, end_all},
    evidence::Evidence,
};
use watchkeep_shared::{HostId, UnixMillis};

use super::{Pipeline, Round, collect, queue_deadline};
use crate::{
    app::App,
    ingest::{decide::Decision, hosts::HostEntry, rebuild},
    store::{
        StoreError,
        fleet::{self, HostChange},
    },
};

/// How often changes are read.
const EVERY: Duration = Duration::from_secs(1);
/// Most changes in one round.
pub(super) const MAX_CHANGES: usize = 64;

/// Reads changes until the process stops; the pipeline itself never waits for this.
pub(super) fn poll(app: &App) -> mpsc::Receiver<Vec<HostChange>> {
    let (found, changes) = mpsc::channel(1);
    let app_here = app.clone();
    app.process.spawn_essential("host changes", async move {
        loop {
            tokio::select! {
                () = app_here.process.stop.cancelled() => return Ok::<(), String>(()),
                () = tokio::time::sleep(EVERY) => {}
            }
            match fleet::changes(&app_here.store, MAX_CHANGES).await {
                Ok(changes) if changes.is_empty() => {}
                // The pipeline has not taken the ones before yet: the rows are read again.
                Ok(changes) => drop(found.try_send(changes)),
                // The store logs its outages itself, once each.
                Err(error) if error.is_outage() => {}
                Err(error) => tracing::warn!("failed to read changed hosts, retrying: {error}"),
            }
        }
    });
    changes
}

impl Pipeline {
    /// Follows what people did to hosts.
    pub(super) async fn follow_changes(&mut self, changes: Vec<HostChange>, round: &mut Round) {
        for change in changes {
            match self.follow(change.host, round).await {
                Ok(()) => round.writes.host_changes.push(change),
                Err(error) => {
                    tracing::warn!(host.id = %change.host, "failed to read a changed host, retrying: {error}");
                }
            }
        }
    }

    async fn follow(&mut self, host: HostId, round: &mut Round) -> Result<(), StoreError> {
        let Some(row) = fleet::host(&self.app.store, host).await? else {
            return Ok(());
        };
        let (is_retired, revoked_at) = (row.retired_at.is_some(), row.revoked_at.map(UnixMillis));
        let mut entry = if let Some(mut entry) = self.hosts.remove(&host) {
            entry.name = row.name;
            entry
        } else {
            let (schemas, rules) = (&mut self.schemas, &self.app.config.rules);
            rebuild::entry_of(&self.app.store, row, schemas, rules).await?
        };
        self.isolation.remember(&entry);
        if is_retired {
            self.end(&mut entry, Unwatched::Retired, round);
            round.gone.push(host);
            self.metrics.hosts.set(self.hosts.len() as i64);
            return Ok(());
        }
        entry.revoked_at = revoked_at;
        if revoked_at.is_some() {
            self.end(&mut entry, Unwatched::Revoked, round);
        }
        entry.wake_at = None;
        queue_deadline(&mut self.deadlines, &mut entry, &self.app, self.grace_until);
        round.live.push(host);
        self.hosts.insert(host, entry);
        Ok(())
    }

    /// Ends the host's alerts, its part in an incident, and its open chain.
    fn end(&mut self, entry: &mut HostEntry, why: Unwatched, round: &mut Round) {
        self.waiting.remove(&entry.id);
        let mut changes = end_all(&mut entry.alerts, why, round.now);
        self.incidents
            .withdraw(entry.id, &mut changes, &mut round.incidents);
        let chain = entry.state.open_evidence(entry.id).map(|chain| Evidence {
            recorded_at: round.now,
            ..chain
        });
        entry.state.chain = None;
        entry.state.overdue = false;
        let decision = Decision {
            evidence: chain.into_iter().collect(),
            changes,
            durable: true,
            ..Decision::default()
        };
        collect(entry, decision, &mut round.writes);
    }
}
