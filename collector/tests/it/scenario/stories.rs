//! Scenarios that were written down: each says in its name what people should notice, and its
//! snapshot is read before it is accepted.

use watchkeep_core::tickets::Action;
use watchkeep_shared::{DurationMs, wire::heartbeat::ServiceStatus};

use super::{World, scenarios};

scenarios!(
    a_dead_host_pages_tier_1_then_tier_2_until_someone_answers,
    a_collector_that_was_held_up_pages_nobody,
    a_restart_of_the_collector_pages_nobody,
    a_service_that_fails_and_recovers,
    a_ticket_resolved_too_early_comes_back,
    a_worse_breach_after_an_acknowledgement_pages_again,
    a_handed_back_ticket_does_not_escalate,
    a_retired_host_pages_nobody,
    a_site_behind_a_dead_line_is_one_incident,
    most_of_the_fleet_at_once_is_one_incident,
);

const fn secs(n: i64) -> DurationMs {
    DurationMs::from_secs(n)
}

const fn mins(n: i64) -> DurationMs {
    DurationMs::from_mins(n)
}

async fn a_dead_host_pages_tier_1_then_tier_2_until_someone_answers(mut world: World) -> World {
    let web = world.host("web1").await;
    world.host("web2").await;
    world.pass(mins(5)).await;
    world.cut_power(web);
    world.pass(mins(7)).await;
    world.act(1, Action::Acknowledge, "Anna").await;
    world.pass(mins(20)).await;
    world.boot(web);
    world.pass(mins(20)).await;
    world
}

async fn a_collector_that_was_held_up_pages_nobody(mut world: World) -> World {
    for name in ["web1", "web2", "db1"] {
        world.host(name).await;
    }
    world.pass(mins(5)).await;
    world.hold_up(secs(60)).await;
    world.pass(mins(2)).await;
    world.hold_up(mins(20)).await;
    world.pass(mins(5)).await;
    world
}

async fn a_restart_of_the_collector_pages_nobody(mut world: World) -> World {
    for name in ["web1", "web2", "db1"] {
        world.host(name).await;
    }
    world.pass(mins(5)).await;
    world.kill_collector();
    world.pass(mins(10)).await;
    world.start_collector().await;
    world.pass(mins(5)).await;
    world
}

async fn a_service_that_fails_and_recovers(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(1)).await;
    world.service(web, ServiceStatus::Failed);
    world.pass(mins(2)).await;
    world.service(web, ServiceStatus::Running);
    world.pass(mins(10)).await;
    world
}

async fn a_ticket_resolved_too_early_comes_back(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(1)).await;
    world.disk(web, 98.0);
    world.pass(mins(10)).await;
    world.act(1, Action::Acknowledge, "Anna").await;
    world.act(1, Action::Resolve, "Anna").await;
    world.pass(mins(60)).await;
    world.disk(web, 40.0);
    world.pass(mins(20)).await;
    world
}

async fn a_worse_breach_after_an_acknowledgement_pages_again(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(1)).await;
    world.disk(web, 92.0);
    world.pass(mins(15)).await;
    world.act(1, Action::Acknowledge, "Anna").await;
    world.pass(mins(60)).await;
    world.disk(web, 98.0);
    world.pass(mins(30)).await;
    world
}

async fn a_handed_back_ticket_does_not_escalate(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(1)).await;
    world.service(web, ServiceStatus::Failed);
    world.pass(mins(1)).await;
    let note = Action::Note {
        internal: true,
        text: "looking".to_owned(),
    };
    world.act(1, note, "Anna").await;
    world.pass(mins(2)).await;
    world.service(web, ServiceStatus::Running);
    world.pass(mins(60)).await;
    world
}

async fn a_retired_host_pages_nobody(mut world: World) -> World {
    let web = world.host("web1").await;
    let old = world.host("old1").await;
    world.pass(mins(1)).await;
    world.disk(old, 98.0);
    world.pass(mins(10)).await;
    world.retire(old).await;
    world.pass(mins(10)).await;
    world.cut_power(web);
    world.pass(mins(1)).await;
    world
}

async fn a_site_behind_a_dead_line_is_one_incident(mut world: World) -> World {
    let mut bergen = Vec::new();
    for n in 1..=12 {
        bergen.push(world.host_at("Bergen", &format!("ber{n}")).await);
        // Agents do not beat in step.
        world.pass(secs(i64::from(n % 2 == 0))).await;
    }
    world.host("web1").await;
    world.pass(mins(5)).await;
    world.connect(&bergen, false);
    world.pass(mins(20)).await;
    world.connect(&bergen[2..], true);
    world.pass(mins(20)).await;
    world.connect(&bergen[..2], true);
    world.pass(mins(10)).await;
    world
}

async fn most_of_the_fleet_at_once_is_one_incident(mut world: World) -> World {
    let mut all = Vec::new();
    for n in 0..30 {
        all.push(
            world
                .host_at(&format!("Site {}", n % 5), &format!("h{n}"))
                .await,
        );
    }
    world.pass(mins(5)).await;
    world.connect(&all[..28], false);
    world.pass(mins(15)).await;
    world.connect(&all, true);
    world.pass(mins(10)).await;
    world
}
