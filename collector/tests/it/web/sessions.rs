//! Who gets in, how sessions end, and what may change anything.

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use uuid::Uuid;
use watchkeep_collector::store::{people, views};
use watchkeep_core::{ids::UserId, rules::Priority};
use watchkeep_shared::DurationMs;

use super::{Browser, CHANGES, NEW, OLD, admin, signed_in, ticket};
use crate::support::{Bench, NOW, both, place};

both!(
    a_one_time_password_must_be_replaced_first,
    a_wrong_password_is_refused_and_soon_must_wait,
    a_known_browser_gets_in_while_others_guess,
    a_session_ends_when_idle_and_when_old,
    a_session_can_be_ended_from_another,
    a_disabled_user_is_out_at_once,
    logins_that_differ_by_letter_case_are_one,
    changes_need_the_sessions_token_and_our_own_pages,
    what_was_typed_outlives_the_session,
    without_a_session_only_people_are_taken_to_the_sign_in
);

async fn a_one_time_password_must_be_replaced_first(bench: Bench) {
    admin(&bench, OLD, true).await;
    let mut browser = Browser::new(&bench);
    let answer = browser.get("/tickets?state=new").await;
    assert_eq!(
        answer.header(header::LOCATION),
        "/login?next=/tickets%3Fstate%3Dnew"
    );
    let fields = format!("login=admin&password={OLD}&next=/tickets%3Fstate%3Dnew");
    let answer = Browser::new(&bench).post("/login", &fields).await;
    let to = "/account/password?next=/tickets%3Fstate%3Dnew";
    assert_eq!(answer.header(header::LOCATION), to);
    browser.sign_in(OLD).await;
    for (path, to) in [
        ("/", "/account/password"),
        ("/tickets", "/account/password?next=/tickets"),
        ("/account", "/account/password?next=/account"),
    ] {
        let answer = browser.get(path).await;
        assert_eq!(answer.header(header::LOCATION), to, "{path}");
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
    let page = browser.get("/account/password?next=/tickets/7").await;
    assert!(page.text.contains("name=\"next\" value=\"/tickets/7\""));
    let fields = format!(
        "current={OLD}&new=correct+horse+battery&again=correct+horse+battery&next=/tickets/7"
    );
    let answer = browser.post("/account/password", &fields).await;
    assert_eq!(answer.header(header::LOCATION), "/tickets/7");
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
    assert_eq!(wrong.header(header::RETRY_AFTER), "76");
    assert_eq!(
        browser.sign_in(NEW).await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    bench.clock.set(NOW + DurationMs::from_mins(10));
    assert_eq!(browser.sign_in(NEW).await.status, StatusCode::SEE_OTHER);
}

/// An attacker at the same address (an office, a proxy) uses up the attempts for the login: whoever
/// signed in from a browser before still gets in from it.
async fn a_known_browser_gets_in_while_others_guess(bench: Bench) {
    admin(&bench, NEW, false).await;
    let mut browser = Browser::new(&bench);
    let answer = browser.sign_in(NEW).await;
    let set_cookie = answer.headers.get_all(header::SET_COOKIE);
    let device = set_cookie
        .iter()
        .map(|value| value.to_str().unwrap())
        .find(|value| value.starts_with("__Host-watchkeep-device="))
        .unwrap();
    let device = device.split(';').next().unwrap().to_owned();
    let mut attacker = Browser::new(&bench);
    // At the same collector.
    attacker.router = browser.router.clone();
    for _ in 0..40 {
        attacker.sign_in("guess").await;
    }
    let refused = attacker.sign_in(NEW).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    browser.cookie = device.clone();
    let answer = browser
        .post("/login", &format!("login=admin&password={NEW}"))
        .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    // A cookie that nobody was given is worth nothing.
    browser.cookie = format!("{device}x");
    let answer = browser
        .post("/login", &format!("login=admin&password={NEW}"))
        .await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
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
            read == StatusCode::METHOD_NOT_ALLOWED
                || path == "/account/password"
                || path.ends_with("/rekey")
                || path.ends_with("/edit"),
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

async fn what_was_typed_outlives_the_session(bench: Bench) {
    const NOTE: &str = "act=note&audience=public&text=Tr%C3%A8s+%3Cb%3Elong%3C%2Fb%3E";
    let mut browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ticket(&bench, &place, "cpu.busy_pct", Priority::P2).await;
    let notes = async || -> usize {
        let page = browser.get("/tickets/1001").await.text;
        page.matches("class=\"note").count()
    };
    // A token of an earlier sign-in: the text comes back at once, with a good token.
    let old = Browser {
        cookie: browser.cookie.clone(),
        csrf: "old".to_owned(),
        ..Browser::new(&bench)
    };
    let answer = old.post("/tickets/1001/act", NOTE).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(
        answer
            .text
            .contains("Très &#60;b&#62;long&#60;/b&#62;</textarea>")
    );
    assert!(
        answer
            .text
            .contains(&format!("name=\"csrf\" value=\"{}\"", browser.csrf))
    );
    assert_eq!(notes().await, 0);

    // An ended session: the sign-in keeps it, a wrong password too.
    bench.clock.set(NOW + DurationMs::from_hours(13));
    let answer = browser.post("/tickets/1001/act", NOTE).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let field = |page: &str, name: &str| -> String {
        let (_, rest) = page
            .split_once(&format!("name=\"{name}\" value=\""))
            .unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let (action, fields) = (
        field(&answer.text, "unsent_action"),
        field(&answer.text, "unsent_fields"),
    );
    assert_eq!(field(&answer.text, "next"), "/tickets/1001");
    let sign_in = |password: &str| {
        format!("login=admin&password={password}&unsent_action={action}&unsent_fields={fields}")
    };
    let wrong = browser.post("/login", &sign_in("wrong")).await;
    assert_eq!(field(&wrong.text, "unsent_fields"), fields);
    let answer = browser
        .post("/login", &sign_in(&NEW.replace(' ', "+")))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert!(
        answer
            .text
            .contains("Très &#60;b&#62;long&#60;/b&#62;</textarea>")
    );
    assert_eq!(field(&answer.text, "audience"), "public");
    let set = answer.header(header::SET_COOKIE);
    set.split(';')
        .next()
        .unwrap()
        .clone_into(&mut browser.cookie);
    browser.csrf = field(&answer.text, "csrf");
    let answer = browser.post("/tickets/1001/act", NOTE).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let page = browser.get("/tickets/1001").await.text;
    assert!(page.contains("Très &#60;b&#62;long"), "{page}");
}

async fn without_a_session_only_people_are_taken_to_the_sign_in(bench: Bench) {
    // A press of a button only leads to the sign-in, and back to its page.
    let stranger = Browser::new(&bench);
    let answer = stranger.post("/tickets/1001/act", "act=resolve").await;
    assert_eq!(answer.header(header::LOCATION), "/login?next=/tickets/1001");
    // A refresh that no person asked for takes nobody away.
    let request = stranger
        .request("GET", "/tickets")
        .header("hx-request", "true");
    let request = request.header("x-live", "1").body(Body::empty()).unwrap();
    let answer = stranger.send(request).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(!answer.headers.contains_key("hx-redirect"));
}

async fn logins_that_differ_by_letter_case_are_one(bench: Bench) {
    let create = async |login: &str| {
        let user = people::NewUser {
            id: UserId(Uuid::new_v4()),
            login,
            name: "Zoë",
            password_hash: "",
            role: "admin",
            must_change: false,
            created_at: NOW,
        };
        let mut tx = bench.app.store.begin().await.unwrap();
        let is_created = people::create_user(&mut tx, &user).await.unwrap();
        tx.commit().await.unwrap();
        is_created
    };
    let find = async |login: &str| {
        let user = people::user_by_login(&bench.app.store, login).await;
        user.unwrap().map(|user| user.login)
    };
    assert!(create("Zoë").await);
    for taken in ["Zoë", "zoë", "ZOË"] {
        assert!(!create(taken).await, "{taken}");
        assert_eq!(find(taken).await.as_deref(), Some("Zoë"), "{taken}");
    }
    assert!(create("zoe").await);
    assert_eq!(find("Zoe").await.as_deref(), Some("zoe"));
    assert_eq!(find("zo").await, None);
}
