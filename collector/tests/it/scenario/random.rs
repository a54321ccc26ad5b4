//! Scenarios that are drawn: operations by a seed, the invariants after each, and what fails is
//! shrunk to the shortest sequence. `WATCHKEEP_SCENARIOS=1000` draws so many (the suite draws a
//! few). A sequence that ever broke an invariant is kept below as a plain test.

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use watchkeep_core::tickets::{Action, IfFiring, TicketState, WaitingOn};
use watchkeep_shared::{DurationMs, wire::heartbeat::ServiceStatus};

use super::{SETTINGS, World, world::Host};
use crate::support::{Kind, run_with};

/// How many scenarios to draw instead of the suite's few.
const COUNT: &str = "WATCHKEEP_SCENARIOS";
/// Machines of a drawn scenario: two sites of three.
const HOSTS: usize = 6;

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Pass(i64),
    CutPower(usize),
    Boot(usize),
    ShutDown(usize),
    RestartAgent(usize),
    Line(usize, bool),
    SiteLine(bool),
    Service(usize, ServiceStatus),
    Disk(usize, f64),
    HoldUp(i64),
    Restart(i64),
    Act(usize, Deed),
}

/// What a person does with one of the open tickets.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Acknowledge,
    Resolve(IfFiring),
    Close(IfFiring),
    Note,
    Wait,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let host = 0..HOSTS;
    let status = prop_oneof![
        Just(ServiceStatus::Running),
        Just(ServiceStatus::Failed),
        Just(ServiceStatus::Stopped)
    ];
    let deed = prop_oneof![
        Just(Deed::Acknowledge),
        Just(Deed::Resolve(IfFiring::Refuse)),
        Just(Deed::Resolve(IfFiring::Anyway)),
        Just(Deed::Close(IfFiring::Anyway)),
        Just(Deed::Note),
        Just(Deed::Wait)
    ];
    prop_oneof![
        8 => (1_i64..400).prop_map(Pass),
        2 => host.clone().prop_map(CutPower),
        3 => host.clone().prop_map(Boot),
        1 => host.clone().prop_map(ShutDown),
        1 => host.clone().prop_map(RestartAgent),
        2 => (host.clone(), any::<bool>()).prop_map(|(host, on)| Line(host, on)),
        2 => any::<bool>().prop_map(SiteLine),
        3 => (host.clone(), status).prop_map(|(host, status)| Service(host, status)),
        3 => (host, prop_oneof![Just(40.0), Just(92.0), Just(98.0)]).prop_map(|(host, pct)| Disk(host, pct)),
        2 => (1_i64..200).prop_map(HoldUp),
        1 => (0_i64..200).prop_map(Restart),
        4 => (0_usize..8, deed).prop_map(|(ticket, deed)| Act(ticket, deed)),
    ]
}

/// Plays a sequence; the first invariant that breaks is the error.
async fn replay(mut world: World, operations: &[Operation]) -> Result<(), String> {
    let mut hosts = Vec::new();
    for n in 0..HOSTS {
        let site = if n < HOSTS / 2 { "Oven" } else { "Shop" };
        hosts.push(world.host_at(site, &format!("h{n}")).await);
    }
    world.pass(DurationMs::from_secs(90)).await;
    for operation in operations {
        perform(&mut world, &hosts, *operation).await;
        if let Some(broken) = world.broken().await {
            return Err(format!(
                "after {operation:?}: {broken}\n{}",
                world.log.text()
            ));
        }
    }
    Ok(())
}

async fn perform(world: &mut World, hosts: &[Host], operation: Operation) {
    match operation {
        Operation::Pass(secs) => world.pass(DurationMs::from_secs(secs)).await,
        Operation::CutPower(n) => world.cut_power(hosts[n]),
        Operation::Boot(n) => world.boot(hosts[n]),
        Operation::ShutDown(n) => world.shut_down(hosts[n]),
        Operation::RestartAgent(n) => world.restart_agent(hosts[n]),
        Operation::Line(n, is_connected) => world.connect(&[hosts[n]], is_connected),
        Operation::SiteLine(is_connected) => world.connect(&hosts[HOSTS / 2..], is_connected),
        Operation::Service(n, status) => world.service(hosts[n], status),
        Operation::Disk(n, pct) => world.disk(hosts[n], pct),
        Operation::HoldUp(secs) => world.hold_up(DurationMs::from_secs(secs)).await,
        Operation::Restart(secs) => {
            world.kill_collector();
            world.pass(DurationMs::from_secs(secs)).await;
            world.start_collector().await;
        }
        Operation::Act(n, deed) => {
            let open = world.open_tickets().await;
            if !open.is_empty() {
                world.act(open[n % open.len()], action(deed), "Anna").await;
            }
        }
    }
}

fn action(deed: Deed) -> Action {
    match deed {
        Deed::Acknowledge => Action::Acknowledge,
        Deed::Resolve(if_firing) => Action::Resolve(if_firing),
        Deed::Close(if_firing) => Action::Close(if_firing),
        Deed::Note => Action::Note {
            internal: true,
            text: "looking".to_owned(),
        },
        Deed::Wait => Action::SetState(TicketState::Waiting {
            on: WaitingOn::Supplier,
        }),
    }
}

fn draw(kind: Kind, count: u32) {
    let count = std::env::var(COUNT).map_or(count, |text| {
        text.parse().expect("WATCHKEEP_SCENARIOS is a number")
    });
    let mut runner = TestRunner::new(Config {
        cases: count,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let drawn = prop::collection::vec(operation(), 1..25);
    let outcome = runner.run(&drawn, |operations| {
        play(kind, &operations).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

fn play(kind: Kind, operations: &[Operation]) -> Result<(), String> {
    let mut outcome = Ok(());
    run_with(kind, SETTINGS, async |bench| {
        let world = World::start(bench).await.unchecked();
        outcome = Box::pin(replay(world, operations)).await;
    });
    outcome
}

#[test]
fn sqlite_drawn_scenarios_keep_the_invariants() {
    draw(Kind::Sqlite, 12);
}

#[test]
fn postgres_drawn_scenarios_keep_the_invariants() {
    draw(Kind::Postgres, 4);
}

/// Plays a kept sequence on both databases.
#[expect(dead_code, reason = "for sequences that are found")]
fn kept(operations: &[Operation]) {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        if let Err(broken) = play(kind, operations) {
            panic!("{broken}");
        }
    }
}
