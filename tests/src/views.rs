//! What the tests look at in the store and in reports.

use std::collections::HashSet;

use anyhow::{Context, Result};
use serde_json::Value as Json;
use watchkeep_shared::HostId;

use crate::{fleet::journal::Acknowledged, store::Store};

/// An automatic ticket and the alert behind it.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Where the ticket stands.
    pub state: String,
    /// Whether a person acted on it.
    pub touched_by_human: bool,
    /// When it was opened, milliseconds.
    pub opened_at: i64,
    /// When the breach began, milliseconds.
    pub raised_at: i64,
    /// When the alert was committed, milliseconds.
    pub recorded_at: i64,
    /// When it cleared, milliseconds.
    pub cleared_at: Option<i64>,
    /// JSON.
    pub alert_evidence: Json,
    /// The metric around the breach, JSON; null without one.
    pub history: Json,
}

/// The tickets of one check of a host, oldest first.
pub async fn tickets(store: &Store, host: HostId, check: &str) -> Result<Vec<Ticket>> {
    let sql = format!(
        "SELECT ticket.state, ticket.touched_by_human, ticket.opened_at, alert.raised_at, \
         alert.recorded_at, alert.cleared_at, alert.evidence, ticket_evidence.body FROM ticket \
         JOIN alert ON alert.ticket_id = ticket.id \
         LEFT JOIN ticket_evidence ON ticket_evidence.ticket_id = ticket.id \
         WHERE ticket.host_id = {} AND ticket.check_key = '{check}' ORDER BY ticket.opened_at",
        store.id(host.uuid())
    );
    let rows = store.rows(&sql).await?;
    rows.iter()
        .map(|row| {
            let [
                state,
                touched,
                opened,
                raised,
                recorded,
                cleared,
                evidence,
                history,
            ] = &row[..]
            else {
                anyhow::bail!("a ticket row has eight columns");
            };
            let json = |text: Option<&str>| serde_json::from_str(text.unwrap_or("null"));
            Ok(Ticket {
                state: state.text().context("ticket.state")?.to_owned(),
                touched_by_human: touched.int().context("ticket.touched_by_human")? != 0,
                opened_at: opened.int().context("ticket.opened_at")?,
                raised_at: raised.int().context("alert.raised_at")?,
                recorded_at: recorded.int().context("alert.recorded_at")?,
                cleared_at: cleared.int(),
                alert_evidence: json(evidence.text())?,
                history: json(history.text())?,
            })
        })
        .collect()
}

/// The lists of busiest processes that a host sent since an instant, oldest first: JSON.
pub async fn busiest_processes(store: &Store, host: HostId, since: i64) -> Result<Vec<Json>> {
    let sql = format!(
        "SELECT detail FROM host_event WHERE kind = 'processes' AND host_id = {} AND at >= {since} \
         ORDER BY at, id",
        store.id(host.uuid())
    );
    let rows = store.rows(&sql).await?;
    let lists = rows.iter().map(|row| {
        let text = row[0].text().context("host_event.detail")?;
        Ok(serde_json::from_str(text)?)
    });
    lists.collect()
}

/// How many matching log lines a host has reported.
pub async fn log_matches(store: &Store, host: HostId) -> Result<u64> {
    let sql = format!(
        "SELECT detail FROM host_event WHERE kind = 'log_match' AND host_id = {}",
        store.id(host.uuid())
    );
    let rows = store.rows(&sql).await?;
    let counts = rows.iter().map(|row| {
        let detail: Json = serde_json::from_str(row[0].text().context("host_event.detail")?)?;
        detail["count"]
            .as_u64()
            .with_context(|| format!("no count in {detail}"))
    });
    counts.sum()
}

/// Every stored heartbeat; fails if one is there twice.
pub async fn heartbeats(store: &Store) -> Result<HashSet<Acknowledged>> {
    let sealed = store.int("SELECT COUNT(*) FROM chunk").await?;
    anyhow::ensure!(
        sealed == 0,
        "heartbeats were sealed meanwhile: the test took too long"
    );
    let rows = store
        .rows("SELECT host_id, instance, seq FROM heartbeat")
        .await?;
    let mut all = HashSet::new();
    for row in rows {
        let heartbeat = Acknowledged {
            host: row[0].id().context("heartbeat.host_id")?.into(),
            instance: row[1].id().context("heartbeat.instance")?.into(),
            seq: row[2].int().context("heartbeat.seq")? as u64,
        };
        anyhow::ensure!(all.insert(heartbeat), "{heartbeat:?} is stored twice");
    }
    Ok(all)
}

/// One host's part of a report, without its days.
pub fn host_report(report: &Json, host: HostId) -> Result<Json> {
    let host = host.to_string();
    host_reports(report)?
        .into_iter()
        .find(|entry| entry["host"] == host.as_str())
        .with_context(|| format!("the report has no host {host}: {report}"))
}

/// All hosts of a report, without their days.
pub fn host_reports(report: &Json) -> Result<Vec<Json>> {
    let mut hosts = report["hosts"]
        .as_array()
        .context("a report has hosts")?
        .clone();
    for host in &mut hosts {
        host.as_object_mut()
            .context("a host is an object")?
            .remove("days");
    }
    Ok(hosts)
}

/// Everything that the store knows about when a host sent a heartbeat, for the message of a failed test.
pub async fn evidence(store: &Store, host: &Json) -> Result<String> {
    let host: HostId = host["host"].as_str().context("a host has an id")?.parse()?;
    let sql = format!(
        "SELECT kind, valid_from, valid_to, recorded_at, detail FROM evidence \
         WHERE host_id IS NULL OR host_id = {} ORDER BY valid_from",
        store.id(host.uuid())
    );
    let rows = store.rows(&sql).await?;
    let lines: Vec<_> = rows.iter().map(|row| format!("{row:?}")).collect();
    Ok(lines.join("\n"))
}

/// How long a host was in a state, milliseconds.
pub fn state_ms(host: &Json, state: &str) -> i64 {
    host["states_ms"][state].as_i64().unwrap_or(0)
}

/// State and cause of a host's outages, oldest first, without the moment between its enrolment and
/// its first heartbeat, and without what continues: on a busy machine a live heartbeat may be
/// overdue just when a report is made.
pub fn outages(host: &Json) -> Vec<(&str, &str)> {
    let outages = host["outages"].as_array();
    outages
        .into_iter()
        .flatten()
        .filter(|outage| outage["ongoing"] != true)
        .filter_map(|outage| Some((outage["state"].as_str()?, outage["cause"]["kind"].as_str()?)))
        .filter(|(_, cause)| *cause != "no_frame_yet")
        .collect()
}
