//! A log that grows faster than anybody reads: a writer with a steady rate and rotations, and what
//! became of its lines.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value as Json;
use tokio::time::{Instant, MissedTickBehavior, interval};
use watchkeep_shared::{
    HostId,
    wire::policy::{LogCheck, LogRule},
};

use crate::{
    fleet::observe,
    harness::{Agent, Collector, DatabaseKind, Settings, wait_for},
    store::Store,
    views,
};

/// Of so many lines one matches.
const LINES_PER_MATCH: u64 = 10;
const TICK: Duration = Duration::from_millis(20);
/// How long the agent may take to catch up.
const CATCH_UP: Duration = Duration::from_mins(3);

/// How a log is written.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Lines a second.
    pub rate: u64,
    /// For how long.
    pub seconds: u64,
    /// The file is renamed and begun again so often, seconds.
    pub rotate_s: u64,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Lines that were written.
    pub written: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// How long that took, seconds: longer than asked for on a machine that is too slow.
    pub wrote_s: f64,
    /// Matching lines that were written.
    pub matching: u64,
    /// Matching lines that the collector counted.
    pub counted: u64,
    /// Reports of parts that could not be read.
    pub gaps: u64,
    /// From the last line to the last count in the store, seconds.
    pub lag_s: f64,
    /// The agent's processor time meanwhile, seconds.
    pub cpu_s: f64,
    /// The agent's largest resident memory, bytes.
    pub peak_rss_bytes: u64,
}

/// Floods the log of a real agent; waits until all is counted, or a gap was reported.
pub async fn flood(kind: DatabaseKind, flood: Flood) -> Result<Outcome> {
    let dir = Agent::directory()?;
    let path = dir.path().join("logs/flood.log");
    let settings = Settings {
        logs: vec![LogCheck {
            path: format!("{}*", path.display()),
            rules: vec![LogRule {
                name: "errors".to_owned(),
                pattern: "ERROR [0-9]+".to_owned(),
                lines_per_minute: None,
            }],
            record_start: None,
            journal: None,
            event_log: None,
        }],
        ..Settings::default()
    };
    let mut collector = Collector::create(kind, &settings).await?;
    collector.start().await?;
    let mut agent = Agent::enroll_in(dir, &collector.token(1).await?).await?;
    File::create(&path)?;
    agent.start()?;
    let store = collector.store().await?;
    agent.heartbeats(&store, 3).await;
    let id = agent.id().context("the agent runs")?;
    let before = observe::usage(id)?;
    let begin = Instant::now();
    let (written, bytes) = write(&path, flood).await?;
    let wrote_s = begin.elapsed().as_secs_f64();
    let last = Instant::now();
    let matching = written.div_ceil(LINES_PER_MATCH);
    wait_for("the flood is counted", CATCH_UP, async || {
        let counted = views::log_matches(&store, agent.host()).await?;
        assert!(counted <= matching, "{counted} counted of {matching}");
        let gaps = gaps(&store, agent.host()).await?;
        anyhow::ensure!(counted == matching || gaps > 0, "{counted} of {matching}");
        Ok(Some(()))
    })
    .await;
    let lag_s = last.elapsed().as_secs_f64();
    let outcome = Outcome {
        written,
        bytes,
        wrote_s,
        matching,
        counted: views::log_matches(&store, agent.host()).await?,
        gaps: gaps(&store, agent.host()).await?,
        lag_s,
        cpu_s: observe::usage(id)?.cpu_s - before.cpu_s,
        peak_rss_bytes: observe::peak_rss_bytes(id)?,
    };
    agent.stop().await?;
    collector.stop().await?;
    Ok(outcome)
}

/// Gives how many lines and bytes were written.
async fn write(path: &Path, flood: Flood) -> Result<(u64, u64)> {
    let per_tick = flood.rate * TICK.as_millis() as u64 / 1_000;
    let ticks = flood.seconds * 1_000 / TICK.as_millis() as u64;
    let ticks_a_file = flood.rotate_s * 1_000 / TICK.as_millis() as u64;
    let mut file = File::options().append(true).open(path)?;
    let (mut line, mut bytes) = (0, 0);
    let mut text = Vec::new();
    let mut clock = interval(TICK);
    // A tick that came late is made up for: the rate is what counts.
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for tick in 0..ticks {
        clock.tick().await;
        if tick > 0 && tick.is_multiple_of(ticks_a_file) {
            fs::rename(path, rotated(path, tick / ticks_a_file))?;
            file = File::create(path)?;
        }
        text.clear();
        for _ in 0..per_tick {
            if line % LINES_PER_MATCH == 0 {
                writeln!(
                    text,
                    "2026-01-01T00:00:00Z app[7]: ERROR {line} it broke here"
                )?;
            } else {
                writeln!(
                    text,
                    "2026-01-01T00:00:00Z app[7]: info {line} request served"
                )?;
            }
            line += 1;
        }
        file.write_all(&text)?;
        bytes += text.len() as u64;
    }
    Ok((line, bytes))
}

fn rotated(path: &Path, n: u64) -> PathBuf {
    path.with_extension(format!("log.{n}"))
}

async fn gaps(store: &Store, host: HostId) -> Result<u64> {
    let sql = format!(
        "SELECT detail FROM host_event WHERE kind = 'log_gap' AND host_id = {}",
        store.id(host.uuid())
    );
    let mut count = 0;
    for row in store.rows(&sql).await? {
        let detail: Json = serde_json::from_str(row[0].text().context("host_event.detail")?)?;
        // Matches that are counted and not shown are no loss.
        count += u64::from(detail["reason"] != "rate_limited");
    }
    Ok(count)
}
