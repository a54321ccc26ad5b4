//! The pipeline's housekeeping: checkpoints that keep the tail short, and the orderly shutdown.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use watchkeep_core::ids::ContractId;
use watchkeep_shared::{DurationMs, UnixMillis};

use super::Pipeline;
use crate::{
    ingest::commit::{Writes, commit},
    store::{Store, StoreError, fleet},
};

/// Leases are renewed, and the collector's liveness is noted, this often.
pub(super) const ALIVE_EVERY: DurationMs = DurationMs::from_secs(3);
/// A host's state is written this often even if nothing durable changed, so that the tail that is
/// read at start stays short.
const CHECKPOINT: DurationMs = DurationMs::from_mins(5);

impl Pipeline {
    /// Writes the states of some hosts that have not been written for long, and what they proved
    /// until a day was over: a slice of all hosts each round, so that no round pays for all.
    pub(super) async fn checkpoint(&mut self, writes: &mut Writes) {
        if !writes.alive {
            return;
        }
        if self.checkpoint_queue.is_empty() {
            self.checkpoint_queue = self.hosts.keys().copied().collect();
            self.schemas.free_unused();
            self.read_zones().await;
        }
        let now = self.app.clock.now();
        let rounds = (CHECKPOINT.0 / ALIVE_EVERY.0) as usize;
        let slice = self
            .hosts
            .len()
            .div_ceil(rounds)
            .min(self.checkpoint_queue.len());
        for host in self
            .checkpoint_queue
            .split_off(self.checkpoint_queue.len() - slice)
        {
            let Some(entry) = self.hosts.get_mut(&host) else {
                continue;
            };
            let dropped = entry.schemas.drop_unused(now, entry.schema);
            writes.schemas.drop_lists(host, &dropped);
            let zone = entry.contract.and_then(|id| self.zones.get(&id));
            let zone = zone.cloned().unwrap_or(TimeZone::UTC);
            if entry.state.is_day_over(&zone) {
                self.isolation.remember(entry);
            }
            let closed = entry.state.close_day(host, &zone, now);
            let is_due = closed.is_some() || entry.last_id > entry.written_id;
            let is_written = writes.states.iter().any(|state| state.host == host);
            if (closed.is_some() || is_due && !is_written)
                && let Ok(state) = entry.to_write()
            {
                writes.states.retain(|earlier| earlier.host != host);
                writes.states.push(state);
                writes.evidence.extend(closed);
            }
        }
    }

    /// The days of contracts' zones. If they can't be read, those of the pass before are used.
    async fn read_zones(&mut self) {
        match zones(&self.app.store).await {
            Ok(zones) => self.zones = zones,
            Err(error) => tracing::warn!("failed to read the zones of contracts: {error}"),
        }
    }

    pub(super) fn committed(&mut self, now: UnixMillis, writes: &Writes) {
        if writes.alive {
            self.alive_at = now;
            self.metrics.alive_at.set(now.0);
            let silent = self
                .hosts
                .values()
                .filter(|entry| entry.state.overdue)
                .count();
            self.metrics.silent.set(silent as i64);
        }
        for state in &writes.states {
            if let Some(entry) = self.hosts.get_mut(&state.host) {
                entry.written_id = state.arrival_id;
            }
        }
    }

    /// Answers what is queued, and writes all states, so that the next start reads no tail.
    pub(super) async fn finish(&mut self) {
        self.queue.close();
        loop {
            let mut round = Vec::new();
            self.fill(&mut round);
            if round.is_empty() {
                break;
            }
            if let Err(error) = self.round(round, Vec::new()).await {
                tracing::error!("failed to finish the queue: {error}");
                return;
            }
        }
        // What is in memory may not be in the store.
        if self.is_recovering() {
            return;
        }
        let mut writes = Writes {
            alive: true,
            ..Writes::default()
        };
        let unwritten = self
            .hosts
            .values()
            .filter(|entry| entry.last_id > entry.written_id);
        writes
            .states
            .extend(unwritten.filter_map(|entry| entry.to_write().ok()));
        if let Err(error) = commit(&self.app, &self.held, &writes, self.app.clock.now()).await {
            tracing::error!("failed to write the states at the end: {error}");
        }
    }
}

async fn zones(store: &Store) -> Result<HashMap<ContractId, TimeZone>, StoreError> {
    let contracts = fleet::contracts(store).await?;
    let zone = |name: &str| TimeZone::get(name).unwrap_or(TimeZone::UTC);
    Ok(contracts
        .into_iter()
        .map(|row| (ContractId(row.id), zone(&row.zone)))
        .collect())
}
