//! State of message delivery, in figures: read from the store every few seconds for `/metrics`, `/readyz`,
//! the health page and the banner of every page. Readers never wait for the store.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    TestResult,
    endpoint::{self, Endpoint},
};
use crate::{
    app::App,
    store::{
        StoreError,
        delivery::{self, Queue, Recipient},
        outbox::{Attempt, Message},
    },
};

/// Messages given up in this time are counted.
const DEAD_WITHIN: DurationMs = DurationMs::from_hours(7 * 24);
/// A recipient that fails for this long is a problem that every page shows.
const FAILING_FOR: DurationMs = DurationMs::from_mins(2);
/// A page that waits for this long without any failure means that the queue does not move.
const STUCK_FOR: DurationMs = DurationMs::from_mins(2);
/// Test results kept: one a recipient.
const MAX_TESTS: usize = 256;

/// A label for a channel.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByChannel {
    channel: String,
}

/// Labels for one kind of message on a channel.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByKind {
    channel: String,
    kind: String,
}

/// Labels for attempts.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    channel: String,
    outcome: &'static str,
}

#[derive(Debug, Default)]
struct Metrics {
    pending: Family<ByKind, Gauge<i64, AtomicI64>>,
    oldest_s: Family<ByKind, Gauge<i64, AtomicI64>>,
    dead: Family<ByChannel, Gauge<i64, AtomicI64>>,
    failing: Family<ByChannel, Gauge<i64, AtomicI64>>,
    last_sent_ms: Family<ByChannel, Gauge<i64, AtomicI64>>,
    attempts: Family<ByOutcome, Counter<u64, AtomicU64>>,
    deaths: Family<ByKind, Counter<u64, AtomicU64>>,
}

/// State of message delivery; shared by all parts.
#[derive(Debug, Default)]
pub struct Delivery {
    health: ArcSwap<Health>,
    metrics: Metrics,
    tests: Mutex<Vec<TestResult>>,
    testing: Arc<AtomicBool>,
}

/// A test that runs; ends when it is dropped.
#[derive(Debug)]
pub struct Testing(Arc<AtomicBool>);

impl Drop for Testing {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// How delivery fared at an instant.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// When it was read; `None` before the first time.
    pub at: Option<UnixMillis>,
    /// Every configured recipient.
    pub recipients: Vec<RecipientHealth>,
    /// What waits.
    pub queues: Vec<Queue>,
    /// Messages given up within a week, all channels.
    pub dead: i64,
}

/// State of one configured recipient.
#[derive(Clone, Debug)]
pub struct RecipientHealth {
    pub endpoint: Endpoint,
    /// What the store knows of it; `None` if nothing was sent to it yet.
    pub seen: Option<Recipient>,
}

/// What keeps messages from reaching people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Neither mail nor a webhook is configured.
    NoChannel,
    /// Messages to a recipient fail.
    Failing {
        channel: &'static str,
        recipient: String,
        since: UnixMillis,
        /// The last error.
        error: String,
    },
    /// Pages wait without being tried.
    Stuck { channel: String, since: UnixMillis },
}

impl Problem {
    /// Since when; `None` if since the collector was set up.
    pub const fn since(&self) -> Option<UnixMillis> {
        match self {
            Self::NoChannel => None,
            Self::Failing { since, .. } | Self::Stuck { since, .. } => Some(*since),
        }
    }
}

impl RecipientHealth {
    /// Since when deliveries to it fail.
    pub fn failing_since(&self) -> Option<UnixMillis> {
        self.seen.as_ref()?.failing_since.map(UnixMillis)
    }
}

impl Health {
    /// What keeps messages from reaching people now, the worst first.
    pub fn problems(&self, now: UnixMillis) -> Vec<Problem> {
        if self.at.is_none() {
            return Vec::new();
        }
        if self.recipients.is_empty() {
            return vec![Problem::NoChannel];
        }
        let mut problems = Vec::new();
        for one in &self.recipients {
            let since = one
                .failing_since()
                .filter(|at| now.since(*at) >= FAILING_FOR);
            if let Some(since) = since {
                let error = one.seen.as_ref().and_then(|seen| seen.last_error.clone());
                problems.push(Problem::Failing {
                    channel: one.endpoint.channel,
                    recipient: one.endpoint.recipient.clone(),
                    since,
                    error: error.unwrap_or_default(),
                });
            }
        }
        for queue in self.queues.iter().filter(|queue| queue.kind == "page") {
            let since = UnixMillis(queue.oldest_at);
            let is_failing = self
                .recipients
                .iter()
                .any(|one| one.endpoint.channel == queue.channel && one.failing_since().is_some());
            if !is_failing && now.since(since) >= STUCK_FOR {
                problems.push(Problem::Stuck {
                    channel: queue.channel.clone(),
                    since,
                });
            }
        }
        problems
    }

    /// Copies waiting on a channel.
    pub fn pending(&self, channel: &str) -> i64 {
        let of_channel = self.queues.iter().filter(|one| one.channel == channel);
        of_channel.map(|one| one.pending).sum()
    }

    /// When the oldest copy waiting on a channel was queued.
    pub fn oldest(&self, channel: &str) -> Option<UnixMillis> {
        let of_channel = self.queues.iter().filter(|one| one.channel == channel);
        of_channel.map(|one| UnixMillis(one.oldest_at)).min()
    }

