//! What people say of a host, what is known of a silent one, and what a store without hosts shows.

use std::sync::Arc;

use axum::http::StatusCode;
use uuid::Uuid;
use watchkeep_collector::store::{
    descriptions, fleet, people,
    record::{self, NewAlert},
};
use watchkeep_core::{ids::AlertId, rules::Priority};
use watchkeep_shared::{
    DurationMs, HostId,
    wire::{
        heartbeat::{Event, Frame, GoodbyeReason, ServiceStatus},
        host::HostFacts,
    },
};

use super::{Browser, hosts::tell, signed_in, ticket};
use crate::{
    pipeline::{Rig, batch, frame},
    support::{Bench, NOW, both, place},
};

both!(
    a_host_is_renamed_and_described,
    a_search_finds_addresses_the_system_and_notes,
    a_silent_hosts_ticket_says_what_is_known,
    a_store_without_hosts_says_what_to_do_next
);

async fn a_host_is_renamed_and_described(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let (path, edit) = (
        format!("/hosts/{}", place.host),
        format!("/hosts/{}/edit", place.host),
    );
    let page = browser.get(&edit).await.text;
    assert!(page.contains("value=\"web1\"") && page.contains("<bdi>web1</bdi>"));
    let fields = "name=+shop-db+&address=10.0.0.7&text=%3Cb%3E+see+https%3A%2F%2Fwiki.example%2Fdb";
    let answer = browser.post(&edit, fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    let page = browser.get(&path).await.text;
    for text in [
        "<h1 class=\"wrap-anywhere\"><bdi>shop-db</bdi></h1>",
        "reported as <bdi>web1</bdi>",
        "10.0.0.7",
        "&#60;b&#62; see <a href=\"https://wiki.example/db\"",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(browser.get("/").await.text.contains("<bdi>shop-db</bdi>"));
    // The pipeline learns of it, for the titles of new tickets.
    let changes = fleet::changes(&bench.app.store, 10).await.unwrap();
    assert!(changes.iter().any(|change| change.host == place.host));
    let audit = people::audit_log(&bench.app.store, 10).await.unwrap();
    let line = audit.iter().find(|line| line.action == "host_describe");
    assert_eq!(line.unwrap().detail, "shop-db was web1");
    // What can't be used stays in the form, and nothing changes.
    for fields in ["name=+&text=kept", "name=a%0Ab&text=kept"] {
        let answer = browser.post(&edit, fields).await;
        assert!(answer.text.contains("role=\"alert\""), "{}", answer.text);
        assert!(answer.text.contains(">kept</textarea>"), "{}", answer.text);
    }
    let now = descriptions::of(&bench.app.store, place.host)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (now.name.as_str(), now.address.as_str()),
        ("shop-db", "10.0.0.7")
    );
    let mut tx = bench.app.store.begin().await.unwrap();
    fleet::retire_host(&mut tx, place.host, NOW).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        browser.post(&edit, "name=x").await.status,
        StatusCode::CONFLICT
    );
}

/// A frame in which the agent says what its machine is.
fn facts(seq: u64, os: &str, addresses: [&str; 2]) -> Frame {
    let facts = HostFacts {
        os: Some(os.to_owned()),
        addresses: addresses.map(|one| one.parse().unwrap()).to_vec(),
        ..HostFacts::default()
    };
    Frame {
        events: vec![Event::HostFacts(facts)],
        ..frame(seq, ServiceStatus::Running)
    }
}

/// How many hosts the fleet's page finds.
async fn found(browser: &Browser, q: &str) -> usize {
    let page = browser.get(&format!("/?q={q}")).await;
    assert_eq!(page.status, StatusCode::OK, "{q}: {}", page.text);
    page.text.matches("<tr id=\"h-").count()
}

