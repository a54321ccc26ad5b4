//! The world of a scenario: a manual clock, machines, people, and a collector made of its real
//! parts: pipeline, store, and the workers' ticks. Nothing runs by itself; every second of the
//! scenario each part takes its turn in a fixed order, so that a scenario plays the same each time.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};
use uuid::Uuid;
use watchkeep_collector::{
    app::App,
    clock::Clock,
    ingest::{Inbox, NotTaken, Pipeline, metrics::Metrics},
    notify::{self, Channels},
    own,
    process::Process,
    store::StoreError,
    tickets,
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis, wire::heartbeat::Batch};

use super::{
    channels::Recorders, hostile::Hostile, invariants, invariants::Witness, log::Log,
    machine::Machine, probe::Probe,
};
use crate::support::{Answer, Bench, NOW, arrival, place};

/// How far the clock moves at a time.
const STEP: DurationMs = DurationMs::from_secs(1);

/// A machine of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host(pub(super) usize);

/// See the module.
pub(crate) struct World {
    pub(super) bench: Bench,
    pub(super) app: App,
    pub(super) now: UnixMillis,
    pub(super) machines: Vec<Machine>,
    /// `None` while the collector does not run.
    pub(super) pipeline: Option<Pipeline>,
    pub(super) inbox: Option<Inbox>,
    pub(super) log: Log,
    pub(super) probe: Probe,
    pub(super) witness: Witness,
    pub(super) recorders: Recorders,
    channels: Channels,
    pub(super) hostile: Option<Hostile>,
    /// How long each second's heartbeats really took to be answered.
    pub(super) answered_in: Vec<Duration>,
    /// Most frames that one round committed.
    pub(super) largest_round: u64,
    /// Of all pipelines that this scenario starts.
    pub(super) metrics: Arc<Metrics>,
    is_checked: bool,
    pub(super) is_store_failing: bool,
    /// Before this instant the workers find nothing to do, unless something is written.
    idle_until: UnixMillis,
}

impl World {
    /// A collector that has just started, without machines.
    pub(crate) async fn start(bench: Bench) -> Self {
        place(&bench.app).await;
        let probe = Probe::connect(&bench.url).await;
        let recorders = Recorders::default();
        let mut world = Self {
            app: bench.app.clone(),
            now: NOW,
            machines: Vec::new(),
            pipeline: None,
            inbox: None,
            log: Log::default(),
            probe,
            witness: Witness::default(),
            channels: recorders.channels(),
            recorders,
            hostile: None,
            answered_in: Vec::new(),
            largest_round: 0,
            metrics: Arc::default(),
            is_checked: true,
            is_store_failing: false,
            idle_until: NOW,
            bench,
        };
        world.begin().await;
        world
    }

    /// What the collector's parts share.
    pub(super) const fn bench(&self) -> &Bench {
        &self.bench
    }

    /// The scenario's log, after a last look at the invariants.
    pub(crate) async fn finish(mut self) -> String {
        if self.is_checked {
            self.check().await;
        }
        self.log.into_text()
    }

    /// Starts the collector. Its time begins at the wall clock, as in any new process, but not
    /// before what is stored.
    pub(super) async fn begin(&mut self) {
        if self.bench.clock.problem().is_some() {
            let wall = self.now - self.bench.clock.ahead_of_wall();
            self.bench.clock = Clock::manual(wall);
            self.bench.app.clock = self.bench.clock.clone();
        }
        let app = App {
            process: Process::new(),
            ..self.bench.app.clone()
        };
        let (inbox, queue) = mpsc::channel(app.config.agents.queue_batches);
        let node = Uuid::from_u128(9);
        let pipeline = Pipeline::begin(app.clone(), node, Arc::clone(&self.metrics), queue)
            .await
            .unwrap();
        self.app = app;
        self.inbox = Some(inbox);
        self.pipeline = Some(pipeline);
        let now = self.app.clock.now();
        let jump = now.since(self.now);
        self.now = now;
        self.witness.time_jumped(jump, now);
        for machine in &mut self.machines {
            machine.shift(jump);
        }
    }

