//! The fleet: simulated agents, each with its own key, certificate and TLS 1.3 connection, sending
//! realistic heartbeats to a real collector on this machine.
//!
//! A run has two parts. First every agent connects (and sends a backlog, if one is asked for);
//! then all of them beat for the run's duration, and at the end send what they still owe. What is
//! measured is the second part. A collector that is gone or busy is normal here: its errors are
//! counted by kind, and what was not acknowledged is sent again until it is.

mod agent;
pub mod connection;
pub mod identity;
pub mod journal;
pub mod machine;
pub mod meter;
pub mod observe;
pub mod options;
pub mod report;
pub mod spool;
pub mod stats;
pub mod timings;
pub mod tls;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

pub use identity::{Identities, Identity};
pub use options::{Breach, Mode, Options, Pace};
pub use report::Report;

use self::{
    agent::{Agent, Shared, Timeline},
    journal::Journal,
    observe::Usage,
    stats::Stats,
    timings::BreachLog,
    tls::Trust,
};
use crate::{loopback::Target, store::Store};

/// Agents that connect at once before the run.
const MAX_CONNECTS_IN_FLIGHT: usize = 64;
/// How often the store is asked for the tickets of breaches.
const TICKET_POLL: Duration = Duration::from_millis(20);

/// The version that simulated agents state.
pub fn agent_version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Lets this process open as many files as the system allows it: each agent takes one.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused, connecting fails later with a plain error.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// What a run looks at from outside.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// The collector's process on this machine.
    pub collector_pid: Option<u32>,
    /// The collector's store.
    pub store: Option<Store>,
}

/// Runs the fleet. Ends early, and in order, when `stop` is cancelled.
pub async fn run(
    identities: &Identities,
    options: Options,
    outside: &Outside,
    stop: CancellationToken,
) -> Result<Report> {
    options.check(identities.agents.len())?;
    let shared = Arc::new(Shared {
        target: Target::parse(&identities.url)?,
        journal: options
            .journal
            .as_deref()
            .map(Journal::create)
            .transpose()?,
        breaches: BreachLog::default(),
        encoders: std::sync::Mutex::default(),
        agents: identities.agents.len(),
        options,
        stop,
    });
    let before = Readings::take(outside).await?;
    let prepared = Stats::default();
    let (agents, connect_s) = prepare(identities, &shared, Arc::new(prepared)).await?;
    let run = beat(agents.agents, &shared, outside).await?;
    if let Some(journal) = &shared.journal {
        journal.flush()?;
    }
    let connect = report::Connect {
        handshakes: agents.stats.handshakes.get(),
        acked: agents.stats.acked.get(),
        seconds: connect_s,
    };
    Ok(run.report(&shared, connect, before))
}

struct Prepared {
    agents: Vec<Agent>,
    stats: Arc<Stats>,
}

/// Connects all agents, but for a ramp, whose agents connect when they join.
async fn prepare(
    identities: &Identities,
    shared: &Arc<Shared>,
    stats: Arc<Stats>,
) -> Result<(Prepared, f64)> {
    let started = Instant::now();
    let trust = Trust::new(&identities.ca_pem)?;
    let permits = Arc::new(Semaphore::new(MAX_CONNECTS_IN_FLIGHT));
    let mut tasks = JoinSet::new();
    for (n, identity) in identities.agents.iter().enumerate() {
        let resume = shared.options.resume;
        let tls = trust.client(&identity.certificate_pem, &identity.key_pem, resume)?;
        let (shared, stats) = (shared.clone(), stats.clone());
        let mut agent = Agent::new(shared.clone(), stats, n, identity.clone(), tls);
        let permits = permits.clone();
        tasks.spawn(async move {
            if shared.options.mode != Mode::Ramp {
                let _permit = permits.acquire().await?;
                agent.prepare().await;
            }
            anyhow::Ok(agent)
        });
    }
    let mut agents = Vec::with_capacity(identities.agents.len());
    while let Some(agent) = tasks.join_next().await {
        agents.push(agent??);
    }
    let prepared = Prepared { agents, stats };
    Ok((prepared, started.elapsed().as_secs_f64()))
}

/// The measured part of a run.
struct Run {
    stats: Arc<Stats>,
    seconds: f64,
    owed: usize,
    connected: Readings,
    after: Readings,
}

async fn beat(agents: Vec<Agent>, shared: &Arc<Shared>, outside: &Outside) -> Result<Run> {
    let connected = Readings::take(outside).await?;
    let stats = Arc::new(Stats::default());
    let start = Instant::now();
    let timeline = Timeline {
        start,
        middle: start + shared.options.duration / 2,
        end: start + shared.options.duration,
    };
    if let Some(breach) = &shared.options.breach {
        shared.breaches.begin_at(start + breach.after);
    }
    let mut tasks = JoinSet::new();
    for agent in agents {
        tasks.spawn(agent.run(timeline, stats.clone()));
    }
    let finished = CancellationToken::new();
    let watch = watch_tickets(shared, outside, finished.clone());
    let join = async {
        let mut owed = 0;
        while let Some(left) = tasks.join_next().await {
            owed += left?;
        }
        finished.cancel();
        anyhow::Ok(owed)
    };
    let (owed, watched) = tokio::join!(join, watch);
    watched?;
    Ok(Run {
        owed: owed?,
        seconds: start.elapsed().as_secs_f64(),
        stats,
        connected,
        after: Readings::take(outside).await?,
    })
}

