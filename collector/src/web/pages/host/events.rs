//! What happened on a host: log matches and gaps, what the collector saw of its clocks, and what was
//! not stored.

use serde::Deserialize;
use watchkeep_shared::{DurationMs, HostId, wire::heartbeat::Event};

use crate::{
    store::views,
    web::{context::Ctx, error::WebError, format, parts::Time},
};

const EVENTS: usize = 20;
const SPAN: DurationMs = DurationMs::from_hours(24 * 7);

/// One event.
pub(super) struct LogRow {
    pub(super) at: Time,
    pub(super) title: String,
    pub(super) path: String,
    pub(super) lines: Vec<String>,
}

/// Events of two kinds, newest first.
pub(super) async fn events(
    ctx: &Ctx,
    id: HostId,
    kinds: [&str; 2],
) -> Result<Vec<LogRow>, WebError> {
    let since = ctx.now - SPAN;
    let events = views::host_events(&ctx.web.app.store, id, since, kinds, EVENTS).await?;
    let rows = events
        .iter()
        .filter_map(|event| log_row(&event.detail, ctx.time(event.at)));
    Ok(rows.collect())
}

/// What is not in the host's record.
pub(super) async fn left_out(ctx: &Ctx, id: HostId) -> Result<Vec<LogRow>, WebError> {
    let mut rows = events(ctx, id, ["state_lost"; 2]).await?;
    rows.extend(events(ctx, id, ["limited", "history_lost"]).await?);
    Ok(rows)
}

/// What the collector itself saw in a host's clocks.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ClockEvent {
    ClockStep { ms: i64 },
    Slept { ms: i64 },
}

/// What is not in a host's record.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum LeftOut {
    /// The host was at a limit.
    Limited {
        values: u64,
        events: u64,
        /// Added later.
        #[serde(default)]
        judgements: u64,
    },
    /// The sealer left rows out.
    HistoryLost {
        thinned: u64,
        unnamed: u64,
        unreadable: u64,
    },
    /// The collector could not read what it remembered of the host.
    StateLost,
}

impl LeftOut {
    fn words(&self) -> String {
        let parts = match *self {
            Self::Limited { values, events, .. } => vec![
                (events, "events, more than the limit of this host"),
                (
                    values,
                    "heartbeats' values, with more new lists of metrics than the limit of this host",
                ),
            ],
            Self::HistoryLost {
                thinned,
                unnamed,
                unreadable,
            } => vec![
                (thinned, "rows of history, more than an hour holds"),
                (unnamed, "rows of history, without known metric names"),
                (unreadable, "rows of history, unreadable and set aside"),
            ],
            Self::StateLost => {
                return "The collector's state of this host could not be read: it began anew, and \
                    alerts that still apply fire again"
                    .to_owned();
            }
        };
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts.map(|(n, what)| format!("{n} {what}")).collect();
        let not_stored = (!parts.is_empty()).then(|| format!("Not stored: {}", parts.join("; ")));
        let sentences: Vec<String> = not_stored.into_iter().chain(self.not_judged()).collect();
        sentences.join(". ")
    }

    fn not_judged(&self) -> Option<String> {
        match self {
            Self::Limited { judgements, .. } if *judgements > 0 => Some(format!(
                "Not judged: {judgements} heartbeats and log matches, because the alerts of this \
                 host change more often than its limit"
            )),
            _ => None,
        }
    }
}

fn log_row(detail: &str, at: Time) -> Option<LogRow> {
    if let Ok(event) = serde_json::from_str(detail) {
        let span = |ms: i64| format::span(DurationMs(ms.abs()));
        let title = match event {
            ClockEvent::ClockStep { ms } if ms < 0 => {
                format!("The wall clock was set back by {}", span(ms))
            }
            ClockEvent::ClockStep { ms } => format!("The wall clock was set ahead by {}", span(ms)),
            ClockEvent::Slept { ms } => format!("The machine slept for {}", span(ms)),
        };
        return Some(LogRow {
            at,
            title,
            path: String::new(),
            lines: Vec::new(),
        });
    }
    if let Ok(left_out) = serde_json::from_str::<LeftOut>(detail) {
        return Some(LogRow {
            at,
            title: left_out.words(),
            path: String::new(),
            lines: Vec::new(),
        });
    }
    match serde_json::from_str(detail).ok()? {
        Event::LogMatch {
            rule,
            path,
            count,
            lines,
        } => {
            let title = format!(
                "{count} line{} matched {rule}",
                if count == 1 { "" } else { "s" }
            );
            Some(LogRow {
                at,
                title,
                path,
                lines,
            })
        }
        Event::LogGap {
            path,
            reason,
            bytes,
        } => {
            let reason = serde_json::to_value(reason).ok()?;
            let reason = reason.as_str().unwrap_or_default().replace('_', " ");
            let size = bytes.map_or_else(String::new, |n| format!(", {}", format::bytes(n as f64)));
            let title = format!("Part of the log could not be read: {reason}{size}");
            Some(LogRow {
                at,
                title,
                path,
                lines: Vec::new(),
            })
        }
        Event::AgentStarted { .. }
        | Event::Goodbye { .. }
        | Event::SpoolLoss { .. }
        | Event::Discovered { .. }
        | Event::HostFacts(_)
        | Event::Processes(_)
        | Event::Other => None,
    }
}
