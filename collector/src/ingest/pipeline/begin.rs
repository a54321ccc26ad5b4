//! How the pipeline begins: it claims all partitions, reads all states, notes the gap since any
//! collector was last alive, and gives the agents time to come back.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use uuid::Uuid;
use watchkeep_core::alerts;
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    Isolation, LEASE, Pipeline, PipelineError, collector_down, queue_deadline, subject_of,
};
use crate::{
    app::App,
    ingest::{
        Arrival,
        commit::{Writes, commit},
        deadlines::Deadlines,
        incidents::{Incidents, RoundChanges},
        metrics::Metrics,
        pulse::Pulse,
        rebuild::{self, Memory},
        schemas::Schemas,
    },
    own::RecentHoldUps,
    store::{
        StoreError,
        fleet::PARTITIONS,
        heartbeats,
        leases::{self, Held},
    },
};

/// How much longer than a lease a starting collector waits for another's to end.
const CLAIM_SLACK: DurationMs = DurationMs::from_secs(2);
/// Pause between two tries to claim.
const CLAIM_PAUSE: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Claims the partitions and reads all states. Ready when it returns.
    pub async fn begin(
        app: App,
        node: Uuid,
        metrics: Arc<Metrics>,
        queue: mpsc::Receiver<Arrival>,
    ) -> Result<Self, PipelineError> {
        let last_alive = leases::last_alive(&app.store)
            .await
            .map_err(PipelineError::Begin)?;
        let newest = heartbeats::newest(&app.store)
            .await
            .map_err(PipelineError::Begin)?;
        // What is decided now comes after what is recorded, whatever the system's clock shows.
        if let Some(at) = last_alive.max(newest.map(|(_, at)| at)) {
            app.clock.start_at(at);
        }
        let now = app.clock.now();
        let held = claim_all(&app, node).await?;
        let mut pipeline = Self {
            app,
            metrics,
            queue,
            held,
            hosts: HashMap::new(),
            schemas: Schemas::default(),
            deadlines: Deadlines::default(),
            waiting: BTreeSet::new(),
            has_more: false,
            incidents: Incidents::default(),
            grace_until: now,
            pulse: Arc::new(Pulse::new(now)),
            stalled_until: now,
            has_stalled: false,
            waited_until: UnixMillis(i64::MIN),
            knocks: Arc::default(),
            alive_at: now,
            hold_ups: RecentHoldUps::default(),
            checkpoint_queue: Vec::new(),
            zones: HashMap::new(),
            recovery: None,
            isolation: Isolation::default(),
        };
        let last_arrival = pipeline.load().await.map_err(PipelineError::Begin)?;
        pipeline
            .start(node, last_alive.max(last_arrival))
            .await
            .map_err(PipelineError::Begin)?;
        Ok(pipeline)
    }

    /// Reads all states. Returns when the newest row arrived.
    pub(super) async fn load(&mut self) -> Result<Option<UnixMillis>, StoreError> {
        let begun = self.app.clock.now();
        let Memory {
            hosts,
            schemas,
            max_id,
            last_arrival,
            tail_rows,
        } = rebuild::rebuild(&self.app.store.patient(), &self.app.config.rules).await?;
        self.app.ids.skip_past(max_id);
        self.hosts = hosts;
        self.schemas = schemas;
        self.incidents = Incidents::load(&self.app.store).await?;
        self.deadlines = Deadlines::default();
        self.metrics.hosts.set(self.hosts.len() as i64);
        let mut live = Vec::with_capacity(self.hosts.len());
        for entry in self.hosts.values_mut() {
            entry.take_policy(&self.app.policies);
            queue_deadline(&mut self.deadlines, entry, &self.app, self.grace_until);
            live.push((entry.id, entry.now(&self.app.config.rules, None)));
        }
        self.app.live.update(live);
        let took_ms = self.app.clock.now().since(begun).0;
        tracing::info!(
            hosts = self.hosts.len(),
            tail.rows = tail_rows,
            took_ms,
            "states rebuilt"
        );
        Ok(last_arrival)
    }

    /// Notes the collector's own gap, and ends alerts of rules that no longer exist.
    pub(super) async fn start(
        &mut self,
        node: Uuid,
        last_alive: Option<UnixMillis>,
    ) -> Result<(), StoreError> {
        let now = self.app.clock.now();
        let mut writes = Writes {
            alive: true,
            ..Writes::default()
        };
        let mut changes = RoundChanges::default();
        writes.schemas.unused = self.schemas.take_unused();
        if let Some(from) = last_alive.filter(|from| *from < now) {
            writes.evidence.push(collector_down(from, now));
        }
        for entry in self.hosts.values_mut() {
            let rules = &self.app.config.rules;
            let mut ended = alerts::drop_removed_rules(&mut entry.alerts, rules, now);
            let incidents = &mut self.incidents;
            incidents.take_left(entry.id, &entry.name, &mut ended, &mut changes);
            let subject = subject_of(entry);
            writes
                .changes
                .extend(ended.into_iter().map(|change| (subject.clone(), change)));
            if entry.alerts.take_changed()
                && let Ok(state) = entry.to_write()
            {
                writes.states.push(state);
            }
        }
        let mut tx = self.app.store.begin().await?;
        leases::started(&mut tx, node, now).await?;
        tx.commit().await?;
        writes.incidents = self.incidents.writes(now, false, changes);
        let done = commit(&self.app, &self.held, &writes, now).await?;
        self.incidents.committed(&done.incidents);
        self.alive_at = now;
        self.metrics.alive_at.set(now.0);
        self.begin_grace(now, self.app.config.silence.grace());
        Ok(())
    }
}

/// Claims every partition; one that was just left by a collector that died comes free within the
/// lease's time.
async fn claim_all(app: &App, node: Uuid) -> Result<Held, PipelineError> {
    let deadline = tokio::time::Instant::now() + (LEASE + CLAIM_SLACK).to_std();
    loop {
        let now = app.clock.now();
        let held = leases::claim(&app.store, node, now, LEASE)
            .await
            .map_err(PipelineError::Begin)?;
        let missing = PARTITIONS as usize - held.parts.len();
        if missing == 0 {
            return Ok(held);
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(PipelineError::NotAlone(missing));
        }
        tracing::info!(
            missing,
            "another collector holds partitions, waiting for its lease to end"
        );
        tokio::time::sleep(CLAIM_PAUSE).await;
    }
}
