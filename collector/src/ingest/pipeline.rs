//! The loop that owns every host's state. One task, so that a host has exactly one decider and
//! decisions need no locks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use watchkeep_core::{
    alerts,
    evidence::{Evidence, EvidenceKind},
    ids::AlertId,
};
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis, metric,
    wire::heartbeat::{Ack, Batch},
};

use super::{
    Arrival, NotTaken,
    commit::{Subject, Writes, commit},
    deadlines::Deadlines,
    decide::{Context, Decision, decide, decide_deadline},
    hosts::{HostEntry, Schemas},
    metrics::{Metrics, Reason},
    rebuild::{self, Memory},
};
use crate::{
    app::App,
    live::{Hint, HostNow},
    store::{
        StoreError,
        fleet::PARTITIONS,
        leases::{self, Held},
    },
};

/// How long a lease lasts unless renewed.
pub(super) const LEASE: DurationMs = DurationMs::from_secs(15);
/// How much longer than a lease a starting collector waits for another's to end.
const CLAIM_SLACK: DurationMs = DurationMs::from_secs(2);
/// Pause between two tries to claim.
const CLAIM_PAUSE: Duration = Duration::from_secs(1);
/// Leases are renewed, and the collector's liveness is noted, this often.
const ALIVE_EVERY: DurationMs = DurationMs::from_secs(3);
/// A longer time without a successful note is a gap of the collector's own.
const COLLECTOR_GAP: DurationMs = DurationMs::from_secs(10);
/// Most batches in one round: bounds the size of a transaction and the wait of its first batch.
const MAX_ROUND: usize = 512;
/// Longest sleep of an idle loop.
const IDLE: Duration = Duration::from_millis(250);
/// A host's state is written this often even if nothing durable changed, so that the tail that is
/// read at start stays short.
const CHECKPOINT: DurationMs = DurationMs::from_mins(5);
/// Pause before the states are read again after a failed commit.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Why the pipeline ends.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The store failed at start.
    #[error("failed to begin: {0}")]
    Begin(#[source] StoreError),
    /// Another collector decides now.
    #[error("the partition lease was lost: another collector decides now")]
    LeaseLost,
    /// Another collector decides already.
    #[error(
        "another collector runs on this store and holds {0} of {PARTITIONS} partitions: stop it first, or give this one a store of its own"
    )]
    NotAlone(usize),
}

type Reply = (
    oneshot::Sender<Result<Ack, NotTaken>>,
    Result<Ack, NotTaken>,
);

/// The pipeline.
#[derive(Debug)]
pub struct Pipeline {
    app: App,
    metrics: Arc<Metrics>,
    queue: mpsc::Receiver<Arrival>,
    held: Held,
    hosts: HashMap<HostId, HostEntry>,
    schemas: Schemas,
    deadlines: Deadlines,
    /// No host is called silent before this instant.
    grace_until: UnixMillis,
    /// The last instant of which it is proven that the collector could commit.
    alive_at: UnixMillis,
    /// Where the round of checkpoints stands.
    checkpoint_queue: Vec<HostId>,
}

impl Pipeline {
    /// Claims the partitions and reads all states. Ready when it returns.
    pub async fn begin(
        app: App,
        node: Uuid,
        metrics: Arc<Metrics>,
        queue: mpsc::Receiver<Arrival>,
    ) -> Result<Self, PipelineError> {
        let now = app.clock.now();
        let last_alive = leases::last_alive(&app.store)
            .await
            .map_err(PipelineError::Begin)?;
        let held = claim_all(&app, node).await?;
        let mut pipeline = Self {
            app,
            metrics,
            queue,
            held,
            hosts: HashMap::new(),
            schemas: Schemas::default(),
            deadlines: Deadlines::default(),
            grace_until: now,
            alive_at: now,
            checkpoint_queue: Vec::new(),
        };
        let last_arrival = pipeline.load().await.map_err(PipelineError::Begin)?;
        pipeline
            .start(node, last_alive.max(last_arrival))
            .await
            .map_err(PipelineError::Begin)?;
        Ok(pipeline)
    }

