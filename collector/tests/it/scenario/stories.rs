//! Scenarios that were written down: each says in its name what people should notice, and its
//! snapshot is read before it is accepted.

use watchkeep_core::tickets::{Action, IfFiring};
use watchkeep_shared::{DurationMs, wire::heartbeat::ServiceStatus};

use super::{World, scenarios, world::Host};

scenarios!(
    a_dead_host_pages_tier_1_then_tier_2_until_someone_answers,
    a_collector_that_was_held_up_pages_nobody,
    the_collectors_own_problems_are_notices,
    many_short_hold_ups_are_a_notice_too,
    a_restart_of_the_collector_pages_nobody,
    a_service_that_fails_and_recovers,
    a_ticket_resolved_too_early_comes_back,
    a_worse_breach_after_an_acknowledgement_pages_again,
    a_handed_back_ticket_does_not_escalate,
    an_assigned_ticket_neither_pages_nor_escalates,
    a_notice_wakes_nobody_until_something_pages,
    a_retired_host_pages_nobody,
    a_host_retired_while_the_collector_is_down_leaves_nothing_behind,
    a_revoked_host_is_not_silent,
    an_incident_survives_a_restart_and_a_retired_host,
    a_power_failure_at_a_site_is_one_incident_without_reboots,
    a_host_that_was_silent_before_keeps_its_ticket,
    a_resolved_incident_comes_back_with_the_next_host,
    a_clock_that_is_set_makes_nobody_silent_and_hides_nobody,
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

async fn the_collectors_own_problems_are_notices(mut world: World) -> World {
    for name in ["web1", "web2", "db1"] {
        world.host(name).await;
    }
    world.pass(mins(5)).await;
    // Short ones are in the uptime record only.
    world.hold_up(secs(20)).await;
    world.pass(mins(2)).await;
    world.hold_up(secs(65)).await;
    world.pass(mins(2)).await;
    world.hold_up(secs(125)).await;
    world.pass(mins(30)).await;
    world.hold_up(secs(150)).await;
    world.pass(mins(61)).await;
    world.set_clock(mins(10));
    world.pass(mins(5)).await;
    world.set_clock(mins(-10));
    world.pass(mins(1)).await;
    world
}

async fn many_short_hold_ups_are_a_notice_too(mut world: World) -> World {
    world.host("web1").await;
    world.pass(mins(5)).await;
    // After each of them no host is called silent for 90 s: so often, that none would be found soon.
    for _ in 0..4 {
        world.hold_up(secs(50)).await;
        world.pass(mins(2)).await;
    }
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
    world
        .act(1, Action::Resolve(IfFiring::Refuse), "Anna")
        .await;
    world
        .act(1, Action::Resolve(IfFiring::Anyway), "Anna")
        .await;
    world.pass(mins(35)).await;
    world.act(1, Action::Acknowledge, "Ben").await;
    world.pass(mins(10)).await;
    world.act(1, Action::Close(IfFiring::Anyway), "Ben").await;
    world.pass(mins(10)).await;
    world.disk(web, 40.0);
    world.pass(mins(60)).await;
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
    world.pass(mins(10)).await;
    world.act(1, Action::Acknowledge, "Anna").await;
    world.pass(mins(10)).await;
    // It goes down and up again: the same, not something worse.
    world.disk(web, 90.0);
    world.pass(mins(10)).await;
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
    world.service(web, ServiceStatus::Failed);
    world.pass(mins(20)).await;
    world
}

async fn an_assigned_ticket_neither_pages_nor_escalates(mut world: World) -> World {
    let web = world.host("web1").await;
    let db = world.host("db1").await;
    world.pass(mins(1)).await;
    world.service(web, ServiceStatus::Failed);
    world.service(db, ServiceStatus::Failed);
    world.pass(mins(1)).await;
    world.assign(1, "Anna", "Anna").await;
    world.assign(2, "Ben", "Anna").await;
    world.pass(mins(60)).await;
    world
}

async fn a_notice_wakes_nobody_until_something_pages(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(1)).await;
    world.disk(web, 92.0);
    world.pass(mins(120)).await;
    world.disk(web, 98.0);
    world.pass(mins(20)).await;
    // What pages is over; what is left is a notice.
    world.disk(web, 90.0);
    world.pass(mins(30)).await;
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

async fn a_host_retired_while_the_collector_is_down_leaves_nothing_behind(
    mut world: World,
) -> World {
    let old = world.host("old1").await;
    world.host("web1").await;
    world.pass(mins(1)).await;
    world.disk(old, 98.0);
    world.pass(mins(10)).await;
    world.kill_collector();
    world.pass(mins(1)).await;
    world.retire(old).await;
    world.pass(mins(1)).await;
    world.start_collector().await;
    world.pass(mins(5)).await;
    world
}

async fn a_revoked_host_is_not_silent(mut world: World) -> World {
    let web = world.host("web1").await;
    let db = world.host("db1").await;
    world.pass(mins(2)).await;
    // One is up, one is silent already.
    world.cut_power(db);
    world.pass(mins(1)).await;
    world.revoke(web).await;
    world.revoke(db).await;
    world.pass(mins(10)).await;
    world
}

/// Twelve machines at a site of their own, which do not beat in step, and one elsewhere.
async fn bergen(world: &mut World) -> Vec<Host> {
    let mut hosts = Vec::new();
    for n in 1..=12 {
        hosts.push(world.host_at("Bergen", &format!("ber{n}")).await);
        world.pass(secs(i64::from(n % 2 == 0))).await;
    }
    world.host("web1").await;
    world.pass(mins(5)).await;
    hosts
}

async fn an_incident_survives_a_restart_and_a_retired_host(mut world: World) -> World {
    let hosts = bergen(&mut world).await;
    world.connect(&hosts, false);
    world.pass(mins(2)).await;
    world.act(1, Action::Acknowledge, "Anna").await;
    world.kill_collector();
    world.pass(mins(2)).await;
    world.start_collector().await;
    world.pass(mins(5)).await;
    world.connect(&hosts[1..], true);
    world.pass(mins(1)).await;
    // The last one that is missing.
    world.retire(hosts[0]).await;
    world.pass(mins(5)).await;
    world
}

async fn a_power_failure_at_a_site_is_one_incident_without_reboots(mut world: World) -> World {
    let hosts = bergen(&mut world).await;
    for host in &hosts {
        world.cut_power(*host);
    }
    world.pass(mins(4)).await;
    for host in &hosts {
        world.boot(*host);
        world.pass(secs(7)).await;
    }
    world.pass(mins(20)).await;
    world
}

async fn a_host_that_was_silent_before_keeps_its_ticket(mut world: World) -> World {
    let hosts = bergen(&mut world).await;
    world.cut_power(hosts[4]);
    world.pass(mins(3)).await;
    world.connect(&hosts, false);
    world.pass(mins(3)).await;
    world.connect(&hosts, true);
    world.pass(mins(5)).await;
    world.boot(hosts[4]);
    world.pass(mins(2)).await;
    world
}

async fn a_resolved_incident_comes_back_with_the_next_host(mut world: World) -> World {
    let hosts = bergen(&mut world).await;
    world.connect(&hosts[1..], false);
    world.pass(mins(2)).await;
    world.act(1, Action::Acknowledge, "Anna").await;
    world
        .act(1, Action::Resolve(IfFiring::Anyway), "Anna")
        .await;
    world.pass(mins(5)).await;
    world.connect(&hosts[..1], false);
    world.pass(mins(2)).await;
    world.connect(&hosts, true);
    world.pass(mins(5)).await;
    world
}

async fn a_clock_that_is_set_makes_nobody_silent_and_hides_nobody(mut world: World) -> World {
    let mut hosts = Vec::new();
    for name in ["web1", "web2", "web3", "db1", "db2", "db3"] {
        hosts.push(world.host(name).await);
    }
    world.pass(mins(5)).await;
    for (n, minutes) in [60, 24 * 60, -10, -25 * 60].into_iter().enumerate() {
        world.set_clock(mins(minutes));
        world.pass(mins(3)).await;
        world.cut_power(hosts[n]);
        world.pass(mins(1)).await;
        world.boot(hosts[n]);
        world.pass(mins(3)).await;
    }
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
