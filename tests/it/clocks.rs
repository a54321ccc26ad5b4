//! Clocks that jump and machines that stand still, with the real agent: a wrong clock is reported and
//! moves no downtime; an agent that was held up and a machine that was suspended are distinguished.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value as Json;
use watchkeep_shared::HostId;
use watchkeep_tests::{
    both_stores,
    clock::clocks_now,
    harness::{
        Agent, Collector, DatabaseKind, PlayedClock, Settings, played::Played,
        settings::QUICK_RULES, wait_for,
    },
    store::Store,
};

use crate::views;

const SOON: Duration = Duration::from_mins(1);
const HOUR_MS: i64 = 3_600_000;
/// Longer than the silence deadline, than the ledger's tolerance for clocks, and than a step between
/// frames may be: two and a half of the intervals that an agent has before its first policy.
const PAUSE_MS: i64 = 27_000;
const CLOCK_STEP: &str = r#"
[[rule]]
id = "clock-step"
name = "Clock jumped"
severity = "info"
priority = "P4"
kind = "clock_step"
"#;

both_stores!(
    a_clock_that_jumps_is_told_and_moves_nothing,
    an_agent_that_was_held_up_is_no_outage,
    a_machine_that_stood_still_is_one
);

async fn a_clock_that_jumps_is_told_and_moves_nothing(kind: DatabaseKind) -> Result<()> {
    let mut site = Site::start(kind, Played::Wall).await?;
    site.clock.set(3 * HOUR_MS)?;
    let ahead = site.steps(1).await;
    assert!((ahead[0] - 3 * HOUR_MS).abs() < 2_000, "{ahead:?}");
    site.beats(4).await;
    site.clock.set(-2 * HOUR_MS)?;
    let back = site.steps(2).await;
    assert!((back[1] + 5 * HOUR_MS).abs() < 2_000, "{back:?}");
    site.beats(4).await;

    let checks = site.ticket_checks().await?;
    assert!(!checks.is_empty(), "a jump opens a ticket");
    assert!(checks.iter().all(|check| check == "clock"), "{checks:?}");
    let host = site.report().await?;
    assert_eq!(views::outages(&host), [], "{host}");
    assert_eq!(host["availability"]["totals"]["down_ms"], 0, "{host}");
    let up = views::state_ms(&host, "up_live") + views::state_ms(&host, "up_proven");
    assert!((1_000..HOUR_MS).contains(&up), "{up} ms up: {host}");
    site.stop().await
}

async fn an_agent_that_was_held_up_is_no_outage(kind: DatabaseKind) -> Result<()> {
    let mut site = Site::start(kind, Played::Wall).await?;
    let held = site.pause().await?;
    site.agent.resume()?;
    site.beats(4).await;
    let host = site.report().await?;
    assert_eq!(
        views::outages(&host),
        [("stalled", "clock_ran_on")],
        "{host}"
    );
    near(&host, "stalled", held);
    assert_eq!(host["availability"]["totals"]["down_ms"], 0, "{host}");
    assert_eq!(site.steps(0).await, [] as [i64; 0]);
    site.stop().await
}

/// A hypervisor that pauses its guest: none of the guest's clocks runs on meanwhile.
async fn a_machine_that_stood_still_is_one(kind: DatabaseKind) -> Result<()> {
    let mut site = Site::start(kind, Played::All).await?;
    let held = site.pause().await?;
    site.clock.set(-held)?;
    site.agent.resume()?;
    // For the first five seconds a slow request would look the same.
    let beats = 7_000 / i64::from(Settings::default().interval_ms);
    site.beats(beats).await;
    let host = site.report().await?;
    assert_eq!(
        views::outages(&host),
        [("host_frozen", "clock_stood_still")],
        "{host}"
    );
    near(&host, "host_frozen", held);
    let down = host["availability"]["totals"]["down_ms"].as_i64();
    assert_eq!(down, Some(views::state_ms(&host, "host_frozen")), "{host}");
    // The wall clock stood still with the others: nobody set it.
    assert_eq!(site.steps(0).await, [] as [i64; 0]);
    site.stop().await
}