    /// The channels that have recipients.
    pub fn channels(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self
            .recipients
            .iter()
            .map(|one| one.endpoint.channel)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Delivery {
    /// How delivery fared when it was last read.
    pub fn health(&self) -> Arc<Health> {
        self.health.load_full()
    }

    /// The last test of each recipient.
    pub fn tests(&self) -> Vec<TestResult> {
        let tests = self.tests.lock().unwrap_or_else(PoisonError::into_inner);
        tests.clone()
    }

    /// Begins a test, one at a time; `None` while another runs.
    pub fn begin_test(&self) -> Option<Testing> {
        let was_running = self.testing.swap(true, Ordering::SeqCst);
        (!was_running).then(|| Testing(Arc::clone(&self.testing)))
    }

    /// Whether a test runs.
    pub fn is_testing(&self) -> bool {
        self.testing.load(Ordering::SeqCst)
    }

    /// Keeps the results of a test, in place of earlier ones of the same recipients.
    pub fn keep_tests(&self, results: Vec<TestResult>) {
        let mut tests = self.tests.lock().unwrap_or_else(PoisonError::into_inner);
        tests.retain(|old| !results.iter().any(|new| new.endpoint == old.endpoint));
        tests.extend(results);
        let excess = tests.len().saturating_sub(MAX_TESTS);
        tests.drain(..excess);
    }

    /// Puts the figures into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let metrics = &self.metrics;
        registry.register(
            "outbox_pending",
            "Messages waiting to be delivered",
            metrics.pending.clone(),
        );
        registry.register(
            "outbox_oldest_seconds",
            "Age of the oldest message that waits",
            metrics.oldest_s.clone(),
        );
        registry.register(
            "outbox_dead",
            "Messages given up within seven days",
            metrics.dead.clone(),
        );
        registry.register(
            "recipients_failing",
            "Recipients whose last delivery failed",
            metrics.failing.clone(),
        );
        registry.register(
            "delivered_at_ms",
            "When a message was last delivered, milliseconds since the Unix epoch",
            metrics.last_sent_ms.clone(),
        );
        registry.register(
            "delivery_attempts",
            "Attempts to deliver a message, by outcome",
            metrics.attempts.clone(),
        );
        registry.register(
            "delivery_deaths",
            "Messages given up",
            metrics.deaths.clone(),
        );
    }

    pub(super) fn count_attempt(&self, message: &Message, attempt: &Attempt) {
        let channel = message.channel.clone();
        let outcome = match attempt {
            Attempt::Sent => "sent",
            Attempt::Retry(..) => "failed",
            Attempt::Dead(_) => {
                let kind = message.kind.clone();
                let labels = ByKind {
                    channel: channel.clone(),
                    kind,
                };
                self.metrics.deaths.get_or_create(&labels).inc();
                "given_up"
            }
        };
        let labels = ByOutcome { channel, outcome };
        self.metrics.attempts.get_or_create(&labels).inc();
    }

    fn set(&self, health: Health, dead: &[(String, i64)], now: UnixMillis) {
        for channel in health.channels() {
            for kind in ["page", "notice"] {
                let labels = ByKind {
                    channel: channel.to_owned(),
                    kind: kind.to_owned(),
                };
                let queue = health
                    .queues
                    .iter()
                    .find(|one| one.channel == channel && one.kind == kind);
                let age = queue.map_or(0, |one| now.since(UnixMillis(one.oldest_at)).0 / 1_000);
                let pending = queue.map_or(0, |one| one.pending);
                self.metrics.pending.get_or_create(&labels).set(pending);
                self.metrics.oldest_s.get_or_create(&labels).set(age);
            }
            let labels = ByChannel {
                channel: channel.to_owned(),
            };
            let of_channel = || {
                let all = health.recipients.iter();
                all.filter(|one| one.endpoint.channel == channel)
            };
            let failing = of_channel().filter(|one| one.failing_since().is_some());
            let failing = i64::try_from(failing.count()).unwrap_or(i64::MAX);
            self.metrics.failing.get_or_create(&labels).set(failing);
            let last = of_channel().filter_map(|one| one.seen.as_ref()?.last_sent_at);
            if let Some(last) = last.max() {
                self.metrics.last_sent_ms.get_or_create(&labels).set(last);
            }
            let of_dead = dead.iter().find(|(name, _)| name == channel);
            let count = of_dead.map_or(0, |(_, count)| *count);
            self.metrics.dead.get_or_create(&labels).set(count);
        }
        self.health.store(Arc::new(health));
    }
}

/// Reads the state of delivery.
pub(super) async fn refresh(app: &App) -> Result<(), StoreError> {
    let now = app.clock.now();
    let known = delivery::recipients(&app.store).await?;
    let mut recipients = Vec::<RecipientHealth>::new();
    for endpoint in endpoint::endpoints(&app.config) {
        let seen = known
            .iter()
            .find(|one| endpoint.is(&one.channel, &one.address));
        recipients.push(RecipientHealth {
            seen: seen.cloned(),
            endpoint,
        });
    }
    let dead: Vec<(String, i64)> = delivery::dead_counts(&app.store, now - DEAD_WITHIN)
        .await?
        .into_iter()
        .map(|row| (row.channel, row.dead))
        .collect();
    let health = Health {
        at: Some(now),
        recipients,
        queues: delivery::queues(&app.store).await?,
        dead: dead.iter().map(|(_, count)| count).sum(),
    };
    app.delivery.set(health, &dead, now);
    Ok(())
}
