//! The loop that owns every host's state. One task, so that a host has exactly one decider and
//! decisions need no locks.

mod begin;
mod changes;
mod hold_up;
mod isolate;
mod lost;
mod recovery;
mod silence;
mod upkeep;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::tz::TimeZone;
use tokio::sync::mpsc;
use watchkeep_core::{
    alerts,
    evidence::{Evidence, EvidenceKind},
    host::Origin,
    ids::{AlertId, ContractId},
};
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis,
    wire::heartbeat::{Ack, Batch},
};

use self::{hold_up::Liveness, isolate::Isolation, recovery::Recovery};
use super::{
    Arrival, Knocks, NotTaken,
    commit::{Subject, Writes, commit},
    deadlines::Deadlines,
    decide::{Context, Decision, admit, decide},
    hosts::HostEntry,
    incidents::{Incidents, RoundChanges},
    metrics::{Metrics, Reason},
    pulse::Pulse,
    rebuild,
    schemas::Schemas,
};
use crate::{
    app::App,
    live::{Hint, HostNow},
    own::RecentHoldUps,
    store::{
        StoreError,
        fleet::{self, HostChange, PARTITIONS},
        leases::Held,
    },
};

/// How long a lease lasts unless renewed.
pub(in crate::ingest) const LEASE: DurationMs = DurationMs::from_secs(15);
/// Most batches in one round: bounds the size of a transaction and the wait of its first batch.
const MAX_ROUND: usize = 512;
/// No further batch is added to a round with so many frames: after an outage of the network each host
/// comes back with all frames of that time.
const MAX_ROUND_FRAMES: usize = 2_048;
/// Rounds begin at least this far apart. A commit costs a synchronous write and several switches
/// between threads whatever it holds, so under load arrivals are gathered; one that comes after a
/// pause is committed at once.
const PACE: Duration = Duration::from_millis(20);
/// Longest sleep of an idle loop.
const IDLE: Duration = Duration::from_millis(250);

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

/// An answer that is held back until the round is committed, with what it answers.
struct Reply {
    arrival: Arrival,
    answer: Result<Ack, NotTaken>,
}

/// What one round does.
struct Round {
    now: UnixMillis,
    /// When the newest batch of the round arrived.
    newest_arrival: Option<UnixMillis>,
    writes: Writes,
    incidents: RoundChanges,
    /// Hosts about which pages show something else after it.
    live: Vec<HostId>,
    /// Hosts that pages no longer show after it.
    gone: Vec<HostId>,
}

impl Round {
    fn new(now: UnixMillis) -> Self {
        Self {
            now,
            newest_arrival: None,
            writes: Writes::default(),
            incidents: RoundChanges::default(),
            live: Vec::new(),
            gone: Vec::new(),
        }
    }
}

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
    /// Hosts whose silence deadline has passed and that are not decided on yet.
    waiting: BTreeSet<HostId>,
    /// More could be decided on than one round takes.
    has_more: bool,
    incidents: Incidents,
    /// No host is called silent before this instant.
    grace_until: UnixMillis,
    pulse: Arc<Pulse>,
    /// The end of the last stall that was acted upon.
    stalled_until: UnixMillis,
    /// A stall ended since the round before.
    has_stalled: bool,
    /// Requests that arrive before this instant may have waited while the process did not run.
    waited_until: UnixMillis,
    knocks: Arc<Knocks>,
    /// The last instant of which it is proven that the collector could commit.
    alive_at: UnixMillis,
    /// How often the collector was held up lately.
    hold_ups: RecentHoldUps,
    /// Hosts left in this pass of checkpoints.
    checkpoint_queue: Vec<HostId>,
    /// The time zones of contracts, whose days end the rows that hosts prove.
    zones: HashMap<ContractId, TimeZone>,
    /// Set while the states in memory can't be relied on.
    recovery: Option<Recovery>,
    isolation: Isolation,
}

