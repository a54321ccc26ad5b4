//! A day on bad lines: requests that are slow, break off or lose their answer, agents and a collector
//! that stall, wall clocks that are set on both sides, commits that fail, collectors that start again.
//! No host may be called silent that was heard within its limit or could not be heard, and a machine
//! that really is off must be. `WATCHKEEP_DAY_HOURS=24` plays a day with `WATCHKEEP_DAY_SEEDS=1,2,3`
//! (the suite plays an hour with one); `tests/scenarios.sh` runs it.

use std::fmt;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use watchkeep_collector::{
    ingest::seal,
    store::faults::{Failure, Point},
};
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{SETTINGS, World, print_figures, world::Host};
use crate::support::{Kind, run_with};

const HOURS: &str = "WATCHKEEP_DAY_HOURS";
const SEEDS: &str = "WATCHKEEP_DAY_SEEDS";
const HOSTS: usize = 12;
const A_SITE: usize = 6;
/// Minutes between two looks at the invariants.
const CHECK_EVERY_MIN: i64 = 5;
/// A machine that was off for so long, with nothing in the way, must have been called silent.
const MUST_BE_FOUND: DurationMs = DurationMs::from_mins(2);

#[test]
fn sqlite_a_bad_day_makes_no_false_alarm() {
    play(Kind::Sqlite);
}

#[test]
fn postgres_a_bad_day_makes_no_false_alarm() {
    play(Kind::Postgres);
}

fn play(kind: Kind) {
    let hours = std::env::var(HOURS).map_or(1, |text| {
        text.parse().expect("WATCHKEEP_DAY_HOURS is a number")
    });
    let seeds = std::env::var(SEEDS).unwrap_or_else(|_| "1".to_owned());
    for seed in seeds.split(',') {
        let seed = seed
            .parse()
            .expect("WATCHKEEP_DAY_SEEDS is a list of numbers");
        run_with(kind, SETTINGS, async |bench| {
            let world = World::start(bench).await.unchecked();
            let figures = Box::pin(Day::new(world, seed).play(hours)).await;
            print_figures(&format!(
                "day, {kind:?}: seed {seed}, {hours} h, {HOSTS} hosts: {figures}"
            ));
        });
    }
}

#[derive(Debug, Default)]
struct Figures {
    heartbeats: u64,
    hold_ups: u32,
    restarts: u32,
    clock_steps: u32,
    failures: u32,
    stalls: u32,
    outages: u32,
    found: u32,
    lines_silent: u32,
}

struct Day {
    world: World,
    rng: StdRng,
    hosts: Vec<Host>,
    /// The machine that is off, and when it boots.
    off: Option<(Host, i64)>,
    figures: Figures,
}

impl Day {
    fn new(world: World, seed: u64) -> Self {
        Self {
            world,
            rng: StdRng::seed_from_u64(seed),
            hosts: Vec::new(),
            off: None,
            figures: Figures::default(),
        }
    }

    async fn play(mut self, hours: i64) -> Figures {
        self.hosts = self.world.fleet(HOSTS, A_SITE).await;
        for host in self.hosts.clone() {
            let seed = self.rng.random();
            self.world.bad_line(host, seed);
        }
        for minute in 0..hours * 60 {
            // Past the grace period after the start.
            if minute >= 3 {
                self.disturb(minute).await;
            }
            self.world.pass(DurationMs::from_mins(1)).await;
            if minute % CHECK_EVERY_MIN == 0 {
                self.look().await;
            }
            let (app, now) = (&self.world.app, self.world.now);
            seal::seal(app, now).await.unwrap();
        }
        self.look().await;
        self.figures.heartbeats = self.world.metrics.frames_total();
        self.figures.lines_silent = self.world.witness.lines_silent;
        let Figures {
            outages,
            found,
            lines_silent,
            ..
        } = self.figures;
        assert_eq!(
            lines_silent,
            0,
            "machines that ran and were called silent: {}",
            self.world.log.text()
        );
        assert_eq!(
            found,
            outages,
            "outages that were found: {}",
            self.world.log.text()
        );
        self.figures
    }

