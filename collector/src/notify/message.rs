//! The content of messages. One JSON body is stored for all channels; each renders it.

use serde::{Deserialize, Serialize};
use watchkeep_core::{
    alerts::AlertEvidence,
    delivery::{MessageKind, is_about_delivery},
    ids::{SiteId, TicketId},
    incidents::IncidentScope,
    rules::RuleId,
    tickets::{Applied, Intent, News, PageReason, Ticket, TicketEventKind},
    wording::duration,
};
use watchkeep_shared::{DurationMs, UnixMillis};

use super::endpoint::{self, Endpoint};
use crate::{
    app::App,
    config::Config,
    store::{
        StoreError, Tx,
        delivery::{self, FiringAlert},
        fleet,
        outbox::{self, NewMessage},
    },
};

/// Most lines of evidence in a message.
const MAX_EVIDENCE_LINES: usize = 25;
/// Longest line of evidence, characters.
const MAX_LINE_CHARS: usize = 500;
/// Longest title, characters.
const MAX_TITLE_CHARS: usize = 300;

/// What a message says; also the body of the webhook. Messages of an older version, still queued,
/// lack what was added since.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Body {
    /// `opened`, `reopened`, `worse`, `fires_again`, `still_firing`, `hours_began`, `escalated`,
    /// `assigned`, `hold_ended`, `resolved`, `handed_back`, `alert_attached`, `alert_updated` or `test`.
    pub event: String,
    /// The ticket's identifier.
    pub ticket_id: Option<String>,
    /// The number people call it by.
    pub number: Option<i64>,
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
    /// When the ticket was opened, milliseconds since the Unix epoch.
    pub opened_at_ms: Option<i64>,
    /// The client's name; none for tickets about the collector itself.
    pub client: Option<String>,
    /// The site's name.
    pub site: Option<String>,
    /// The contract's name.
    pub contract: Option<String>,
    /// The host's name.
    pub host: Option<String>,
    /// The host's identifier.
    pub host_id: Option<String>,
    /// The name of who works on it.
    pub assignee: Option<String>,
    /// The rule that fired.
    pub rule: Option<String>,
    /// Where to read what to do about it: a URL or a path, as the rule says.
    pub runbook: Option<String>,
    /// What was checked.
    pub check: Option<String>,
    /// The ticket's page.
    pub url: String,
    /// Why this message is sent, where the event alone does not say it; one sentence each.
    pub notes: Vec<String>,
    /// What was observed: value, threshold, details, log lines.
    pub evidence: Vec<String>,
}

/// Stores the messages of one intent, a copy for each recipient.
pub async fn queue(
    app: &App,
    tx: &mut Tx,
    applied: &Applied,
    intent: Intent,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let ticket = &applied.ticket;
    let (event, kind, tier) = match intent {
        Intent::Page { tier, reason } => (page_name(reason), MessageKind::Page, Some(tier)),
        Intent::Notify { news } => (news_name(news), MessageKind::Notice, None),
        Intent::CancelPages => return Ok(()),
    };
    let mut to = match tier {
        Some(tier) => endpoint::of_tier(&app.config, tier),
        None => endpoint::up_to_tier(&app.config, ticket.tier),
    };
    if ticket.check.as_ref().is_some_and(is_about_delivery) {
        leave_out_failing(tx, &mut to).await?;
        if to.is_empty() {
            to = endpoint::up_to_tier(&app.config, 2);
            leave_out_failing(tx, &mut to).await?;
        }
    }
    if to.is_empty() {
        return Ok(());
    }
    let mut body = body(&app.config, tx, applied, now).await?;
    event.clone_into(&mut body.event);
    body.tier = tier;
    if event == "escalated" {
        body.notes
            .extend(escalation_notes(&app.config, ticket, now));
    }
    let message = NewCopies {
        ticket: ticket.id,
        kind,
        body: &body,
        first: None,
    };
    insert(app, tx, &message, &to, now).await
}

/// A message about to be stored.
#[derive(Debug)]
pub(super) struct NewCopies<'a> {
    pub(super) ticket: TicketId,
    pub(super) kind: MessageKind,
    pub(super) body: &'a Body,
    /// The row of the message's first copy, if it has copies already.
    pub(super) first: Option<i64>,
}

/// Stores a copy of a message for each recipient.
pub(super) async fn insert(
    app: &App,
    tx: &mut Tx,
    message: &NewCopies<'_>,
    to: &[Endpoint],
    now: UnixMillis,
) -> Result<(), StoreError> {
    // A type made of texts and numbers always has a JSON form.
    let payload = serde_json::to_string(message.body).unwrap_or_default();
    let mut first = message.first;
    for one in to {
        let id = app.ids.next(now);
        let copy = NewMessage {
            id,
            message: *first.get_or_insert(id),
            ticket: Some(message.ticket),
            channel: one.channel,
            recipient: one.recipient.clone(),
            tier: one.tier,
            kind: message.kind,
            payload: payload.clone(),
        };
        outbox::insert(tx, &copy, now).await?;
    }
    Ok(())
}

