//! Log following.
use crate::config::AllowedPath;
use watchkeep_shared::wire::{heartbeat::Event, policy::LogCheck};
/// Whether a rule's pattern can be used.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    regex::bytes::Regex::new(pattern)
        .map(|_| ())
        .map_err(|e| e.to_string())
}
/// Followed logs.
#[derive(Debug)]
pub struct LogWatcher;
impl LogWatcher {
    pub fn new(
        _saved: Option<&str>,
        _allowed: Vec<AllowedPath>,
        _extra: Vec<regex::Regex>,
    ) -> Self {
        Self
    }
    pub fn set(&mut self, _logs: &[LogCheck]) {}
    pub fn scan(&mut self) -> bool {
        false
    }
    pub fn has_events(&self) -> bool {
        false
    }
    pub fn take(&mut self) -> (Vec<Event>, Option<String>) {
        (Vec::new(), None)
    }
    pub fn unsaved(&self) -> bool {
        false
    }
    pub fn directories(&self) -> std::collections::BTreeSet<std::path::PathBuf> {
        Default::default()
    }
}
