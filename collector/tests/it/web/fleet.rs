//! The fleet's page and its API: what is listed, filtered, sorted, and where it comes from.

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use http_body_util::BodyExt as _;
use serde_json::Value as Json;
use tower::ServiceExt as _;
use uuid::Uuid;
use watchkeep_collector::{
    live::{FiringAlert, HostNow},
    store::{
        fleet,
        record::{self, NewAlert},
    },
};
use watchkeep_core::{
    ids::{AlertId, SiteId, TicketId},
    rules::{Priority, Severity},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use super::{Browser, signed_in, ticket};
use crate::support::{Bench, NOW, Place, both, place};

both!(
    every_host_is_on_exactly_one_page_in_every_order,
    a_search_by_words_is_about_the_whole_page,
    hosts_of_a_site_stand_together,
    what_another_program_changes_is_on_the_next_page,
    a_silent_host_leads_to_the_ticket_of_its_silence,
    alerts_are_counted_without_a_limit,
    an_open_tab_needs_little_of_the_line,
    what_the_page_has_already_is_not_sent_again,
    other_sites_get_nothing_compressed,
    no_parameter_of_an_address_is_empty
);

const SITES: [(&str, &str); 3] = [
    ("Fjord Shipping", "Bergen"),
    ("Fjord Shipping", "Oslo"),
    ("Bäckerei Müller", "Łódź"),
];

/// A heartbeat with these values of CPU, memory and one disk.
fn heartbeat(at: UnixMillis, values: [f64; 3]) -> HostNow {
    let names = ["cpu.busy_pct", "mem.used_pct", "disk.used_pct:/srv"];
    HostNow {
        names: names.map(std::sync::Arc::from).into_iter().collect(),
        values: values.map(Some).into(),
        at,
        last_seen_at: at,
        silent: false,
        services: [].into(),
        not_here: Vec::new(),
        firing: [].into(),
        skew_ms: 0,
        policy_version: 1,
        refused: Vec::new(),
        troubles: Vec::new(),
        goodbye: None,
        quarantine: None,
        rejected: Vec::new(),
        last_id: 1,
        open_chain: None,
        interval_ms: 10_000,
    }
}

/// Hosts `host-0`, `host-1`, … spread over [`SITES`].
async fn hosts(bench: &Bench, count: usize) -> Vec<HostId> {
    let mut tx = bench.app.store.begin().await.unwrap();
    let mut sites: Vec<SiteId> = Vec::new();
    for (client, site) in SITES {
        let client = fleet::ensure_client(&mut tx, client, NOW).await.unwrap();
        fleet::put_site(&mut tx, client, None, site, NOW)
            .await
            .unwrap();
        sites.push(fleet::site_in(&mut tx, site).await.unwrap().unwrap());
    }
    let mut hosts = Vec::new();
    for i in 0..count {
        let new = fleet::NewHost {
            // Like real ones, they don't look alike.
            id: HostId(Uuid::from_u128(
                (i as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
            )),
            site: sites[i % sites.len()],
            name: format!("host-{i}"),
            agent_version: "0.1.0".to_owned(),
            enrolled_at: NOW,
        };
        fleet::insert_host(&mut tx, &new).await.unwrap();
        hosts.push(new.id);
    }
    tx.commit().await.unwrap();
    hosts
}

async fn json(browser: &Browser, path: &str) -> Json {
    let answer = browser.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

async fn every_host_is_on_exactly_one_page_in_every_order(bench: Bench) {
    let browser = signed_in(&bench).await;
    let ids = hosts(&bench, 230).await;
    // Every fifth host has not sent anything; values repeat, so that names decide.
    let beats = ids.iter().enumerate().filter(|(i, _)| i % 5 != 0);
    bench.app.live.update(beats.map(|(i, id)| {
        let value = |n: usize| ((i * n) % 13) as f64;
        let mut now = heartbeat(NOW, [value(3), value(7), value(11)]);
        now.silent = i % 7 == 0;
        (*id, now)
    }));
    for (sort, field, descending) in [
        ("", "", false),
        ("-name", "name", true),
        ("cpu", "cpu_busy_pct", false),
        ("-cpu", "cpu_busy_pct", true),
        ("-memory", "mem_used_pct", true),
        ("-disk", "worst_disk_used_pct", true),
        ("site", "", false),
        ("-tickets", "open_tickets", true),
        ("heartbeat", "last_seen_at", false),
    ] {
        let mut listed: Vec<Json> = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/api/v1/fleet?limit=37&sort={sort}&after={after}");
            let page = json(&browser, &path).await;
            assert_eq!(page["total"], 230);
            listed.extend(page["hosts"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => break,
            }
        }
        let mut names: Vec<&str> = listed.iter().map(|h| h["id"].as_str().unwrap()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), listed.len()), (230, 230), "{sort}");
        if field.is_empty() || field == "name" {
            continue;
        }
        let values: Vec<Option<f64>> = listed.iter().map(|host| host[field].as_f64()).collect();
        let known = values.iter().take_while(|value| value.is_some()).count();
        assert!(
            values[known..].iter().all(Option::is_none),
            "{sort}: gaps last"
        );
        let in_order = |pair: &[Option<f64>]| {
            if descending {
                pair[0] >= pair[1]
            } else {
                pair[0] <= pair[1]
            }
        };
        assert!(
            values[..known].windows(2).all(in_order),
            "{sort}: {values:?}"
        );
    }
    let page = browser.get("/?sort=-disk&page=3").await.text;
    assert!(
        page.contains("Page 3 of 3") && page.contains(">Previous<"),
        "{page}"
    );
    assert!(page.contains("aria-sort=\"descending\""));
    assert_eq!(page.matches("id=\"h-").count(), 30);
    for bad in ["limit=0", "limit=9999", "after=x", "client=x"] {
        let answer = browser.get(&format!("/api/v1/fleet?{bad}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

async fn a_search_by_words_is_about_the_whole_page(bench: Bench) {
    let browser = signed_in(&bench).await;
    let ids = hosts(&bench, 30).await;
    let silent = |id: &HostId| {
        let mut now = heartbeat(NOW, [1.0, 2.0, 3.0]);
        now.silent = true;
        (*id, now)
    };
    // All of Bergen is silent.
    bench.app.live.update(ids.iter().step_by(3).map(silent));
    for (q, found) in [
        ("fjord+bergen", 10),
        ("BERGEN+fjord", 10),
        ("muller+lodz", 10),
        ("m%C3%BCller", 10),
        ("bergen+oslo", 0),
        ("host-1+oslo", 5),
    ] {
        let page = json(&browser, &format!("/api/v1/fleet?q={q}")).await;
        assert_eq!(page["total"], found, "{q}");
    }
    let all = browser.get("/").await.text;
    assert!(all.contains("10 hosts at Bergen are silent"));
    let elsewhere = browser.get("/?q=oslo").await.text;
    assert!(!elsewhere.contains("are silent"), "{elsewhere}");
    assert!(elsewhere.contains("of 10</span>") && elsewhere.contains("10 of 30"));
    // The tiles keep the search.
    assert!(
        elsewhere.contains("href=\"/?q=oslo&#38;state=silent\""),
        "{elsewhere}"
    );
    let none = browser.get("/?q=nowhere").await.text;
    assert!(none.contains("No hosts match these filters") && !none.contains("No problems."));
}

async fn hosts_of_a_site_stand_together(bench: Bench) {
    let browser = signed_in(&bench).await;
    hosts(&bench, 12).await;
    let page = browser.get("/?group=site&sort=name").await.text;
    let heads: Vec<usize> = [
        "<bdi>Bäckerei Müller</bdi> · <bdi>Łódź</bdi>",
        "<bdi>Fjord Shipping</bdi> · <bdi>Bergen</bdi>",
        "<bdi>Fjord Shipping</bdi> · <bdi>Oslo</bdi>",
    ]
    .iter()
    .map(|head| {
        page.find(&format!("scope=\"rowgroup\">{head}"))
            .expect(head)
    })
    .collect();
    assert!(heads.is_sorted(), "{heads:?}");
    assert_eq!(page.matches("scope=\"rowgroup\"").count(), 3);
}

async fn what_another_program_changes_is_on_the_next_page(bench: Bench) {
    let browser = signed_in(&bench).await;
    let ids = hosts(&bench, 3).await;
    let names = |page: &Json| -> Vec<String> {
        let hosts = page["hosts"].as_array().unwrap();
        hosts
            .iter()
            .map(|host| host["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let page = json(&browser, "/api/v1/fleet?sort=name").await;
    assert_eq!(names(&page), ["host-0", "host-1", "host-2"]);
    let mut tx = bench.app.store.begin().await.unwrap();
    fleet::retire_host(&mut tx, ids[1], NOW).await.unwrap();
    fleet::set_quarantine(&mut tx, ids[2], Some(NOW))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let page = json(&browser, "/api/v1/fleet?sort=name").await;
    assert_eq!(names(&page), ["host-0", "host-2"]);
    assert_eq!(page["hosts"][1]["state"], "quarantined");
    // The same of what heartbeats say.
    bench
        .app
        .live
        .update([(ids[0], heartbeat(NOW, [42.0, 0.0, 0.0]))]);
    let page = json(&browser, "/api/v1/fleet?sort=name").await;
    assert_eq!(page["hosts"][0]["cpu_busy_pct"], 42.0);
}

/// A firing alert with its row, attached to a ticket.
async fn alert(bench: &Bench, host: HostId, rule: &str, ticket: TicketId) -> AlertId {
    let id = AlertId(Uuid::new_v4());
    let alert = NewAlert {
        id,
        host,
        rule,
        check: "host",
        severity: "critical",
        priority: "P1",
        summary: rule,
        evidence: "{}".to_owned(),
        raised_at: NOW,
        recorded_at: NOW,
        ticket,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_alerts(&mut tx, &[alert]).await.unwrap();
    tx.commit().await.unwrap();
    id
}

fn firing(id: AlertId, is_silence: bool) -> FiringAlert {
    FiringAlert {
        id,
        severity: Severity::Critical,
        is_silence,
        since: NOW,
    }
}

async fn a_silent_host_leads_to_the_ticket_of_its_silence(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place: Place = place(&bench.app).await;
    let disk = ticket(&bench, &place, "disk.used_pct:/", Priority::P2).await;
    let silence = ticket(&bench, &place, "host", Priority::P1).await;
    let disk = alert(&bench, place.host, "disk-full", disk).await;
    let silence = alert(&bench, place.host, "host-silent", silence).await;
    let mut now = heartbeat(NOW - DurationMs::from_mins(5), [1.0, 1.0, 99.0]);
    now.silent = true;
    now.firing = [firing(disk, false), firing(silence, true)].into();
    bench.app.live.update([(place.host, now)]);
    let page = browser.get("/").await.text;
    assert!(
        page.contains("<a href=\"/tickets/1002\">web1 is silent</a>"),
        "{page}"
    );
    assert!(!page.contains("rule disk-full"), "it says nothing new");
}

async fn alerts_are_counted_without_a_limit(bench: Bench) {
    let browser = signed_in(&bench).await;
    let ids = hosts(&bench, 300).await;
    bench.app.live.update(ids.iter().map(|id| {
        let mut now = heartbeat(NOW, [1.0, 2.0, 3.0]);
        now.firing = [firing(AlertId(Uuid::new_v4()), false)].into();
        (*id, now)
    }));
    let page = browser.get("/").await.text;
    assert!(page.contains("<div class=\"value\">300</div>"), "{page}");
}

async fn no_parameter_of_an_address_is_empty(bench: Bench) {
    let browser = signed_in(&bench).await;
    for (asked, address) in [
        ("/?q=bergen&client=&site=&state=", "/?q=bergen"),
        ("/tickets?q=&state=all&priority=", "/tickets?state=all"),
    ] {
        let answer = browser.get(asked).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{asked}");
        assert_eq!(answer.headers["location"], address);
    }
}

/// What the script of an open page asks for.
async fn refresh(browser: &Browser, tag: &str, site: &str) -> Response<Body> {
    let request = browser
        .request("GET", "/")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("sec-fetch-site", site)
        .header("hx-request", "true")
        .header("hx-target", "div#live")
        .header("if-none-match", tag)
        .body(Body::empty())
        .unwrap();
    browser.router.clone().oneshot(request).await.unwrap()
}

fn tag_of(answer: &Response<Body>) -> String {
    answer.headers()["etag"].to_str().unwrap().to_owned()
}

/// The bytes of an answer on the line.
async fn size(answer: Response<Body>) -> usize {
    let lines = answer.headers().iter();
    let headers: usize = lines
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    headers + answer.into_body().collect().await.unwrap().to_bytes().len()
}

async fn an_open_tab_needs_little_of_the_line(bench: Bench) {
    const REFRESHES: usize = 60;
    let script = include_str!("../../../assets/live.js");
    let (_, every) = script.split_once("REFRESH_EVERY = ").unwrap();
    let every: usize = every.split(';').next().unwrap().parse().unwrap();
    let browser = signed_in(&bench).await;
    let ids = hosts(&bench, 300).await;
    let mut bytes = 0;
    let mut tag = String::new();
    for step in 0..REFRESHES {
        bench.app.live.update(ids.iter().enumerate().map(|(i, id)| {
            let value = |n: usize| ((i * n + step * 7_919) * 104_729 % 1_000) as f64 / 10.0;
            (*id, heartbeat(NOW, [value(3), value(7), value(11)]))
        }));
        let answer = refresh(&browser, &tag, "same-origin").await;
        assert_eq!(answer.status(), StatusCode::OK);
        tag = tag_of(&answer);
        bytes += size(answer).await;
    }
    let a_minute = bytes * 60_000 / every / REFRESHES;
    assert!(
        (10_000..=200_000).contains(&a_minute),
        "{a_minute} bytes a minute"
    );
}

async fn what_the_page_has_already_is_not_sent_again(bench: Bench) {
    let browser = signed_in(&bench).await;
    let ids = hosts(&bench, 3).await;
    let beat = |cpu| heartbeat(NOW, [cpu, 20.0, 30.0]);
    bench.app.live.update([(ids[0], beat(10.0))]);
    let tag = tag_of(&refresh(&browser, "", "same-origin").await);
    // A heartbeat with the same values.
    bench.app.live.update([(ids[0], beat(10.0))]);
    let again = refresh(&browser, &tag, "same-origin").await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(tag_of(&again), tag);
    assert!(size(again).await < 1_000);
    bench.app.live.update([(ids[0], beat(11.0))]);
    let changed = refresh(&browser, &tag, "same-origin").await;
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(tag_of(&changed), tag);
}

async fn other_sites_get_nothing_compressed(bench: Bench) {
    let browser = signed_in(&bench).await;
    for (site, coding) in [
        ("same-origin", Some("gzip")),
        ("none", Some("gzip")),
        ("cross-site", None),
    ] {
        let answer = refresh(&browser, "", site).await;
        let found = answer.headers().get("content-encoding");
        assert_eq!(found.map(|value| value.to_str().unwrap()), coding, "{site}");
    }
}
