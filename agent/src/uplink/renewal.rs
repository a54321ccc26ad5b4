//! When the certificate is renewed, and when again after a failure. Pure: times and random numbers
//! are parameters.

/// The first wait after a failure.
const FIRST_RETRY_MS: i64 = 60_000;
/// The longest wait after failures in a row.
const LONGEST_RETRY_MS: i64 = 3_600_000;
/// No wait is shorter, so that a certificate of short validity never makes a busy loop.
const SHORTEST_RETRY_MS: i64 = 1_000;
/// A line that breaks or a busy collector is no problem of the certificate until so many attempts in
/// a row have failed.
const PASSING_FAILURES: u32 = 3;

/// The state of renewals.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// By the wall clock; `None` if the certificate's validity can't be read.
    due_at_ms: Option<i64>,
    /// The end of the certificate.
    ends_at_ms: Option<i64>,
    /// The collector asked for a renewal, which has not succeeded yet.
    asked: bool,
    /// Failures in a row.
    failures: u32,
    /// Why the last attempt failed, once that is a problem.
    problem: Option<String>,
}

/// Whether a failure is likely to pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// No connection, or the collector is busy.
    Passing,
    /// A refusal, or this machine can't store what it gets.
    Lasting,
}

impl Renewal {
    /// For a certificate with this validity (not before, not after): due at two thirds of it.
    pub(super) fn planned(validity_ms: Option<(i64, i64)>) -> Self {
        Self {
            due_at_ms: validity_ms.map(|(from, to)| from + (to - from) / 3 * 2),
            ends_at_ms: validity_ms.map(|(_, to)| to),
            ..Self::default()
        }
    }

    /// Whether it is time for an attempt.
    pub(super) fn is_due(&self, now_ms: i64) -> bool {
        self.due_at_ms.is_some_and(|at| now_ms >= at)
    }

    /// Whether the collector asked for it.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// The collector asks for a renewal at `at_ms`, if it is not due before.
    pub(super) fn ask(&mut self, at_ms: i64) {
        self.asked = true;
        self.due_at_ms = Some(self.due_at_ms.map_or(at_ms, |own| own.min(at_ms)));
    }

    /// The collector says that the certificate has expired: it is due now, unless an attempt failed
    /// already and the next one is planned.
    pub(super) fn certificate_expired(&mut self) {
        if self.failures == 0 {
            self.due_at_ms = Some(i64::MIN);
        }
    }

    /// A new certificate is in use, with this validity.
    pub(super) fn succeeded(&mut self, validity_ms: Option<(i64, i64)>, now_ms: i64) {
        *self = Self::planned(validity_ms);
        let soonest = now_ms + SHORTEST_RETRY_MS;
        self.due_at_ms = self.due_at_ms.map(|at| at.max(soonest));
    }

    /// An attempt failed: plans the next one after a minute, then after twice as long each time, up to
    /// an hour. While the certificate is good that is at most a tenth of what is left of it.
    /// `random` lies in `0.0..1.0` and shortens the wait by up to a quarter.
    pub(super) fn failed(&mut self, why: String, lasting: Lasting, now_ms: i64, random: f64) {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        if lasting == Lasting::Lasting || self.failures >= PASSING_FAILURES {
            self.problem = Some(why);
        }
        let mut wait = (FIRST_RETRY_MS << doublings).min(LONGEST_RETRY_MS);
        let left = self.ends_at_ms.map_or(0, |end| end - now_ms);
        if left > 0 {
            wait = wait.min(left / 10);
        }
        let spread = (wait as f64 * random / 4.0) as i64;
        self.due_at_ms = Some(now_ms + (wait - spread).max(SHORTEST_RETRY_MS));
    }

    /// What people must know: why the certificate is not renewed.
    pub(super) fn problem(&self) -> Option<String> {
        let why = self.problem.as_ref()?;
        let tries = self.failures;
        let times = if tries == 1 { "once" } else { "each time" };
        Some(format!(
            "the certificate could not be renewed ({tries} attempts, {times} without success): {why}; the host is cut off when it expires"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const HOUR_MS: i64 = 3_600_000;

    fn ninety_days() -> Renewal {
        Renewal::planned(Some((0, 90 * DAY_MS)))
    }

    fn fail(renewal: &mut Renewal, lasting: Lasting, now_ms: i64) -> i64 {
        renewal.failed("why".to_owned(), lasting, now_ms, 0.0);
        renewal.due_at_ms.unwrap() - now_ms
    }

    #[test]
    fn attempts_back_off_to_an_hour_and_never_miss_the_end() {
        let mut renewal = ninety_days();
        assert!(!renewal.is_due(60 * DAY_MS - 1) && renewal.is_due(60 * DAY_MS));
        let waits: Vec<i64> = (0..8)
            .map(|_| fail(&mut renewal, Lasting::Lasting, 60 * DAY_MS) / 60_000)
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        let late = 90 * DAY_MS - HOUR_MS;
        assert_eq!(fail(&mut renewal, Lasting::Lasting, late), HOUR_MS / 10);
        // Expired: it goes on, each hour.
        assert_eq!(fail(&mut renewal, Lasting::Lasting, 91 * DAY_MS), HOUR_MS);
        renewal.failed("why".to_owned(), Lasting::Lasting, 0, 0.999);
        assert!(renewal.due_at_ms.unwrap() >= HOUR_MS * 3 / 4);
    }

    #[test]
    fn a_failure_is_a_problem_at_once_and_a_broken_line_only_after_a_while() {
        let mut renewal = ninety_days();
        assert_eq!(renewal.problem(), None);
        fail(&mut renewal, Lasting::Lasting, 60 * DAY_MS);
        assert!(renewal.problem().is_some());
        renewal.succeeded(Some((60 * DAY_MS, 150 * DAY_MS)), 60 * DAY_MS);
        assert_eq!(renewal.problem(), None);
        let problems: Vec<bool> = (0..4)
            .map(|_| {
                fail(&mut renewal, Lasting::Passing, 120 * DAY_MS);
                renewal.problem().is_some()
            })
            .collect();
        assert_eq!(problems, [false, false, true, true]);
    }

    #[test]
    fn the_collector_may_ask_for_it_earlier_and_say_that_it_is_too_late() {
        let mut renewal = ninety_days();
        renewal.ask(5);
        assert!(renewal.is_asked() && renewal.is_due(5));
        renewal.ask(100 * DAY_MS);
        assert!(renewal.is_due(5));
        let mut renewal = ninety_days();
        renewal.certificate_expired();
        assert!(renewal.is_due(0));
        fail(&mut renewal, Lasting::Lasting, 0);
        renewal.certificate_expired();
        assert!(
            !renewal.is_due(0),
            "a refused renewal does not make a busy loop"
        );
    }
}
