//! Every number of alerts and tickets agrees with every other, on all pages, in the API and on the
//! command line, whatever state hosts and tickets are in.

use std::collections::HashMap;

use axum::http::StatusCode;
use serde_json::Value as Json;
use uuid::Uuid;
use watchkeep_collector::store::{Store, fleet, tickets as rows, views};
use watchkeep_core::tickets::{Action, IfFiring};
use watchkeep_shared::{DurationMs, HostId, wire::heartbeat::ServiceStatus};

use super::{World, world::Host};
use crate::{
    support::{Bench, both},
    web::{Browser, signed_in},
};

both!(every_page_counts_alike);

/// The site whose hosts fall silent together.
const SITE: &str = "Bergen";

const fn mins(n: i64) -> DurationMs {
    DurationMs::from_mins(n)
}

async fn every_page_counts_alike(bench: Bench) {
    let browser = signed_in(&bench).await;
    let mut world = World::start(bench).await;
    let mut hosts = HashMap::new();
    for name in [
        "silent", "answered", "held", "restored", "retired", "resolved", "revoked", "flooded",
    ] {
        hosts.insert(name, world.host(name).await);
    }
    let mut site = Vec::new();
    for n in 1..=5 {
        site.push(world.host_at(SITE, &format!("ber{n}")).await);
    }
    world.pass(mins(1)).await;
    let none = agree(&browser, &world, "nothing has happened").await;
    assert_eq!((none.tickets, none.alerts), (0, 0));

    much_fires(&mut world, &hosts).await;
    let all = agree(&browser, &world, "much fires").await;
    assert!(all.tickets > 30 && all.alerts > 40, "{all:?}");

    people_act(&browser, &mut world).await;
    world.cut_power(hosts["silent"]);
    world.connect(&site, false);
    world.service(hosts["restored"], ServiceStatus::Running);
    world.pass(mins(2)).await;
    let acted = agree(&browser, &world, "people acted, hosts are silent").await;
    assert!(
        acted.recovered > 0 && acted.of_sites > 0 && acted.alerts_of_silent > 0,
        "{acted:?}"
    );

    world.retire(hosts["retired"]).await;
    world.revoke(hosts["revoked"]).await;
    world.pass(mins(2)).await;
    let fewer = agree(&browser, &world, "a host is retired, one is revoked").await;
    assert!(fewer.alerts < acted.alerts, "{fewer:?}");

    world.kill_collector();
    world.pass(mins(1)).await;
    world.start_collector().await;
    world.pass(mins(3)).await;
    agree(&browser, &world, "the collector has started again").await;

    world.connect(&site, true);
    world.boot(hosts["silent"]);
    for name in ["silent", "answered", "held", "resolved"] {
        world.disk(hosts[name], 20.0);
    }
    world.more_failed(hosts["flooded"], 0..0);
    world.pass(mins(6)).await;
    let after = agree(&browser, &world, "most have recovered").await;
    assert!((1..5).contains(&after.alerts), "{after:?}");
}

/// Tickets about disks, about services, and more than one host may have.
async fn much_fires(world: &mut World, hosts: &HashMap<&str, Host>) {
    for name in ["silent", "answered", "held", "retired", "resolved"] {
        world.disk(hosts[name], 98.0);
    }
    for name in ["answered", "restored", "revoked"] {
        world.service(hosts[name], ServiceStatus::Failed);
    }
    world.more_failed(hosts["flooded"], 0..40);
    world.pass(mins(3)).await;
}

async fn people_act(browser: &Browser, world: &mut World) {
    let until = world.now + mins(600);
    // A ticket that a person has noted on is handed back when its alert recovers.
    let note = Action::Note {
        internal: true,
        text: "looking".to_owned(),
    };
    let open = listed(browser, "").await;
    for (host, action) in [
        ("answered", Action::Acknowledge),
        ("held", Action::Hold { until }),
        ("resolved", Action::Resolve(IfFiring::Anyway)),
        ("restored", note),
    ] {
        let ticket = open.iter().find(|one| one["host"] == host).unwrap();
        let number = ticket["number"].as_i64().unwrap();
        // Scenarios count tickets from 1.
        world.act(number - 1_000, action, "Anna").await;
    }
}

/// What was counted.
#[derive(Debug)]
struct Counts {
    /// Open tickets.
    tickets: i64,
    /// Those whose alerts have recovered.
    recovered: i64,
    /// Those about a site.
    of_sites: i64,
    /// Firing alerts.
    alerts: i64,
    /// Those of silent hosts that are no problem of their own.
    alerts_of_silent: i64,
}