/// The gap goes from the last heartbeat before to the first after, so it is a little longer.
fn near(host: &Json, state: &str, held: i64) {
    let found = views::state_ms(host, state);
    let beats = 2 * i64::from(Settings::default().interval_ms);
    let more = found - held;
    assert!(
        (-beats..=beats + 3_000).contains(&more),
        "{found} ms {state}, held up for {held} ms: {host}"
    );
}

/// A collector and an agent whose clocks are played.
struct Site {
    collector: Collector,
    agent: Agent,
    store: Store,
    clock: PlayedClock,
    _dir: tempfile::TempDir,
}

impl Site {
    async fn start(kind: DatabaseKind, played: Played) -> Result<Self> {
        let settings = Settings {
            rules: Some(format!("{QUICK_RULES}{CLOCK_STEP}")),
            ..Settings::default()
        };
        let mut collector = Collector::create(kind, &settings).await?;
        collector.start().await?;
        let mut agent = Agent::enroll(&collector.token(1).await?).await?;
        let dir = tempfile::tempdir()?;
        let clock = PlayedClock::new(dir.path(), played)?;
        agent.start_with(clock.variables())?;
        let store = collector.store().await?;
        agent.heartbeats(&store, 3).await;
        Ok(Self {
            collector,
            agent,
            store,
            clock,
            _dir: dir,
        })
    }

    /// Waits for so many more heartbeats.
    async fn beats(&self, more: i64) {
        let count = self.agent.heartbeats(&self.store, 0).await;
        self.agent.heartbeats(&self.store, count + more).await;
    }

    /// Holds the agent up until the collector has noticed and [`PAUSE_MS`] have passed; gives how
    /// long, so far.
    async fn pause(&self) -> Result<i64> {
        let begin = clocks_now().boot_ms;
        self.agent.pause()?;
        let sql = self.query("SELECT COUNT(*) FROM alert WHERE check_key = 'host' AND host_id = ");
        wait_for("the host's silence is an alert", SOON, async || {
            let passed = clocks_now().boot_ms - begin;
            Ok((passed >= PAUSE_MS && self.store.int(&sql).await? > 0).then_some(()))
        })
        .await;
        Ok(clocks_now().boot_ms - begin)
    }

    /// Waits for so many jumps of the clock to be on record; gives them all, in order.
    async fn steps(&self, count: usize) -> Vec<i64> {
        let sql = self
            .query("SELECT at, detail FROM host_event WHERE kind = 'clock_step' AND host_id = ")
            + " ORDER BY at";
        wait_for(&format!("{count} jumps are on record"), SOON, async || {
            let rows = self.store.rows(&sql).await?;
            let steps = rows.iter().map(|row| {
                let detail: Json = serde_json::from_str(row[1].text().context("detail")?)?;
                detail["ms"].as_i64().context("a jump has milliseconds")
            });
            let steps: Vec<i64> = steps.collect::<Result<_>>()?;
            assert!(steps.len() <= count, "{steps:?}");
            Ok((steps.len() == count).then_some(steps))
        })
        .await
    }

    async fn ticket_checks(&self) -> Result<Vec<String>> {
        let sql = self.query("SELECT check_key FROM ticket WHERE host_id = ");
        let rows = self.store.rows(&sql).await?;
        let checks = rows.iter().map(|row| row[0].text().map(str::to_owned));
        checks.collect::<Option<_>>().context("ticket.check_key")
    }

    fn query(&self, text: &str) -> String {
        let host: HostId = self.agent.host();
        format!("{text}{}", self.store.id(host.uuid()))
    }

    async fn report(&self) -> Result<Json> {
        views::host_report(&self.collector.report().await?, self.agent.host())
    }

    async fn stop(&mut self) -> Result<()> {
        self.agent.stop().await?;
        self.collector.stop().await
    }
}