    /// Checks the invariants; what was acknowledged is stored from then on, here or sealed.
    async fn look(&mut self) {
        self.world.check().await;
        for machine in &mut self.world.machines {
            machine.acknowledged.clear();
        }
    }

    /// Whether something that happens once in so many minutes happens in this one.
    fn happens(&mut self, once_in_min: u32) -> bool {
        self.rng.random_range(0..once_in_min) == 0
    }

    fn secs(&mut self, range: std::ops::RangeInclusive<i64>) -> DurationMs {
        DurationMs::from_secs(self.rng.random_range(range))
    }

    /// A step of a wall clock: seconds, minutes or hours, to either side.
    fn step(&mut self) -> DurationMs {
        let most = [10, 600, 7_200][self.rng.random_range(0..3)];
        self.secs(-most..=most)
    }

    fn any_host(&mut self) -> Host {
        self.hosts[self.rng.random_range(0..HOSTS)]
    }

    async fn disturb(&mut self, minute: i64) {
        self.outage(minute);
        if self.happens(4) {
            let (host, length) = (self.any_host(), self.secs(1..=10));
            self.world.stall(host, length);
            self.figures.stalls += 1;
        }
        if self.happens(30) {
            let (host, by) = (self.any_host(), self.step());
            self.world.set_wall(host, by);
        }
        if self.happens(20) {
            let by = self.step();
            self.world.set_clock(by);
            self.figures.clock_steps += 1;
        }
        if self.happens(25) {
            let length = self.secs(1..=90);
            self.world.hold_up(length).await;
            self.figures.hold_ups += 1;
        }
        if self.happens(25) {
            let length = self.secs(1..=30);
            let (point, failure) = self.failure();
            self.world.fail_store(point, failure, length).await;
            self.figures.failures += 1;
        }
        if self.happens(40) {
            self.look().await;
            self.world.kill_collector();
            let length = self.secs(1..=90);
            self.world.pass(length).await;
            self.world.start_collector().await;
            self.figures.restarts += 1;
        }
    }

    fn failure(&mut self) -> (Point, Failure) {
        let points = [
            Point::Begin,
            Point::Statement,
            Point::Commit,
            Point::Committed,
        ];
        let failures = [
            Failure::ConnectionLost,
            Failure::DiskFull,
            Failure::DiskError,
        ];
        let (point, failure) = (self.rng.random_range(0..4), self.rng.random_range(0..3));
        (points[point], failures[failure])
    }

    /// Now and then a machine really is off, for some minutes.
    fn outage(&mut self, minute: i64) {
        if let Some((host, until)) = self.off {
            if minute >= until {
                self.note_outage(host);
                self.world.boot(host);
                self.off = None;
            }
        } else if self.happens(30) {
            let host = self.any_host();
            self.world.cut_power(host);
            self.off = Some((host, minute + self.rng.random_range(3..8)));
        }
    }

    /// Whether the outage that ends now was found. Those in which the collector could not hear, or
    /// that its grace period covers, prove nothing.
    fn note_outage(&mut self, host: Host) {
        let machine = &self.world.machines[host.0];
        let Some(since) = machine.off_since() else {
            return;
        };
        let now = self.world.now;
        let quiet_since = since - MUST_BE_FOUND;
        if now.since(since) < MUST_BE_FOUND || self.world.witness.was_deaf(quiet_since, now) {
            return;
        }
        self.figures.outages += 1;
        self.figures.found += u32::from(self.is_called_silent(host, since));
    }

    fn is_called_silent(&self, host: Host, since: UnixMillis) -> bool {
        let now = self.world.app.live.host(self.world.machines[host.0].host);
        now.is_some_and(|now| now.silent && now.last_seen_at <= since + DurationMs::from_secs(10))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} heartbeats, {} hold-ups, {} restarts, {} steps of the collector's clock, {} failures \
             of the store, {} stalls of agents; {} of {} undisturbed outages found, 0 machines \
             that ran were called silent",
            self.heartbeats,
            self.hold_ups,
            self.restarts,
            self.clock_steps,
            self.failures,
            self.stalls,
            self.found,
            self.outages
        )
    }
}
