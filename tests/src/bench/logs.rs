//! How much of a log an agent reads, and what that costs.

use anyhow::Result;

use super::{Row, Size};
use crate::{
    flood::{Flood, flood},
    harness::DatabaseKind,
};

/// A log with 100,000 lines a second, rotated every five seconds.
pub(super) async fn flooded(size: Size) -> Result<Vec<Row>> {
    let asked = match size {
        Size::Standard => Flood {
            rate: 100_000,
            seconds: 25,
            rotate_s: 5,
        },
        Size::Trial => Flood {
            rate: 10_000,
            seconds: 2,
            rotate_s: 1,
        },
    };
    let outcome = flood(DatabaseKind::Sqlite, asked).await?;
    let lost = outcome.matching - outcome.counted;
    let rate = outcome.written as f64 / outcome.wrote_s;
    let cpu_pct = outcome.cpu_s / (outcome.wrote_s + outcome.lag_s) * 100.0;
    let peak_mib = outcome.peak_rss_bytes as f64 / (1024.0 * 1024.0);
    Ok(vec![
        Row::new("lines a second of a flooded log", rate, "/s")
            .at_least(asked.rate as f64 * 0.98)
            .note(format!(
                "{} lines, {:.0} MB, a rotation each {} s",
                outcome.written,
                outcome.bytes as f64 / 1e6,
                asked.rotate_s
            )),
        Row::new(
            "matching lines of it that were not counted",
            lost as f64,
            "",
        )
        .at_most(0.0)
        .note(format!("of {}; {} gaps", outcome.matching, outcome.gaps)),
        Row::new("last line written to last one counted", outcome.lag_s, "s").at_most(5.0),
        Row::new("agent's share of one processor in it", cpu_pct, "%"),
        Row::new("agent's largest RSS in it", peak_mib, "MiB").at_most(20.0),
    ])
}
