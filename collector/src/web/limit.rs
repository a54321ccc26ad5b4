//! How often a sign-in may fail before the next must wait: counted per address and per login, in
//! memory. Lost at a restart, bounded in size, and kept by the caller's clock.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use watchkeep_shared::{DurationMs, UnixMillis};

/// Failures within [`WINDOW`] after which one address waits.
const PER_ADDRESS: u32 = 20;
/// Failures within [`WINDOW`] after which one login waits, wherever they come from.
const PER_LOGIN: u32 = 8;
const WINDOW: DurationMs = DurationMs::from_mins(10);
/// Keys remembered; past this the older half is forgotten.
const MAX_KEYS: usize = 20_000;

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: u32,
    since: UnixMillis,
}

/// Failed sign-ins of the last minutes.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    counts: Mutex<HashMap<String, Count>>,
}

impl Limiter {
    /// How long this sign-in must wait, if it must.
    pub(crate) fn wait(&self, address: &str, login: &str, now: UnixMillis) -> Option<DurationMs> {
        let counts = self.lock();
        keys(address, login)
            .into_iter()
            .filter_map(|(key, limit)| {
                let count = counts.get(&key)?;
                let left = (count.since + WINDOW).since(now);
                (count.failures >= limit && left.0 > 0).then_some(left)
            })
            .max()
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, address: &str, login: &str, now: UnixMillis) {
        let mut counts = self.lock();
        if counts.len() >= MAX_KEYS {
            counts.retain(|_, count| now.since(count.since) < WINDOW);
        }
        if counts.len() >= MAX_KEYS {
            forget_older_half(&mut counts);
        }
        for (key, _) in keys(address, login) {
            let count = counts.entry(key).or_insert(Count {
                failures: 0,
                since: now,
            });
            if now.since(count.since) >= WINDOW {
                *count = Count {
                    failures: 0,
                    since: now,
                };
            }
            count.failures += 1;
        }
    }

    /// A sign-in succeeded: its login starts afresh. Its address does not, or one good account
    /// would buy endless guesses at others.
    pub(crate) fn succeeded(&self, login: &str) {
        self.lock().remove(&login_key(login));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room in one pass, so that a flood of new names costs little each.
fn forget_older_half(counts: &mut HashMap<String, Count>) {
    let mut begun: Vec<UnixMillis> = counts.values().map(|count| count.since).collect();
    let middle = begun.len() / 2;
    let (_, median, _) = begun.select_nth_unstable(middle);
    let median = *median;
    counts.retain(|_, count| count.since > median);
}

fn keys(address: &str, login: &str) -> [(String, u32); 2] {
    [
        (format!("a {address}"), PER_ADDRESS),
        (login_key(login), PER_LOGIN),
    ]
}

fn login_key(login: &str) -> String {
    // A login in the store is far shorter; a long guess must not fill the memory.
    let short: String = login.chars().take(64).collect();
    format!("l {}", short.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_waits_after_eight_failures_and_then_may_try_again() {
        let limiter = Limiter::default();
        let start = UnixMillis(1_000_000);
        for i in 0..8 {
            assert_eq!(limiter.wait("10.0.0.1", "anna", start), None, "try {i}");
            limiter.failed("10.0.0.1", "Anna", start);
        }
        assert_eq!(limiter.wait("10.0.0.2", "anna", start), Some(WINDOW));
        assert_eq!(limiter.wait("10.0.0.1", "ben", start), None);
        assert_eq!(limiter.wait("10.0.0.2", "anna", start + WINDOW), None);
    }

    #[test]
    fn an_address_waits_whatever_logins_it_tries() {
        let limiter = Limiter::default();
        let now = UnixMillis(0);
        for i in 0..20 {
            limiter.failed("10.0.0.1", &format!("user{i}"), now);
        }
        assert!(limiter.wait("10.0.0.1", "fresh", now).is_some());
        limiter.succeeded("user1");
        assert!(limiter.wait("10.0.0.1", "user1", now).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::default();
        for i in 0..(MAX_KEYS as i64 + 50) {
            limiter.failed(&format!("a{i}"), &format!("u{i}"), UnixMillis(i));
        }
        assert!(limiter.lock().len() <= MAX_KEYS + 2);
    }
}
