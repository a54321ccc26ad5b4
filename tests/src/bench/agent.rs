//! What the agent costs the customer's machine.

use std::{fs::File, io::Write as _, time::Duration};

use anyhow::{Context, Result};
use watchkeep_shared::wire::policy::{LogCheck, LogRule, ServiceCheck};

use super::{Row, Size};
use crate::{
    fleet::observe,
    harness::{Agent, Collector, DatabaseKind, Settings},
};

const MIB: f64 = 1024.0 * 1024.0;

/// Memory and processor time of a real agent with the default interval, two services and one log.
pub(super) async fn footprint(size: Size) -> Result<Vec<Row>> {
    let cycles = match size {
        Size::Standard => 6,
        Size::Trial => 1,
    };
    let dir = Agent::directory()?;
    let path = dir.path().join("logs/app.log");
    let mut log = File::create(&path)?;
    let settings = Settings {
        services: vec![
            ServiceCheck::process("watchkeep-collector".chars().take(15).collect::<String>()),
            ServiceCheck::Tcp {
                address: "127.0.0.1:1".to_owned(),
            },
        ],
        logs: vec![LogCheck {
            path: path.to_str().context("the path is UTF-8")?.to_owned(),
            rules: vec![LogRule {
                name: "errors".to_owned(),
                pattern: "ERROR".to_owned(),
                lines_per_minute: None,
            }],
            record_start: None,
            journal: None,
            event_log: None,
        }],
        ..Settings::product_defaults()
    };
    let mut collector = Collector::create(DatabaseKind::Sqlite, &settings).await?;
    collector.start().await?;
    let mut agent = Agent::enroll_in(dir, &collector.token(1).await?).await?;
    agent.start()?;
    let store = collector.store().await?;
    let seen = agent.heartbeats(&store, 0).await;
    let id = agent.id().context("the agent runs")?;
    let begin = observe::footprint(id)?;
    for _ in 0..cycles {
        writeln!(log, "a line that matches nothing")?;
        tokio::time::sleep(Duration::from_millis(settings.interval_ms.into())).await;
    }
    let end = observe::footprint(id)?;
    agent.heartbeats(&store, seen).await;
    let values = store
        .rows("SELECT names FROM metric_schema")
        .await?
        .iter()
        .filter_map(|row| serde_json::from_str::<Vec<String>>(row[0].text()?).ok())
        .map(|names| names.len())
        .max()
        .unwrap_or(0);
    let cpu_ms = (end.cpu_ms - begin.cpu_ms) / f64::from(cycles);
    Ok(vec![
        Row::new("agent RSS", end.rss_bytes as f64 / MIB, "MiB").at_most(10.0),
        Row::new("agent PSS", end.pss_bytes as f64 / MIB, "MiB").at_most(7.0),
        Row::new("agent CPU per 10 s cycle", cpu_ms, "ms")
            .at_most(3.0)
            .note(format!("{values} values, 2 services, 1 log")),
        Row::new("values per heartbeat", values as f64, "").at_least(63.0),
    ])
}
