//! One simulated agent: it beats on its schedule, keeps what is not acknowledged, and comes back
//! after failures as the protocol asks (back-off with full jitter, `Retry-After`, schemas again).

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use watchkeep_shared::wire::{
    PROTOCOL_VERSION,
    codec::Encoder,
    heartbeat::{Ack, Batch, Clocks, Event, GoodbyeReason},
    paths,
    problem::ProblemType,
};

use super::{
    connection::{Answer, BodyEncoding, Connection},
    identity::Identity,
    journal::{Acknowledged, Journal},
    machine::{Forced, Machine},
    options::{Mode, Options, Pace},
    spool::{Owed, Spool},
    stats::Stats,
    timings::BreachLog,
};
use crate::{clock, loopback::Target};

/// First wait after a failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Wait after a 503 or 429 without `Retry-After`.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// What all agents of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) target: Target,
    /// How many agents the run has.
    pub(super) agents: usize,
    pub(super) journal: Option<Journal>,
    pub(super) breaches: BreachLog,
    pub(super) stop: CancellationToken,
    /// Compressors are large, so that agents borrow them.
    pub(super) encoders: Mutex<Vec<Encoder>>,
}

impl Shared {
    fn lock_encoders(&self) -> MutexGuard<'_, Vec<Encoder>> {
        self.encoders.lock().expect("no holder panics")
    }
}

/// When the run starts, is half over, and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    pub(super) start: Instant,
    pub(super) middle: Instant,
    pub(super) end: Instant,
}

/// One agent.
#[derive(Debug)]
pub(super) struct Agent {
    shared: Arc<Shared>,
    stats: Arc<Stats>,
    n: usize,
    identity: Identity,
    tls: Arc<ClientConfig>,
    machine: Machine,
    spool: Spool,
    connection: Option<Connection>,
    policy_version: u64,
    schema_known: bool,
    failures_in_a_row: u32,
    refused_for_good: bool,
    random: SmallRng,
}

impl Agent {
    pub(super) fn new(
        shared: Arc<Shared>,
        stats: Arc<Stats>,
        n: usize,
        identity: Identity,
        tls: Arc<ClientConfig>,
    ) -> Self {
        let Options {
            seed,
            log_matches_per_1000,
            ..
        } = shared.options;
        Self {
            machine: Machine::new(n, seed, log_matches_per_1000),
            random: SmallRng::seed_from_u64(seed.wrapping_add(n as u64)),
            shared,
            stats,
            n,
            identity,
            tls,
            spool: Spool::default(),
            connection: None,
            policy_version: 0,
            schema_known: false,
            failures_in_a_row: 0,
            refused_for_good: false,
        }
    }

    /// Connects and sends the frames of the past that the options ask for, before the run.
    pub(super) async fn prepare(&mut self) {
        let now = Instant::now();
        let step = Duration::from_millis(self.shared.options.stated_interval_ms().into());
        for back in (1..=self.shared.options.prefill_frames).rev() {
            self.make(step * back, now);
        }
        // A failure here is counted and made good during the run.
        let _ = if self.spool.is_empty() {
            self.connect().await
        } else {
            self.settle().await
        };
    }

    /// Beats from `timeline.start` to `timeline.end`, then drains. Returns how many frames are
    /// still owed.
    pub(super) async fn run(mut self, timeline: Timeline, stats: Arc<Stats>) -> usize {
        self.stats = stats;
        if let Some(connection) = &mut self.connection {
            connection.restart_traffic();
        }
        self.beat(timeline).await;
        if !self.falls_silent() {
            self.finish().await;
        }
        self.close();
        self.stats.lost.add(self.spool.lost());
        self.spool.len()
    }

    fn falls_silent(&self) -> bool {
        self.shared.options.mode == Mode::HalfDead && self.n % 2 == 1
    }

    async fn beat(&mut self, timeline: Timeline) {
        let mut due = self.first_beat(timeline);
        let mut middle = match self.shared.options.mode {
            Mode::Storm | Mode::HalfDead => Some(timeline.middle),
            Mode::Steady | Mode::Ramp => None,
        };
        let mut retry_at = timeline.start;
        while !self.refused_for_good && !self.shared.stop.is_cancelled() {
            let mut now = Instant::now();
            if now >= timeline.end {
                return;
            }
            if middle.is_some_and(|middle| now >= middle) {
                middle = None;
                self.middle(timeline).await;
                if self.falls_silent() {
                    return;
                }
                now = Instant::now();
            }
            self.make_due(now, &mut due, timeline);
            if retry_at <= now && !self.spool.is_empty() {
                retry_at = match self.settle().await {
                    Ok(()) => now,
                    Err(wait) => Instant::now() + wait,
                };
            }
            let wake = match self.shared.options.pace {
                _ if self.spool.is_empty() => due,
                Pace::Every(_) => due.min(retry_at),
                Pace::AsFastAsAcknowledged => retry_at,
            };
            self.sleep_until(wake.min(timeline.end).min(middle.unwrap_or(wake)))
                .await;
        }
    }