/// Compares all numbers.
async fn agree(browser: &Browser, world: &World, when: &str) -> Counts {
    let store = &world.bench().app.store;
    let fleet_page = get(browser, "/").await;
    let queue = listed(browser, "").await;
    let tickets = queue.len() as i64;
    let of_sites = queue.iter().filter(|one| one["host"].is_null()).count() as i64;
    let of_hosts: i64 = views::open_tickets_by_host(store)
        .await
        .unwrap()
        .iter()
        .map(|(_, count)| count)
        .sum();
    let queue_page = get(browser, "/tickets").await;
    let badge = number(&fleet_page, "aria-label=\"open tickets\">");
    let on_command_line = rows::open(store).await.unwrap().len() as i64;
    for (what, count) in [
        ("navigation", badge),
        ("tile", tile(&fleet_page, "Open tickets")),
        ("head of the queue", queue_head(&queue_page)),
        ("rows of the queue", count(&queue_page, "<tr id=\"t-")),
        ("status", on_command_line),
        ("with and without host", of_hosts + of_sites),
    ] {
        assert_eq!(count, tickets, "{when}: {what}");
    }
    parts_of_the_fleet_agree(browser, store, (tickets, when)).await;
    for ticket in &queue {
        let number = ticket["number"].as_i64().unwrap();
        let page = get(browser, &format!("/tickets/{number}")).await;
        let firing = count(&page, " · still firing");
        assert_eq!(Some(firing), ticket["firing"].as_i64(), "{when}: #{number}");
    }
    let (alerts, of_listed_hosts) = hosts_agree(browser, store, when).await;
    let alerts_of_silent = after(&fleet_page, ", not counting ");
    // Each alert is a problem, but for those of silent hosts; silent hosts of a site are one.
    let problems = after(&fleet_page, "Problems now <span class=\"muted small\">");
    let together = format!(" hosts at {SITE} are silent");
    let together = fleet_page.split_once(&together).map_or(0, |(before, _)| {
        let hosts = before.rsplit('>').next().unwrap();
        hosts.parse::<i64>().unwrap() - 1
    });
    // All hosts are of this client.
    let search = get(browser, "/?q=bakery").await;
    let of_these = tile(&search, "Open tickets of these hosts");
    assert_eq!(of_these, of_listed_hosts, "{when}: tickets, search");
    for (what, count) in [
        ("tile", tile(&fleet_page, "Alerts firing")),
        ("problems", problems + together + alerts_of_silent),
        ("search", tile(&search, "Alerts firing")),
    ] {
        assert_eq!(count, alerts, "{when}: alerts, {what}");
    }
    Counts {
        tickets,
        recovered: listed(browser, "alerts=recovered").await.len() as i64,
        of_sites,
        alerts,
        alerts_of_silent,
    }
}

/// The fleet's tile of each client and site leads to as many tickets; together they are all.
async fn parts_of_the_fleet_agree(browser: &Browser, store: &Store, (all, when): (i64, &str)) {
    let clients = views::clients(store).await.unwrap();
    let clients: Vec<Uuid> = clients.iter().map(|one| one.id).collect();
    let sites = fleet::sites(store).await.unwrap();
    let sites: Vec<Uuid> = sites.iter().map(|one| one.id).collect();
    for (parameter, ids) in [("client", clients), ("site", sites)] {
        let mut sum = 0;
        for id in ids {
            let filter = format!("{parameter}={id}");
            let count = listed(browser, &filter).await.len() as i64;
            let page = get(browser, &format!("/?{filter}")).await;
            assert_eq!(tile(&page, "Open tickets"), count, "{when}: {filter}");
            let link = format!("href=\"/tickets?{filter}\"");
            assert!(page.contains(&link), "{when}: {filter}");
            sum += count;
        }
        assert_eq!(sum, all, "{when}: sum over every {parameter}");
    }
}

/// Each host has as many alerts and tickets wherever it is shown. Returns the sums of both.
async fn hosts_agree(browser: &Browser, store: &Store, when: &str) -> (i64, i64) {
    let page = json(browser, "/api/v1/fleet?limit=1000").await;
    assert!(page["next"].is_null());
    let stored = views::firing_by_host(store).await.unwrap();
    let stored: HashMap<HostId, i64> = stored.into_iter().collect();
    let (mut alerts, mut tickets) = (0, 0);
    for host in page["hosts"].as_array().unwrap() {
        let name = host["name"].as_str().unwrap();
        let id: HostId = host["id"].as_str().unwrap().parse().unwrap();
        let fires = host["firing"].as_i64().unwrap();
        let page = get(browser, &format!("/hosts/{id}")).await;
        let on_page = after(&page, "Firing alerts <span class=\"muted small\">");
        let stored = stored.get(&id).copied().unwrap_or_default();
        assert_eq!(
            (on_page, stored),
            (fires, fires),
            "{when}: alerts of {name}"
        );
        let open = host["open_tickets"].as_i64().unwrap();
        let in_queue = listed(browser, &format!("host={id}")).await.len() as i64;
        assert_eq!(in_queue, open, "{when}: tickets of {name}");
        alerts += fires;
        tickets += open;
    }
    assert_eq!(stored.values().sum::<i64>(), alerts, "{when}: alerts");
    (alerts, tickets)
}

async fn get(browser: &Browser, path: &str) -> String {
    let answer = browser.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    answer.text
}

async fn json(browser: &Browser, path: &str) -> Json {
    serde_json::from_str(&get(browser, path).await).unwrap()
}

/// Open tickets by the API, on all its pages; as many as it says.
async fn listed(browser: &Browser, filter: &str) -> Vec<Json> {
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/tickets?{filter}&after={cursor}");
        let page = json(browser, &path).await;
        listed.extend(page["tickets"].as_array().unwrap().clone());
        let total = page["total"].as_u64();
        let Some(next) = page["next"].as_str() else {
            assert_eq!(total, Some(listed.len() as u64), "{filter}");
            return listed;
        };
        next.clone_into(&mut cursor);
    }
}

fn count(page: &str, text: &str) -> i64 {
    page.matches(text).count() as i64
}

/// The number after a text, which has to be there; 0 if there is none, as in an empty badge.
fn number(page: &str, text: &str) -> i64 {
    let (_, rest) = page.split_once(text).expect(text);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}

/// The number after a text; 0 without the text.
fn after(page: &str, text: &str) -> i64 {
    if page.contains(text) {
        number(page, text)
    } else {
        0
    }
}

fn tile(page: &str, name: &str) -> i64 {
    number(page, &format!("{name}</div><div class=\"value\">"))
}

fn queue_head(page: &str) -> i64 {
    if page.contains("No open tickets") {
        return 0;
    }
    let (_, rest) = page.split_once("data-queue").unwrap();
    number(rest, "<header><h2>")
}
