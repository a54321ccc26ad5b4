//! What holds for all pages: they answer, empty and full; blocks; live hints; errors.

use std::time::Duration;

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use watchkeep_collector::{live::Hint, store::tickets as rows};
use watchkeep_core::rules::Priority;

use super::{Browser, signed_in, ticket};
use crate::support::{Bench, both, place};

both!(
    every_page_answers_empty_and_full,
    a_block_comes_without_the_page_around_it,
    open_pages_are_told_of_a_ticket,
    errors_are_told_without_secrets
);

async fn every_page_answers_empty_and_full(bench: Bench) {
    let browser = signed_in(&bench).await;
    let fixed = [
        "/",
        "/tickets",
        "/tickets?state=all",
        "/contracts",
        "/health",
        "/account",
        "/account/password",
    ];
    let api = ["/api/v1/fleet", "/api/v1/tickets"];
    for path in fixed.into_iter().chain(api) {
        assert_eq!(browser.get(path).await.status, StatusCode::OK, "{path}");
    }
    let place = place(&bench.app).await;
    ticket(&bench, &place, "cpu.busy_pct", Priority::P1).await;
    let (host, contract) = (place.host, place.contract);
    let more = [
        format!("/hosts/{host}?range=7d"),
        format!("/contracts/{contract}"),
        format!("/contracts/{contract}?month=2020-02"),
        format!("/contracts/{contract}/report.json"),
        format!("/contracts/{contract}/report.csv"),
        "/tickets/1001".to_owned(),
        format!("/hosts/{host}?found=all"),
        format!("/hosts/{host}/rekey"),
        format!("/api/v1/hosts/{host}"),
        format!("/api/v1/hosts/{host}/policy"),
        format!("/api/v1/hosts/{host}/series?metric=cpu.busy_pct"),
        "/api/v1/tickets/1001".to_owned(),
    ];
    for path in fixed
        .into_iter()
        .chain(api)
        .chain(more.iter().map(String::as_str))
    {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        let is_page = answer.header(header::CONTENT_TYPE).starts_with("text/html");
        assert!(
            !is_page || !answer.text.contains("<script>"),
            "{path} writes text as markup"
        );
        let policy = answer.header(header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store", "{path}");
        for inline in ["style=", "onclick=", "javascript:"] {
            assert!(
                !answer.text.contains(inline),
                "{path} has {inline}, which the policy forbids"
            );
        }
    }
    for path in ["/healthz", "/readyz"] {
        let stranger = Browser::new(&bench);
        assert_eq!(stranger.get(path).await.status, StatusCode::OK, "{path}");
    }
}

async fn a_block_comes_without_the_page_around_it(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ticket(&bench, &place, "cpu.busy_pct", Priority::P1).await;
    let blocks = [
        ("/".to_owned(), "live"),
        ("/tickets".to_owned(), "live"),
        (format!("/hosts/{}", place.host), "live"),
        ("/tickets/1001".to_owned(), "live"),
        ("/tickets/1001".to_owned(), "events"),
        ("/tickets/1001".to_owned(), "facts"),
        ("/tickets/1001".to_owned(), "deliveries"),
    ];
    for (path, block) in blocks {
        let request = browser
            .request("GET", &path)
            .header("hx-request", "true")
            .header("hx-target", format!("div#{block}"));
        let answer = browser.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(!answer.text.contains("<html"), "{path} {block}");
        let begin = answer.text.trim_start();
        let tag = begin.split('>').next().unwrap();
        assert!(tag.contains(&format!("id=\"{block}\"")), "{path}: {tag}");
        assert!(tag.contains("data-live="), "{path}: {tag}");
    }
    // Without a session the whole page goes to the sign-in.
    let stranger = Browser::new(&bench);
    let request = stranger.request("GET", "/").header("hx-request", "true");
    let answer = stranger.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers.get("hx-redirect").unwrap(), "/login");
}

async fn open_pages_are_told_of_a_ticket(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let request = browser
        .request("GET", "/events")
        .body(Body::empty())
        .unwrap();
    let response = browser.router.clone().oneshot(request).await.unwrap();
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    let mut body = response.into_body();
    let id = ticket(&bench, &place, "cpu.busy_pct", Priority::P1).await;
    bench.app.live.hint(Hint::Ticket(id.uuid()));
    bench.app.live.hint(Hint::Host(place.host));
    let mut stream = String::new();
    let reading = async {
        while !stream.contains("event: ticket") {
            let frame = body.frame().await.expect("the stream goes on").unwrap();
            stream.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading)
        .await
        .expect("the page gets the event");
    assert!(stream.contains("event: fleet"), "{stream}");
    assert!(stream.contains("\"is_new\":true"), "{stream}");
    assert!(stream.contains("\"number\":1001"), "{stream}");
    // The stream ends with the process.
    bench.app.process.stop.cancel();
    let ending = async { while body.frame().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(30), ending)
        .await
        .expect("the stream ends");
}

async fn errors_are_told_without_secrets(bench: Bench) {
    let browser = signed_in(&bench).await;
    for (path, status) in [
        ("/hosts/nonsense", StatusCode::NOT_FOUND),
        ("/tickets/999", StatusCode::NOT_FOUND),
        ("/nothing", StatusCode::NOT_FOUND),
        ("/tickets?state=bad", StatusCode::BAD_REQUEST),
        ("/api/v1/tickets?priority=P9", StatusCode::BAD_REQUEST),
        ("/api/v1/hosts/nonsense", StatusCode::NOT_FOUND),
    ] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert!(
            answer.text.contains(id),
            "{path} says its request id: {}",
            answer.text
        );
        let kind = answer.header(header::CONTENT_TYPE);
        let problem = kind == "application/problem+json";
        assert_eq!(problem, path.starts_with("/api/"), "{path}: {kind}");
    }
    // A corrupt row: the reader learns that it failed, not what is inside.
    let place = place(&bench.app).await;
    let id = ticket(&bench, &place, "cpu.busy_pct", Priority::P1).await;
    let mut tx = bench.app.store.begin().await.unwrap();
    rows::put_evidence(&mut tx, id, "SECRET").await.unwrap();
    tx.commit().await.unwrap();
    let answer = browser.get("/tickets/1001").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!answer.text.contains("SECRET") && !answer.text.contains("corrupt"));
    let unsigned = Browser::new(&bench).get("/api/v1/fleet").await;
    assert_eq!(unsigned.status, StatusCode::UNAUTHORIZED);
}