impl Pipeline {
    /// Runs until the process stops.
    pub async fn run(mut self) -> Result<(), PipelineError> {
        let stop = self.app.process.stop.clone();
        self.pulse.start(&self.app);
        let mut changes = changes::poll(&self.app);
        let mut begun = tokio::time::Instant::now();
        loop {
            let wait = self.wait();
            let mut round = Vec::new();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                first = self.queue.recv() => {
                    let Some(first) = first else { break };
                    round.push(first);
                    self.gather(&mut round, begun + PACE).await;
                }
                () = tokio::time::sleep(wait) => {}
            }
            begun = tokio::time::Instant::now();
            self.metrics.queued.set(self.queue.len() as i64);
            let changed = changes.try_recv().unwrap_or_default();
            self.round(round, changed).await?;
        }
        self.finish().await;
        Ok(())
    }

    /// One round over what is queued at this moment, for tests that move the clock by hand: what
    /// [`Pipeline::run`] does each time it wakes. Returns whether the next one would begin at once.
    pub async fn turn(&mut self) -> Result<bool, PipelineError> {
        let mut round = Vec::new();
        self.fill(&mut round);
        let changes = fleet::changes(&self.app.store, changes::MAX_CHANGES).await;
        self.round(round, changes.unwrap_or_default()).await?;
        Ok(!self.queue.is_empty() || self.wait().is_zero())
    }

    /// Takes in what else arrives until `end`, up to a full round.
    async fn gather(&mut self, round: &mut Vec<Arrival>, end: tokio::time::Instant) {
        if round.len() + self.queue.len() < MAX_ROUND {
            tokio::time::sleep_until(end).await;
        }
        self.fill(round);
    }

    /// Takes in what is queued, up to a full round.
    pub(super) fn fill(&mut self, round: &mut Vec<Arrival>) {
        let mut frames: usize = round.iter().map(|one| one.batch.frames.len()).sum();
        while round.len() < MAX_ROUND
            && frames < MAX_ROUND_FRAMES
            && let Ok(arrival) = self.queue.try_recv()
        {
            frames += arrival.batch.frames.len();
            round.push(arrival);
        }
    }

    fn wait(&self) -> Duration {
        if self.has_more && !self.is_recovering() {
            return Duration::ZERO;
        }
        let next = if self.is_recovering() {
            self.recovery_at()
        } else {
            self.deadlines.next()
        };
        let until_next = next.map_or(IDLE, |at| at.since(self.app.clock.now()).to_std());
        until_next.clamp(Duration::from_millis(1), IDLE)
    }

    /// One round: decide on everything that is here, commit once, answer.
    async fn round(
        &mut self,
        arrivals: Vec<Arrival>,
        changes: Vec<HostChange>,
    ) -> Result<(), PipelineError> {
        if !self.recover().await? {
            self.refuse(arrivals);
            return Ok(());
        }
        self.isolation.forget_round();
        let (arrivals, suspect) = self.put_suspects_aside(arrivals);
        let mut round = Round::new(self.app.clock.now());
        self.notice_stall(round.now);
        self.follow_changes(changes, &mut round).await;
        let mut replies: Vec<Reply> = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            let answer = self.one(&arrival, &arrival.batch, &mut round).await;
            if matches!(answer, Ok(_) | Err(NotTaken::Quarantined)) {
                round.live.push(arrival.host);
            }
            if answer.as_ref().is_ok_and(|ack| ack.accepted > 0) {
                self.settle_lost_state(arrival.host, &mut round).await;
            }
            round.newest_arrival = round.newest_arrival.max(Some(arrival.at));
            replies.push(Reply { arrival, answer });
        }
        if self.alive(round.now, &mut round.writes) == Liveness::Unbroken {
            self.judge_silence(&mut round);
        }
        let is_listening = round.now >= self.grace_until;
        let incidents = std::mem::take(&mut round.incidents);
        round.writes.incidents = self.incidents.writes(round.now, is_listening, incidents);
        self.checkpoint(&mut round.writes).await;
        self.write(round, replies).await?;
        self.take_suspects(suspect).await
    }

    /// Commits a round, and then answers.
    async fn write(&mut self, round: Round, replies: Vec<Reply>) -> Result<(), PipelineError> {
        if round.writes.is_empty() {
            answer(replies);
            return Ok(());
        }
        match self.commit(&round.writes, round.now).await {
            Ok(()) => {
                answer(replies);
                self.publish(round.live);
                self.app.live.remove(&round.gone);
                Ok(())
            }
            Err(StoreError::LeaseLost) => Err(PipelineError::LeaseLost),
            Err(error) if error.is_data() => self.write_apart(round, replies, error).await,
            Err(error) => self.failed(&error, replies).await,
        }
    }

    /// Commits, and notes what that means for the pipeline and for pages.
    async fn commit(&mut self, writes: &Writes, now: UnixMillis) -> Result<(), StoreError> {
        let begun = tokio::time::Instant::now();
        let done = commit(&self.app, &self.held, writes, now).await?;
        self.metrics.commit_s.observe(begun.elapsed().as_secs_f64());
        self.metrics.rounds.inc();
        self.metrics.frames.inc_by(writes.heartbeats.len() as u64);
        self.committed(now, writes);
        self.incidents.committed(&done.incidents);
        for ticket in done.tickets {
            self.app.live.hint(Hint::Ticket(ticket.uuid()));
        }
        Ok(())
    }

    /// One batch of one host: what arrived, or a part of its frames.
    async fn one(
        &mut self,
        arrival: &Arrival,
        batch: &Batch,
        round: &mut Round,
    ) -> Result<Ack, NotTaken> {
        let (host, at) = (arrival.host, arrival.at);
        let origin = Origin {
            from: &arrival.from,
            trust: &arrival.trust,
        };
        self.look_up(host).await?;
        let Some(entry) = self.hosts.get_mut(&host) else {
            return Err(NotTaken::UnknownHost);
        };
        if !entry.is_accepted(origin.trust) {
            return Err(NotTaken::UnknownHost);
        }
        if entry.state.asks_again(batch, at, at < self.waited_until) {
            self.knocks.note(host, at);
            return Err(NotTaken::Busy);
        }
        self.isolation.remember(entry);
        let app = &self.app;
        entry.take_policy(&app.policies);
        let mut context = Context {
            rules: &app.config.rules,
            is_in_incident: self.incidents.has(host),
            row_id: &mut || app.ids.next(at),
            alert_id: &mut || AlertId(app.ids.uuid(at)),
        };
        let (mut admission, refused) = admit(entry, batch, origin, at, &mut context);
        let left = &mut round.incidents;
        self.incidents
            .take_left(host, &entry.name, &mut admission.changes, left);
        if let Some(refused) = refused {
            queue_deadline(&mut self.deadlines, entry, app, self.grace_until);
            collect(entry, admission, &mut round.writes);
            return Err(refused);
        }
        let learned = entry
            .schemas
            .learn(batch, at, &mut self.schemas, &app.config.rules);
        round.writes.schemas.learn(host, learned);
        let mut decision = decide(entry, batch, at, &mut context);
        self.incidents
            .take_left(host, &entry.name, &mut decision.changes, left);
        if !decision.heartbeats.is_empty() {
            entry.note_heard(at);
        }
        queue_deadline(&mut self.deadlines, entry, app, self.grace_until);
        self.metrics.repeats.inc_by(decision.repeats);
        for rejected in &decision.ack.rejected {
            let reason = Reason {
                reason: rejected.reason.as_str().to_owned(),
            };
            self.metrics.rejected.get_or_create(&reason).inc();
        }
        let ack = decision.ack.clone();
        collect(entry, admission, &mut round.writes);
        collect(entry, decision, &mut round.writes);
        Ok(ack)
    }

    /// Reads a host that is not in memory.
    async fn look_up(&mut self, host: HostId) -> Result<(), NotTaken> {
        if self.hosts.contains_key(&host) {
            return Ok(());
        }
        let (schemas, rules) = (&mut self.schemas, &self.app.config.rules);
        match rebuild::one_host(&self.app.store, host, schemas, rules).await {
            Ok(Some(entry)) => {
                self.hosts.insert(host, entry);
                self.metrics.hosts.set(self.hosts.len() as i64);
                Ok(())
            }
            Ok(None) => Err(NotTaken::UnknownHost),
            Err(error) => {
                if !error.is_outage() {
                    tracing::warn!(host.id = %host, "failed to read a host: {error}");
                }
                Err(NotTaken::Busy)
            }
        }
    }

    fn publish(&self, mut live: Vec<HostId>) {
        live.sort_unstable();
        live.dedup();
        let now: Vec<(HostId, HostNow)> = live
            .into_iter()
            .filter_map(|id| {
                let before = self.app.live.host(id);
                let entry = self.hosts.get(&id)?;
                Some((id, entry.now(&self.app.config.rules, before.as_deref())))
            })
            .collect();
        self.app.live.update(now);
    }
}

fn collect(entry: &HostEntry, decision: Decision, writes: &mut Writes) {
    let quarantined = decision.quarantined.map(|since| (entry.id, since));
    writes.quarantined.extend(quarantined);
    let version = decision.agent_version.map(|version| (entry.id, version));
    writes.agent_versions.extend(version);
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
        // A host may be decided on twice in a round: the later state is kept.
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
    let silence = entry
        .silence_deadline(app.config.silence)
        .map(|deadline| deadline.max(grace_until));
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
    for reply in replies {
        // The agent may have disconnected meanwhile; it will send again.
        drop(reply.arrival.reply.send(reply.answer));
    }
}