/// A ticket about delivery does not go to recipients that fail: it would only add to what fails.
pub(super) async fn leave_out_failing(
    tx: &mut Tx,
    to: &mut Vec<Endpoint>,
) -> Result<(), StoreError> {
    let recipients = delivery::recipients_in(tx).await?;
    let fails = |one: &Endpoint| {
        recipients.iter().any(|recipient| {
            one.is(&recipient.channel, &recipient.address) && recipient.failing_since.is_some()
        })
    };
    to.retain(|one| !fails(one));
    Ok(())
}

/// What all messages about a ticket's step say.
async fn body(
    config: &Config,
    tx: &mut Tx,
    applied: &Applied,
    now: UnixMillis,
) -> Result<Body, StoreError> {
    let ticket = &applied.ticket;
    let names = delivery::names(tx, ticket, site_of(ticket)).await?;
    let mut observed = observed_in(applied);
    if observed.lines.is_empty() {
        observed = observed_by(&delivery::firing(tx, ticket.id).await?);
    }
    let rule = observed.rule.clone().map(RuleId);
    let rule = rule.and_then(|id| config.rules.rule(&id).cloned());
    let base = config.web.public_url.trim_end_matches('/');
    Ok(Body {
        ticket_id: Some(ticket.id.to_string()),
        number: Some(ticket.number),
        title: cut(&ticket.title, MAX_TITLE_CHARS),
        priority: ticket.priority.to_string(),
        severity: ticket.severity.to_string(),
        state: ticket.state.to_string(),
        at_ms: now.0,
        opened_at_ms: Some(ticket.opened_at.0),
        client: names.client.filter(|name| name != fleet::OWN_CLIENT),
        site: names.site,
        contract: names.contract,
        host: names.host,
        host_id: ticket.host.map(|id| id.to_string()),
        assignee: names.assignee,
        rule: observed.rule,
        runbook: rule.and_then(|rule| rule.runbook.clone()),
        check: ticket.check.as_ref().map(ToString::to_string),
        url: format!("{base}/tickets/{}", ticket.id),
        evidence: observed.lines,
        ..Body::default()
    })
}

/// The site of an incident, whose ticket has no host.
fn site_of(ticket: &Ticket) -> Option<SiteId> {
    match IncidentScope::of_check(ticket.check.as_ref()?)? {
        IncidentScope::Site(site) => Some(site),
        IncidentScope::Fleet => None,
    }
}

/// What a message shows of alerts.
#[derive(Debug, Default)]
struct Observed {
    rule: Option<String>,
    lines: Vec<String>,
}

impl Observed {
    fn line(&mut self, text: &str) {
        if self.lines.len() < MAX_EVIDENCE_LINES {
            self.lines.push(cut(text, MAX_LINE_CHARS));
        }
    }

    fn alert(&mut self, rule: &str, summary: &str, evidence: &AlertEvidence) {
        self.rule.get_or_insert_with(|| rule.to_owned());
        self.line(summary);
        self.evidence(evidence);
    }

    fn evidence(&mut self, evidence: &AlertEvidence) {
        if let Some(detail) = &evidence.detail {
            self.line(detail);
        }
        for line in &evidence.lines {
            self.line(&format!("> {line}"));
        }
    }
}

/// What the step's own events show.
fn observed_in(applied: &Applied) -> Observed {
    let mut observed = Observed::default();
    for event in &applied.events {
        match &event.kind {
            TicketEventKind::AlertAttached {
                rule,
                summary,
                evidence,
                ..
            } => observed.alert(rule.as_str(), summary, evidence),
            TicketEventKind::AlertUpdated {
                summary, evidence, ..
            } => {
                observed.line(summary);
                observed.evidence(evidence);
            }
            TicketEventKind::AlertCleared { reason, .. } => observed.line(reason),
            _ => {}
        }
    }
    observed
}

/// What the ticket's firing alerts show.
fn observed_by(firing: &[FiringAlert]) -> Observed {
    let mut observed = Observed::default();
    for alert in firing {
        // A row that can't be read is shown without its evidence: the page matters more.
        let evidence = serde_json::from_str(&alert.evidence).unwrap_or_else(|error| {
            tracing::warn!(
                alert.rule = alert.rule_id,
                "corrupt alert.evidence: {error}"
            );
            AlertEvidence::default()
        });
        observed.alert(&alert.rule_id, &alert.summary, &evidence);
    }
    observed
}

fn escalation_notes(config: &Config, ticket: &Ticket, now: UnixMillis) -> Vec<String> {
    let waited = minutes(now.since(ticket.episode.since));
    let mut notes = vec![format!(
        "Escalated to tier {}: not acknowledged for {waited}.",
        ticket.tier
    )];
    if !endpoint::has_tier2(config) {
        notes.push("No tier 2 is configured, so this goes to tier 1 again.".to_owned());
    }
    notes
}

/// "5 min", "1 h 30 min".
pub(super) fn minutes(span: DurationMs) -> String {
    match span.0.max(0) / 60_000 {
        0 => "0 min".to_owned(),
        minutes => duration(DurationMs::from_mins(minutes)),
    }
}

/// The text, at most so many characters long.
pub(super) fn cut(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(max_chars.saturating_sub(1)).collect();
    short.push('…');
    short
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
        News::HoldEnded => "hold_ended",
        News::Resolved => "resolved",
        News::HandedBack => "handed_back",
        News::AlertAttached => "alert_attached",
        News::AlertUpdated => "alert_updated",
    }
}
