//! The whole fleet falls silent at once and returns at once: one page, rounds that stay short, and
//! one message when it is over. `WATCHKEEP_STORM=10000` plays it with so many hosts (the suite plays
//! it with fewer); the last line says what was measured. `tests/scenarios.sh` runs it.

use std::time::Duration;

use tokio::time::Instant;
use watchkeep_shared::DurationMs;

use super::{SETTINGS, World, print_figures};
use crate::support::{Kind, run_with};

/// How many hosts instead of the suite's.
const COUNT: &str = "WATCHKEEP_STORM";
/// Hosts of the suite.
const SUITE: usize = 1_000;
/// Hosts of one site.
const A_SITE: usize = 40;
/// More frames than one round commits, its last batch included.
const MAX_ROUND_FRAMES: u64 = 2_048 + 128;
/// Within this time after the return the incident is over.
const RESOLVED_WITHIN: DurationMs = DurationMs::from_mins(2);

#[test]
fn sqlite_a_silent_fleet_is_one_page_and_ends_by_itself() {
    play(Kind::Sqlite);
}

#[test]
fn postgres_a_silent_fleet_is_one_page_and_ends_by_itself() {
    play(Kind::Postgres);
}

fn play(kind: Kind) {
    let count = std::env::var(COUNT).map_or(SUITE, |text| {
        text.parse().expect("WATCHKEEP_STORM is a number")
    });
    run_with(kind, SETTINGS, async |bench| {
        let world = World::start(bench).await.unchecked();
        let figures = Box::pin(storm(world, count)).await;
        print_figures(&format!("storm, {kind:?}: {figures}"));
    });
}

async fn storm(mut world: World, count: usize) -> String {
    let hosts = world.fleet(count, A_SITE).await;
    let mut longest = Duration::ZERO;
    // Past the grace period after the start.
    pass(&mut world, DurationMs::from_mins(2), &mut longest).await;
    world.connect_many(&hosts, false);
    // Shorter than the time to the escalation, which would page too.
    pass(&mut world, DurationMs::from_mins(4), &mut longest).await;
    let silent = count_of(&mut world, "alert WHERE rule_id = 'host-silent'").await;
    assert_eq!(silent, count, "hosts called silent");
    world.connect_many(&hosts, true);
    let back_at = world.now;
    pass(&mut world, RESOLVED_WITHIN, &mut longest).await;
    let over = world.open_tickets().await;
    assert!(over.is_empty(), "open after the return: {over:?}");
    let firing = count_of(&mut world, "alert WHERE cleared_at IS NULL").await;
    assert_eq!(firing, 0, "alerts that fire after the return");
    pass(&mut world, DurationMs::from_mins(3), &mut longest).await;
    world.check().await;

    // Each brought the frames of four minutes.
    assert!(
        world.largest_round < MAX_ROUND_FRAMES,
        "{} frames in one round",
        world.largest_round
    );
    let pages = count_of(&mut world, "outbox WHERE kind = 'page'").await;
    let tickets = count_of(&mut world, "ticket").await;
    assert_eq!((pages, tickets), (1, 1), "{}", world.log.text());
    let resolved: Vec<(i64,)> = world.probe.rows("SELECT resolved_at FROM ticket").await;
    let resolved_after_s = (resolved[0].0 - back_at.0) / 1_000;
    format!(
        "{count} hosts silent at once, {pages} page, resolved {resolved_after_s} s after their \
         return, {commits} commits, p50 at most {p50} s, p99 at most {p99} s, longest second of the \
         scenario {longest:.1?}",
        commits = world.metrics.rounds.get(),
        p50 = world.commit_bound_s(0.5),
        p99 = world.commit_bound_s(0.99),
    )
}

/// Lets time pass, and measures how long the collector's work of one second really takes.
async fn pass(world: &mut World, length: DurationMs, longest: &mut Duration) {
    for _ in 0..length.0 / 1_000 {
        let begun = Instant::now();
        world.pass(DurationMs::from_secs(1)).await;
        *longest = begun.elapsed().max(*longest);
    }
}

async fn count_of(world: &mut World, what: &str) -> usize {
    let rows: Vec<(i64,)> = world
        .probe
        .rows(format!("SELECT COUNT(*) FROM {what}"))
        .await;
    rows[0].0 as usize
}
