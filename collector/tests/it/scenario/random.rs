//! Scenarios that are drawn: operations by a seed, the invariants after each, and what fails is
//! shrunk to the shortest sequence. `WATCHKEEP_SCENARIOS=1000` draws so many (the suite draws a
//! few). A sequence that ever broke an invariant is kept below as a plain test.

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use watchkeep_collector::store::faults::{Failure, Point};
use watchkeep_core::{
    delivery,
    tickets::{Action, IfFiring, TicketState, WaitingOn},
};
use watchkeep_shared::{DurationMs, UnixMillis, wire::heartbeat::ServiceStatus};

use super::{World, delivery::SETTINGS, operations::user_id, print_figures, world::Host};
use crate::support::{Kind, run_with};

/// How many scenarios to draw instead of the suite's few.
const COUNT: &str = "WATCHKEEP_SCENARIOS";
/// Machines of a drawn scenario: two sites of three.
const HOSTS: usize = 6;

/// Where and how the store fails.
const POINTS: [Point; 4] = [
    Point::Begin,
    Point::Statement,
    Point::Commit,
    Point::Committed,
];
const FAILURES: [Failure; 3] = [
    Failure::ConnectionLost,
    Failure::DiskFull,
    Failure::DiskError,
];
/// As in [`SETTINGS`].
const RECIPIENTS: [&str; 3] = ["ada@example.org", "bob@example.org", "eve@example.org"];

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
    FailStore(usize, usize, i64),
    SetClock(i64),
    Refuse(usize, Option<delivery::Failure>),
    Retire(usize),
    Revoke(usize),
    Act(usize, Deed),
}

/// What a person does with one of the tickets.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Acknowledge,
    Resolve(IfFiring),
    Close(IfFiring),
    Note,
    Wait,
    Assign,
    HandBack,
    Hold(i64),
    Reopen,
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
        Just(Deed::Wait),
        Just(Deed::Assign),
        Just(Deed::HandBack),
        (1_i64..60).prop_map(Deed::Hold),
        Just(Deed::Reopen),
    ];
    let refusal = prop_oneof![
        Just(None),
        Just(Some(delivery::Failure::Final)),
        Just(Some(delivery::Failure::Transient { retry_after: None }))
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
        3 => (host.clone(), prop_oneof![Just(40.0), Just(92.0), Just(98.0)]).prop_map(|(host, pct)| Disk(host, pct)),
        2 => (1_i64..200).prop_map(HoldUp),
        1 => (0_i64..200).prop_map(Restart),
        2 => (0..POINTS.len(), 0..FAILURES.len(), 1_i64..60)
            .prop_map(|(point, failure, secs)| FailStore(point, failure, secs)),
        1 => prop_oneof![-7_200_i64..7_200, -30_i64..30].prop_map(SetClock),
        1 => (0..RECIPIENTS.len(), refusal).prop_map(|(to, failure)| Refuse(to, failure)),
        1 => host.clone().prop_map(Retire),
        1 => host.prop_map(Revoke),
        6 => (0_usize..8, deed).prop_map(|(ticket, deed)| Act(ticket, deed)),
    ]
}

/// Plays a sequence; the first invariant that breaks is the error.
async fn replay(mut world: World, operations: &[Operation]) -> Result<String, String> {
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
    Ok(world.log.text().to_owned())
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
        Operation::FailStore(point, failure, secs) => {
            let length = DurationMs::from_secs(secs);
            world
                .fail_store(POINTS[point], FAILURES[failure], length)
                .await;
        }
        Operation::SetClock(secs) => world.set_clock(DurationMs::from_secs(secs)),
        Operation::Refuse(to, failure) => world.refuse(RECIPIENTS[to], failure),
        Operation::Retire(n) => world.retire(hosts[n]).await,
        Operation::Revoke(n) => world.revoke(hosts[n]).await,
        Operation::Act(n, deed) => {
            let tickets = match deed {
                Deed::Reopen => world.all_tickets().await,
                _ => world.open_tickets().await,
            };
            if !tickets.is_empty() {
                let action = action(deed, world.now);
                world.act(tickets[n % tickets.len()], action, "Anna").await;
            }
        }
    }
}

