//! How the page of a host is laid out: what it is opened for comes first.

use std::sync::Arc;

use axum::body::Body;
use serde_json::{Value as Json, json};
use uuid::Uuid;
use watchkeep_collector::store::record::{self, NewAlert, NewEvent};
use watchkeep_core::{ids::AlertId, rules::Priority};
use watchkeep_shared::{DurationMs, UnixMillis, wire::heartbeat::ServiceStatus};

use super::{Answer, Browser, hosts::tell, signed_in, ticket};
use crate::support::{Bench, NOW, Place, both, place};

both!(
    alerts_charts_and_services_come_before_facts,
    the_worst_alert_is_the_first,
    services_have_words_of_their_kind_and_ports_follow_their_owner
);

async fn alert(bench: &Bench, place: &Place, severity: &str, at: UnixMillis) {
    let check = format!("cpu.{severity}_pct");
    let ticket = ticket(bench, place, &check, Priority::P2).await;
    let alert = NewAlert {
        id: AlertId(Uuid::new_v4()),
        host: place.host,
        rule: "a-rule",
        check: &check,
        severity,
        priority: "P2",
        summary: &format!("summary of {severity}"),
        evidence: "{}".to_owned(),
        raised_at: at,
        recorded_at: at,
        ticket,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_alerts(&mut tx, &[alert]).await.unwrap();
    tx.commit().await.unwrap();
}

/// Where each of these texts begins, which is after the one before it.
fn assert_in_order(page: &str, texts: &[&str]) {
    let mut rest = page;
    for text in texts {
        let found = rest.split_once(text);
        assert!(found.is_some(), "{text} is missing or too early: {page}");
        rest = found.map_or("", |(_, rest)| rest);
    }
}

/// One part of the page, as a live page fetches it.
async fn part(browser: &Browser, path: &str, id: &str) -> Answer {
    let request = browser
        .request("GET", path)
        .header("hx-request", "true")
        .header("hx-target", format!("div#{id}"));
    browser.send(request.body(Body::empty()).unwrap()).await
}

async fn alerts_charts_and_services_come_before_facts(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    tell(
        &bench,
        &place,
        &[("systemd:shop.service", ServiceStatus::Running)],
        &[],
    );
    let mut now = (*bench.app.live.host(place.host).unwrap()).clone();
    now.names = [Arc::from("load.1m")].into();
    now.values = Arc::from([Some(1.5)]);
    bench.app.live.update([(place.host, now)]);
    alert(&bench, &place, "warning", NOW).await;
    let path = format!("/hosts/{}", place.host);
    let page = browser.get(&path).await.text;
    let order = [
        "Firing alerts",
        "id=\"charts\"",
        "<h2 id=\"services\"",
        "<h2 id=\"tickets\"",
        "<h2 id=\"facts\"",
    ];
    assert_in_order(&page, &order);
    let marks = format!("{{&#34;at&#34;:{},&#34;number&#34;:1001}}", NOW.0);
    assert!(
        page.contains(&marks),
        "the ticket is marked in the charts: {page}"
    );
    // Each live part is fetched alone.
    let live = part(&browser, &path, "live").await.text;
    assert!(
        live.contains("Firing alerts") && !live.contains("id=\"facts\""),
        "{live}"
    );
    let details = part(&browser, &path, "details").await.text;
    assert!(
        details.contains("shop.service") && !details.contains("Firing"),
        "{details}"
    );
    assert!(details.contains("id=\"facts\"") && !details.contains("id=\"charts\""));
}

async fn the_worst_alert_is_the_first(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    for (severity, after_s) in [("warning", 10), ("critical", 0), ("info", 20)] {
        alert(
            &bench,
            &place,
            severity,
            NOW + DurationMs::from_secs(after_s),
        )
        .await;
    }
    let page = browser.get(&format!("/hosts/{}", place.host)).await.text;
    let order = [
        "summary of critical",
        "summary of warning",
        "summary of info",
    ];
    assert_in_order(&page, &order);
}

async fn services_have_words_of_their_kind_and_ports_follow_their_owner(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let services = [
        ("certificate:/etc/tls/www.pem", ServiceStatus::Running),
        ("tls:shop.example:443", ServiceStatus::Stopped),
        ("tcp:127.0.0.1:5432", ServiceStatus::Running),
        ("process:cron", ServiceStatus::Running),
    ];
    tell(&bench, &place, &services, &[]);
    let found = |check: Json, detail: &str| json!({ "check": check, "detail": detail });
    let proposals = [
        found(
            json!({ "type": "systemd", "unit": "apt-daily.timer" }),
            "enabled",
        ),
        found(
            json!({ "type": "systemd", "unit": "nginx.service" }),
            "enabled",
        ),
        found(
            json!({ "type": "tcp", "address": "0.0.0.0:22" }),
            "listens, owned by sshd",
        ),
        found(
            json!({ "type": "tcp", "address": "0.0.0.0:80" }),
            "listens, owned by nginx",
        ),
    ];
    let event = NewEvent {
        id: 1,
        host: place.host,
        kind: "discovered",
        detail: json!({ "type": "discovered", "proposals": proposals }).to_string(),
        at: NOW,
        recorded_at: NOW,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_events(&mut tx, &[event]).await.unwrap();
    tx.commit().await.unwrap();
    let page = browser.get(&format!("/hosts/{}", place.host)).await.text;
    for (key, word) in [
        (services[0].0, "Valid"),
        (services[1].0, "Not valid"),
        (services[2].0, "Answers"),
        (services[3].0, "Running"),
    ] {
        let (_, row) = page.split_once(&format!("data-service=\"{key}\"")).unwrap();
        let row = row.split("</tr>").next().unwrap();
        assert!(
            row.contains(&format!("</svg>{word}</span>")),
            "{key}: {row}"
        );
    }
    let order = [
        "nginx.service",
        "0.0.0.0:80",
        "0.0.0.0:22",
        "apt-daily.timer",
    ];
    let (_, proposals) = page.split_once("<h2 id=\"proposals\"").unwrap();
    assert_in_order(proposals, &order);
}
