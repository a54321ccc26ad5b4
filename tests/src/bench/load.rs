//! What a heartbeat costs the collector, and how many it takes.

use std::time::Duration;

use anyhow::Result;

use super::{Row, Site, Size};
use crate::{
    fleet::{Breach, Mode, Options, Pace, Report, machine::Forced},
    harness::{DatabaseKind, Settings},
};

/// Agents that are enrolled for all measurements of a database.
const AGENTS: usize = 3_000;

/// All measurements of load on one database.
pub(super) async fn load(kind: DatabaseKind, size: Size) -> Result<Vec<Row>> {
    let scale = match size {
        Size::Standard => 1,
        Size::Trial => 10,
    };
    let agents = AGENTS / scale as usize;
    let seconds = Duration::from_secs(30 / scale);
    // The rules of the tests and not the default ones: a breach must count at once.
    let settings = Settings {
        rules: Settings::default().rules,
        ..Settings::product_defaults()
    };
    let site = Site::start(kind, &settings, agents).await?;
    let mut rows = Vec::new();

    let mut options = Options::new(every_second(), seconds);
    options.breach = Some(Breach {
        agents: agents / 30,
        forced: Forced {
            metric: "mem.used_pct".to_owned(),
            value: 99.0,
        },
        after: seconds / 2,
    });
    rows.extend(thousand_a_second(
        kind,
        &site.run(agents / 3, options).await?,
    ));

    let sustained = site
        .run(agents, Options::new(every_second(), seconds))
        .await?;
    rows.extend(three_thousand_a_second(kind, &sustained));

    let flat_out = Options::new(Pace::AsFastAsAcknowledged, seconds / 2);
    rows.extend(limit(kind, &site.run(agents / 6, flat_out).await?));

    let mut storm = Options::new(Pace::Every(Duration::from_secs(5)), seconds / 2);
    storm.mode = Mode::Storm;
    rows.extend(reconnects(kind, &site.run(agents, storm).await?));
    Ok(rows)
}

fn every_second() -> Pace {
    Pace::Every(Duration::from_secs(1))
}

fn thousand_a_second(kind: DatabaseKind, report: &Report) -> Vec<Row> {
    let note = note(report);
    let wire = report.wire.sent_per_heartbeat + report.wire.received_per_heartbeat;
    let mut rows = vec![
        Row::new(
            format!("bytes per heartbeat on the wire, {kind}"),
            wire,
            "B",
        )
        .at_most(1_300.0)
        .note(format!(
            "{:.0} up, {:.0} down",
            report.wire.sent_per_heartbeat, report.wire.received_per_heartbeat
        )),
    ];
    if let Some(collector) = report.collector {
        let target = match kind {
            DatabaseKind::Sqlite => 150.0,
            DatabaseKind::Postgres => 250.0,
        };
        let what = format!("collector CPU per heartbeat at 1,000/s, {kind}");
        rows.push(
            Row::new(what, collector.cpu_s_per_million, "µs")
                .at_most(target)
                .note(note),
        );
        let what = format!("RSS per connected idle agent, {kind}");
        rows.push(Row::new(what, collector.rss_per_agent_bytes / 1_000.0, "kB").at_most(40.0));
    }
    if let Some(store) = report.store {
        let what = format!("bytes per heartbeat in the store, unsealed, {kind}");
        rows.push(Row::new(what, store.bytes_per_heartbeat, "B"));
    }
    if let Some(breach) = report.breach {
        let what = format!("breach made to ticket seen in the store, p99, {kind}");
        let note = format!(
            "{} of {} tickets; {}",
            breach.ticketed, breach.made, breach.latency
        );
        rows.push(
            Row::new(what, breach.latency.p99_ms, "ms")
                .at_most(500.0)
                .note(note),
        );
    }
    rows
}

fn three_thousand_a_second(kind: DatabaseKind, report: &Report) -> Vec<Row> {
    let asked = report.agents;
    let what = |what: &str| format!("{what} at {asked}/s asked for, {kind}");
    let mut rows = vec![
        Row::new(
            what("heartbeats acknowledged"),
            report.heartbeats_per_s,
            "/s",
        )
        // Each agent beats once a second; the time in which the rest is settled is counted too.
        .at_least(report.agents as f64 * 0.95)
        .note(note(report)),
        Row::new(
            what("acknowledgement, p99"),
            report.frame_latency.p99_ms,
            "ms",
        )
        .at_most(1_000.0)
        .note(report.frame_latency.to_string()),
    ];
    if let Some(collector) = report.collector {
        let cpu = collector.cpu_s_per_million;
        rows.push(Row::new(what("collector CPU per heartbeat"), cpu, "µs"));
    }
    rows
}

fn limit(kind: DatabaseKind, report: &Report) -> Vec<Row> {
    let what = format!("heartbeats acknowledged, as fast as they are, {kind}");
    let note = format!("{}; {}", report.answer_latency, note(report));
    vec![
        Row::new(what, report.heartbeats_per_s, "/s")
            .at_least(3_000.0)
            .note(note),
    ]
}

fn reconnects(kind: DatabaseKind, report: &Report) -> Vec<Row> {
    let agents = report.agents;
    let what = format!("{agents} agents reconnect at once: the last one, {kind}");
    let reconnect = report.reconnect.unwrap_or_default();
    vec![Row::new(what, reconnect.max_ms / 1_000.0, "s").note(note(report))]
}

/// What went wrong, if anything.
fn note(report: &Report) -> String {
    let refused: u64 = report.rejected.values().sum();
    let mut parts = vec![
        format!("{} agents", report.agents),
        format!("{} acknowledged", report.acked),
    ];
    if refused + report.owed + report.lost > 0 {
        let Report { owed, lost, .. } = report;
        parts.push(format!("{refused} refused, {owed} owed, {lost} lost"));
    }
    parts.extend(
        report
            .errors
            .iter()
            .map(|(kind, count)| format!("{count} × {kind}")),
    );
    parts.join(", ")
}