async fn a_search_finds_addresses_the_system_and_notes(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let rig = Rig::start(&bench).await;
    assert_eq!(found(&browser, "debian").await, 0);
    let new = facts(5, "Debian GNU/Linux 12", ["192.0.2.7", "2001:db8::7"]);
    let (at, sent) = batch(vec![new]);
    rig.send(place.host, at, sent).await;
    // From before, sent late: it does not replace what is newer.
    let old = facts(3, "Debian GNU/Linux 11", ["198.51.100.1", "2001:db8::1"]);
    let (at, sent) = batch(vec![old, frame(6, ServiceStatus::Running)]);
    rig.send(place.host, at, sent).await;
    // What is the same again is not written: it would have all hosts read again.
    let generation = fleet::generation(&bench.app.store).await.unwrap();
    let same = facts(7, "Debian GNU/Linux 12", ["192.0.2.7", "2001:db8::7"]);
    let (at, sent) = batch(vec![same]);
    rig.send(place.host, at, sent).await;
    rig.stop().await;
    let now = fleet::generation(&bench.app.store).await.unwrap();
    assert_eq!(now, generation);
    let fields = "name=shop&address=Rack+4%2C+10.0.0.9&text=Ask+J%C3%BCrgen+first";
    let edit = format!("/hosts/{}/edit", place.host);
    let answer = browser.post(&edit, fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    for (q, hosts) in [
        ("debian", 1),
        ("DEBIAN+12", 1),
        ("debian+11", 0),
        ("192.0.2.7", 1),
        ("2001%3ADB8%3A%3A7", 1),
        ("198.51.100.1", 0),
        ("rack+10.0.0.9", 1),
        ("jurgen", 1),
        // The name that its agent gave.
        ("web1", 1),
        ("shop+bakery+192.0", 1),
        ("shop+windows", 0),
    ] {
        assert_eq!(found(&browser, q).await, hosts, "{q}");
    }
    let page = browser.get(&format!("/hosts/{}", place.host)).await.text;
    assert!(page.contains("192.0.2.7, 2001:db8::7"), "{page}");
}

async fn a_silent_hosts_ticket_says_what_is_known(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let site = fleet::sites(&bench.app.store).await.unwrap()[0].id.into();
    let neighbour = HostId(Uuid::new_v4());
    let new = fleet::NewHost {
        id: neighbour,
        site,
        name: "web2".to_owned(),
        agent_version: "0.1.0".to_owned(),
        enrolled_at: NOW,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    fleet::insert_host(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    tell(&bench, &place, &[], &[]);
    let mut now = (*bench.app.live.host(place.host).unwrap()).clone();
    now.silent = true;
    now.goodbye = Some(GoodbyeReason::Shutdown);
    now.names = [Arc::from("mem.used_pct")].into();
    bench
        .app
        .live
        .update([(place.host, now.clone()), (neighbour, now)]);
    let browser_fields = "name=web1&address=10.0.0.7";
    browser
        .post(&format!("/hosts/{}/edit", place.host), browser_fields)
        .await;
    let silent = ticket(&bench, &place, "cpu.busy_pct", Priority::P1).await;
    let alert = NewAlert {
        id: AlertId(Uuid::new_v4()),
        host: place.host,
        rule: "host-silent",
        check: "host",
        severity: "critical",
        priority: "P1",
        summary: "No heartbeat since 08:00 UTC",
        evidence: "{}".to_owned(),
        raised_at: NOW + DurationMs::from_secs(25),
        recorded_at: NOW,
        ticket: silent,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_alerts(&mut tx, &[alert]).await.unwrap();
    tx.commit().await.unwrap();
    let page = browser.get("/tickets/1001").await.text;
    for text in [
        "Before the silence",
        "announced a shutdown or reboot",
        "10.0.0.7",
        "Also silent at this site now",
        "<bdi>web2</bdi>",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    ticket(&bench, &place, "mem.used_pct", Priority::P1).await;
    let other = browser.get("/tickets/1002").await.text;
    assert!(
        !other.contains("Before the silence"),
        "another alert's ticket"
    );
}

async fn a_store_without_hosts_says_what_to_do_next(bench: Bench) {
    let browser = signed_in(&bench).await;
    let page = browser.get("/").await.text;
    let config = &bench.app.config.file;
    assert!(!config.is_empty());
    let command = |rest: &str| format!("watchkeep-collector --config {config} {rest}");
    assert!(page.contains(&command("apply -f fleet.toml")), "{page}");
    let mut tx = bench.app.store.begin().await.unwrap();
    let client = fleet::ensure_client(&mut tx, "Bakery", NOW).await.unwrap();
    fleet::put_site(&mut tx, client, None, "Oven 2", NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let page = browser.get("/").await.text;
    let token = command("token create --site &#39;Oven 2&#39;");
    assert!(page.contains(&token), "{page}");
    assert!(!page.contains("apply -f"), "{page}");
}
