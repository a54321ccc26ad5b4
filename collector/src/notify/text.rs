//! A message as text for people: subject, plain text and HTML. Pure.

use askama::Template;
use jiff::Timestamp;

use super::{Body, message::cut};
use crate::links::{Piece, linked};

/// Longest subject, characters.
const MAX_SUBJECT_CHARS: usize = 250;

/// `[#12 P1 new] Bakery / Oven / web1: Disk /srv/data 98 % full (contract Bakery servers)`.
pub(super) fn subject(body: &Body) -> String {
    let mut mark = event(body);
    if let Some(number) = body.number {
        mark = format!("#{number} {} {mark}", body.priority);
    }
    let mut what = what(body).to_owned();
    let place = place(body);
    if !place.is_empty() {
        what = format!("{place}: {what}");
    }
    if let Some(contract) = &body.contract {
        what = format!("{what} (contract {contract})");
    }
    // One line, whatever the names hold.
    let subject = format!("[{mark}] {what}").replace(char::is_control, " ");
    cut(&subject, MAX_SUBJECT_CHARS)
}

/// The message as plain text.
pub(super) fn plain(body: &Body) -> String {
    let mut lines = vec![body.title.clone(), String::new(), lead(body)];
    lines.extend(body.notes.iter().cloned());
    lines.push(String::new());
    let facts = facts(body);
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts {
        let pad = width - name.len();
        lines.push(format!("{name}:{:pad$} {value}", ""));
    }
    if !body.evidence.is_empty() {
        lines.push(String::new());
        lines.extend(body.evidence.iter().map(|line| format!("  {line}")));
    }
    lines.push(String::new());
    lines.push(format!("{}: {}", ask(body), body.url));
    lines.push(String::new());
    lines.join("\n")
}

/// The message as a page of HTML.
pub(super) fn html(body: &Body) -> String {
    let page = Page {
        title: &body.title,
        lead: lead(body),
        notes: &body.notes,
        facts: facts(body)
            .into_iter()
            .map(|(name, value)| (name, linked(&value)))
            .collect(),
        evidence: &body.evidence,
        ask: ask(body),
        url: &body.url,
    };
    // Writing to a String fails only if a value's Display does; none of these do.
    page.render().unwrap_or_default()
}

#[derive(Template)]
#[template(path = "mail/message.html")]
struct Page<'a> {
    title: &'a str,
    lead: String,
    notes: &'a [String],
    facts: Vec<(&'static str, Vec<Piece>)>,
    evidence: &'a [String],
    ask: &'static str,
    url: &'a str,
}

/// The event in a word or two.
fn event(body: &Body) -> String {
    match body.event.as_str() {
        "opened" => "new".to_owned(),
        "escalated" => format!("escalated to tier {}", body.tier.unwrap_or(2)),
        "handed_back" => "recovered, needs review".to_owned(),
        "alert_attached" => "new alert".to_owned(),
        other => other.replace('_', " "),
    }
}

/// The event in a sentence.
fn lead(body: &Body) -> String {
    let ticket = body.number.map_or_else(
        || "The ticket".to_owned(),
        |number| format!("Ticket #{number}"),
    );
    match body.event.as_str() {
        "opened" => format!("{ticket} was opened."),
        "reopened" => format!("{ticket} is open again: the problem came back."),
        "worse" => format!("{ticket}: the problem got worse."),
        "fires_again" => format!("{ticket}: the problem came back after it had recovered."),
        "still_firing" => format!("{ticket} is open again: it was resolved and still fires."),
        "hours_began" => format!("{ticket} is open, and its paging hours have begun."),
        "escalated" => format!("{ticket} is escalated."),
        "assigned" => format!("{ticket} was assigned."),
        "hold_ended" => format!("{ticket} was on hold until now and is open again."),
        "resolved" => format!("{ticket} is resolved."),
        "handed_back" => format!("{ticket}: the problem is gone. Review and resolve the ticket."),
        "alert_attached" => format!("{ticket} has a new alert."),
        "alert_updated" => format!("{ticket}: an alert changed."),
        "test" => "This is a test message. Nothing is wrong.".to_owned(),
        other => format!("{ticket}: {}.", other.replace('_', " ")),
    }
}

/// `Bakery / Oven / web1`.
fn place(body: &Body) -> String {
    let parts = [&body.client, &body.site, &body.host];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    parts.join(" / ")
}

/// The title without the host's name, which precedes it.
fn what(body: &Body) -> &str {
    let title = body.title.as_str();
    body.host
        .as_deref()
        .and_then(|host| title.strip_prefix(host))
        .and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or(title)
}

