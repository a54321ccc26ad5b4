//! The only place that reads the system clock. Shells hold a [`Clock`] and hand instants to the
//! decisions as values.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use watchkeep_shared::UnixMillis;

/// Tells the time: the system's, or one that a test moves by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `now` until [`Clock::set`].
    pub fn manual(now: UnixMillis) -> Self {
        Self(Some(Arc::new(AtomicI64::new(now.0))))
    }

    /// Moves a manual clock; the system's clock is never set.
    pub fn set(&self, now: UnixMillis) {
        if let Some(hand) = &self.0 {
            hand.store(now.0, Ordering::SeqCst);
        }
    }

    /// Now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system clock"
    )]
    pub fn now(&self) -> UnixMillis {
        if let Some(hand) = &self.0 {
            return UnixMillis(hand.load(Ordering::SeqCst));
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        UnixMillis(since.map_or(0, |since| since.as_millis() as i64))
    }
}
