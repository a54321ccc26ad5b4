//! The page of a ticket: what people do there and what it says.

use std::sync::Arc;

use axum::http::StatusCode;
use uuid::Uuid;
use watchkeep_collector::{
    store::{
        people,
        record::{self, NewAlert},
        tickets as rows, views,
    },
    tickets as service,
};
use watchkeep_core::{
    alerts::Cleared,
    ids::{AlertId, TicketId, UserId},
    rules::{Priority, RuleId, RulePack},
    tickets::{self as core, Firing, TicketContext},
};
use watchkeep_shared::DurationMs;

use super::{signed_in, ticket};
use crate::support::{Bench, NOW, both, place};

both!(
    people_act_on_tickets_and_it_is_written_down,
    what_a_ticket_does_not_allow_is_refused,
    a_ticket_says_whose_it_is_and_whether_its_alerts_agree,
    a_ticket_is_given_to_a_colleague,
    addresses_in_notes_and_runbooks_can_be_followed,
    a_ticket_is_put_on_hold_until_a_date_in_the_browsers_zone
);

async fn people_act_on_tickets_and_it_is_written_down(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let id = ticket(&bench, &place, "cpu.busy_pct", Priority::P2).await;
    let store = &bench.app.store;
    let path = "/tickets/1001/act";
    for (fields, state) in [
        ("act=acknowledge", "open"),
        ("act=acknowledge", "open"),
        ("act=wait_customer", "waiting_customer"),
        ("act=open", "open"),
        ("act=priority&priority=P1", "open"),
        (
            "act=note&text=Seen+%3Cb%3Eit%3C%2Fb%3E&audience=public",
            "open",
        ),
        ("act=unassign", "open"),
        ("act=assign_me", "open"),
        ("act=resolve_anyway", "resolved"),
        ("act=reopen", "open"),
        ("act=resolve_anyway", "resolved"),
        ("act=close_anyway", "closed"),
    ] {
        let answer = browser.post(path, fields).await;
        assert_eq!(
            answer.status,
            StatusCode::SEE_OTHER,
            "{fields}: {}",
            answer.text
        );
        assert_eq!(
            views::ticket(store, "1001").await.unwrap().unwrap().state,
            state,
            "{fields}"
        );
    }
    let page = browser.get("/tickets/1001").await.text;
    assert!(
        page.contains("Seen &#60;b&#62;it&#60;/b&#62;"),
        "the note stands there as text"
    );
    assert!(page.contains("Ada &#60;Admin&#62;"), "with its author");
    assert!(page.contains("changed the priority from P2 to P1"));
    assert!(page.contains("took the ticket") && page.contains("unassigned it"));
    let mine = browser
        .get("/api/v1/tickets?assignee=me&state=closed")
        .await
        .text;
    assert!(mine.contains(&id.to_string()), "{mine}");
    let acted = people::audit_log(store, 100).await.unwrap();
    assert_eq!(
        acted
            .iter()
            .filter(|line| line.subject == "ticket 1001")
            .count(),
        12
    );
    assert!(
        acted
            .iter()
            .any(|line| line.action == "sign_in" && line.actor == "admin")
    );
}

