//! What 200 hosts notice of a hostile one beside them: nothing. The same story is played twice, with
//! the hostile host and with an ordinary one in its place; tickets and messages of all others must be
//! the same, line by line. How long heartbeats took to be answered is printed for both.
//! `WATCHKEEP_HOSTILE_MINUTES=60` plays an hour (the suite plays one round of the story, with fewer hosts), and
//! `tests/scenarios.sh` runs it.

use std::{fmt, time::Duration};

use watchkeep_core::tickets::Action;
use watchkeep_shared::{DurationMs, wire::heartbeat::ServiceStatus};

use super::{SETTINGS, World, hostile::Tally, print_figures, world::Host};
use crate::support::{Kind, run_with};

/// How long the story lasts instead of the suite's length, minutes.
const MINUTES: &str = "WATCHKEEP_HOSTILE_MINUTES";
/// Hosts that are not hostile.
const HOSTS: usize = 200;
/// The same in the suite.
const HOSTS_IN_SUITE: usize = 90;
const A_SITE: usize = 20;
/// How long one round of the story lasts, minutes.
const A_ROUND: i64 = 12;

#[test]
fn sqlite_a_hostile_host_changes_nothing_for_the_others() {
    compare(Kind::Sqlite);
}

#[test]
fn postgres_a_hostile_host_changes_nothing_for_the_others() {
    compare(Kind::Postgres);
}

fn compare(kind: Kind) {
    let minutes = std::env::var(MINUTES).map_or(A_ROUND, |text| {
        text.parse().expect("WATCHKEEP_HOSTILE_MINUTES is a number")
    });
    let hosts = if std::env::var_os(MINUTES).is_some() {
        HOSTS
    } else {
        HOSTS_IN_SUITE
    };
    let play = |is_hostile| play(kind, minutes, hosts, is_hostile);
    let without = play(false);
    let with = play(true);
    print_figures(&format!(
        "beside, {kind:?}: {minutes} min beside {hosts} hosts, {:?}; seconds' heartbeats \
         answered with it {}, without {}",
        with.sent,
        Quantiles::of(with.answered_in),
        Quantiles::of(without.answered_in),
    ));
    // It got through to what could hurt the others.
    assert!(with.sent.accepted > with.sent.frames / 3, "{:?}", with.sent);
    assert!(with.sent.rejected > 0, "{:?}", with.sent);
    assert_eq!(without.sent.rejected, 0, "{:?}", without.sent);
    assert!(without.log.contains("page mail"), "{}", without.log);
    assert_same(&without.log, &with.log);
}

/// Fails with the first line that differs.
fn assert_same(without: &str, with: &str) {
    let lines = without.lines().zip(with.lines());
    for (n, (expected, found)) in lines.enumerate() {
        assert_eq!(expected, found, "line {n}; with the hostile host:\n{with}");
    }
    assert_eq!(without, with);
}

struct Played {
    log: String,
    sent: Tally,
    answered_in: Vec<Duration>,
}

fn play(kind: Kind, minutes: i64, hosts: usize, is_hostile: bool) -> Played {
    let mut played = None;
    run_with(kind, SETTINGS, async |bench| {
        let mut world = World::start(bench).await.unchecked();
        let hosts = world.fleet(hosts, A_SITE).await;
        world.add_hostile(is_hostile).await;
        for _ in 0..minutes / A_ROUND {
            Box::pin(round(&mut world, &hosts)).await;
        }
        world.check().await;
        played = Some(Played {
            sent: world.hostile.as_ref().unwrap().sent,
            answered_in: std::mem::take(&mut world.answered_in),
            log: world.finish().await,
        });
    });
    played.unwrap()
}

/// A bit of everything that makes tickets.
async fn round(world: &mut World, hosts: &[Host]) {
    let minutes = DurationMs::from_mins;
    let (service, disk, dead, site) = (hosts[10], hosts[25], hosts[45], &hosts[60..80]);
    world.pass(minutes(1)).await;
    world.service(service, ServiceStatus::Failed);
    world.disk(disk, 98.0);
    world.pass(minutes(1)).await;
    world.cut_power(dead);
    world.pass(minutes(1)).await;
    world.connect(site, false);
    world.pass(minutes(1)).await;
    world.act_on(dead, Action::Acknowledge, "Anna").await;
    world.pass(minutes(1)).await;
    world.service(service, ServiceStatus::Running);
    world.boot(dead);
    world.pass(minutes(2)).await;
    world.connect(site, true);
    world.pass(minutes(1)).await;
    world.disk(disk, 40.0);
    world.hold_up(DurationMs::from_secs(20)).await;
    world.pass(minutes(1)).await;
    world.kill_collector();
    world.pass(DurationMs::from_secs(20)).await;
    world.start_collector().await;
    world.pass(DurationMs::from_secs(140)).await;
}

struct Quantiles {
    p50: Duration,
    p99: Duration,
}

impl Quantiles {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |percent: usize| all[(all.len() - 1) * percent / 100];
        Self {
            p50: at(50),
            p99: at(99),
        }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1?}, p99 {:.1?}", self.p50, self.p99)
    }
}
