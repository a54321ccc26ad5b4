//! How long a dead agent goes unnoticed with the settings that the product comes with.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Row, Site, Size};
use crate::{
    fleet::{Mode, Options, Pace},
    harness::{DatabaseKind, Settings},
};

/// Half of the fleet falls silent; the others must not be called so.
pub(super) async fn silence(size: Size) -> Result<Vec<Row>> {
    let mut settings = Settings::product_defaults();
    let agents = match size {
        Size::Standard => 200,
        Size::Trial => 20,
    };
    // No grace: it only delays the alerts of the collector's first minute.
    settings.grace_ms = 0;
    let site = Site::start(DatabaseKind::Sqlite, &settings, agents).await?;
    let interval = Duration::from_millis(settings.interval_ms.into());
    let mut options = Options::new(Pace::Every(interval), Duration::from_secs(80));
    options.mode = Mode::HalfDead;
    site.run(agents, options).await?;
    let store = site.collector.store().await?;
    let sql = "SELECT ticket.opened_at - MAX(heartbeat.recorded_at) FROM ticket \
               JOIN heartbeat ON heartbeat.host_id = ticket.host_id \
               WHERE ticket.check_key = 'host' GROUP BY ticket.id, ticket.opened_at";
    let rows = store.rows(sql).await?;
    let mut delays = Vec::new();
    for row in &rows {
        delays.push(row[0].int().context("a time is an integer")?);
    }
    let longest = delays.iter().max().copied().unwrap_or_default();
    let dead = agents / 2;
    let false_alarms = delays.iter().filter(|delay| **delay < 0).count();
    let note = format!(
        "{} tickets for {dead} dead agents, {} too many for {} that beat",
        delays.len(),
        delays.len().saturating_sub(dead) + false_alarms,
        agents - dead
    );
    Ok(vec![
        Row::new(
            "last heartbeat of a dead agent to its ticket, longest",
            longest as f64 / 1e3,
            "s",
        )
        .at_most(35.0)
        .note(note),
    ])
}
