//! The log of a scenario: what people would have noticed, with times since its start. Read from the
//! store: every line of a ticket's timeline, and every message that left.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;
use uuid::Uuid;
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use super::{channels::Delivered, probe::Probe};
use crate::support::NOW;

/// Tickets are numbered from here on; the log shows #1, #2, ...
pub(super) const FIRST_NUMBER: i64 = 1_000;

/// The log so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    text: String,
    last_event: i64,
    apart: Option<Apart>,
}

/// A host whose tickets are left out; the others are numbered as if there were none of it.
#[derive(Debug)]
struct Apart {
    host: Uuid,
    numbers: BTreeMap<i64, i64>,
}

impl Log {
    /// Adds a line of the scenario itself, as in `-- power of web1 cut`.
    pub(super) fn comment(&mut self, now: UnixMillis, text: &str) {
        self.line(now, &format!("-- {text}"));
    }

    pub(super) fn line(&mut self, now: UnixMillis, text: &str) {
        // Writing to a String can't fail.
        let _: std::fmt::Result = writeln!(self.text, "{} {text}", since_start(now));
    }

    /// Leaves out what happens to tickets of a host.
    pub(super) fn leave_out(&mut self, host: HostId) {
        self.apart = Some(Apart {
            host: host.uuid(),
            numbers: BTreeMap::new(),
        });
    }

    /// Adds what happened to tickets since the last call. Returns whether anything did.
    pub(super) async fn collect(&mut self, probe: &mut Probe, now: UnixMillis) -> bool {
        let events = events_after(probe, self.last_event).await;
        let has_news = !events.is_empty();
        for mut event in events {
            self.last_event = event.id;
            if let Some(apart) = &mut self.apart {
                if event.host == Some(apart.host) {
                    continue;
                }
                let next = apart.numbers.len() as i64 + 1;
                event.number = *apart.numbers.entry(event.number).or_insert(next);
            }
            self.line(now, &event.words());
        }
        has_news
    }

    /// A message that a channel was given.
    pub(super) fn message(&mut self, now: UnixMillis, delivered: &Delivered) {
        let (kind, channel) = (delivered.kind, delivered.channel);
        let body: Value = serde_json::from_str(&delivered.payload).unwrap();
        let tier = body["tier"].as_u64().map(|tier| format!(" tier {tier}"));
        let mut number = body["number"].as_i64().map(|n| n - FIRST_NUMBER);
        if let (Some(apart), Some(n)) = (&self.apart, number) {
            let Some(renumbered) = apart.numbers.get(&n) else {
                return;
            };
            number = Some(*renumbered);
        }
        let number = number.map(|n| format!("#{n}"));
        // The one recipient that most scenarios have is not named, nor is the webhook's.
        let to = match delivered.recipient.as_str() {
            "on-call@example.org" | "tier1" => String::new(),
            other => format!(" to {other}"),
        };
        let text = format!(
            "{kind} {channel}{to}{}: {} {}",
            tier.unwrap_or_default(),
            number.unwrap_or_default(),
            body["event"].as_str().unwrap_or_default()
        );
        self.line(now, &text);
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// The text so far, for invariants that break.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// One line of a ticket's timeline.
#[derive(Debug)]
pub(super) struct Happened {
    pub(super) id: i64,
    pub(super) number: i64,
    host: Option<Uuid>,
    pub(super) kind: String,
    priority: String,
    title: String,
    actor: Value,
    detail: Value,
}

type Row = (
    i64,
    i64,
    Option<Uuid>,
    String,
    String,
    String,
    String,
    String,
);

/// All lines of all timelines after a row.
pub(super) async fn events_after(probe: &mut Probe, after: i64) -> Vec<Happened> {
    let rows: Vec<Row> = probe
        .rows(format!(
            "SELECT e.id, t.number, t.host_id, t.priority, t.title, e.kind, e.actor, e.detail \
             FROM ticket_event e JOIN ticket t ON t.id = e.ticket_id \
             WHERE e.id > {after} ORDER BY e.id"
        ))
        .await;
    rows.into_iter()
        .map(
            |(id, number, host, priority, title, kind, actor, detail)| Happened {
                id,
                number: number - FIRST_NUMBER,
                host,
                kind,
                priority,
                title,
                actor: serde_json::from_str(&actor).unwrap(),
                detail: serde_json::from_str(&detail).unwrap(),
            },
        )
        .collect()
}

impl Happened {
    /// The line for people.
    fn words(&self) -> String {
        let text = |key: &str| self.detail[key].as_str().unwrap_or_default().to_owned();
        let by = match self.actor["name"].as_str() {
            Some(name) => format!(" by {name}"),
            None => String::new(),
        };
        let what = match self.kind.as_str() {
            "opened" => format!("{} opened: {}", self.priority, self.title),
            "alert_attached" => format!("alert: {}", text("summary")),
            "alert_updated" => format!("alert, with more: {}", text("summary")),
            "alert_cleared" => format!("alert over: {}", text("reason")),
            "resolved" if self.detail["auto"] == true => "resolved by itself".to_owned(),
            "resolved" | "reopened" if self.detail["still_firing"].is_u64() => {
                format!(
                    "{}{by}, {} still firing",
                    self.kind, self.detail["still_firing"]
                )
            }
            "episode_started" => {
                format!("needs a new answer: {}", text("reason").replace('_', " "))
            }
            "paged" => format!("tier {} paged as hours begin", self.detail["tier"]),
            "state_changed" => format!("{} -> {}{by}", text("from"), text("to")),
            "priority_changed" => format!("priority {} -> {}{by}", text("from"), text("to")),
            "escalated" => format!("escalated to tier {}", self.detail["tier"]),
            "assigned" => format!(
                "assigned to {}{by}",
                self.detail["name"].as_str().unwrap_or("nobody")
            ),
            "notification_sent" => {
                let (channel, to) = (text("channel"), text("to"));
                format!("{channel} to {to}: {}", text("outcome"))
            }
            other => format!("{}{by}", other.replace('_', " ")),
        };
        format!("ticket #{} {what}", self.number)
    }
}

/// `hh:mm:ss` since the scenario began.
fn since_start(now: UnixMillis) -> String {
    let DurationMs(ms) = now.since(NOW);
    let s = ms / 1_000;
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}