    /// Sleeps until then, or until the run is to stop: a request under way is never cut off by it.
    async fn sleep_until(&self, wake: Instant) {
        tokio::select! {
            () = sleep_until(wake) => {}
            () = self.shared.stop.cancelled() => {}
        }
    }

    fn first_beat(&self, timeline: Timeline) -> Instant {
        let agents = self.shared.agents;
        let share = self.n as f64 / agents as f64;
        let spread = match (self.shared.options.mode, self.shared.options.pace) {
            (Mode::Ramp, _) => timeline.middle - timeline.start,
            (_, Pace::Every(interval)) => interval,
            (_, Pace::AsFastAsAcknowledged) => Duration::ZERO,
        };
        timeline.start + spread.mul_f64(share)
    }

    /// What the mode has in store for half-time.
    async fn middle(&mut self, timeline: Timeline) {
        if self.falls_silent() {
            // The connection stays open: a machine that lost its power closes nothing.
            self.sleep_until(timeline.end).await;
        } else if self.shared.options.mode == Mode::Storm {
            self.close();
            let dropped = Instant::now();
            let jitter = self.shared.options.jitter.as_millis() as u64;
            let wait = Duration::from_millis(self.random.random_range(0..=jitter));
            sleep_until(dropped + wait).await;
            while self.connect().await.is_err()
                && Instant::now() < timeline.end
                && !self.shared.stop.is_cancelled()
            {
                let wait = self.backoff();
                tokio::time::sleep(wait).await;
            }
            self.stats.recovered(dropped.elapsed());
        }
    }

    fn make_due(&mut self, now: Instant, due: &mut Instant, timeline: Timeline) {
        match self.shared.options.pace {
            Pace::Every(interval) => {
                while *due <= now && *due < timeline.end {
                    self.make(now - *due, now);
                    *due += interval;
                }
            }
            Pace::AsFastAsAcknowledged => {
                if self.spool.is_empty() && *due <= now {
                    self.make(Duration::ZERO, now);
                    *due = now;
                }
            }
        }
    }

    /// Makes a frame whose clocks read what they read `age` ago.
    fn make(&mut self, age: Duration, now: Instant) {
        let clocks = self.clocks(age);
        let interval_ms = self.shared.options.stated_interval_ms();
        let forced = self.forced(now);
        let frame = self.machine.beat(clocks, interval_ms, forced.as_ref());
        if forced.is_some() {
            self.shared.breaches.made(self.identity.host, now);
        }
        self.stats.made.add(1);
        let made = now.checked_sub(age).unwrap_or(now);
        self.spool.push(Owed { frame, made });
    }

    fn forced(&self, now: Instant) -> Option<Forced> {
        let breach = self.shared.options.breach.as_ref()?;
        let breaks = self.n < breach.agents && self.shared.breaches.has_begun(now);
        breaks.then(|| breach.forced.clone())
    }

    /// The simulated machine's clocks, `age` ago.
    fn clocks(&self, age: Duration) -> Clocks {
        let now = clock::clocks_now();
        let age = age.as_millis() as i64;
        Clocks {
            wall_ms: now.wall_ms - age,
            mono_ms: now.mono_ms + self.identity.boot_offset_ms - age,
            boot_ms: now.boot_ms + self.identity.boot_offset_ms - age,
        }
    }

    /// Says goodbye if asked to, and continues until nothing is owed or the time for that is over.
    async fn finish(&mut self) {
        let options = &self.shared.options;
        let deadline = Instant::now() + options.drain;
        if options.goodbye && !self.refused_for_good {
            let clocks = self.clocks(Duration::ZERO);
            let interval_ms = options.stated_interval_ms();
            let mut frame = self.machine.beat(clocks, interval_ms, None);
            let reason = GoodbyeReason::Stop;
            frame.events.push(Event::Goodbye { reason });
            self.stats.made.add(1);
            let made = Instant::now();
            self.spool.push(Owed { frame, made });
        }
        while !self.spool.is_empty() && !self.refused_for_good && Instant::now() < deadline {
            if let Err(wait) = self.settle().await {
                sleep_until(deadline.min(Instant::now() + wait)).await;
            }
        }
    }

    /// Sends until nothing is owed; fails with the time to wait.
    async fn settle(&mut self) -> Result<(), Duration> {
        while !self.spool.is_empty() && !self.refused_for_good {
            let batch = self.spool.next_batch();
            if let Err(wait) = self.exchange(&batch).await {
                self.spool.failed();
                return Err(wait);
            }
            self.failures_in_a_row = 0;
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Duration> {
        if self.connection.as_ref().is_some_and(Connection::is_open) {
            return Ok(());
        }
        self.close();
        match Connection::open(&self.shared.target, self.tls.clone()).await {
            Ok(connection) => {
                self.stats.handshakes.add(1);
                self.connection = Some(connection);
                Ok(())
            }
            Err(error) => {
                self.stats.error(error.kind());
                Err(self.backoff())
            }
        }
    }

    fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            let (handshake, requests) = connection.traffic();
            self.stats.traffic(handshake, requests);
        }
    }

