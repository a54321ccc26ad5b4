//! What a run counted and measured.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::meter::Traffic;

/// Longest latency that is distinguished, microseconds; longer ones count as this.
const MAX_LATENCY_US: u64 = 600_000_000;

/// Shared by all agents of a run.
#[derive(Debug)]
pub struct Stats {
    /// Frames sent, repeats included.
    pub sent: Counter,
    /// Frames acknowledged.
    pub acked: Counter,
    /// Frames made.
    pub made: Counter,
    /// Frames that the agents' own limit took.
    pub lost: Counter,
    /// Requests made.
    pub requests: Counter,
    /// TLS handshakes finished.
    pub handshakes: Counter,
    rejected: Mutex<BTreeMap<&'static str, u64>>,
    errors: Mutex<BTreeMap<String, u64>>,
    latency: Mutex<Latencies>,
    traffic: Mutex<WireTotals>,
}

/// A count.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

#[derive(Debug)]
struct Latencies {
    answer: Histogram<u64>,
    frame: Histogram<u64>,
    recovery: Histogram<u64>,
}

/// Bytes of all connections, handshakes apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireTotals {
    /// Of handshakes.
    pub handshakes: Traffic,
    /// Of everything after them.
    pub requests: Traffic,
}

/// Quantiles of a latency, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are shorter.
    pub p50_ms: f64,
    /// Nine of ten are shorter.
    pub p90_ms: f64,
    /// 99 of 100 are shorter.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            sent: Counter::default(),
            acked: Counter::default(),
            made: Counter::default(),
            lost: Counter::default(),
            requests: Counter::default(),
            handshakes: Counter::default(),
            rejected: Mutex::default(),
            errors: Mutex::default(),
            latency: Mutex::new(Latencies {
                answer: histogram(),
                frame: histogram(),
                recovery: histogram(),
            }),
            traffic: Mutex::default(),
        }
    }
}

impl Stats {
    /// Counts a frame that was refused for good.
    pub fn reject(&self, reason: &'static str) {
        *lock(&self.rejected).entry(reason).or_default() += 1;
    }

    /// Counts an error.
    pub fn error(&self, kind: &str) {
        let mut errors = lock(&self.errors);
        match errors.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                errors.insert(kind.to_owned(), 1);
            }
        }
    }

    /// Notes how long an acknowledged request took, and how old each of its frames had become.
    pub fn acknowledged(&self, answer: Duration, frames: impl Iterator<Item = Duration>) {
        let mut latency = lock(&self.latency);
        latency.answer.saturating_record(micros(answer));
        for age in frames {
            latency.frame.saturating_record(micros(age));
        }
    }

    /// Notes how long after a storm's drop an agent was connected again.
    pub fn recovered(&self, after: Duration) {
        lock(&self.latency)
            .recovery
            .saturating_record(micros(after));
    }

    /// From a storm's drop to the new connection.
    pub fn recovery(&self) -> Quantiles {
        quantiles(&lock(&self.latency).recovery)
    }

    /// Adds a closed connection's bytes.
    pub fn traffic(&self, handshake: Traffic, requests: Traffic) {
        let mut totals = lock(&self.traffic);
        add(&mut totals.handshakes, handshake);
        add(&mut totals.requests, requests);
    }

    /// Bytes of the connections that were closed.
    pub fn wire_totals(&self) -> WireTotals {
        *lock(&self.traffic)
    }

    /// Frames refused for good, by reason.
    pub fn rejected(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.rejected).clone()
    }

    /// Errors by kind.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.errors).clone()
    }

    /// From sending a request to its acknowledgement.
    pub fn answer_latency(&self) -> Quantiles {
        quantiles(&lock(&self.latency).answer)
    }

    /// From making a frame to its acknowledgement, waiting and repeats included.
    pub fn frame_latency(&self) -> Quantiles {
        quantiles(&lock(&self.latency).frame)
    }
}

/// Quantiles of some durations.
pub fn quantiles_of(durations: impl Iterator<Item = Duration>) -> Quantiles {
    let mut histogram = histogram();
    durations.for_each(|duration| histogram.saturating_record(micros(duration)));
    quantiles(&histogram)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(MAX_LATENCY_US, 3).expect("the bounds are in range")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}

fn add(total: &mut Traffic, more: Traffic) {
    total.sent += more.sent;
    total.received += more.received;
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    Quantiles {
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        max_ms: histogram.max() as f64 / 1_000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_noted() {
        let stats = Stats::default();
        for ms in 1..=100 {
            let age = Duration::from_millis(ms);
            stats.acknowledged(age, [age * 2].into_iter());
        }
        let answer = stats.answer_latency();
        assert!((answer.p50_ms - 50.0).abs() < 0.5, "{answer:?}");
        assert!((answer.p99_ms - 99.0).abs() < 0.5, "{answer:?}");
        assert!((stats.frame_latency().max_ms - 200.0).abs() < 0.5);
    }

    #[test]
    fn errors_are_counted_by_kind() {
        let stats = Stats::default();
        stats.error("timeout");
        stats.error("connect");
        stats.error("timeout");
        let expected = [("connect".to_owned(), 1), ("timeout".to_owned(), 2)];
        assert_eq!(stats.errors(), expected.into());
    }
}