    /// Runs until the process stops.
    pub async fn run(mut self) -> Result<(), PipelineError> {
        let stop = self.app.process.stop.clone();
        let mut round = Vec::with_capacity(MAX_ROUND);
        loop {
            let wait = self.wait();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.queue.recv_many(&mut round, MAX_ROUND) => if count == 0 { break },
                () = tokio::time::sleep(wait) => {}
            }
            self.metrics.queued.set(self.queue.len() as i64);
            let arrivals = std::mem::take(&mut round);
            self.round(arrivals).await?;
        }
        self.finish().await;
        Ok(())
    }

    /// Reads all states. Returns when the newest row arrived.
    async fn load(&mut self) -> Result<Option<UnixMillis>, StoreError> {
        let Memory {
            hosts,
            schemas,
            max_id,
            last_arrival,
            tail_rows,
        } = rebuild::rebuild(&self.app.store, &self.app.config.rules).await?;
        self.app.ids.skip_past(max_id);
        self.hosts = hosts;
        self.schemas = schemas;
        self.deadlines = Deadlines::default();
        self.metrics.hosts.set(self.hosts.len() as i64);
        let now = self.app.clock.now();
        let mut live = Vec::with_capacity(self.hosts.len());
        for entry in self.hosts.values_mut() {
            queue_deadline(&mut self.deadlines, entry, &self.app, self.grace_until);
            live.push((entry.id, entry.now(&self.schemas)));
        }
        self.app.live.update(live);
        let took_ms = self.app.clock.now().since(now).0;
        tracing::info!(
            hosts = self.hosts.len(),
            tail.rows = tail_rows,
            took_ms,
            "states rebuilt"
        );
        Ok(last_arrival)
    }

    /// Notes the collector's own gap, and ends alerts of rules that no longer exist.
    async fn start(
        &mut self,
        node: Uuid,
        last_alive: Option<UnixMillis>,
    ) -> Result<(), StoreError> {
        let now = self.app.clock.now();
        let mut writes = Writes {
            alive: true,
            ..Writes::default()
        };
        if let Some(from) = last_alive.filter(|from| *from < now) {
            writes.evidence.push(collector_down(from, now));
        }
        for entry in self.hosts.values_mut() {
            let ended = alerts::drop_removed_rules(&mut entry.alerts, &self.app.config.rules, now);
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
        commit(&self.app, &self.held, &writes, now).await?;
        self.alive_at = now;
        self.metrics.alive_at.set(now.0);
        self.begin_grace(now);
        Ok(())
    }

    /// Agents need time to come back before silence means anything.
    fn begin_grace(&mut self, now: UnixMillis) {
        self.grace_until = now + DurationMs(self.app.config.silence.grace_ms);
        self.deadlines = Deadlines::default();
        for entry in self.hosts.values_mut() {
            entry.wake_at = None;
            queue_deadline(&mut self.deadlines, entry, &self.app, self.grace_until);
        }
    }

    fn wait(&self) -> Duration {
        let until_next = self
            .deadlines
            .next()
            .map_or(IDLE, |at| at.since(self.app.clock.now()).to_std());
        until_next.clamp(Duration::from_millis(1), IDLE)
    }

    /// One round: decide on everything that is here, commit once, answer.
    async fn round(&mut self, arrivals: Vec<Arrival>) -> Result<(), PipelineError> {
        let now = self.app.clock.now();
        let mut writes = Writes::default();
        let mut replies: Vec<Reply> = Vec::with_capacity(arrivals.len());
        let mut live: Vec<HostId> = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            let Arrival {
                host,
                at,
                batch,
                reply,
            } = arrival;
            let answer = self.one(host, at, &batch, &mut writes).await;
            if answer.is_ok() {
                live.push(host);
            }
            replies.push((reply, answer));
        }
        // Deadlines count only once everything that arrived has been looked at.
        if self.queue.is_empty() {
            self.deadlines(now, &mut writes, &mut live);
        }
        self.alive(now, &mut writes);
        self.checkpoint(&mut writes);
        if writes.is_empty() {
            answer(replies);
            return Ok(());
        }
        let begun = tokio::time::Instant::now();
        match commit(&self.app, &self.held, &writes, now).await {
            Ok(touched) => {
                self.metrics.commit_s.observe(begun.elapsed().as_secs_f64());
                self.metrics.rounds.inc();
                self.metrics.frames.inc_by(writes.heartbeats.len() as u64);
                self.committed(now, &writes);
                answer(replies);
                self.publish(live);
                for ticket in touched {
                    self.app.live.hint(Hint::Ticket(ticket.uuid()));
                }
                Ok(())
            }
            Err(StoreError::LeaseLost) => Err(PipelineError::LeaseLost),
            Err(error) => {
                self.failed(&error, replies).await;
                Ok(())
            }
        }
    }

    /// One batch of one host.
    async fn one(
        &mut self,
        host: HostId,
        at: UnixMillis,
        batch: &Batch,
        writes: &mut Writes,
    ) -> Result<Ack, NotTaken> {
        if !self.hosts.contains_key(&host) {
            match rebuild::one_host(&self.app.store, host).await {
                Ok(Some(entry)) => {
                    self.hosts.insert(host, entry);
                    self.metrics.hosts.set(self.hosts.len() as i64);
                }
                Ok(None) => return Err(NotTaken::UnknownHost),
                Err(error) => {
                    tracing::warn!(host.id = %host, "failed to read a host: {error}");
                    return Err(NotTaken::Busy);
                }
            }
        }
        self.learn_schemas(batch, writes);
        let Some(entry) = self.hosts.get_mut(&host) else {
            return Err(NotTaken::UnknownHost);
        };
        let app = &self.app;
        let mut context = Context {
            rules: &app.config.rules,
            policy: &app.config.policy,
            schemas: &self.schemas,
            row_id: &mut || app.ids.next(at),
            alert_id: &mut || AlertId(Uuid::now_v7()),
        };
        let decision = decide(entry, batch, at, &mut context);
        queue_deadline(&mut self.deadlines, entry, app, self.grace_until);
        self.metrics.repeats.inc_by(decision.repeats);
        for rejected in &decision.ack.rejected {
            let reason = Reason {
                reason: rejected.reason.as_str().to_owned(),
            };
            self.metrics.rejected.get_or_create(&reason).inc();
        }
        let ack = decision.ack.clone();
        collect(entry, decision, writes);
        Ok(ack)
    }

    /// Takes in the schemas that a batch brings, if their identifiers are what they should be.
    fn learn_schemas(&mut self, batch: &Batch, writes: &mut Writes) {
        for offered in &batch.schemas {
            if self.schemas.get(offered.id).is_some()
                || metric::schema_id(&offered.names) != offered.id
            {
                continue;
            }
            let names = offered.names.clone();
            if self.schemas.add(offered.id, names, &self.app.config.rules) {
                writes.schemas.push((offered.id, offered.names.clone()));
            }
        }
    }

    fn deadlines(&mut self, now: UnixMillis, writes: &mut Writes, live: &mut Vec<HostId>) {
        while let Some((at, host)) = self.deadlines.pop_due(now) {
            let Some(entry) = self.hosts.get_mut(&host) else {
                continue;
            };
            if entry.wake_at != Some(at) {
                continue;
            }
            entry.wake_at = None;
            let app = &self.app;
            let silent = entry
                .state
                .silence_deadline(app.config.silence.after())
                .is_some_and(|deadline| deadline.max(self.grace_until) <= now);
            let mut context = Context {
                rules: &app.config.rules,
                policy: &app.config.policy,
                schemas: &self.schemas,
                row_id: &mut || app.ids.next(now),
                alert_id: &mut || AlertId(Uuid::now_v7()),
            };
            let decision = decide_deadline(entry, silent, now, &mut context);
            queue_deadline(&mut self.deadlines, entry, app, self.grace_until);
            if decision.durable {
                live.push(host);
            }
            collect(entry, decision, writes);
        }
    }

    /// Notes every few seconds that the collector lives; after a longer pause (it was stopped, or
    /// could not commit) the pause itself becomes evidence.
    fn alive(&mut self, now: UnixMillis, writes: &mut Writes) {
        let since = now.since(self.alive_at);
        writes.alive = since >= ALIVE_EVERY;
        if since >= COLLECTOR_GAP {
            writes.evidence.push(collector_down(self.alive_at, now));
            tracing::warn!(gap_ms = since.0, "the collector itself was held up");
            self.begin_grace(now);
        }
    }

    /// Writes the states of some hosts that have not been written for long: a slice of all hosts
    /// each round, so that no round pays for all.
    fn checkpoint(&mut self, writes: &mut Writes) {
        if !writes.alive {
            return;
        }
        if self.checkpoint_queue.is_empty() {
            self.checkpoint_queue = self.hosts.keys().copied().collect();
        }
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
            let Some(entry) = self.hosts.get(&host) else {
                continue;
            };
            let written = writes.states.iter().any(|state| state.host == host);
            if entry.last_id > entry.written_id
                && !written
                && let Ok(state) = entry.to_write()
            {
                writes.states.push(state);
            }
        }
    }

    fn committed(&mut self, now: UnixMillis, writes: &Writes) {
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

    fn publish(&self, mut live: Vec<HostId>) {
        live.sort_unstable();
        live.dedup();
        let now: Vec<(HostId, HostNow)> = live
            .into_iter()
            .filter_map(|id| Some((id, self.hosts.get(&id)?.now(&self.schemas))))
            .collect();
        self.app.live.update(now);
    }

    /// A commit failed, or its outcome is unknown: memory may be ahead of the store. The agents
    /// keep what they sent; the states are read again before anything else is decided.
    async fn failed(&mut self, error: &StoreError, replies: Vec<Reply>) {
        tracing::error!("failed to commit a round, reading the states again: {error}");
        self.metrics.failed_rounds.inc();
        answer(
            replies
                .into_iter()
                .map(|(to, _)| (to, Err(NotTaken::Busy)))
                .collect(),
        );
        while let Err(error) = self.load().await {
            tracing::error!("failed to read the states: {error}");
            tokio::select! {
                () = self.app.process.stop.cancelled() => return,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Answers what is queued, and writes all states, so that the next start reads no tail.
    async fn finish(&mut self) {
        self.queue.close();
        let mut rest = Vec::new();
        while let Ok(arrival) = self.queue.try_recv() {
            rest.push(arrival);
        }
        if let Err(error) = self.round(rest).await {
            tracing::error!("failed to finish the queue: {error}");
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

fn collect(entry: &HostEntry, decision: Decision, writes: &mut Writes) {
    writes.heartbeats.extend(decision.heartbeats);
    writes.evidence.extend(decision.evidence);
    writes.events.extend(decision.events);
    if !decision.changes.is_empty() {
        let subject = subject_of(entry);
        let changes = decision
            .changes
            .into_iter()
            .map(|change| (subject.clone(), change));
        writes.changes.extend(changes);
    }
    if !decision.durable {
        return;
    }
    match entry.to_write() {
        // A host may be decided on twice in a round: the later state stands.
        Ok(state) => {
            writes.states.retain(|earlier| earlier.host != state.host);
            writes.states.push(state);
        }
        Err(error) => tracing::error!(host.id = %entry.id, "a state has no JSON form: {error}"),
    }
}

fn subject_of(entry: &HostEntry) -> Subject {
    Subject {
        host: entry.id,
        name: entry.name.clone(),
        client: entry.client,
        contract: entry.contract,
    }
}

fn queue_deadline(
    deadlines: &mut Deadlines,
    entry: &mut HostEntry,
    app: &App,
    grace_until: UnixMillis,
) {
    let silence = entry.state.silence_deadline(app.config.silence.after());
    let silence = silence.map(|deadline| deadline.max(grace_until));
    let timed = alerts::next_deadline(&entry.alerts);
    if let Some(at) = silence.into_iter().chain(timed).min() {
        deadlines.want(entry.id, at, &mut entry.wake_at);
    }
}

fn collector_down(from: UnixMillis, to: UnixMillis) -> Evidence {
    Evidence {
        host: None,
        kind: EvidenceKind::CollectorDown,
        valid_from: from,
        valid_to: to,
        recorded_at: to,
    }
}

fn answer(replies: Vec<Reply>) {
    for (to, answer) in replies {
        // The agent may have hung up meanwhile; it will send again.
        drop(to.send(answer));
    }
}
