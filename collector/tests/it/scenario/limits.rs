//! A host that breaches more than its limit of tickets.

use watchkeep_core::tickets::Action;
use watchkeep_shared::{DurationMs, wire::heartbeat::ServiceStatus};

use super::{World, scenarios};

/// Two tickets of one host at once, four within an hour.
const SETTINGS: &str = r#"
[tickets]
max_open_per_host = 2
[mail]
host = "127.0.0.1"
port = 9
tls = "none"
from = "Watchkeep <watchkeep@example.org>"
to = ["on-call@example.org"]
"#;

scenarios!(super::SETTINGS;
    a_host_at_its_limit_gets_one_more_ticket,
    services_that_come_and_go_open_few_tickets,
);

async fn a_host_at_its_limit_gets_one_more_ticket(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(DurationMs::from_mins(1)).await;
    world.more_failed(web, 1..6);
    world.pass(DurationMs::from_mins(1)).await;
    world.act(3, Action::Acknowledge, "Anna").await;
    world.more_failed(web, 1..7);
    world.pass(DurationMs::from_mins(1)).await;
    // The host itself has a ticket of its own all the same.
    world.cut_power(web);
    world.pass(DurationMs::from_mins(2)).await;
    world.boot(web);
    world.pass(DurationMs::from_mins(1)).await;
    world.more_failed(web, 1..4);
    world.pass(DurationMs::from_mins(1)).await;
    world.more_failed(web, 0..0);
    world.pass(DurationMs::from_mins(1)).await;
    world
}

async fn services_that_come_and_go_open_few_tickets(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(DurationMs::from_mins(1)).await;
    for which in [1..3, 3..5, 5..7, 7..9, 0..0] {
        world.more_failed(web, which);
        world.pass(DurationMs::from_mins(1)).await;
    }
    // An hour later there is room again.
    world.pass(DurationMs::from_hours(1)).await;
    world.service(web, ServiceStatus::Failed);
    world.pass(DurationMs::from_mins(1)).await;
    world
}
