//! When something that starts again and again counts as a restart loop. Pure.

use std::collections::VecDeque;

/// Restarts count for this long, milliseconds.
pub(super) const WINDOW_MS: i64 = 120_000;
/// So many restarts within the window are a loop.
pub(super) const LOOP_AT: usize = 3;

/// The restarts of late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Restarts {
    at_ms: VecDeque<i64>,
}

impl Restarts {
    /// Notes `count` restarts at an instant of a clock that never goes back.
    pub(super) fn note(&mut self, now_ms: i64, count: u32) {
        for _ in 0..count.min(LOOP_AT as u32) {
            if self.at_ms.len() == LOOP_AT {
                self.at_ms.pop_front();
            }
            self.at_ms.push_back(now_ms);
        }
    }

    /// How many there were within the window; [`LOOP_AT`] means so many or more.
    pub(super) fn recent(&self, now_ms: i64) -> usize {
        let is_recent = |at: &&i64| now_ms - **at < WINDOW_MS;
        self.at_ms.iter().filter(is_recent).count()
    }

    /// Whether it is a loop; it ends when a restart of the last few is out of the window.
    pub(super) fn is_loop(&self, now_ms: i64) -> bool {
        self.recent(now_ms) >= LOOP_AT
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_counts_as_a_full_list_would(steps in prop::collection::vec((0_i64..90_000, 0_u32..5), 0..40)) {
            let mut restarts = Restarts::default();
            let (mut now, mut all) = (0, Vec::new());
            for (pause, count) in steps {
                now += pause;
                restarts.note(now, count);
                all.extend(std::iter::repeat_n(now, count as usize));
                let recent = all.iter().filter(|at| now - **at < WINDOW_MS).count();
                prop_assert_eq!(restarts.recent(now), recent.min(LOOP_AT));
                prop_assert_eq!(restarts.is_loop(now), recent >= LOOP_AT);
            }
        }
    }
}
