//! Scenarios about messages that do not reach people.

use watchkeep_core::{delivery::Failure, tickets::Action};
use watchkeep_shared::{DurationMs, wire::heartbeat::ServiceStatus};

use super::{World, scenarios};

/// Two people of tier 1 by mail, one of tier 2, and a webhook.
pub(super) const SETTINGS: &str = r#"
[mail]
host = "127.0.0.1"
port = 9
tls = "none"
from = "Watchkeep <watchkeep@example.org>"
to = ["ada@example.org", "bob@example.org"]
tier2_to = ["eve@example.org"]

[webhook]
url = "http://127.0.0.1:9/"
secret_file = "/dev/null"
"#;

/// One person a tier, mail only.
const MAIL_ONLY: &str = r#"
[mail]
host = "127.0.0.1"
port = 9
tls = "none"
from = "Watchkeep <watchkeep@example.org>"
to = ["ada@example.org"]
tier2_to = ["eve@example.org"]
"#;

const ADA: &str = "ada@example.org";
const BOB: &str = "bob@example.org";
const EVE: &str = "eve@example.org";
const DOWN: Option<Failure> = Some(Failure::Transient { retry_after: None });
const NO_SUCH_MAILBOX: Option<Failure> = Some(Failure::Final);

mod two_channels {
    use super::*;
    scenarios!(
        crate::scenario::delivery::SETTINGS;
        one_refused_recipient_holds_back_nobody,
        a_mail_server_that_is_down_is_reported_by_the_webhook,
        tier_2_is_other_people,
    );
}

mod mail_only {
    use super::*;
    scenarios!(
        crate::scenario::delivery::MAIL_ONLY;
        a_page_that_reaches_nobody_goes_to_tier_2_at_once,
        a_page_that_waits_for_five_minutes_goes_to_tier_2,
        nothing_is_handed_over_after_an_acknowledgement,
        when_nobody_can_be_reached_nothing_loops,
    );
}

const fn mins(n: i64) -> DurationMs {
    DurationMs::from_mins(n)
}

async fn one_refused_recipient_holds_back_nobody(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(5)).await;
    world.refuse(ADA, NO_SUCH_MAILBOX);
    world.cut_power(web);
    world.pass(mins(2)).await;
    // The mailbox exists again: what is sent next ends the report.
    world.refuse(ADA, None);
    world.boot(web);
    world.pass(mins(1)).await;
    world
}

async fn a_mail_server_that_is_down_is_reported_by_the_webhook(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(5)).await;
    for one in [ADA, BOB, EVE] {
        world.refuse(one, DOWN);
    }
    world.cut_power(web);
    world.pass(mins(20)).await;
    for one in [ADA, BOB, EVE] {
        world.refuse(one, None);
    }
    world.pass(mins(2)).await;
    world
}

async fn tier_2_is_other_people(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(5)).await;
    world.cut_power(web);
    world.pass(mins(6)).await;
    world.boot(web);
    world.pass(mins(1)).await;
    world
}

async fn a_page_that_reaches_nobody_goes_to_tier_2_at_once(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(5)).await;
    world.refuse(ADA, NO_SUCH_MAILBOX);
    world.cut_power(web);
    world.pass(mins(1)).await;
    world
}

async fn a_page_that_waits_for_five_minutes_goes_to_tier_2(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(5)).await;
    world.refuse(ADA, DOWN);
    // Priority 2 escalates only after 15 minutes.
    world.service(web, ServiceStatus::Failed);
    world.pass(mins(7)).await;
    world
}

async fn nothing_is_handed_over_after_an_acknowledgement(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(5)).await;
    world.refuse(ADA, DOWN);
    world.cut_power(web);
    world.pass(mins(2)).await;
    world.act(1, Action::Acknowledge, "Anna").await;
    world.refuse(ADA, None);
    world.pass(mins(10)).await;
    world
}

async fn when_nobody_can_be_reached_nothing_loops(mut world: World) -> World {
    let web = world.host("web1").await;
    world.pass(mins(5)).await;
    world.refuse(ADA, NO_SUCH_MAILBOX);
    world.refuse(EVE, NO_SUCH_MAILBOX);
    world.cut_power(web);
    world.pass(mins(60)).await;
    world
}
