//! What is due when. Pure: instants come in as values.

use std::time::Duration;

use tokio::time::Instant;

/// Frames for log matches are at least so far apart.
const BETWEEN_LOG_FRAMES: Duration = Duration::from_secs(1);
/// A log that changes all the time is read at most so often.
const BETWEEN_LOG_READS: Duration = Duration::from_millis(100);
/// How often logs are looked at without a notice, where notices come and where they do not.
const LOG_POLL_WITH_NOTICES: Duration = Duration::from_secs(5);
const LOG_POLL_ALONE: Duration = Duration::from_secs(1);
/// What is looked at every so often is looked at up to this part of its time early, when the loop is
/// awake for something else: a processor that sleeps through costs less than one that is woken.
const EARLY_PART: u32 = 5;
/// Log positions that only moved are kept so often; after a crash so much is read again.
const BETWEEN_SAVES: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Schedule {
    next_beat: Instant,
    /// A frame ahead of the beat.
    urgent: Option<Instant>,
    last_process_check: Option<Instant>,
    next_log_read: Instant,
    /// How much earlier will do.
    log_read_slack: Duration,
    last_log_read: Option<Instant>,
    last_log_frame: Option<Instant>,
    log_frame_waits: bool,
    next_save: Instant,
}

impl Schedule {
    pub(super) fn new(now: Instant, first_beat: Instant) -> Self {
        Self {
            next_beat: first_beat,
            urgent: None,
            last_process_check: None,
            next_log_read: now,
            log_read_slack: Duration::ZERO,
            last_log_read: None,
            last_log_frame: None,
            log_frame_waits: false,
            next_save: now + BETWEEN_SAVES,
        }
    }

    /// Whether to look at the processes, which is done every so often and when one ended.
    pub(super) fn processes_due(&mut self, now: Instant, every: Duration) -> bool {
        let due = self
            .last_process_check
            .is_none_or(|last| now >= last + every.saturating_sub(every / EARLY_PART));
        if due {
            self.last_process_check = Some(now);
        }
        due
    }

    pub(super) fn process_ended(&mut self) {
        self.last_process_check = None;
    }

    /// A frame goes at once.
    pub(super) fn services_changed(&mut self, now: Instant) {
        self.expedite(now);
    }

    /// A notice came: read soon, but not too often.
    pub(super) fn logs_changed(&mut self, now: Instant) {
        let soonest = self
            .last_log_read
            .map_or(now, |last| now.max(last + BETWEEN_LOG_READS));
        if soonest < self.next_log_read {
            self.next_log_read = soonest;
            self.log_read_slack = Duration::ZERO;
        }
    }

    pub(super) fn logs_due(&self, now: Instant) -> bool {
        now + self.log_read_slack >= self.next_log_read
    }

    /// `more`: not everything was read yet.
    pub(super) fn logs_read(&mut self, now: Instant, more: bool, with_notices: bool) {
        self.last_log_read = Some(now);
        let wait = if more {
            Duration::ZERO
        } else if with_notices {
            LOG_POLL_WITH_NOTICES
        } else {
            LOG_POLL_ALONE
        };
        self.next_log_read = now + wait;
        self.log_read_slack = wait / EARLY_PART;
    }

