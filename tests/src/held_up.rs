//! The story of a collector that is held up: a fleet beats, something stops the collector or its
//! store for longer than a host may be silent, and goes on. Nobody is called silent, and the time
//! is recorded as the collector's own.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use watchkeep_shared::UnixMillis;

use crate::{
    clock::wall_now,
    fleet::{self, Identities, Options, Outside, Pace, Report, journal::Journal},
    harness::{Collector, Settings, wait_for},
    store::Store,
    views,
};

/// Agents of the fleet.
pub const AGENTS: usize = 200;
/// The variable that makes the stories long: this many seconds, with the product's own limits.
pub const SECONDS_VARIABLE: &str = "WATCHKEEP_HELD_UP_S";
/// Heartbeats are taken again this soon after the end of a hold-up.
const TAKEN_AGAIN_WITHIN: Duration = Duration::from_secs(5);

const SOON: Duration = Duration::from_mins(2);
/// Times at both ends of a hold-up that its evidence may leave out: liveness is written every few
/// seconds, and into the space that a full disk's log of writes has already.
const EDGES: Duration = Duration::from_secs(8);

/// How long a story's hold-up lasts and what its collector's limits are.
#[derive(Clone, Debug)]
pub struct Times {
    /// Length of the hold-up. Longer than a host may be silent, and than the collector's gap.
    pub length: Duration,
    /// The collector's settings.
    pub settings: Settings,
}

impl Times {
    /// Those of the suite, unless [`SECONDS_VARIABLE`] asks for longer ones.
    pub fn of_environment() -> Result<Self> {
        if let Ok(text) = std::env::var(SECONDS_VARIABLE) {
            return Ok(Self {
                length: Duration::from_secs(text.parse().context(SECONDS_VARIABLE)?),
                settings: Settings::product_defaults(),
            });
        }
        Ok(Self {
            length: Duration::from_secs(18),
            settings: Settings {
                interval_ms: 2_000,
                silence_after_ms: 12_000,
                grace_ms: 12_000,
                ..Settings::default()
            },
        })
    }
}

/// A fleet that beats to a collector.
#[derive(Debug)]
pub struct HeldUp {
    /// The collector.
    pub collector: Collector,
    times: Times,
    store: Store,
    journal: PathBuf,
    fleet: JoinHandle<Result<Report>>,
    stop: DropGuard,
}

/// A hold-up that is over.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    from: UnixMillis,
    to: UnixMillis,
    ended: Instant,
    /// Heartbeats in the store when it ended.
    heartbeats: i64,
}

/// What a story found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// From the end of the hold-up to the next heartbeat in the store.
    pub taken_again: Duration,
    /// Time that is recorded as the collector's own.
    pub collector_down: Duration,
    /// Heartbeats that were acknowledged.
    pub acknowledged: usize,
}

impl HeldUp {
    /// Starts the collector and a fleet, and waits until it beats.
    pub async fn start(mut collector: Collector, times: Times) -> Result<Self> {
        collector.start().await?;
        let identities = Identities::enrol(&collector.token(AGENTS).await?, AGENTS).await?;
        let store = collector.store().await?;
        let journal = collector.path("journal");
        let pace = Pace::Every(Duration::from_millis(times.settings.interval_ms.into()));
        let options = Options {
            journal: Some(journal.clone()),
            log_matches_per_1000: 0,
            drain: SOON,
            ..Options::new(pace, Duration::from_mins(10))
        };
        let stop = CancellationToken::new();
        let held = Self {
            collector,
            times,
            store,
            journal,
            stop: stop.clone().drop_guard(),
            fleet: start_fleet(identities, options, stop),
        };
        held.more_heartbeats(2 * AGENTS as i64).await;
        Ok(held)
    }

    /// The fleet's collector is held up between two calls.
    pub async fn hold(
        &mut self,
        begin: impl AsyncFnOnce(&mut Collector) -> Result<()>,
        end: impl AsyncFnOnce(&mut Collector) -> Result<()>,
    ) -> Result<Span> {
        begin(&mut self.collector).await?;
        let from = wall_now();
        // How long it lasts is the subject.
        tokio::time::sleep(self.times.length).await;
        let to = wall_now();
        end(&mut self.collector).await?;
        Ok(Span {
            from,
            to,
            ended: Instant::now(),
            heartbeats: self.heartbeats().await?,
        })
    }

