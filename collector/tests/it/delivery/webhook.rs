//! Webhooks to a receiver that refuses, delays or wants a private authority.

use uuid::Uuid;
use watchkeep_collector::{
    notify::{self, SIGNATURE_HEADER, Selection, send_tests, sign},
    store::people,
};
use watchkeep_core::{
    ids::UserId,
    tickets::{Action, Actor, IfFiring},
};
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{channels, configure, copies, file, http::Receiver, page, smtp};
use crate::support::{Bench, NOW, both};

const SECRET: &str = "0123456789abcdef";

both!(
    a_refusal_that_may_pass_is_tried_again,
    gone_is_final_and_a_wait_that_is_asked_for_is_kept,
    the_message_says_whose_server_it_is_and_is_signed,
    tier_2_has_an_address_of_its_own,
    a_private_authority_is_trusted_by_file,
    a_ticket_on_hold_comes_back_with_a_notice_that_names_its_holder
);

fn settings(bench: &Bench, receiver: &Receiver, more: &str) -> String {
    let secret = file(bench, "secret", SECRET);
    format!(
        "[webhook]\nurl = \"http://{}/tier1?token=hidden\"\nsecret_file = \"{secret}\"\n{more}\n",
        receiver.address
    )
}

async fn a_refusal_that_may_pass_is_tried_again(mut bench: Bench) {
    let answers = [
        "404 Not Found",
        "401 Unauthorized",
        "503 Service Unavailable",
    ];
    let receiver = Receiver::start(None, &answers).await;
    let text = settings(&bench, &receiver, "");
    configure(&mut bench, &text);
    let ticket = page(&bench).await;
    let channels = channels(&bench);
    for (secs, state, error) in [
        (
            0,
            "pending",
            "request: the receiver answered 404 Not Found: said so",
        ),
        (
            2,
            "pending",
            "request: the receiver answered 401 Unauthorized: said so",
        ),
        (
            6,
            "pending",
            "request: the receiver answered 503 Service Unavailable: said so",
        ),
        (14, "sent", ""),
    ] {
        bench.clock.set(NOW + DurationMs::from_secs(secs));
        notify::tick(&bench.app, &channels).await.unwrap();
        let expected = ("tier1".to_owned(), state.to_owned(), error.to_owned());
        assert_eq!(copies(&bench, ticket).await, [expected]);
    }
    let attempts: Vec<_> = receiver
        .received()
        .iter()
        .map(|one| one.headers["watchkeep-attempt"].clone())
        .collect();
    assert_eq!(attempts, ["1", "2", "3", "4"]);
}

async fn gone_is_final_and_a_wait_that_is_asked_for_is_kept(mut bench: Bench) {
    let answers = ["429 Too Many Requests\r\nRetry-After: 30", "410 Gone"];
    let receiver = Receiver::start(None, &answers).await;
    let text = settings(&bench, &receiver, "");
    configure(&mut bench, &text);
    let ticket = page(&bench).await;
    let channels = channels(&bench);
    for (secs, tried) in [(0, 1), (29, 0), (30, 1)] {
        bench.clock.set(NOW + DurationMs::from_secs(secs));
        let count = notify::tick(&bench.app, &channels).await.unwrap();
        assert_eq!(count, tried, "after {secs} s");
    }
    assert_eq!(copies(&bench, ticket).await[0].1, "dead");
}

async fn the_message_says_whose_server_it_is_and_is_signed(mut bench: Bench) {
    let receiver = Receiver::start(None, &[]).await;
    let text = settings(&bench, &receiver, "");
    configure(&mut bench, &text);
    let ticket = page(&bench).await;
    notify::tick(&bench.app, &channels(&bench)).await.unwrap();
    let received = &receiver.received()[0];
    let expected = sign(SECRET.as_bytes(), NOW.0 / 1_000, &received.body);
    assert_eq!(received.headers[SIGNATURE_HEADER], expected);
    let body: serde_json::Value = serde_json::from_str(&received.body).unwrap();
    for (key, value) in [
        ("event", "opened"),
        ("client", "Bakery"),
        ("site", "Oven"),
        ("contract", "Bakery servers"),
        ("host", "web1"),
        ("rule", "disk-full"),
        ("check", "disk.used_pct:/srv"),
        ("priority", "P1"),
    ] {
        assert_eq!(body[key], value, "{key}");
    }
    assert_eq!(body["ticket_id"], ticket.to_string());
    assert_eq!(body["tier"], 1);
}