/// Looks for the tickets of breaches until the run is over.
async fn watch_tickets(
    shared: &Shared,
    outside: &Outside,
    finished: CancellationToken,
) -> Result<()> {
    let (Some(store), Some(_)) = (&outside.store, &shared.options.breach) else {
        return Ok(());
    };
    let since = crate::clock::wall_now();
    let sql = format!("SELECT host_id FROM ticket WHERE opened_at >= {since}");
    let mut poll = tokio::time::interval(TICKET_POLL);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = poll.tick() => {}
            () = finished.cancelled() => return Ok(()),
        }
        let rows = store.rows(&sql).await.context("looking for tickets")?;
        let seen = Instant::now();
        for host in rows.iter().filter_map(|row| row.first()?.id()) {
            shared.breaches.ticket_seen(host.into(), seen);
        }
    }
}

/// What the outside reads at one moment.
#[derive(Clone, Copy, Debug)]
struct Readings {
    collector: Option<Usage>,
    store_bytes: Option<u64>,
}

impl Readings {
    async fn take(outside: &Outside) -> Result<Self> {
        let store_bytes = match &outside.store {
            Some(store) => Some(store.bytes().await?),
            None => None,
        };
        Ok(Self {
            collector: outside.collector_pid.map(observe::usage).transpose()?,
            store_bytes,
        })
    }
}

impl Run {
    fn report(&self, shared: &Shared, connect: report::Connect, before: Readings) -> Report {
        let stats = &self.stats;
        let acked = stats.acked.get();
        let storm = shared.options.mode == Mode::Storm;
        Report {
            agents: shared.agents,
            seconds: self.seconds,
            made: stats.made.get(),
            sent: stats.sent.get(),
            acked,
            rejected: stats.rejected(),
            lost: stats.lost.get(),
            owed: self.owed as u64,
            heartbeats_per_s: acked as f64 / self.seconds,
            answer_latency: stats.answer_latency(),
            frame_latency: stats.frame_latency(),
            errors: stats.errors(),
            handshakes: stats.handshakes.get(),
            connect,
            wire: self.wire(),
            collector: self.collector(shared.agents, before),
            store: self.store(),
            breach: breaches(&shared.breaches),
            reconnect: storm.then(|| stats.recovery()),
        }
    }

    fn wire(&self) -> report::Wire {
        let totals = self.stats.wire_totals();
        let each = |bytes: u64, of: u64| bytes as f64 / of.max(1) as f64;
        let acked = self.stats.acked.get();
        let handshake = totals.handshakes.sent + totals.handshakes.received;
        report::Wire {
            sent_per_heartbeat: each(totals.requests.sent, acked),
            received_per_heartbeat: each(totals.requests.received, acked),
            per_handshake: each(handshake, self.stats.handshakes.get()),
        }
    }

    fn collector(&self, agents: usize, before: Readings) -> Option<report::Collector> {
        let (before, connected) = (before.collector?, self.connected.collector?);
        let after = self.after.collector?;
        let cpu_s = after.cpu_s - connected.cpu_s;
        let growth = connected.rss_bytes as f64 - before.rss_bytes as f64;
        Some(report::Collector {
            cpu_s,
            cpu_s_per_million: cpu_s * 1e6 / self.stats.acked.get().max(1) as f64,
            rss_before_bytes: before.rss_bytes,
            rss_connected_bytes: connected.rss_bytes,
            rss_after_bytes: after.rss_bytes,
            rss_per_agent_bytes: growth / agents as f64,
        })
    }

    fn store(&self) -> Option<report::Store> {
        let (before, after) = (self.connected.store_bytes?, self.after.store_bytes?);
        let growth = after as f64 - before as f64;
        Some(report::Store {
            bytes: after,
            bytes_per_heartbeat: growth / self.stats.acked.get().max(1) as f64,
        })
    }
}

fn breaches(log: &BreachLog) -> Option<report::Breaches> {
    let marks = log.marks();
    if marks.is_empty() {
        return None;
    }
    let latencies: Vec<_> = marks
        .iter()
        .filter_map(|marks| Some(marks.ticket_seen? - marks.made))
        .collect();
    Some(report::Breaches {
        made: marks.len(),
        ticketed: latencies.len(),
        latency: stats::quantiles_of(latencies.into_iter()),
    })
}

#[cfg(test)]
mod tests;
