//! The standard set of measurements, with the target that each is held against. All of it runs on
//! this machine, the load generator beside the collector, so its figures for throughput are those
//! of half a machine.
//!
//! A measurement that fails ends the set with its reason; a target that is missed is marked in the
//! table and ends nothing.

mod agent;
mod detection;
mod load;
mod logs;
mod pages;
mod restart;

use std::fmt;

use anyhow::{Context, Result};

use crate::{
    fleet::{Identities, Options, Outside, Report, run},
    harness::{Collector, DatabaseKind, Settings},
};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    target: Option<Target>,
    measured: f64,
    unit: &'static str,
    note: String,
}

/// What a measurement is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The standard set, up to ten minutes.
    Standard,
    /// A few seconds of each, to see that the set itself works; its figures mean nothing.
    Trial,
}

/// A part of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// What the agent costs its machine.
    Agent,
    /// How the agent keeps up with a log that grows very fast.
    Log,
    /// What heartbeats cost the collector, and how many it takes.
    Load,
    /// From a host's death to its ticket.
    Detection,
    /// From a kill to being ready over a large store.
    Restart,
    /// Pages and the API over a year of history.
    Pages,
}

impl Part {
    /// All, in the order of the table.
    pub const ALL: [Self; 6] = [
        Self::Agent,
        Self::Log,
        Self::Load,
        Self::Detection,
        Self::Restart,
        Self::Pages,
    ];
}

/// Measures these parts on these databases, telling about each step.
pub async fn measure(
    parts: &[Part],
    kinds: &[DatabaseKind],
    size: Size,
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for part in Part::ALL {
        if !parts.contains(&part) {
            continue;
        }
        match part {
            Part::Agent => {
                tell("the agent's footprint");
                let measured = agent::footprint(size).await;
                rows.extend(measured.context("the agent's footprint")?);
            }
            Part::Log => {
                tell("a flooded log");
                let measured = logs::flooded(size).await;
                rows.extend(measured.context("a flooded log")?);
            }
            Part::Load => {
                for &kind in kinds {
                    tell(&format!("load on {kind}"));
                    let measured = load::load(kind, size).await;
                    rows.extend(measured.with_context(|| format!("load on {kind}"))?);
                }
            }
            Part::Detection => {
                tell("detection");
                let measured = detection::silence(size).await;
                rows.extend(measured.context("detection of silence")?);
            }
            Part::Pages => {
                for &kind in kinds {
                    let measured = pages::pages(kind, size, tell).await;
                    rows.extend(measured.with_context(|| format!("pages on {kind}"))?);
                }
            }
            Part::Restart => {
                for &kind in kinds {
                    tell(&format!("restart on {kind}"));
                    let measured = restart::restart(kind, size).await;
                    rows.extend(measured.with_context(|| format!("restart on {kind}"))?);
                }
            }
        }
    }
    Ok(rows)
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let lines = rows
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    format!("| what | target | measured | | note |\n|---|---|---|---|---|\n{lines}\n")
}

impl Row {
    fn new(what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            target: None,
            measured,
            unit,
            note: String::new(),
        }
    }

    fn at_most(mut self, target: f64) -> Self {
        self.target = Some(Target::AtMost(target));
        self
    }

    fn at_least(mut self, target: f64) -> Self {
        self.target = Some(Target::AtLeast(target));
        self
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            target,
            measured,
            unit,
            note,
        } = self;
        let (target, verdict) = match target {
            None => (String::new(), ""),
            Some(Target::AtMost(most)) => (
                format!("≤ {} {unit}", figure(*most)),
                verdict(measured <= most),
            ),
            Some(Target::AtLeast(least)) => (
                format!("≥ {} {unit}", figure(*least)),
                verdict(measured >= least),
            ),
        };
        let measured = figure(*measured);
        write!(
            f,
            "| {what} | {target} | {measured} {unit} | {verdict} | {note} |"
        )
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

/// Three significant digits where there are decimals.
fn figure(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for DatabaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

/// A collector under test with enrolled agents.
struct Site {
    collector: Collector,
    identities: Identities,
}

impl Site {
    async fn start(kind: DatabaseKind, settings: &Settings, agents: usize) -> Result<Self> {
        let mut collector = Collector::create(kind, settings).await?;
        collector.start().await?;
        let identities = Identities::enrol(&collector.token(agents).await?, agents).await?;
        Ok(Self {
            collector,
            identities,
        })
    }

    async fn outside(&self) -> Result<Outside> {
        Ok(Outside {
            collector_pid: self.collector.id(),
            store: Some(self.collector.store().await?),
        })
    }

    /// Runs the first `agents` agents.
    async fn run(&self, agents: usize, options: Options) -> Result<Report> {
        let mut identities = self.identities.clone();
        identities.agents.truncate(agents);
        run(&identities, options, &self.outside().await?, crate::never()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_its_target_is_met() {
        let row = Row::new("a", 149.6, "µs").at_most(150.0).note("n");
        assert_eq!(row.to_string(), "| a | ≤ 150 µs | 150 µs | met | n |");
        let row = Row::new("a", 2_999.0, "/s").at_least(3_000.0);
        assert_eq!(
            row.to_string(),
            "| a | ≥ 3000 /s | 2999 /s | **missed** |  |"
        );
        let row = Row::new("a", 1.234, "s");
        assert_eq!(row.to_string(), "| a |  | 1.23 s |  |  |");
    }
}