    /// Waits until heartbeats are taken again, and for so long that a host which counted as silent
    /// would be one; then checks everything.
    pub async fn finish(mut self, span: Span, needs_gap: bool) -> Result<Found> {
        wait_for("heartbeats are taken again", SOON, async || {
            Ok((self.heartbeats().await? > span.heartbeats).then_some(()))
        })
        .await;
        let taken_again = span.ended.elapsed();
        ensure!(
            taken_again <= TAKEN_AGAIN_WITHIN,
            "heartbeats were taken again only after {taken_again:?}"
        );
        let settings = &self.times.settings;
        let judged = Duration::from_millis(
            (settings.grace_ms + settings.silence_after_ms + settings.interval_ms).into(),
        );
        tokio::time::sleep(judged).await;
        let collector_down = self.collector_down(span).await?;
        if needs_gap {
            let expected = self.times.length.saturating_sub(EDGES);
            ensure!(
                collector_down >= expected,
                "only {collector_down:?} are recorded as the collector's own, not {expected:?}"
            );
        }
        self.nobody_was_bothered().await?;
        let acknowledged = self.nothing_is_lost().await?;
        self.collector.stop().await?;
        Ok(Found {
            taken_again,
            collector_down,
            acknowledged,
        })
    }

    /// No ticket, no message, no outage in the report.
    async fn nobody_was_bothered(&self) -> Result<()> {
        let tickets = self.store.rows("SELECT title FROM ticket").await?;
        ensure!(tickets.is_empty(), "tickets were opened: {tickets:?}");
        for table in ["alert", "outbox"] {
            let rows = self
                .store
                .int(&format!("SELECT COUNT(*) FROM {table}"))
                .await?;
            ensure!(rows == 0, "{rows} rows in {table}");
        }
        let report = self.collector.report().await?;
        let hosts = views::host_reports(&report)?;
        ensure!(
            hosts.len() == AGENTS,
            "the report has {} hosts",
            hosts.len()
        );
        for host in hosts {
            let outages = views::outages(&host);
            ensure!(outages.is_empty(), "a host has outages: {outages:?}");
            let down = &host["availability"]["totals"]["down_ms"];
            ensure!(down == 0, "a host was down for {down} ms: {host}");
        }
        Ok(())
    }

    /// Ends the fleet and compares the heartbeats acknowledged to it with the store.
    async fn nothing_is_lost(&mut self) -> Result<usize> {
        let (journal, store) = (self.journal.clone(), self.store.clone());
        let (_, never) = (&self.stop, CancellationToken::new());
        let stop = std::mem::replace(&mut self.stop, never.drop_guard());
        drop(stop);
        let run = (&mut self.fleet).await??;
        ensure!((run.owed, run.lost) == (0, 0), "{run}");
        ensure!(run.rejected.is_empty(), "{run}");
        let stored = views::heartbeats(&store).await?;
        let acknowledged = Journal::read(&journal)?;
        let missing = acknowledged.difference(&stored).count();
        ensure!(
            missing == 0,
            "{missing} acknowledged heartbeats are missing"
        );
        ensure!(
            stored.len() as u64 == run.made,
            "{} stored: {run}",
            stored.len()
        );
        Ok(acknowledged.len())
    }

    /// How much of a hold-up is recorded as the collector's own.
    async fn collector_down(&self, span: Span) -> Result<Duration> {
        let sql = "SELECT valid_from, valid_to FROM evidence \
                   WHERE host_id IS NULL AND kind = 'collector_down'";
        let mut total = 0;
        for row in self.store.rows(sql).await? {
            let from = row[0]
                .int()
                .context("evidence.valid_from")?
                .max(span.from.0);
            let to = row[1].int().context("evidence.valid_to")?.min(span.to.0);
            total += (to - from).max(0);
        }
        Ok(Duration::from_millis(total as u64))
    }

    async fn heartbeats(&self) -> Result<i64> {
        self.store.int("SELECT COUNT(*) FROM heartbeat").await
    }

    async fn more_heartbeats(&self, count: i64) {
        wait_for("the fleet beats", SOON, async || {
            Ok((self.heartbeats().await? >= count).then_some(()))
        })
        .await;
    }
}

/// On a runtime of its own, which the test's waiting does not hold up.
fn start_fleet(
    identities: Identities,
    options: Options,
    stop: CancellationToken,
) -> JoinHandle<Result<Report>> {
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(fleet::run(&identities, options, &Outside::default(), stop))
    })
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "0 tickets, 0 messages, {:.1} s recorded as collector_down, taken again after {:.1} s, \
             {} acknowledged and stored",
            self.collector_down.as_secs_f64(),
            self.taken_again.as_secs_f64(),
            self.acknowledged
        )
    }
}
