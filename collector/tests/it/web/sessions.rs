//! Who gets in, how sessions end, and what may change anything.

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use watchkeep_collector::store::{people, views};
use watchkeep_core::rules::Priority;
use watchkeep_shared::DurationMs;

use super::{Browser, CHANGES, NEW, OLD, admin, signed_in, ticket};
use crate::support::{Bench, NOW, both, place};

both!(
    a_one_time_password_must_be_replaced_first,
    a_wrong_password_is_refused_and_soon_must_wait,
    a_session_ends_when_idle_and_when_old,
    a_session_can_be_ended_from_another,
    a_disabled_user_is_out_at_once,
    changes_need_the_sessions_token_and_our_own_pages
);

async fn a_one_time_password_must_be_replaced_first(bench: Bench) {
    admin(&bench, OLD, true).await;
    let mut browser = Browser::new(&bench);
    let answer = browser.get("/tickets?state=new").await;
    assert_eq!(
        answer.header(header::LOCATION),
        "/login?next=/tickets%3Fstate%3Dnew"
    );
    let answer = browser.sign_in(OLD).await;
    assert_eq!(answer.header(header::LOCATION), "/account/password");
    for path in ["/", "/tickets", "/account"] {
        assert_eq!(
            browser.get(path).await.header(header::LOCATION),
            "/account/password",
            "{path}"
        );
    }
    assert_eq!(
        browser.get("/api/v1/fleet").await.status,
        StatusCode::FORBIDDEN
    );
    for (fields, message) in [
        (
            "current=wrong&new=correct+horse+battery&again=x",
            "not your current password",
        ),
        (
            &format!("current={OLD}&new=short&again=short"),
            "at least 12 characters",
        ),
        (
            &format!("current={OLD}&new={OLD}&again={OLD}"),
            "choose another",
        ),
        (
            &format!("current={OLD}&new=correct+horse+battery&again=another"),
            "differ",
        ),
    ] {
        let answer = browser.post("/account/password", fields).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{fields}");
        assert!(answer.text.contains(message), "{fields}: {}", answer.text);
    }
    let fields = format!("current={OLD}&new=correct+horse+battery&again=correct+horse+battery");
    let answer = browser.post("/account/password", &fields).await;
    assert_eq!(answer.header(header::LOCATION), "/");
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    assert_eq!(
        Browser::new(&bench).sign_in(OLD).await.status,
        StatusCode::UNAUTHORIZED
    );
}

async fn a_wrong_password_is_refused_and_soon_must_wait(bench: Bench) {
    admin(&bench, NEW, false).await;
    let mut browser = Browser::new(&bench);
    let unknown = browser.post("/login", "login=nobody&password=x").await;
    let mut wrong = browser.sign_in("wrong").await;
    // Neither says whether the login exists.
    assert_eq!(unknown.status, wrong.status);
    assert!(unknown.text.contains("Wrong user name or password."));
    for _ in 0..8 {
        wrong = browser.sign_in("wrong").await;
    }
    assert_eq!(wrong.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(wrong.header(header::RETRY_AFTER), "601");
    assert_eq!(
        browser.sign_in(NEW).await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    bench.clock.set(NOW + DurationMs::from_mins(10));
    assert_eq!(browser.sign_in(NEW).await.status, StatusCode::SEE_OTHER);
}

async fn a_session_ends_when_idle_and_when_old(bench: Bench) {
    let mut browser = signed_in(&bench).await;
    bench.clock.set(NOW + DurationMs::from_hours(11));
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    // Refreshes that no person asked for are not use.
    let live = browser
        .request("GET", "/")
        .header("x-live", "1")
        .body(Body::empty())
        .unwrap();
    bench.clock.set(NOW + DurationMs::from_hours(22));
    assert_eq!(browser.send(live).await.status, StatusCode::OK);
    bench.clock.set(NOW + DurationMs::from_hours(23));
    assert_eq!(browser.get("/").await.status, StatusCode::SEE_OTHER);
    let start = NOW + DurationMs::from_hours(23);
    browser.sign_in(NEW).await;
    for hour in (0..30 * 24).step_by(11) {
        bench.clock.set(start + DurationMs::from_hours(hour));
        assert_eq!(browser.get("/").await.status, StatusCode::OK, "hour {hour}");
    }
    bench.clock.set(start + DurationMs::from_hours(30 * 24));
    assert_eq!(browser.get("/").await.status, StatusCode::SEE_OTHER);
}

async fn a_session_can_be_ended_from_another(bench: Bench) {
    let first = signed_in(&bench).await;
    let mut second = Browser::new(&bench);
    second.sign_in(NEW).await;
    let page = second.get("/account").await.text;
    let (_, rest) = page.split_once("name=\"key\" value=\"").unwrap();
    let key = rest.split('"').next().unwrap();
    assert_eq!(first.get("/").await.status, StatusCode::OK);
    second
        .post("/account/sessions/revoke", &format!("key={key}"))
        .await;
    assert_eq!(first.get("/").await.status, StatusCode::SEE_OTHER);
    assert_eq!(second.get("/").await.status, StatusCode::OK);
    second.post("/logout", "").await;
    assert_eq!(second.get("/").await.status, StatusCode::SEE_OTHER);
}

async fn a_disabled_user_is_out_at_once(bench: Bench) {
    let mut browser = signed_in(&bench).await;
    let user = people::user_by_login(&bench.app.store, "ADMIN")
        .await
        .unwrap()
        .unwrap();
    let mut tx = bench.app.store.begin().await.unwrap();
    people::disable_user(&mut tx, user.id(), NOW).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(browser.get("/").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.sign_in(NEW).await.status, StatusCode::UNAUTHORIZED);
}

async fn changes_need_the_sessions_token_and_our_own_pages(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ticket(&bench, &place, "cpu.busy_pct", Priority::P2).await;
    let other = {
        Browser {
            csrf: "A".repeat(43),
            ..Browser::new(&bench)
        }
    };
    let forged = Browser {
        cookie: browser.cookie.clone(),
        ..other
    };
    for path in CHANGES {
        let path = path.replace("HOST", &place.host.to_string());
        let path = path.as_str();
        let answer = forged.post(path, "act=resolve").await;
        assert_eq!(
            answer.status,
            StatusCode::FORBIDDEN,
            "{path} took a wrong token"
        );
        assert!(answer.text.contains("security token"), "{}", answer.text);
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://evil.example"),
        ] {
            let mut request = browser.form(path, "act=resolve");
            request.headers_mut().remove("sec-fetch-site");
            request.headers_mut().insert(name, value.parse().unwrap());
            let answer = browser.send(request).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} with {name}");
        }
        // Reading never changes anything.
        let read = browser.get(path).await.status;
        assert!(
            read == StatusCode::METHOD_NOT_ALLOWED || path == "/account/password",
            "{path}"
        );
    }
    let mut ours = browser.form("/tickets/1001/act", "act=acknowledge");
    ours.headers_mut().remove("sec-fetch-site");
    ours.headers_mut()
        .insert("origin", "https://watchkeep.example:8443".parse().unwrap());
    assert_eq!(browser.send(ours).await.status, StatusCode::SEE_OTHER);
    let ticket = views::ticket(&bench.app.store, "1001")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ticket.state, "open");
}
