//! What was found and not yet reported: matches counted per rule and file with a few redacted
//! lines, and gaps. Bounded: when it is full, reading waits for the next frame.

use std::{collections::HashMap, path::Path, sync::Arc};

use watchkeep_shared::wire::{
    heartbeat::{Event, LogGapReason},
    limits::{MAX_EVENTS_PER_FRAME, MAX_TEXT_BYTES},
    policy::LogRule,
};

use super::redact::Redactor;

/// From so many events on, reading waits. The last line may still bring some more.
const ENOUGH_EVENTS: usize = 100;
/// Most events; the protocol allows a few more in a frame, for other kinds.
const MAX_EVENTS: usize = MAX_EVENTS_PER_FRAME - 8;
/// Lines that are shown of one rule's matches in one file.
const SHOWN_LINES: usize = 5;
/// Lines of one rule that leave the machine in a minute, if the rule says nothing else.
const DEFAULT_LINES_PER_MINUTE: u32 = 60;
/// Longest shown line, bytes, after redaction.
const SHOWN_BYTES: usize = 1_024;
/// Most text of lines in one frame, bytes.
const SHOWN_TOTAL_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Pending {
    redactor: Arc<Redactor>,
    events: Vec<Event>,
    shown_bytes: usize,
    now_ms: i64,
    /// Lines of each rule that were shown in the minute that began then.
    shown: HashMap<String, Minute>,
}

#[derive(Debug)]
struct Minute {
    began_ms: i64,
    lines: u32,
}

impl Pending {
    pub(super) fn new(redactor: Arc<Redactor>) -> Self {
        Self {
            redactor,
            events: Vec::new(),
            shown_bytes: 0,
            now_ms: 0,
            shown: HashMap::new(),
        }
    }

    pub(super) fn set_redactor(&mut self, redactor: Arc<Redactor>) {
        self.redactor = redactor;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether reading must wait.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= ENOUGH_EVENTS
    }

    pub(super) fn take(&mut self) -> Vec<Event> {
        self.shown_bytes = 0;
        std::mem::take(&mut self.events)
    }

    /// The time; it only has to run on.
    pub(super) fn at(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        self.shown
            .retain(|_, minute| now_ms - minute.began_ms < 60_000);
    }

    pub(super) fn matched(&mut self, rule: &LogRule, path: &Path, line: &[u8]) {
        let shown = shown_path(path);
        let known = self.events.iter().position(|event| {
            matches!(event, Event::LogMatch { rule: r, path: p, .. } if *r == rule.name && *p == shown)
        });
        if known.is_none() && self.events.len() >= MAX_EVENTS {
            self.gap(path, LogGapReason::RateLimited, None);
            return;
        }
        let at = known.unwrap_or_else(|| {
            self.events.push(Event::LogMatch {
                rule: rule.name.clone(),
                path: shown,
                count: 0,
                lines: Vec::new(),
            });
            self.events.len() - 1
        });
        let Event::LogMatch { count, lines, .. } = &mut self.events[at] else {
            return;
        };
        *count += 1;
        if lines.len() >= SHOWN_LINES || self.shown_bytes >= SHOWN_TOTAL_BYTES {
            return;
        }
        let limit = rule.lines_per_minute.unwrap_or(DEFAULT_LINES_PER_MINUTE);
        let minute = self.shown.entry(rule.name.clone()).or_insert(Minute {
            began_ms: self.now_ms,
            lines: 0,
        });
        minute.lines = minute.lines.saturating_add(1);
        if minute.lines <= limit {
            let text = shown_text(&self.redactor, line);
            self.shown_bytes += text.len();
            lines.push(text);
        } else if minute.lines == limit.saturating_add(1) {
            self.gap(path, LogGapReason::RateLimited, None);
        }
    }

    pub(super) fn gap(&mut self, path: &Path, reason: LogGapReason, bytes: Option<u64>) {
        let path = shown_path(path);
        for event in &mut self.events {
            if let Event::LogGap {
                path: p,
                reason: r,
                bytes: known,
            } = event
                && *p == path
                && *r == reason
            {
                *known = known.zip(bytes).map(|(a, b)| a + b);
                return;
            }
        }
        self.events.push(Event::LogGap {
            path,
            reason,
            bytes,
        });
    }
}

/// A line or record as it leaves the machine.
pub(super) fn shown_text(redactor: &Redactor, text: &[u8]) -> String {
    let mut text = redactor.redact(&String::from_utf8_lossy(text));
    text.truncate(text.floor_char_boundary(SHOWN_BYTES));
    text
}

fn shown_path(path: &Path) -> String {
    let mut text = path.to_string_lossy().into_owned();
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}