    // --- Time ---

    /// Lets time pass, one second after the other.
    pub(crate) async fn pass(&mut self, length: DurationMs) {
        self.pass_unchecked(length).await;
        if self.is_checked {
            self.check().await;
        }
    }

    pub(super) async fn pass_unchecked(&mut self, length: DurationMs) {
        let end = self.now + length;
        // Whatever was done before it may have given the workers something to do.
        self.idle_until = self.now;
        while self.now < end {
            self.now = (self.now + STEP).min(end);
            self.bench.clock.set(self.now);
            self.second().await;
        }
    }

    /// One second: the agents send, the collector decides, the workers tick.
    async fn second(&mut self) {
        for machine in &mut self.machines {
            machine.beat_if_due(self.now);
        }
        if self.pipeline.is_none() {
            self.witness
                .collector_could_not_hear(self.now - STEP, self.now);
            for machine in &mut self.machines {
                if machine.arriving(self.now).is_some() {
                    machine.not_taken(self.now);
                }
            }
            return;
        }
        let hostile = match &mut self.hostile {
            Some(host) => host.batches(self.now),
            None => Vec::new(),
        };
        let begun = Instant::now();
        let hostile = self.send_hostile(hostile).await;
        let sent = self.send().await;
        self.collector_turn().await;
        if !sent.is_empty() {
            self.answered_in.push(begun.elapsed());
        }
        if let Some(host) = &mut self.hostile {
            for mut answer in hostile {
                host.sent.count(&answer.try_recv().unwrap());
            }
        }
        for (i, batch, mut answer) in sent {
            match answer.try_recv() {
                Ok(Ok(ack)) => self.machines[i].taken(&batch, &ack, self.now),
                // It is there, and will be asked again; the others are heard.
                Ok(Err(NotTaken::Busy)) => {
                    self.machines[i].asked_again(self.now);
                }
                Err(_) => {
                    self.machines[i].not_taken(self.now);
                    // It was heard before, and is again later; not at this instant.
                    self.witness.collector_could_not_hear(self.now, self.now);
                }
                Ok(Err(_)) => self.machines[i].not_taken(self.now),
            }
        }
        if self.is_store_failing {
            self.witness.collector_could_not_hear(self.now, self.now);
        }
        self.work().await;
    }

    /// What the hostile host sends in this second, before all others.
    async fn send_hostile(&mut self, batches: Vec<Batch>) -> Vec<Answer> {
        let host = self.hostile.as_ref().map(|host| host.host);
        let mut answers = Vec::new();
        for batch in batches {
            answers.push(self.submit(host.unwrap(), batch).await);
        }
        answers
    }

    /// All that agents send in this second.
    async fn send(&mut self) -> Vec<(usize, Batch, Answer)> {
        let mut sent = Vec::new();
        for i in 0..self.machines.len() {
            let machine = &mut self.machines[i];
            if let Some(batch) = machine.arriving(self.now) {
                let host = machine.host;
                let answer = self.submit(host, batch.clone()).await;
                sent.push((i, batch, answer));
            }
        }
        sent
    }

    /// Puts a batch into the queue. While that is full the pipeline takes from it.
    async fn submit(&mut self, host: HostId, batch: Batch) -> Answer {
        let (arrival, answer) = arrival(host, self.now, batch);
        let inbox = self.inbox.clone().unwrap();
        if let Err(TrySendError::Full(arrival)) = inbox.try_send(arrival) {
            self.round().await;
            inbox.try_send(arrival).unwrap();
        }
        answer
    }

    /// The rounds that the pipeline makes at this instant.
    pub(super) async fn collector_turn(&mut self) {
        while self.round().await {}
    }

