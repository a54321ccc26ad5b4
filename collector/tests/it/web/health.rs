//! How the delivery of messages fares, on its page, in `/readyz` and in the figures.

use std::{net::SocketAddr, sync::Arc};

use axum::{body::Body, http::StatusCode};
use prometheus_client::{encoding::text, registry::Registry};
use watchkeep_collector::{
    config::Config,
    notify,
    store::{
        delivery,
        outbox::{self, Attempt, Claim, Finished},
        set_aside::{self, Aside, Part},
    },
    web::PeerAddr,
};
use watchkeep_core::rules::Priority;
use watchkeep_shared::DurationMs;

use super::{Answer, Browser, signed_in, ticket};
use crate::support::{Bench, NOW, both, place};

both!(
    without_a_channel_the_page_says_so,
    what_fails_is_listed_counted_and_sent_again,
    a_page_is_not_sent_again_for_an_acknowledged_ticket,
    a_test_shows_its_steps_on_the_page,
    damaged_history_is_counted_and_listed
);

/// One person by mail, on a port where nothing listens.
fn configure(bench: &mut Bench) {
    let text = format!(
        "data_dir = \"{}\"\n[mail]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n\
         from = \"w@example.org\"\nto = [\"ada@example.org\"]\n",
        bench.app.config.data_dir.display()
    );
    let store = bench.app.config.store.clone();
    let mut config = Config::parse("test", &text, []).unwrap();
    config.store = store;
    bench.app.config = Arc::new(config);
}

/// `/readyz` as this machine's operator sees it.
async fn readyz(browser: &Browser) -> Answer {
    let mut request = browser
        .request("GET", "/readyz")
        .body(Body::empty())
        .unwrap();
    let peer = SocketAddr::from(([127, 0, 0, 1], 9));
    request.extensions_mut().insert(PeerAddr(peer));
    browser.send(request).await
}

/// A page about a new ticket, given up at once.
async fn dead_page(bench: &Bench) {
    let place = place(&bench.app).await;
    ticket(bench, &place, "cpu.busy_pct", Priority::P1).await;
    let token = uuid::Uuid::from_u128(1);
    let claim = Claim {
        channel: "mail",
        token,
        lease: DurationMs::from_mins(1),
        limit: 10,
    };
    let claimed = outbox::claim(&bench.app.store, claim, NOW).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let finished = Finished {
        row: bench.app.ids.next(NOW),
        token,
        at: NOW,
        attempt: Attempt::Dead("recipient: 550 <no> such mailbox".to_owned()),
    };
    outbox::finish(&bench.app.store, &claimed[0], &finished)
        .await
        .unwrap();
}

async fn without_a_channel_the_page_says_so(bench: Bench) {
    let browser = signed_in(&bench).await;
    notify::begin(&bench.app).await.unwrap();
    let page = browser.get("/health").await;
    assert!(page.text.contains("nobody is alerted"), "{}", page.text);
    for path in ["/", "/tickets", "/account"] {
        let page = browser.get(path).await.text;
        assert!(page.contains("nobody is alerted"), "{path}: {page}");
    }
    let ready = readyz(&browser).await;
    assert_eq!(ready.status, StatusCode::OK);
    assert!(ready.text.contains("\"channels\":[]"), "{}", ready.text);
}

async fn what_fails_is_listed_counted_and_sent_again(mut bench: Bench) {
    configure(&mut bench);
    let browser = signed_in(&bench).await;
    dead_page(&bench).await;
    notify::begin(&bench.app).await.unwrap();
    let page = browser.get("/health").await.text;
    for part in [
        "ada@example.org",
        "Failing",
        "recipient: 550 &#60;no&#62; such mailbox",
        "Urgent message by mail to ada@example.org",
        "No tier 2 is configured",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // Every page says so, once it has lasted.
    let banner = "Messages by mail to ada@example.org are not delivered.";
    let early = browser.get("/tickets").await.text;
    assert!(!early.contains(banner), "{early}");
    bench.clock.set(NOW + DurationMs::from_mins(2));
    let late = browser.get("/tickets").await.text;
    assert!(late.contains(banner), "{late}");
    // Probes name nobody.
    let ready = readyz(&browser).await;
    assert_eq!(ready.status, StatusCode::OK);
    let body: serde_json::Value = serde_json::from_str(&ready.text).unwrap();
    assert_eq!(body["channels"][0]["channel"], "mail");
    assert_eq!(body["channels"][0]["state"], "failing");
    assert!(!ready.text.contains("ada"), "{}", ready.text);
    let mut registry = Registry::default();
    bench.app.delivery.register(&mut registry);
    let mut figures = String::new();
    text::encode(&mut figures, &registry).unwrap();
    for line in [
        "outbox_dead{channel=\"mail\"} 1",
        "recipients_failing{channel=\"mail\"} 1",
        "outbox_pending{channel=\"mail\",kind=\"page\"} 0",
    ] {
        assert!(figures.contains(line), "{line}: {figures}");
    }
    let dead = delivery::dead(&bench.app.store, 10).await.unwrap();
    let fields = format!("id={}", dead[0].id);
    let answer = browser.post("/health/send-again", &fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let queues = delivery::queues(&bench.app.store).await.unwrap();
    assert_eq!((queues[0].kind.as_str(), queues[0].pending), ("page", 1));
    let again = browser.post("/health/send-again", &fields).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

async fn a_page_is_not_sent_again_for_an_acknowledged_ticket(mut bench: Bench) {
    configure(&mut bench);
    let browser = signed_in(&bench).await;
    dead_page(&bench).await;
    browser.post("/tickets/1001/act", "act=acknowledge").await;
    let dead = delivery::dead(&bench.app.store, 10).await.unwrap();
    let fields = format!("id={}", dead[0].id);
    let answer = browser.post("/health/send-again", &fields).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(delivery::queues(&bench.app.store).await.unwrap().is_empty());
}

async fn a_test_shows_its_steps_on_the_page(mut bench: Bench) {
    configure(&mut bench);
    let browser = signed_in(&bench).await;
    let answer = browser.post("/health/test", "channel=mail").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    let page = browser.get("/health").await.text;
    for part in [
        "Test messages",
        "connect",
        "127.0.0.1:1: Connection refused",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let unknown = browser.post("/health/test", "channel=pigeon").await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
}

async fn damaged_history_is_counted_and_listed(bench: Bench) {
    let host = place(&bench.app).await.host;
    let browser = signed_in(&bench).await;
    let page = browser.get("/health").await.text;
    assert!(page.contains("All stored history could be read."), "{page}");
    let mut tx = bench.app.store.begin().await.unwrap();
    for (part, reason) in [
        (Part::Row, "value 3 is cut off"),
        (Part::Row, "value 4 is <cut> off"),
        (Part::Chunk, "unknown version 9"),
    ] {
        let aside = Aside {
            part,
            host,
            hour: NOW.0,
            reason: reason.to_owned(),
            body: vec![1],
        };
        set_aside::put(&mut tx, bench.app.ids.next(NOW), &aside, NOW)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    let page = browser.get("/health").await.text;
    for part in [
        "2 heartbeats, 1 hour",
        &format!("href=\"/hosts/{host}\""),
        "value 3 is cut off",
        "value 4 is &#60;cut&#62; off",
        "unknown version 9",
        "kept for 90 days",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}
