//! How often a client may ask: one rate limiter (GCRA, by the `governor` crate) for each key, with
//! the collector's clock and a bounded number of keys.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    NotUntil, Quota, RateLimiter,
    clock::{Clock, Reference as _},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::keyed::HashMapStateStore,
};
use watchkeep_shared::{DurationMs, UnixMillis};

/// Keys remembered; past this those that asked for nothing lately are forgotten, then all.
const MAX_KEYS: usize = 65_536;
/// Refusals are logged at most this often.
const LOG_EVERY: DurationMs = DurationMs::from_mins(1);

/// How often one key may ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Time after which one more is allowed; at least a microsecond.
    pub(crate) every: Duration,
    /// Requests at once of a key that was quiet; at least 1.
    pub(crate) burst: u32,
}

impl Rate {
    /// So many a second.
    pub(crate) fn per_second(count: u32, burst: u32) -> Self {
        Self {
            every: Duration::from_secs(1) / count.max(1),
            burst,
        }
    }

    fn quota(self) -> Quota {
        let every = self.every.max(Duration::from_micros(1));
        let burst = NonZeroU32::new(self.burst).unwrap_or(NonZeroU32::MIN);
        // None only for a period of zero.
        Quota::with_period(every)
            .unwrap_or(Quota::per_second(burst))
            .allow_burst(burst)
    }
}

/// The time of the last call, for governor.
#[derive(Clone, Debug, Default)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }
}

type Keyed<K> = RateLimiter<K, HashMapStateStore<K>, Hand, NoOpMiddleware<Nanos>>;

/// Rate limiters by key.
#[derive(Debug)]
pub(crate) struct Limiter<K: Hash + Eq + Clone> {
    rate: Rate,
    hand: Hand,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K: Hash + Eq + Clone> {
    keyed: Keyed<K>,
    logged_at: Option<UnixMillis>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may continue.
    Allowed,
    /// It comes too soon.
    Refused {
        /// Time until one is allowed.
        wait: DurationMs,
        /// Worth a line in the log.
        log: bool,
    },
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        let hand = Hand::default();
        Self {
            rate,
            state: Mutex::new(State {
                keyed: keyed(rate, &hand),
                logged_at: None,
            }),
            hand,
        }
    }

    /// The limit in words.
    pub(crate) fn text(&self) -> String {
        let per_s = (1.0 / self.rate.every.as_secs_f64()).round();
        format!("{per_s} requests a second, {} at once", self.rate.burst)
    }

    /// Counts a request.
    pub(crate) fn take(&self, key: &K, now: UnixMillis) -> Verdict {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.hand.0.store(now.0.max(0) as u64, Ordering::Relaxed);
        if state.keyed.len() >= MAX_KEYS {
            state.keyed.retain_recent();
            if state.keyed.len() >= MAX_KEYS {
                state.keyed = keyed(self.rate, &self.hand);
            }
        }
        let Err(not_until) = state.keyed.check_key(key) else {
            return Verdict::Allowed;
        };
        let log = state
            .logged_at
            .is_none_or(|logged_at| now.since(logged_at) >= LOG_EVERY || now < logged_at);
        if log {
            state.logged_at = Some(now);
        }
        Verdict::Refused {
            wait: wait(&not_until, &self.hand),
            log,
        }
    }
}

fn keyed<K: Hash + Eq + Clone>(rate: Rate, hand: &Hand) -> Keyed<K> {
    RateLimiter::new(rate.quota(), HashMapStateStore::default(), hand.clone())
}

fn wait(not_until: &NotUntil<Nanos>, hand: &Hand) -> DurationMs {
    let nanos = not_until.earliest_possible().duration_since(hand.now());
    DurationMs(Duration::from(nanos).as_millis() as i64 + 1)
}

/// What counts as one address: all of a /64 in IPv6, which one machine has at its will.
pub(crate) fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate {
        every: Duration::from_millis(50),
        burst: 100,
    };

    fn allowed(limiter: &Limiter<u32>, key: u32, now: i64) -> bool {
        limiter.take(&key, UnixMillis(now)) == Verdict::Allowed
    }

    proptest! {
        /// In no stretch of time more than the burst and what the rate allows.
        #[test]
        fn never_more_than_burst_and_rate(gaps in proptest::collection::vec(0..120_i64, 1..600)) {
            let limiter = Limiter::new(RATE);
            let mut now = 1_000_000;
            let mut taken = Vec::new();
            for gap in gaps {
                now += gap;
                if allowed(&limiter, 1, now) {
                    taken.push(now);
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (j, to) in taken.iter().enumerate().skip(i) {
                    let most = 100 + (to - from) / 50 + 1;
                    prop_assert!((j - i + 1) as i64 <= most, "{} in {} ms", j - i + 1, to - from);
                }
            }
        }

        /// Who keeps to the rate is never refused, whatever others do.
        #[test]
        fn who_keeps_to_the_rate_is_never_refused(noise in proptest::collection::vec(0..40_u8, 1..200)) {
            let limiter = Limiter::new(RATE);
            let mut now = 1_000_000;
            for many in noise {
                now += 50;
                prop_assert!(allowed(&limiter, 1, now));
                for _ in 0..many {
                    allowed(&limiter, 2, now);
                }
            }
        }

    }

    #[test]
    fn a_burst_then_the_rate_and_one_line_a_minute_in_the_log() {
        let limiter = Limiter::new(RATE);
        let verdicts: Vec<Verdict> = (0..150)
            .map(|_| limiter.take(&7, UnixMillis(1_000_000)))
            .collect();
        let good = verdicts.iter().filter(|one| **one == Verdict::Allowed);
        assert_eq!(good.count(), 100);
        let logged = verdicts
            .iter()
            .filter(|one| matches!(one, Verdict::Refused { log: true, .. }));
        assert_eq!(logged.count(), 1);
        assert!(!allowed(&limiter, 7, 1_000_049));
        assert!(allowed(&limiter, 7, 1_000_050));
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::new(RATE);
        for key in 0..(MAX_KEYS as u32 * 2) {
            assert!(allowed(&limiter, key, 1_000_000));
        }
        let state = limiter.state.lock().unwrap();
        assert!(state.keyed.len() <= MAX_KEYS);
    }

    #[test]
    fn one_machine_is_one_source() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(source(parse("2001:db8::1")), source(parse("2001:db8::2:3")));
        assert_ne!(
            source(parse("2001:db8::1")),
            source(parse("2001:db8:0:1::1"))
        );
        assert_eq!(source(parse("::ffff:192.0.2.1")), parse("192.0.2.1"));
        assert_ne!(source(parse("192.0.2.1")), source(parse("192.0.2.2")));
    }
}
