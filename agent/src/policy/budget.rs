//! How much memory the log rules of a policy may take together. Every other bound is for one pattern or
//! one log; their number times that bound would be more than the agent's unit allows, and end it
//! at each start.

use watchkeep_shared::wire::{limits::MAX_TEXT_BYTES, policy::LogCheck};

use crate::logs;

/// Most memory of all automata of a policy, compiled and at work, bytes. The unit of the packages allows
/// 128 MiB for everything.
const ALL_BYTES: usize = 16 << 20;
/// What a glob compiles to for each byte of its text, about.
const GLOB_BYTES: usize = 64;

/// What is left for further rules.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: ALL_BYTES }
    }
}

impl Budget {
    /// Takes what a check needs beside its rules.
    pub(super) fn take_check(&mut self, check: &LogCheck) -> Result<(), String> {
        if check.path.len() > MAX_TEXT_BYTES {
            return Err(format!("the path is longer than {MAX_TEXT_BYTES} bytes"));
        }
        let globs = check.path.len() * GLOB_BYTES;
        self.take(globs + logs::CHECK_CACHE_BYTES)?;
        match &check.record_start {
            Some(pattern) => self
                .take_pattern(pattern)
                .map_err(|reason| format!("record_start: {reason}")),
            None => Ok(()),
        }
    }

    /// Takes what a pattern needs; the error is for people.
    pub(super) fn take_pattern(&mut self, pattern: &str) -> Result<(), String> {
        self.take(logs::check_pattern(pattern)?)
    }

    fn take(&mut self, bytes: usize) -> Result<(), String> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(format!(
                "the log rules of the policy need more than {} MiB of memory together, and this one no longer fits; {}",
                ALL_BYTES >> 20,
                logs::SMALLER_PATTERNS
            )),
        }
    }
}
