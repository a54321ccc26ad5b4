//! How many requests an agent may send: a token bucket for each host, and one for each address that
//! enrols. In memory, bounded, lost at a restart.
//!
//! A bucket is one number, the instant at which it will be full again (the generic cell rate
//! algorithm, ITU-T I.371). A clock that is set back empties buckets and blocks nobody for longer.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use watchkeep_shared::{DurationMs, UnixMillis};

/// Buckets remembered; past this the full ones are forgotten, then the older half.
const MAX_BUCKETS: usize = 65_536;
/// Refusals are logged at most this often.
const LOG_EVERY: DurationMs = DurationMs::from_mins(1);

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Requests a second, at least 1.
    pub(super) per_s: u32,
    /// Requests at once, at least 1.
    pub(super) burst: u32,
}

/// Buckets by key.
#[derive(Debug)]
pub(super) struct Limiter<K> {
    rate: Rate,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    /// When each bucket is full again, microseconds since the Unix epoch; absent: it is full.
    full_at_us: HashMap<K, i64>,
    logged_at: UnixMillis,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may go on.
    Allowed,
    /// It comes too soon.
    Refused {
        /// Worth a line in the log.
        log: bool,
    },
}

impl Rate {
    /// How long one request's worth takes to fill, microseconds.
    fn step_us(self) -> i64 {
        1_000_000 / i64::from(self.per_s.max(1))
    }

    /// Takes one request's worth out of a bucket that is full again at `full_at_us`, if there is enough
    /// in it. Gives whether there was, and when it is full again then.
    fn take(self, full_at_us: i64, now_us: i64) -> (bool, i64) {
        let room_us = self.step_us() * i64::from(self.burst.max(1));
        // A bucket is never emptier than empty, whatever the clock was before.
        let full_at_us = full_at_us.clamp(now_us, now_us + room_us);
        let after = full_at_us + self.step_us();
        if after - now_us <= room_us {
            (true, after)
        } else {
            (false, full_at_us)
        }
    }
}

impl<K: Eq + Hash + Copy> Limiter<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            state: Mutex::new(State {
                full_at_us: HashMap::new(),
                logged_at: UnixMillis(0),
            }),
        }
    }

    /// The limit in words.
    pub(super) fn text(&self) -> String {
        let Rate { per_s, burst } = self.rate;
        format!("{per_s} requests a second, {burst} at once")
    }

    /// Counts a request.
    pub(super) fn take(&self, key: K, now: UnixMillis) -> Verdict {
        let now_us = now.0.saturating_mul(1_000);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at_us = state.full_at_us.get(&key).copied();
        if full_at_us.is_none() && state.full_at_us.len() >= MAX_BUCKETS {
            forget(&mut state.full_at_us, now_us);
        }
        let (allowed, after) = self.rate.take(full_at_us.unwrap_or(now_us), now_us);
        state.full_at_us.insert(key, after);
        if allowed {
            return Verdict::Allowed;
        }
        let log = now.since(state.logged_at) >= LOG_EVERY || now < state.logged_at;
        if log {
            state.logged_at = now;
        }
        Verdict::Refused { log }
    }
}

fn forget<K: Eq + Hash>(full_at_us: &mut HashMap<K, i64>, now_us: i64) {
    full_at_us.retain(|_, at| *at > now_us);
    if full_at_us.len() < MAX_BUCKETS {
        return;
    }
    let mut all: Vec<i64> = full_at_us.values().copied().collect();
    let middle = all.len() / 2;
    let (_, median, _) = all.select_nth_unstable(middle);
    let median = *median;
    full_at_us.retain(|_, at| *at > median);
}

/// What counts as one address: all of a /64 in IPv6, which one machine has at its will.
pub(super) fn source(from: IpAddr) -> IpAddr {
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
        per_s: 20,
        burst: 100,
    };

    fn allowed(limiter: &Limiter<u32>, key: u32, now: i64) -> bool {
        limiter.take(key, UnixMillis(now)) == Verdict::Allowed
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

        /// A clock that is set back may empty a bucket, which fills as ever from then on.
        #[test]
        fn a_clock_set_back_blocks_nobody(back in 0..10_000_000_i64) {
            let limiter = Limiter::new(RATE);
            let now = 100_000_000;
            while allowed(&limiter, 1, now) {}
            allowed(&limiter, 1, now - back);
            prop_assert!(allowed(&limiter, 1, now - back + 50));
        }
    }

    #[test]
    fn a_burst_then_the_rate_and_one_line_a_minute_in_the_log() {
        let limiter = Limiter::new(RATE);
        let verdicts: Vec<Verdict> = (0..150)
            .map(|_| limiter.take(7, UnixMillis(1_000_000)))
            .collect();
        let good = verdicts.iter().filter(|one| **one == Verdict::Allowed);
        assert_eq!(good.count(), 100);
        let logged = verdicts
            .iter()
            .filter(|one| **one == Verdict::Refused { log: true });
        assert_eq!(logged.count(), 1);
        assert!(!allowed(&limiter, 7, 1_000_049));
        assert!(allowed(&limiter, 7, 1_000_050));
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::new(RATE);
        for key in 0..(MAX_BUCKETS as u32 * 2) {
            assert!(allowed(&limiter, key, 1_000_000));
        }
        let state = limiter.state.lock().unwrap();
        assert!(state.full_at_us.len() <= MAX_BUCKETS);
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