    /// One round. Returns whether the next one would begin at once.
    async fn round(&mut self) -> bool {
        let Some(pipeline) = &mut self.pipeline else {
            return false;
        };
        let (frames, rounds) = (self.metrics.frames_total(), self.metrics.rounds.get());
        let has_more = Box::pin(pipeline.turn()).await.unwrap();
        self.largest_round = self.largest_round.max(self.metrics.frames_total() - frames);
        // Most rounds have nothing to write.
        if self.metrics.rounds.get() > rounds && self.log.collect(&mut self.probe, self.now).await {
            self.idle_until = self.now;
        }
        has_more
    }

    /// The workers' ticks: escalation, evidence, delivery. They fail only if the store does. In most
    /// seconds they would only find that nothing is due; those are left out, but every tenth.
    async fn work(&mut self) {
        let (app, now) = (self.app.clone(), self.now);
        let is_tenth = now.since(NOW).0 % 10_000 == 0;
        if now < self.idle_until && !is_tenth && !self.is_store_failing {
            return;
        }
        if is_tenth {
            self.is_done(own::tend(&app, now).await);
        }
        self.is_done(tickets::carry_out_due(&app, now).await);
        self.is_done(tickets::keep_evidence(&app, now).await);
        self.is_done(notify::watch(&app, now).await);
        let has_news = self.log.collect(&mut self.probe, now).await;
        if !self.is_store_failing {
            self.deliver().await;
        }
        self.idle_until = if has_news {
            now
        } else {
            self.next_work().await
        };
    }

    /// When something will be due at the earliest. While a message waits or has failed that is at
    /// once: when it is handed over or reported is not this test's to know.
    async fn next_work(&mut self) -> UnixMillis {
        let due: Vec<(Option<i64>,)> = self
            .probe
            .rows(
                "SELECT MIN(escalate_at) FROM ticket WHERE escalate_at IS NOT NULL \
                 UNION ALL SELECT MIN(recheck_at) FROM ticket WHERE recheck_at IS NOT NULL \
                 UNION ALL SELECT MIN(hold_until) FROM ticket WHERE hold_until IS NOT NULL \
                 UNION ALL SELECT MIN(created_at) FROM outbox WHERE state IN ('pending', 'dead') \
                 UNION ALL SELECT MIN(reported_at) FROM recipient WHERE reported_at IS NOT NULL",
            )
            .await;
        let earliest = due.into_iter().filter_map(|(at,)| at).min();
        earliest.map_or(UnixMillis(i64::MAX), UnixMillis)
    }

    fn is_done<T>(&self, outcome: Result<T, StoreError>) {
        if let Err(error) = outcome {
            assert!(self.is_store_failing, "a worker failed: {error}");
        }
    }

    /// Delivers what is due; channels take everything and record it, unless they refuse.
    async fn deliver(&mut self) {
        while notify::tick(&self.app, &self.channels).await.unwrap() > 0 {}
        for one in self.recorders.take() {
            self.log.message(self.now, &one);
        }
    }

    pub(super) fn say(&mut self, text: &str) {
        self.log.comment(self.now, text);
    }

    // --- What was measured ---

    /// Within how many seconds this share of all commits ended, as exact as the metric's buckets.
    pub(super) fn commit_bound_s(&self, share: f64) -> f64 {
        let text = self.metrics.render();
        let buckets = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("watchkeep_commit_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            Some((
                bound.parse().unwrap_or(f64::INFINITY),
                count.parse::<f64>().ok()?,
            ))
        });
        let wanted = self.metrics.rounds.get() as f64 * share;
        let mut fitting = buckets.filter(|(_, count)| *count >= wanted);
        fitting.next().map_or(f64::INFINITY, |(bound, _)| bound)
    }

    // --- Invariants ---

    /// Checks the invariants; panics with the log if one is broken.
    pub(crate) async fn check(&mut self) {
        if let Err(broken) = invariants::check(self).await {
            panic!("{broken}\n\nthe scenario so far:\n{}", self.log.text());
        }
    }

    /// The invariants that are broken now, for the random driver.
    pub(super) async fn broken(&mut self) -> Option<String> {
        invariants::check(self).await.err()
    }

    /// Leaves the checks to the caller.
    pub(super) fn unchecked(mut self) -> Self {
        self.is_checked = false;
        self
    }
}