async fn tier_2_has_an_address_of_its_own(mut bench: Bench) {
    let receiver = Receiver::start(None, &[]).await;
    let more = format!("tier2_url = \"http://{}/tier2\"", receiver.address);
    let text = settings(&bench, &receiver, &more);
    configure(&mut bench, &text);
    let ticket = page(&bench).await;
    let channels = channels(&bench);
    notify::tick(&bench.app, &channels).await.unwrap();
    let due = NOW + DurationMs::from_mins(5);
    bench.clock.set(due);
    watchkeep_collector::tickets::carry_out_due(&bench.app, due)
        .await
        .unwrap();
    notify::tick(&bench.app, &channels).await.unwrap();
    let paths = || -> Vec<String> {
        let received = receiver.received();
        received.into_iter().map(|one| one.path).collect()
    };
    assert_eq!(paths(), ["/tier1?token=hidden", "/tier2"]);
    // Both tiers were paged: both hear how it ends.
    let link = Actor::Link {
        sent_to: "Ada".to_owned(),
    };
    watchkeep_collector::tickets::act(&bench.app, ticket, Action::Resolve(IfFiring::Anyway), link)
        .await
        .unwrap();
    notify::tick(&bench.app, &channels).await.unwrap();
    let mut notices = paths().split_off(2);
    notices.sort();
    assert_eq!(notices, ["/tier1?token=hidden", "/tier2"]);
}

async fn a_private_authority_is_trusted_by_file(mut bench: Bench) {
    let (ca_pem, tls) = smtp::tls();
    let receiver = Receiver::start(Some(tls), &[]).await;
    let (ca, secret) = (
        file(&bench, "hook-ca.pem", &ca_pem),
        file(&bench, "secret", SECRET),
    );
    let base = format!(
        "[webhook]\nurl = \"https://localhost:{}/\"\nsecret_file = \"{secret}\"\n",
        receiver.address.port()
    );
    configure(&mut bench, &base);
    let all = Selection::default();
    let results = send_tests(&bench.app.config, &channels(&bench), all, NOW).await;
    let error = results[0].error.as_ref().unwrap().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    configure(&mut bench, &format!("{base}ca_file = \"{ca}\"\n"));
    let results = send_tests(&bench.app.config, &channels(&bench), all, NOW).await;
    assert_eq!(results[0].error, None, "{results:?}");
    let names: Vec<_> = results[0].steps.iter().map(|step| step.name).collect();
    assert_eq!(names, ["resolve", "connect", "request"]);
    let said = &results[0].steps[2].detail;
    assert_eq!(said, "the receiver answered 200 OK: said so");
    let body: serde_json::Value = serde_json::from_str(&receiver.received()[0].body).unwrap();
    assert_eq!(body["event"], "test");
}

async fn a_ticket_on_hold_comes_back_with_a_notice_that_names_its_holder(mut bench: Bench) {
    let receiver = Receiver::start(None, &[]).await;
    let text = settings(&bench, &receiver, "");
    configure(&mut bench, &text);
    let ticket = page(&bench).await;
    let ada = UserId(Uuid::new_v4());
    let user = people::NewUser {
        id: ada,
        login: "ada",
        name: "Ada",
        password_hash: "",
        role: "admin",
        must_change: false,
        created_at: NOW,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    people::create_user(&mut tx, &user).await.unwrap();
    tx.commit().await.unwrap();
    let until = NOW + DurationMs::from_hours(1);
    for action in [Action::Acknowledge, Action::Hold { until }] {
        let actor = Actor::User {
            id: ada,
            name: "Ada".to_owned(),
        };
        watchkeep_collector::tickets::act(&bench.app, ticket, action, actor)
            .await
            .unwrap();
    }
    let due = async |bench: &Bench, at: UnixMillis| -> usize {
        bench.clock.set(at);
        watchkeep_collector::tickets::carry_out_due(&bench.app, at)
            .await
            .unwrap()
    };
    assert_eq!(due(&bench, until - DurationMs(1)).await, 0);
    assert_eq!(due(&bench, until).await, 1);
    assert_eq!(due(&bench, until).await, 0);
    notify::tick(&bench.app, &channels(&bench)).await.unwrap();
    let received = receiver.received();
    assert_eq!(received.len(), 1, "the page was cancelled");
    let body: serde_json::Value = serde_json::from_str(&received[0].body).unwrap();
    assert_eq!(body["event"], "hold_ended");
    assert_eq!(body["state"], "open");
    assert_eq!(body["assignee"], "Ada");
    assert_eq!(body["tier"], serde_json::Value::Null);
}
