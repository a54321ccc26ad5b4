//! Counters of the pipeline, for `/metrics` (Prometheus text format).

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use watchkeep_shared::{DurationMs, UnixMillis};

/// Bounds of the commit histogram, seconds.
const COMMIT_BOUNDS_S: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0];

/// A pipeline that has not committed for longer is not ready.
const ALIVE_WITHIN: DurationMs = DurationMs::from_secs(10);

/// A label that says why.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    /// As on the wire.
    pub reason: String,
}

/// The counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Frames committed.
    pub frames: Counter<u64, AtomicU64>,
    /// Frames that were known already.
    pub repeats: Counter<u64, AtomicU64>,
    /// Frames refused, by reason.
    pub rejected: Family<Reason, Counter<u64, AtomicU64>>,
    /// Requests refused, by problem type.
    pub problems: Family<Reason, Counter<u64, AtomicU64>>,
    /// Rounds committed.
    pub rounds: Counter<u64, AtomicU64>,
    /// Rounds whose commit failed.
    pub failed_rounds: Counter<u64, AtomicU64>,
    /// Rounds that were committed in parts, because the database refused a value.
    pub rounds_apart: Counter<u64, AtomicU64>,
    /// Seconds that a commit took.
    pub commit_s: Histogram,
    /// Batches in the queue.
    pub queued: Gauge<i64, AtomicI64>,
    /// Hosts in memory.
    pub hosts: Gauge<i64, AtomicI64>,
    /// Hosts that are silent.
    pub silent: Gauge<i64, AtomicI64>,
    /// The collector's time line minus the system's wall clock, milliseconds.
    pub clock_ahead_ms: Gauge<i64, AtomicI64>,
    /// When the pipeline last committed that it is alive, milliseconds since the Unix epoch.
    pub alive_at: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            frames: Counter::default(),
            repeats: Counter::default(),
            rejected: Family::default(),
            problems: Family::default(),
            rounds: Counter::default(),
            failed_rounds: Counter::default(),
            rounds_apart: Counter::default(),
            commit_s: Histogram::new(COMMIT_BOUNDS_S),
            queued: Gauge::default(),
            hosts: Gauge::default(),
            silent: Gauge::default(),
            clock_ahead_ms: Gauge::default(),
            alive_at: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = registry.sub_registry_with_prefix("watchkeep");
        registry.register("frames", "Frames committed", self.frames.clone());
        registry.register(
            "repeats",
            "Frames that were known already",
            self.repeats.clone(),
        );
        registry.register("frames_rejected", "Frames refused", self.rejected.clone());
        registry.register(
            "requests_refused",
            "Agent requests refused",
            self.problems.clone(),
        );
        registry.register("rounds", "Rounds committed", self.rounds.clone());
        registry.register(
            "rounds_failed",
            "Rounds not committed",
            self.failed_rounds.clone(),
        );
        registry.register(
            "rounds_apart",
            "Rounds committed in parts, because the database refused a value",
            self.rounds_apart.clone(),
        );
        registry.register("commit_seconds", "Time of a commit", self.commit_s.clone());
        registry.register("queued_batches", "Batches waiting", self.queued.clone());
        registry.register("hosts", "Hosts in memory", self.hosts.clone());
        registry.register(
            "hosts_silent",
            "Hosts without heartbeats",
            self.silent.clone(),
        );
        registry.register(
            "clock_ahead_ms",
            "The collector's clock minus the system's wall clock; not near 0 if that was set",
            self.clock_ahead_ms.clone(),
        );
        let alive_at = self.alive_at.clone();
        registry.register(
            "alive_at_ms",
            "When the pipeline last committed its liveness",
            alive_at,
        );
    }

    /// Registers figures of other parts, under the same prefix.
    pub fn register_more(&self, register: impl FnOnce(&mut Registry)) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        register(registry.sub_registry_with_prefix("watchkeep"));
    }

    /// Whether the pipeline committed lately; it does every few seconds.
    pub fn is_alive(&self, now: UnixMillis) -> bool {
        now.since(UnixMillis(self.alive_at.get())) <= ALIVE_WITHIN
    }

    /// All counters as text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String can't fail.
        let _: std::fmt::Result = text::encode(&mut out, &registry);
        out
    }

    /// Counts a refused request.
    pub fn count_problem(&self, reason: &str) {
        self.problems
            .get_or_create(&Reason {
                reason: reason.to_owned(),
            })
            .inc();
    }

    /// How many frames were committed.
    pub fn frames_total(&self) -> u64 {
        self.frames.inner().load(Relaxed)
    }
}