async fn what_a_ticket_does_not_allow_is_refused(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ticket(&bench, &place, "cpu.busy_pct", Priority::P2).await;
    let path = "/tickets/1001/act";
    let refused = browser.post(path, "act=resolve").await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(
        refused.text.contains("1 alert is still firing"),
        "{}",
        refused.text
    );
    browser.post(path, "act=close_anyway").await;
    for (fields, status) in [
        ("act=acknowledge", StatusCode::CONFLICT),
        ("act=note&text=+", StatusCode::CONFLICT),
        ("act=priority&priority=P9", StatusCode::BAD_REQUEST),
        ("act=delete", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(browser.post(path, fields).await.status, status, "{fields}");
    }
    assert_eq!(
        browser.post("/tickets/7/act", "act=close").await.status,
        StatusCode::NOT_FOUND
    );
}

async fn a_ticket_says_whose_it_is_and_whether_its_alerts_agree(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let id = ticket(&bench, &place, "cpu.busy_pct", Priority::P2).await;
    let page = browser.get("/tickets/1001").await.text;
    let (head, _) = page
        .split_once("aria-label=\"Act on this ticket\"")
        .unwrap();
    for text in [
        format!("/hosts/{}", place.host),
        format!("/contracts/{}", place.contract),
        "<bdi>Bakery</bdi>".to_owned(),
        "<bdi>Oven</bdi>".to_owned(),
    ] {
        assert!(head.contains(&text), "{text}: {head}");
    }
    let marks = async || -> (String, String) {
        let head = browser.get("/tickets/1001").await.text;
        let (head, _) = head
            .split_once("aria-label=\"Act on this ticket\"")
            .unwrap();
        (
            head.to_owned(),
            browser.get("/tickets?state=all").await.text,
        )
    };
    for (recovered, firing) in [(false, false), (false, true), (true, false)] {
        let (head, queue) = marks().await;
        for page in [&head, &queue] {
            assert_eq!(page.contains("</svg>Recovered</span>"), recovered, "{page}");
            assert_eq!(page.contains("</svg>Still firing</span>"), firing, "{page}");
        }
        if firing {
            // What was resolved opens again, and then everything recovers.
            browser.post("/tickets/1001/act", "act=reopen").await;
            clear(&bench, id).await;
        } else {
            browser
                .post("/tickets/1001/act", "act=resolve_anyway")
                .await;
        }
    }
}

/// All alerts of a ticket recover.
async fn clear(bench: &Bench, id: TicketId) {
    let mut tx = bench.app.store.begin().await.unwrap();
    let before = rows::by_id(&mut tx, id).await.unwrap().unwrap();
    let cleared = Cleared {
        alert: AlertId(Uuid::new_v4()),
        rule: RuleId("cpu-busy".to_owned()),
        check: before.check.clone().unwrap(),
        at: NOW,
        reason: "below the limit again".to_owned(),
        value: None,
    };
    let context = TicketContext {
        now: NOW,
        paging: &bench.app.config.paging,
    };
    let applied = core::clear(&before, &cleared, Firing::NONE, context);
    service::write(&bench.app, &mut tx, &applied, NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn addresses_in_notes_and_runbooks_can_be_followed(mut bench: Bench) {
    let rules = "[[rule]]\nid = \"cpu-busy\"\nname = \"CPU busy\"\nkind = \"threshold\"\n\
        severity = \"critical\"\npriority = \"P2\"\nmetric = \"cpu.busy_pct\"\n\
        raise = { above = 90 }\nclear = { below = 80 }\n\
        runbook = \"https://wiki.example/cpu?a=1&b=2\"\n";
    let mut config = (*bench.app.config).clone();
    config.rules = RulePack::parse(rules).unwrap();
    bench.app.config = Arc::new(config);
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let id = ticket(&bench, &place, "cpu.busy_pct", Priority::P2).await;
    let alert = NewAlert {
        id: AlertId(Uuid::new_v4()),
        host: place.host,
        rule: "cpu-busy",
        check: "cpu.busy_pct",
        severity: "critical",
        priority: "P2",
        summary: "CPU busy",
        evidence: "{}".to_owned(),
        raised_at: NOW,
        recorded_at: NOW,
        ticket: id,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_alerts(&mut tx, &[alert]).await.unwrap();
    tx.commit().await.unwrap();
    let note = "act=note&text=%3Cb%3E+see+http%3A%2F%2Fa.example%2F%3Fx%3D1%26y%3D%22.";
    browser.post("/tickets/1001/act", note).await;
    let follow = "target=\"_blank\" rel=\"noopener noreferrer\">";
    let runbook = "https://wiki.example/cpu?a=1&#38;b=2";
    let noted = "http://a.example/?x=1&#38;y=";
    let page = browser.get("/tickets/1001").await.text;
    for link in [runbook, noted] {
        assert!(
            page.contains(&format!("href=\"{link}\" {follow}{link}</a>")),
            "{link}: {page}"
        );
    }
    assert!(
        page.contains("&#60;b&#62; see <a"),
        "the rest of the note is text: {page}"
    );
    let page = browser.get(&format!("/hosts/{}", place.host)).await.text;
    assert!(
        page.contains(&format!("href=\"{runbook}\" {follow}")),
        "{page}"
    );
}

async fn a_ticket_is_given_to_a_colleague(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ticket(&bench, &place, "cpu.busy_pct", Priority::P2).await;
    let colleague = UserId(Uuid::new_v4());
    let user = |id, login, name| people::NewUser {
        id,
        login,
        name,
        password_hash: "",
        role: "admin",
        must_change: false,
        created_at: NOW,
    };
    let gone = UserId(Uuid::new_v4());
    let mut tx = bench.app.store.begin().await.unwrap();
    people::create_user(&mut tx, &user(colleague, "ben", "Ben"))
        .await
        .unwrap();
    people::create_user(&mut tx, &user(gone, "eve", "Eve"))
        .await
        .unwrap();
    people::disable_user(&mut tx, gone, NOW).await.unwrap();
    tx.commit().await.unwrap();
    let path = "/tickets/1001/act";
    let page = browser.get("/tickets/1001").await.text;
    assert!(page.contains("Ben</option>") && !page.contains("Eve</option>"));
    let post = async |fields: &str| browser.post(path, fields).await.status;
    assert_eq!(
        post(&format!("act=assign&user={}", gone.uuid())).await,
        StatusCode::BAD_REQUEST
    );
    let to_ben = format!("act=assign&user={}", colleague.uuid());
    assert_eq!(post(&to_ben).await, StatusCode::SEE_OTHER);
    let now = async || {
        views::ticket(&bench.app.store, "1001")
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(now().await.assignee_name.as_deref(), Some("Ben"));
    assert_eq!(post("act=assign&user=").await, StatusCode::SEE_OTHER);
    assert_eq!(now().await.assignee, None);
}

async fn a_ticket_is_put_on_hold_until_a_date_in_the_browsers_zone(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ticket(&bench, &place, "cpu.busy_pct", Priority::P2).await;
    let post = async |fields: &str| browser.post("/tickets/1001/act", fields).await.status;
    let now = async || {
        let found = views::ticket(&bench.app.store, "1001").await;
        found.unwrap().unwrap()
    };
    // NOW is 2027-01-15, 08:00 UTC, which is 09:00 in Paris.
    for (fields, after) in [
        ("act=hold&until=2027-01-15T09:30&zone=UTC", 90),
        ("act=hold&until=2027-01-15T09%3A30&zone=Europe%2FParis", 30),
        ("act=hold_4h", 240),
    ] {
        assert_eq!(post(fields).await, StatusCode::SEE_OTHER, "{fields}");
        let ticket = now().await;
        assert_eq!(ticket.state, "waiting_scheduled");
        let until = (NOW + DurationMs::from_mins(after)).0;
        assert_eq!(ticket.hold_until, Some(until), "{fields}");
    }
    for (fields, status) in [
        (
            "act=hold&until=2027-01-15T08:00&zone=UTC",
            StatusCode::CONFLICT,
        ),
        (
            "act=hold&until=2029-01-15T08:00&zone=UTC",
            StatusCode::CONFLICT,
        ),
        ("act=hold&until=tomorrow&zone=UTC", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(post(fields).await, status, "{fields}");
    }
    let page = browser.get("/tickets/1001").await.text;
    assert!(page.contains("put it on hold until <time datetime=\"2027-01-15T12:00:00Z\""));
    assert!(page.contains("<dt>On hold until</dt>"));
    let until = NOW + DurationMs::from_hours(4);
    assert_eq!(service::carry_out_due(&bench.app, until).await.unwrap(), 1);
    assert_eq!(now().await.state, "open");
    let page = browser.get("/tickets/1001").await.text;
    assert!(
        page.contains("opened it again: no longer on hold"),
        "{page}"
    );
}