    pub(super) fn save_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next_save;
        if due {
            self.next_save = now + BETWEEN_SAVES;
        }
        due
    }

    /// A frame goes at once, unless one went for the same cause less than a second ago.
    pub(super) fn log_matched(&mut self, now: Instant) {
        let soonest = self
            .last_log_frame
            .map_or(now, |last| now.max(last + BETWEEN_LOG_FRAMES));
        self.log_frame_waits = true;
        self.expedite(soonest);
    }

    pub(super) fn beat_due(&self, now: Instant) -> bool {
        now >= self.next_beat || self.urgent.is_some_and(|at| now >= at)
    }

    /// A frame was made.
    pub(super) fn beaten(&mut self, now: Instant, interval: Duration) {
        self.urgent = None;
        if std::mem::take(&mut self.log_frame_waits) {
            self.last_log_frame = Some(now);
        }
        if now >= self.next_beat {
            let next = self.next_beat + interval;
            // After a pause (suspend, a stopped process) beats are not made up for.
            self.next_beat = if next > now { next } else { now + interval };
        }
    }

    /// The next beat comes after `wait`, within the interval.
    pub(super) fn rephase(&mut self, now: Instant, wait: Duration) {
        self.next_beat = self.next_beat.min(now + wait);
    }

    pub(super) fn policy_changed(&mut self, now: Instant, before_ms: u32, after_ms: u32) {
        if before_ms != after_ms {
            self.next_beat = self
                .next_beat
                .min(now + Duration::from_millis(u64::from(after_ms)));
        }
        self.next_log_read = now;
        self.log_read_slack = Duration::ZERO;
        self.last_process_check = None;
    }

    pub(super) fn wake_at(
        &self,
        attempt: Option<Instant>,
        check_processes_after: Option<Duration>,
    ) -> Instant {
        let mut at = self.next_beat.min(self.next_log_read);
        at = self.urgent.map_or(at, |urgent| at.min(urgent));
        at = attempt.map_or(at, |attempt| at.min(attempt));
        let check = check_processes_after
            .zip(self.last_process_check)
            .map(|(every, last)| last + every);
        check.map_or(at, |check| at.min(check))
    }

    fn expedite(&mut self, at: Instant) {
        self.urgent = Some(self.urgent.map_or(at, |urgent| urgent.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn beats_keep_their_rhythm_and_are_not_made_up_for_after_a_pause() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, start + ms(200));
        assert!(!schedule.beat_due(start));
        assert!(schedule.beat_due(start + ms(230)));
        schedule.beaten(start + ms(230), INTERVAL);
        assert!(!schedule.beat_due(start + ms(10_199)));
        assert!(schedule.beat_due(start + ms(10_200)));
        let late = start + ms(65_000);
        schedule.beaten(late, INTERVAL);
        assert!(!schedule.beat_due(late + ms(9_999)));
        assert!(schedule.beat_due(late + INTERVAL));
    }

    #[test]
    fn a_service_change_goes_at_once_and_leaves_the_rhythm_alone() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, start + INTERVAL);
        let change = start + ms(3_000);
        schedule.services_changed(change);
        assert!(schedule.beat_due(change));
        schedule.beaten(change, INTERVAL);
        assert!(!schedule.beat_due(start + ms(9_999)));
        assert!(schedule.beat_due(start + INTERVAL));
    }

    #[test]
    fn frames_for_log_matches_are_a_second_apart() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, start + INTERVAL);
        schedule.log_matched(start);
        assert!(schedule.beat_due(start));
        schedule.beaten(start, INTERVAL);
        schedule.log_matched(start + ms(100));
        assert!(!schedule.beat_due(start + ms(999)));
        assert!(schedule.beat_due(start + ms(1_000)));
        assert_eq!(schedule.wake_at(None, None), start);
        schedule.logs_read(start, false, true);
        assert_eq!(schedule.wake_at(None, None), start + ms(1_000));
    }

    #[test]
    fn notices_make_reads_soon_but_not_more_than_ten_a_second() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, start + INTERVAL);
        schedule.logs_read(start, false, true);
        assert!(!schedule.logs_due(start + ms(3_999)));
        schedule.logs_changed(start + ms(10));
        assert!(!schedule.logs_due(start + ms(99)));
        assert!(schedule.logs_due(start + ms(100)));
        schedule.logs_read(start, false, false);
        assert!(schedule.logs_due(start + LOG_POLL_ALONE));
    }

    #[test]
    fn what_is_nearly_due_is_done_when_the_loop_is_awake_anyway() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, start + INTERVAL);
        let every = Duration::from_secs(5);
        assert!(schedule.processes_due(start, every));
        schedule.logs_read(start, false, true);
        // It does not wake for it earlier.
        assert_eq!(schedule.wake_at(None, Some(every)), start + every);
        let awake = start + ms(3_999);
        assert!(!schedule.processes_due(awake, every) && !schedule.logs_due(awake));
        let awake = start + ms(4_000);
        assert!(schedule.processes_due(awake, every) && schedule.logs_due(awake));
    }
}