fn action(deed: Deed, now: UnixMillis) -> Action {
    match deed {
        Deed::Acknowledge => Action::Acknowledge,
        Deed::Resolve(if_firing) => Action::Resolve(if_firing),
        Deed::Close(if_firing) => Action::Close(if_firing),
        Deed::Note => Action::Note {
            internal: true,
            text: "looking".to_owned(),
        },
        Deed::Assign => Action::Assign {
            to: Some((user_id("Ben"), "Ben".to_owned())),
        },
        Deed::HandBack => Action::Assign { to: None },
        Deed::Hold(mins) => Action::Hold {
            until: now + DurationMs::from_mins(mins),
        },
        Deed::Reopen => Action::Reopen,
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
        max_shrink_iters: 100,
        failure_persistence: None,
        ..Config::default()
    });
    let drawn = (
        prop::collection::vec(operation(), 1..20),
        prop::bool::weighted(0.25),
    );
    let outcome = runner.run(&drawn, |(operations, is_beside_hostile)| {
        let outcome = if is_beside_hostile {
            play_beside(kind, &operations)
        } else {
            play(kind, &operations)
        };
        // At once: a run that is stopped while it shrinks would say nothing.
        if let Err(broken) = &outcome {
            print_figures(&format!("{operations:?}\n{broken}"));
        }
        outcome.map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    print_figures(&format!(
        "random, {kind:?}: {count} drawn sequences keep the invariants"
    ));
}

fn play(kind: Kind, operations: &[Operation]) -> Result<(), String> {
    log_of(kind, operations, None).map(drop)
}

/// The same beside an ordinary host, and beside a hostile one: nobody else may notice. Two operations
/// are left out: a recipient that refuses messages refuses those about the hostile host first, and a
/// store that works again is noticed with the next heartbeat of anybody.
fn play_beside(kind: Kind, operations: &[Operation]) -> Result<(), String> {
    let mut operations = operations.to_vec();
    operations
        .retain(|operation| !matches!(operation, Operation::Refuse(..) | Operation::FailStore(..)));
    let ordinary = log_of(kind, &operations, Some(false))?;
    let hostile = log_of(kind, &operations, Some(true))?;
    if ordinary == hostile {
        return Ok(());
    }
    Err(format!(
        "others notice a hostile host; beside an ordinary one:\n{ordinary}\nbeside a hostile one:\n{hostile}"
    ))
}

fn log_of(kind: Kind, operations: &[Operation], hostile: Option<bool>) -> Result<String, String> {
    let mut outcome = Ok(String::new());
    run_with(kind, SETTINGS, async |bench| {
        let mut world = World::start(bench).await.unchecked();
        if let Some(is_hostile) = hostile {
            world.add_hostile(is_hostile).await;
        }
        outcome = Box::pin(replay(world, operations)).await;
    });
    outcome
}

#[test]
fn sqlite_drawn_scenarios_keep_the_invariants() {
    draw(Kind::Sqlite, 6);
}

#[test]
fn postgres_drawn_scenarios_keep_the_invariants() {
    draw(Kind::Postgres, 2);
}

/// Plays a kept sequence on both databases.
fn kept(operations: &[Operation]) {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        if let Err(broken) = play(kind, operations) {
            panic!("{broken}");
        }
    }
}

/// Five seconds in which nobody got through explain no silence of 25: an agent is back within a
/// second or two.
#[test]
fn a_line_that_was_cut_before_a_short_hold_up_is_found() {
    kept(&[
        Operation::Line(1, false),
        Operation::HoldUp(5),
        Operation::Pass(319),
    ]);
}
