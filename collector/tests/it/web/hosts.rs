//! The page of a host: what its agent reported and discovered, and what people have watched on it.

use axum::http::{StatusCode, header};
use serde_json::{Value as Json, json};
use uuid::Uuid;
use watchkeep_collector::{
    identity::{CA_DIR, Cas},
    live::HostNow,
    store::{
        fleet, people,
        record::{self, NewAlert, NewEvent},
        views,
    },
};
use watchkeep_core::{ids::AlertId, rules::Priority};
use watchkeep_shared::{
    DurationMs, UnixMillis,
    wire::{
        heartbeat::{Event, Service, ServiceStatus},
        host::{HostFacts, Process, Processes},
        policy::Refusal,
    },
};

use super::{Answer, Browser, signed_in, ticket};
use crate::support::{Bench, NOW, Place, both, place};

both!(
    what_was_found_is_watched_with_one_click_and_no_more_with_another,
    what_can_not_be_watched_is_refused,
    what_an_agent_found_is_proposed_as_it_stands_now,
    what_the_agent_told_of_its_machine_is_shown,
    a_host_whose_heartbeats_are_rejected_is_not_up,
    a_host_is_re_enrolled_after_a_question_and_a_reload_makes_no_other_token
);

/// What an agent found, as the pipeline stores it.
async fn discovered(bench: &Bench, place: &Place, id: i64, units: &[&str]) {
    let known = units.iter().map(
        |unit| json!({ "check": { "type": "systemd", "unit": unit }, "detail": "enabled <b>" }),
    );
    let newer = json!({ "check": { "type": "of a newer agent", "x": 1 } });
    let proposals: Vec<Json> = known.chain([newer]).collect();
    let event = NewEvent {
        id,
        host: place.host,
        kind: "discovered",
        detail: json!({ "type": "discovered", "proposals": proposals }).to_string(),
        at: UnixMillis(NOW.0 + id),
        recorded_at: UnixMillis(NOW.0 + id),
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_events(&mut tx, &[event]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn what_an_agent_found_is_proposed_as_it_stands_now(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    discovered(&bench, &place, 1, &["old.service"]).await;
    let units: Vec<String> = (0..9).map(|i| format!("new{i}.service")).collect();
    let units: Vec<&str> = units.iter().map(String::as_str).collect();
    discovered(&bench, &place, 2, &units).await;
    let page = browser.get(&format!("/hosts/{}", place.host)).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert!(page.text.contains("Discovered, not monitored"));
    assert!(page.text.contains("new0.service") && page.text.contains("5 of 9"));
    assert!(!page.text.contains("new8.service"), "not all at once");
    let page = browser
        .get(&format!("/hosts/{}?found=all", place.host))
        .await;
    let line = "{ type = &#34;systemd&#34;, unit = &#34;new8.service&#34; },";
    assert!(page.text.contains(line), "{}", page.text);
    assert!(!page.text.contains("old.service"));
    assert!(!page.text.contains("enabled <b>"));
}

/// What the pipeline would show of the host.
pub(super) fn tell(
    bench: &Bench,
    place: &Place,
    services: &[(&str, ServiceStatus)],
    refused: &[&str],
) {
    let now = HostNow {
        names: [].into(),
        values: [].into(),
        at: NOW,
        last_seen_at: NOW,
        silent: false,
        services: services
            .iter()
            .map(|(key, status)| Service {
                key: (*key).to_owned(),
                status: *status,
                detail: None,
            })
            .collect(),
        not_here: Vec::new(),
        firing: [].into(),
        skew_ms: 0,
        policy_version: 1,
        refused: refused
            .iter()
            .map(|item| Refusal {
                item: (*item).to_owned(),
                reason: "not in the local limits.units".to_owned(),
            })
            .collect(),
        troubles: Vec::new(),
        goodbye: None,
        quarantine: None,
        rejected: Vec::new(),
        last_id: 1,
        open_chain: None,
        interval_ms: 10_000,
    };
    bench.app.live.update([(place.host, now)]);
}

/// The row of a service on the host's page.
fn row<'a>(page: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("data-service=\"{key}\""))?;
    rest.split("</tr>").next()
}

async fn api(browser: &Browser, place: &Place) -> Json {
    let answer = browser
        .get(&format!("/api/v1/hosts/{}/policy", place.host))
        .await;
    serde_json::from_str(&answer.text).unwrap()
}

async fn what_was_found_is_watched_with_one_click_and_no_more_with_another(bench: Bench) {
    const KEY: &str = "systemd:shop.service";
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    discovered(&bench, &place, 1, &["shop.service", "other.service"]).await;
    let path = format!("/hosts/{}", place.host);
    let post = async |what: &str| -> Answer {
        let fields = format!("key={}&found=all", KEY.replace(':', "%3A"));
        browser.post(&format!("{path}/{what}"), &fields).await
    };
    tell(&bench, &place, &[], &[]);
    // Twice is once.
    for _ in 0..2 {
        let answer = post("watch").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        let to = answer.header(header::LOCATION);
        assert_eq!(to, format!("{path}?found=all#services"));
    }
    let page = browser.get(&path).await.text;
    let pending = row(&page, KEY).unwrap();
    assert!(pending.contains("Pending") && pending.contains("this host"));
    assert!(pending.contains("Ada &#60;Admin&#62;"), "{pending}");
    assert!(page.contains("data-proposal=\"systemd:other.service\""));
    assert!(!page.contains(&format!("data-proposal=\"{KEY}\"")));
    let of_api = api(&browser, &place).await;
    let service = &of_api["services"][0];
    assert_eq!(service["key"], KEY);
    assert_eq!(service["from"], "host");
    assert_eq!(service["state"], "pending");
    assert_eq!(service["chosen"]["by"], "Ada <Admin>");

    tell(&bench, &place, &[(KEY, ServiceStatus::Running)], &[]);
    let page = browser.get(&path).await.text;
    assert!(row(&page, KEY).unwrap().contains("Running"), "{page}");
    tell(&bench, &place, &[], &[KEY]);
    let page = browser.get(&path).await.text;
    let refused = row(&page, KEY).unwrap();
    assert!(refused.contains("Refused") && refused.contains("limits.units"));
    let of_api = api(&browser, &place).await;
    assert_eq!(of_api["services"][0]["state"], "refused");

    for _ in 0..2 {
        assert_eq!(post("unwatch").await.status, StatusCode::SEE_OTHER);
    }
    let page = browser.get(&path).await.text;
    assert!(row(&page, KEY).is_none(), "{page}");
    assert!(page.contains(&format!("data-proposal=\"{KEY}\"")), "{page}");
    let audit = people::audit_log(&bench.app.store, 100).await.unwrap();
    let lines = audit.iter().filter(|line| line.detail == KEY);
    let acts: Vec<&str> = lines.map(|line| line.action.as_str()).collect();
    assert_eq!(acts, ["host_unwatch", "host_watch"]);
}

async fn what_can_not_be_watched_is_refused(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    discovered(&bench, &place, 1, &["shop.service"]).await;
    let nowhere = Uuid::new_v4();
    for (host, fields, status) in [
        // Only what the agent proposed.
        (
            place.host.to_string(),
            "key=systemd%3Axyz.service",
            StatusCode::CONFLICT,
        ),
        (place.host.to_string(), "key=", StatusCode::CONFLICT),
        (place.host.to_string(), "", StatusCode::UNPROCESSABLE_ENTITY),
        (
            nowhere.to_string(),
            "key=systemd%3Ashop.service",
            StatusCode::NOT_FOUND,
        ),
    ] {
        let answer = browser.post(&format!("/hosts/{host}/watch"), fields).await;
        assert_eq!(answer.status, status, "{fields}: {}", answer.text);
    }
    let mut tx = bench.app.store.begin().await.unwrap();
    fleet::retire_host(&mut tx, place.host, NOW).await.unwrap();
    tx.commit().await.unwrap();
    let path = format!("/hosts/{}/watch", place.host);
    let answer = browser.post(&path, "key=systemd%3Ashop.service").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.text.contains("retired"), "{}", answer.text);
    assert_eq!(api(&browser, &place).await["services"], json!([]));
}

/// Stores an event as the pipeline does.
async fn report(bench: &Bench, place: &Place, id: i64, event: &Event) {
    let kind = match event {
        Event::HostFacts(_) => "host_facts",
        _ => "processes",
    };
    let at = NOW + DurationMs::from_secs(10 * id);
    let row = NewEvent {
        id,
        host: place.host,
        kind,
        detail: serde_json::to_string(event).unwrap(),
        at,
        recorded_at: at,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_events(&mut tx, &[row]).await.unwrap();
    tx.commit().await.unwrap();
}

/// A ticket with the alert that opened it.
async fn ticket_with_alert(bench: &Bench, place: &Place, check: &str, raised_at: UnixMillis) {
    let ticket = ticket(bench, place, check, Priority::P1).await;
    let alert = NewAlert {
        id: AlertId(Uuid::new_v4()),
        host: place.host,
        rule: "a-rule",
        check,
        severity: "critical",
        priority: "P1",
        summary: "a summary",
        evidence: "{}".to_owned(),
        raised_at,
        recorded_at: raised_at,
        ticket,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_alerts(&mut tx, &[alert]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn what_the_agent_told_of_its_machine_is_shown(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ticket_with_alert(&bench, &place, "cpu.busy_pct", NOW).await;
    ticket_with_alert(&bench, &place, "disk.used_pct:/", NOW).await;
    let hour_later = NOW + DurationMs::from_hours(1);
    ticket_with_alert(&bench, &place, "mem.used_pct", hour_later).await;
    let page = browser.get("/tickets/1001").await;
    assert!(!page.text.contains("Busiest processes"));
    let process = |name: &str| Process {
        pid: 4_711,
        name: name.to_owned(),
        cpu_pct: 187.5,
        rss_bytes: 700 << 20,
    };
    let busiest = |name: &str| {
        Event::Processes(Processes {
            by_cpu: vec![process(name)],
            by_memory: vec![process("<b>large</b>")],
            refused: false,
        })
    };
    report(&bench, &place, 1, &busiest("spinner")).await;
    report(&bench, &place, 2, &busiest("later")).await;
    let page = browser.get("/tickets/1001").await.text;
    for text in ["Busiest processes", "spinner", "188 %", "700 MiB", "4711"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("<b>large"), "it is escaped");
    assert!(
        !page.contains("later"),
        "the first list is the one of the breach"
    );
    for (number, why) in [(1_002, "a disk's"), (1_003, "an hour later")] {
        let page = browser.get(&format!("/tickets/{number}")).await.text;
        assert!(!page.contains("Busiest processes"), "{why}");
    }
    let facts = Event::HostFacts(HostFacts {
        os: Some("Debian GNU/Linux 12".to_owned()),
        cpus: Some(2),
        container: Some("lxc".to_owned()),
        unseen: vec!["other users' processes".to_owned()],
        ..HostFacts::default()
    });
    report(&bench, &place, 3, &facts).await;
    let page = browser.get(&format!("/hosts/{}", place.host)).await.text;
    for text in [
        "Debian GNU/Linux 12",
        "2 processors",
        "container (lxc)",
        "processes</dd>",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

async fn a_host_whose_heartbeats_are_rejected_is_not_up(bench: Bench) {
    const KEY: &str = "systemd:shop.service";
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    tell(&bench, &place, &[(KEY, ServiceStatus::Failed)], &[]);
    let live = async || -> (String, Json, String) {
        let fleet = browser.get("/").await.text;
        let answer = browser.get("/api/v1/fleet").await;
        let api: Json = serde_json::from_str(&answer.text).unwrap();
        let page = browser.get(&format!("/hosts/{}", place.host)).await.text;
        (fleet, api["hosts"][0].clone(), page)
    };
    let (fleet, api, page) = live().await;
    assert!(
        fleet.contains("1<span class=\"muted small\"> of 1</span>"),
        "{fleet}"
    );
    assert_eq!(
        (&api["state"], &api["services_down"]),
        (&json!("up"), &json!(1))
    );
    assert!(row(&page, KEY).unwrap().contains("Failed"));

    let set = async |quarantined: bool, revoked: bool| {
        let since = |is: bool| is.then_some(NOW);
        let mut tx = bench.app.store.begin().await.unwrap();
        fleet::set_quarantine(&mut tx, place.host, since(quarantined))
            .await
            .unwrap();
        fleet::set_revoked(&mut tx, place.host, since(revoked))
            .await
            .unwrap();
        tx.commit().await.unwrap();
    };
    for (quarantined, revoked, word, label) in [
        (true, false, "quarantined", "Quarantined"),
        (false, true, "revoked", "Revoked"),
        (true, true, "quarantined", "Quarantined"),
    ] {
        set(quarantined, revoked).await;
        let (fleet, api, page) = live().await;
        assert_eq!(
            (&api["state"], &api["services_down"]),
            (&json!(word), &json!(0))
        );
        let tile = "0<span class=\"muted small\"> of 1</span>";
        assert!(fleet.contains(tile), "it is not counted as up: {fleet}");
        for text in [
            label,
            "Quarantined or revoked</div><div class=\"value\">1</div>",
        ] {
            assert!(fleet.contains(text), "{text}: {fleet}");
        }
        let services = row(&page, KEY).unwrap();
        assert!(
            services.contains("Unknown") && !services.contains("Failed"),
            "{services}"
        );
        for (filter, found) in [("up", false), ("problem", true), ("rejected", true)] {
            let page = browser.get(&format!("/?state={filter}")).await.text;
            assert_eq!(
                page.contains(&format!("id=\"h-{}\"", place.host)),
                found,
                "{filter}"
            );
        }
    }
    set(false, false).await;
    assert_eq!(live().await.1["state"], "up");
}

async fn a_host_is_re_enrolled_after_a_question_and_a_reload_makes_no_other_token(bench: Bench) {
    let dir = bench.app.config.data_dir.join(CA_DIR);
    std::fs::create_dir_all(&dir).unwrap();
    Cas::init(&dir, NOW).unwrap();
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let path = format!("/hosts/{}/rekey", place.host);
    let command = |page: &str| -> Option<String> {
        let (_, rest) = page.split_once("watchkeep-agent enroll --force ")?;
        rest.split('<').next().map(str::to_owned)
    };
    // It asks, and names the host.
    let page = browser.get(&path).await.text;
    assert!(
        page.contains("Re-enrol <bdi>web1</bdi>") && page.contains("Bakery"),
        "{page}"
    );
    assert_eq!(command(&page), None);
    let answer = browser.post(&path, "").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    assert_eq!(answer.header(header::LOCATION), path);
    let token = command(&browser.get(&path).await.text).unwrap();
    assert_eq!(
        command(&browser.get(&path).await.text),
        Some(token.clone()),
        "after a reload"
    );
    let audit = people::audit_log(&bench.app.store, 100).await.unwrap();
    let lines = audit.iter().filter(|line| line.action == "host_rekey");
    assert_eq!(lines.count(), 1);
    let host = views::host(&bench.app.store, place.host)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(host.revoked_at, Some(NOW.0));
    // Nobody else sees it, and not for ever.
    let mut other = Browser::new(&bench);
    other.sign_in(super::NEW).await;
    assert_eq!(command(&other.get(&path).await.text), None);
    bench.clock.set(NOW + DurationMs::from_mins(15));
    assert_eq!(command(&browser.get(&path).await.text), None);
    browser.post(&path, "").await;
    assert_ne!(command(&browser.get(&path).await.text), Some(token));
}
