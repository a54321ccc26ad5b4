//! The content of messages. One JSON body is stored for all channels; each renders it.

use serde::{Deserialize, Serialize};
use watchkeep_core::tickets::{Applied, Intent, News, PageReason, TicketEventKind};
use watchkeep_shared::UnixMillis;

use crate::{config::Config, ids::RowIds, store::outbox::NewMessage};

/// What a message says; also the body of the webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Body {
    /// `opened`, `reopened`, `worse`, `fires_again`, `still_firing`, `hours_began`, `escalated`,
    /// `assigned`, `resolved`, `handed_back`, `alert_attached` or `alert_updated`.
    pub event: String,
    /// The ticket's identifier.
    pub ticket_id: String,
    /// The number people call it by.
    pub number: i64,
    /// One line.
    pub title: String,
    /// `P1` to `P4`.
    pub priority: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// The ticket's state.
    pub state: String,
    /// The line of support that is paged, for pages.
    pub tier: Option<u8>,
    /// When it happened, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The ticket's page.
    pub url: String,
    /// What was observed: value, threshold, details, log lines.
    pub evidence: Vec<String>,
}

/// The messages of one intent, one a configured channel.
pub fn messages(
    config: &Config,
    ids: &RowIds,
    applied: &Applied,
    intent: Intent,
    now: UnixMillis,
) -> Vec<NewMessage> {
    let (event, kind, tier) = match intent {
        Intent::Page { tier, reason } => (page_name(reason), "page", Some(tier)),
        Intent::Notify { news } => (news_name(news), "notice", None),
        Intent::CancelPages => return Vec::new(),
    };
    let ticket = &applied.ticket;
    let body = Body {
        event: event.to_owned(),
        ticket_id: ticket.id.to_string(),
        number: ticket.number,
        title: ticket.title.clone(),
        priority: ticket.priority.to_string(),
        severity: ticket.severity.to_string(),
        state: ticket.state.to_string(),
        tier,
        at_ms: now.0,
        url: format!(
            "{}/tickets/{}",
            config.web.public_url.trim_end_matches('/'),
            ticket.id
        ),
        evidence: evidence(applied),
    };
    // A type made of texts and numbers always has a JSON form.
    let payload = serde_json::to_string(&body).unwrap_or_default();
    let channels = [
        ("mail", config.mail.is_some()),
        ("webhook", config.webhook.is_some()),
    ];
    channels
        .into_iter()
        .filter(|(_, configured)| *configured)
        .map(|(channel, _)| NewMessage {
            id: ids.next(now),
            ticket: Some(ticket.id),
            channel,
            kind,
            payload: payload.clone(),
        })
        .collect()
}

/// What the step's own events show.
fn evidence(applied: &Applied) -> Vec<String> {
    let mut lines = Vec::new();
    for event in &applied.events {
        match &event.kind {
            TicketEventKind::AlertAttached {
                summary, evidence, ..
            }
            | TicketEventKind::AlertUpdated {
                summary, evidence, ..
            } => {
                lines.push(summary.clone());
                lines.extend(evidence.detail.clone());
                lines.extend(evidence.lines.iter().map(|line| format!("> {line}")));
            }
            TicketEventKind::AlertCleared { reason, .. } => lines.push(reason.clone()),
            _ => {}
        }
    }
    lines
}

const fn page_name(reason: PageReason) -> &'static str {
    match reason {
        PageReason::Opened => "opened",
        PageReason::Reopened => "reopened",
        PageReason::Worse => "worse",
        PageReason::FiresAgain => "fires_again",
        PageReason::StillFiring => "still_firing",
        PageReason::HoursBegan => "hours_began",
        PageReason::Escalated => "escalated",
    }
}

const fn news_name(news: News) -> &'static str {
    match news {
        News::Call { reason } => page_name(reason),
        News::Assigned => "assigned",
        News::Resolved => "resolved",
        News::HandedBack => "handed_back",
        News::AlertAttached => "alert_attached",
        News::AlertUpdated => "alert_updated",
    }
}