fn facts(body: &Body) -> Vec<(&'static str, String)> {
    let rule = body.rule.as_ref().map(|rule| match body.severity.as_str() {
        "" => rule.clone(),
        severity => format!("{rule} ({severity})"),
    });
    let state = Some(body.state.replace('_', " for ")).filter(|state| !state.is_empty());
    let priority = Some(body.priority.clone()).filter(|priority| !priority.is_empty());
    [
        ("Client", body.client.clone()),
        ("Site", body.site.clone()),
        ("Contract", body.contract.clone()),
        ("Host", body.host.clone()),
        ("Assignee", body.assignee.clone()),
        ("Rule", rule),
        ("Runbook", body.runbook.clone()),
        ("Priority", priority),
        ("State", state),
        ("Opened", body.opened_at_ms.map(utc)),
        ("Time", Some(utc(body.at_ms))),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| (name, value)))
    .collect()
}

fn ask(body: &Body) -> &'static str {
    match (body.event.as_str(), body.tier) {
        ("test", _) => "Watchkeep",
        (_, Some(_)) => "Open and acknowledge",
        (_, None) => "Open",
    }
}

/// "2026-11-21 21:03 UTC".
fn utc(ms: i64) -> String {
    Timestamp::from_millisecond(ms)
        .map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Body {
        Body {
            event: "escalated".to_owned(),
            number: Some(1012),
            title: "web1: Disk /srv/data 98 % full (limit 95 %)".to_owned(),
            priority: "P1".to_owned(),
            severity: "critical".to_owned(),
            state: "waiting_customer".to_owned(),
            tier: Some(2),
            at_ms: 1_800_000_300_000,
            opened_at_ms: Some(1_800_000_000_000),
            client: Some("Bakery <&> Sons".to_owned()),
            site: Some("Oven".to_owned()),
            contract: Some("Bakery servers".to_owned()),
            host: Some("web1".to_owned()),
            rule: Some("disk-full".to_owned()),
            runbook: Some("https://wiki.example/disk?a=1&b=2".to_owned()),
            url: "https://watchkeep.example/tickets/7".to_owned(),
            notes: vec!["Escalated to tier 2: not acknowledged for 5 min.".to_owned()],
            evidence: vec!["98.4 % (above 95 %)".to_owned(), "> a <b> line".to_owned()],
            ..Body::default()
        }
    }

    #[test]
    fn the_subject_says_whose_server_it_is() {
        assert_eq!(
            subject(&page()),
            "[#1012 P1 escalated to tier 2] Bakery <&> Sons / Oven / web1: \
             Disk /srv/data 98 % full (limit 95 %) (contract Bakery servers)"
        );
        let collector = Body {
            event: "opened".to_owned(),
            number: Some(7),
            priority: "P2".to_owned(),
            title: "Pages by mail are not delivered".to_owned(),
            ..Body::default()
        };
        assert_eq!(
            subject(&collector),
            "[#7 P2 new] Pages by mail are not delivered"
        );
    }

    #[test]
    fn a_name_can_not_break_the_subject() {
        let body = Body {
            client: Some("a\r\nBcc: x@example.org".to_owned()),
            title: "t".repeat(1_000),
            ..page()
        };
        let subject = subject(&body);
        assert!(!subject.contains(['\r', '\n']), "{subject}");
        assert_eq!(subject.chars().count(), MAX_SUBJECT_CHARS);
    }

    #[test]
    fn the_text_has_reason_names_and_evidence() {
        let expected = "web1: Disk /srv/data 98 % full (limit 95 %)\n\n\
            Ticket #1012 is escalated.\n\
            Escalated to tier 2: not acknowledged for 5 min.\n\n\
            Client:   Bakery <&> Sons\n\
            Site:     Oven\n\
            Contract: Bakery servers\n\
            Host:     web1\n\
            Rule:     disk-full (critical)\n\
            Runbook:  https://wiki.example/disk?a=1&b=2\n\
            Priority: P1\n\
            State:    waiting for customer\n\
            Opened:   2027-01-15 08:00 UTC\n\
            Time:     2027-01-15 08:05 UTC\n\n  \
            98.4 % (above 95 %)\n  \
            > a <b> line\n\n\
            Open and acknowledge: https://watchkeep.example/tickets/7\n";
        assert_eq!(plain(&page()), expected);
    }

    #[test]
    fn html_escapes_what_comes_from_outside() {
        let html = html(&page());
        assert!(html.contains("Bakery &#60;&#38;&#62; Sons"), "{html}");
        assert!(html.contains("&#62; a &#60;b&#62; line"), "{html}");
        let runbook = "<a href=\"https://wiki.example/disk?a=1&#38;b=2\"";
        assert!(html.contains(runbook), "{html}");
        assert!(!html.contains("<b>"), "{html}");
    }
}
