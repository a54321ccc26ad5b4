//! Outages of the store: the time in which the database fails whatever is asked of it. Noticed where
//! the failing operation ends, logged once when one begins and once when it is over, and what
//! `/readyz` says.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::error::{FailureKind, plain_text};

/// An outage is over for the log when nothing has failed for this long: a database that fails each
/// second time is in one outage.
const CALM: Duration = Duration::from_secs(5);

/// The two ways in which a store is used. They fail apart: a full disk can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Read,
    Write,
}

/// A store that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOutage {
    /// What fails.
    pub kind: FailureKind,
    /// In plain words with the cause, for those who run the collector.
    pub text: String,
    /// How long it has been failing.
    pub length: Duration,
}

/// What is known of the store's outages.
#[derive(Debug, Default)]
pub(super) struct Outages {
    /// Whether [`State`] says anything; read after every statement.
    is_any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the last operation of each side failed.
    is_failing: [bool; 2],
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    last_failure: Instant,
    failures: u64,
    /// The last failure.
    kind: FailureKind,
    text: String,
}

/// What is to be logged.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Nothing,
    Begins(String),
    Over { length: Duration, failures: u64 },
}

impl Outages {
    /// An operation failed.
    pub(super) fn failed(&self, side: Side, error: &sqlx::Error) {
        let kind = FailureKind::of(error);
        if !kind.is_outage() {
            return;
        }
        let failure = (kind, plain_text(error));
        self.is_any.store(true, Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed(side, failure, Instant::now()).log();
    }

    /// An operation succeeded.
    pub(super) fn succeeded(&self, side: Side) {
        if !self.is_any.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.succeeded(side, Instant::now()).log();
        self.is_any.store(state.outage.is_some(), Ordering::Relaxed);
    }

    /// What fails now; `None` if the last read and the last write succeeded.
    pub(super) fn now(&self) -> Option<StoreOutage> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = state.outage.as_ref()?;
        state.is_failing.contains(&true).then(|| StoreOutage {
            kind: outage.kind,
            text: outage.text.clone(),
            length: outage.since.elapsed(),
        })
    }
}

impl State {
    fn failed(&mut self, side: Side, (kind, text): (FailureKind, String), now: Instant) -> Line {
        self.is_failing[side as usize] = true;
        if let Some(outage) = &mut self.outage {
            outage.last_failure = now;
            outage.failures += 1;
            (outage.kind, outage.text) = (kind, text);
            return Line::Nothing;
        }
        self.outage = Some(Outage {
            since: now,
            last_failure: now,
            failures: 1,
            kind,
            text: text.clone(),
        });
        Line::Begins(text)
    }

    fn succeeded(&mut self, side: Side, now: Instant) -> Line {
        self.is_failing[side as usize] = false;
        match &self.outage {
            Some(outage)
                if !self.is_failing.contains(&true)
                    && now.duration_since(outage.last_failure) >= CALM =>
            {
                let line = Line::Over {
                    length: outage.last_failure.duration_since(outage.since),
                    failures: outage.failures,
                };
                self.outage = None;
                line
            }
            _ => Line::Nothing,
        }
    }
}

impl Line {
    fn log(self) {
        match self {
            Self::Nothing => {}
            Self::Begins(text) => tracing::error!(
                "the store fails, heartbeats are refused until it works again: {text}"
            ),
            Self::Over { length, failures } => tracing::info!(
                outage_ms = length.as_millis() as u64,
                failures,
                "the store works again"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_at_the_begin_and_one_at_the_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut state = State::default();
        let full = || (FailureKind::DiskFull, "full".to_owned());
        assert_eq!(
            state.failed(Side::Write, full(), at(0)),
            Line::Begins(full().1)
        );
        for ms in 1..1_000 {
            assert_eq!(state.failed(Side::Write, full(), at(ms)), Line::Nothing);
            assert_eq!(state.succeeded(Side::Read, at(ms)), Line::Nothing);
        }
        assert!(state.is_failing[Side::Write as usize]);
        assert_eq!(state.succeeded(Side::Write, at(3_000)), Line::Nothing);
        assert!(!state.is_failing.contains(&true), "works at once");
        assert_eq!(
            state.succeeded(Side::Write, at(6_000)),
            Line::Over {
                length: Duration::from_millis(999),
                failures: 1_000
            }
        );
        assert_eq!(state.succeeded(Side::Write, at(9_000)), Line::Nothing);
    }

    #[test]
    fn a_side_that_still_fails_keeps_the_outage() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut state = State::default();
        for side in [Side::Read, Side::Write] {
            state.failed(side, (FailureKind::Unreachable, "gone".to_owned()), at(0));
        }
        assert_eq!(state.succeeded(Side::Write, at(60)), Line::Nothing);
        assert!(matches!(
            state.succeeded(Side::Read, at(61)),
            Line::Over { .. }
        ));
    }
}