    async fn exchange(&mut self, owed: &[Owed]) -> Result<(), Duration> {
        self.connect().await?;
        let body = self.encode(owed);
        let sent = Instant::now();
        self.stats.sent.add(owed.len() as u64);
        self.stats.requests.add(1);
        let Some(connection) = &mut self.connection else {
            return Err(self.backoff());
        };
        let answer = connection
            .post(paths::HEARTBEATS, BodyEncoding::Zstd, body)
            .await;
        match answer {
            Ok(answer) if answer.status.is_success() => self.read_ack(&answer, owed, sent),
            Ok(answer) => self.read_problem(&answer, owed),
            Err(error) => {
                self.stats.error(error.kind());
                self.close();
                Err(self.backoff())
            }
        }
    }

    fn encode(&self, owed: &[Owed]) -> Vec<u8> {
        let schemas = if self.schema_known {
            Vec::new()
        } else {
            vec![self.machine.schema().clone()]
        };
        let batch = Batch {
            v: PROTOCOL_VERSION,
            agent_version: super::agent_version(),
            boot: self.identity.boot,
            instance: self.machine.instance(),
            sent: self.clocks(Duration::ZERO),
            policy_version: self.policy_version,
            trusts: Vec::new(),
            refused: None,
            troubles: None,
            schemas,
            frames: owed.iter().map(|owed| owed.frame.clone()).collect(),
        };
        let borrowed = self.shared.lock_encoders().pop();
        let mut encoder =
            borrowed.unwrap_or_else(|| Encoder::new().expect("zstd's contexts need only memory"));
        let body = encoder.encode(&batch).expect("a batch has a JSON form");
        self.shared.lock_encoders().push(encoder);
        body
    }

    fn read_ack(&mut self, answer: &Answer, owed: &[Owed], sent: Instant) -> Result<(), Duration> {
        let Ok(ack) = answer.json::<Ack>() else {
            self.stats.error("unreadable_ack");
            return Err(self.backoff());
        };
        if let Some(policy) = ack.policy {
            self.policy_version = policy.version;
        }
        if !ack.unknown_schemas.is_empty() {
            self.stats.error("unknown_schema");
            let was_sent = !self.schema_known;
            self.schema_known = false;
            return if was_sent {
                Err(self.backoff())
            } else {
                Ok(())
            };
        }
        if ack.accepted as usize + ack.rejected.len() != owed.len() {
            self.stats.error("ack_counts_differ");
        }
        let mut seqs: BTreeSet<u64> = owed.iter().map(|owed| owed.frame.seq).collect();
        self.spool.settle(&seqs);
        for rejected in &ack.rejected {
            self.stats.reject(rejected.reason.as_str());
            seqs.remove(&rejected.seq);
        }
        self.schema_known = true;
        self.note_acknowledged(&seqs);
        let now = Instant::now();
        let ages = owed
            .iter()
            .map(|owed| now.saturating_duration_since(owed.made));
        self.stats.acknowledged(now - sent, ages);
        Ok(())
    }

    fn note_acknowledged(&self, seqs: &BTreeSet<u64>) {
        self.stats.acked.add(seqs.len() as u64);
        let host = self.identity.host;
        let instance = self.machine.instance();
        let Some(journal) = &self.shared.journal else {
            return;
        };
        for &seq in seqs {
            let line = Acknowledged {
                host,
                instance,
                seq,
            };
            if journal.add(line).is_err() {
                self.stats.error("journal");
            }
        }
    }

    fn read_problem(&mut self, answer: &Answer, owed: &[Owed]) -> Result<(), Duration> {
        let status = answer.status.as_u16();
        if matches!(status, 429 | 503) {
            self.stats.error(&format!("busy_{status}"));
            let wait = answer.retry_after.unwrap_or(BUSY_WAIT);
            return Err(wait.mul_f64(self.random.random_range(1.0..1.5)));
        }
        let kind = answer.problem().and_then(|problem| problem.known_type());
        match kind {
            Some(kind) => self.stats.error(kind.urn()),
            None => self.stats.error(&format!("status_{status}")),
        }
        match kind {
            Some(ProblemType::CertificateRevoked) => {
                self.refused_for_good = true;
                Ok(())
            }
            Some(_) if answer.status.is_client_error() => {
                let seqs = owed.iter().map(|owed| owed.frame.seq).collect();
                self.spool.settle(&seqs);
                (0..owed.len()).for_each(|_| self.stats.reject("request"));
                Ok(())
            }
            _ => Err(self.backoff()),
        }
    }

    /// A random wait below a bound that doubles with each failure in a row.
    fn backoff(&mut self) -> Duration {
        let bound = BACKOFF_FIRST
            .saturating_mul(2_u32.saturating_pow(self.failures_in_a_row))
            .min(self.shared.options.backoff_max);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        bound.mul_f64(self.random.random_range(0.0..1.0))
    }
}
