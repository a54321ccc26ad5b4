//! `watchkeep-fleet`: many simulated agents against a collector on this machine.

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio_util::sync::CancellationToken;
use watchkeep_shared::token::EnrolmentToken;
use watchkeep_tests::{
    fleet::{
        self, Breach, Identities, Mode, Options, Outside, Pace, Report, machine::Forced,
        tls::Resume,
    },
    store::Store,
};

/// Simulated agents, each with its own certificate and TLS connection, against a collector on this
/// machine. Prints what it measured.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Enrolment token with enough uses for the agents that are not in the state file yet.
    #[arg(long)]
    token: Option<String>,
    /// Keeps the enrolled identities for the next run; holds keys.
    #[arg(long)]
    state: Option<PathBuf>,
    /// How many agents, 1 to 10000.
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// Time between two heartbeats of one agent, milliseconds.
    #[arg(long, default_value_t = 10_000, conflicts_with = "rate")]
    interval_ms: u64,
    /// Heartbeats a second of the whole fleet, or `max`: each agent sends again as soon as its
    /// heartbeat is acknowledged.
    #[arg(long)]
    rate: Option<String>,
    /// How long to beat, seconds; 0 only enrols, connects and sends the backlog.
    #[arg(long, default_value_t = 30)]
    duration_s: u64,
    /// What happens to the fleet.
    #[arg(long, value_enum, default_value_t = Mode::Steady)]
    mode: Mode,
    /// Spreads a storm's reconnects, milliseconds.
    #[arg(long, default_value_t = 0)]
    jitter_ms: u64,
    /// So many agents break a rule at half-time; needs --store.
    #[arg(long, default_value_t = 0, requires = "store")]
    breach: usize,
    /// The metric of the breach.
    #[arg(long, default_value = "mem.used_pct")]
    breach_metric: String,
    /// Its value.
    #[arg(long, default_value_t = 99.0)]
    breach_value: f64,
    /// Frames of the past that each agent sends in batches before the run, at most 2000.
    #[arg(long, default_value_t = 0)]
    prefill: u32,
    /// Log matches in a thousand heartbeats.
    #[arg(long, default_value_t = 5)]
    log_matches: u32,
    /// Writes a line `host instance seq` for each acknowledged heartbeat.
    #[arg(long)]
    journal: Option<PathBuf>,
    /// Agents say goodbye at the end.
    #[arg(long)]
    goodbye: bool,
    /// After the run, send for so many seconds what is still owed.
    #[arg(long, default_value_t = 30)]
    drain_s: u64,
    /// Resume TLS sessions.
    #[arg(long)]
    resume: bool,
    /// Also measure this process.
    #[arg(long)]
    collector_pid: Option<u32>,
    /// Also measure this store: a SQLite file or a postgres:// URL.
    #[arg(long)]
    store: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "watchkeep-fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let arguments = Arguments::parse();
    fleet::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(run(&arguments))?;
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}

async fn run(arguments: &Arguments) -> Result<Report> {
    let options = options(arguments)?;
    options.check(arguments.agents)?;
    let identities = identities(arguments).await?;
    let store = match &arguments.store {
        Some(url) => Some(Store::open(url).await?),
        None => None,
    };
    let outside = Outside {
        collector_pid: arguments.collector_pid,
        store,
    };
    let stop = CancellationToken::new();
    let mut run = std::pin::pin!(fleet::run(&identities, options, &outside, stop.clone()));
    tokio::select! {
        report = &mut run => return report,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    stop.cancel();
    run.await
}

/// The identities of the state file, and newly enrolled ones where they are too few.
async fn identities(arguments: &Arguments) -> Result<Identities> {
    let kept = match &arguments.state {
        Some(path) if path.exists() => Some(Identities::load(path)?),
        _ => None,
    };
    let enough = |kept: &Identities| kept.agents.len() >= arguments.agents;
    let mut identities = match (kept, &arguments.token) {
        (Some(kept), _) if enough(&kept) => kept,
        (kept, Some(token)) => {
            let token: EnrolmentToken = token.parse()?;
            let mut identities = kept.unwrap_or_else(|| Identities::none(&token));
            let enrolled = identities.enrol_more(&token, arguments.agents).await;
            if let Some(path) = &arguments.state {
                identities.save(path)?;
            }
            enrolled.context("enrolling the fleet")?;
            identities
        }
        (_, None) => bail!(
            "{} agents have to be enrolled: give --token with the line that `watchkeep-collector token create --uses {}` prints",
            arguments.agents,
            arguments.agents
        ),
    };
    identities.agents.truncate(arguments.agents);
    Ok(identities)
}

fn options(arguments: &Arguments) -> Result<Options> {
    let pace = match arguments.rate.as_deref() {
        None => Pace::Every(Duration::from_millis(arguments.interval_ms)),
        Some("max") => Pace::AsFastAsAcknowledged,
        Some(rate) => {
            let rate: f64 = rate
                .parse()
                .ok()
                .filter(|rate| *rate > 0.0)
                .with_context(|| {
                    format!("--rate is {rate}: give heartbeats a second, or \"max\"")
                })?;
            Pace::Every(Duration::from_secs_f64(arguments.agents as f64 / rate))
        }
    };
    let duration = Duration::from_secs(arguments.duration_s);
    let breach = (arguments.breach > 0).then(|| Breach {
        agents: arguments.breach,
        forced: Forced {
            metric: arguments.breach_metric.clone(),
            value: arguments.breach_value,
        },
        after: duration / 2,
    });
    Ok(Options {
        mode: arguments.mode,
        jitter: Duration::from_millis(arguments.jitter_ms),
        breach,
        journal: arguments.journal.clone(),
        goodbye: arguments.goodbye,
        drain: Duration::from_secs(arguments.drain_s),
        prefill_frames: arguments.prefill,
        log_matches_per_1000: arguments.log_matches,
        resume: if arguments.resume {
            Resume::LastSession
        } else {
            Resume::Never
        },
        ..Options::new(pace, duration)
    })
}
