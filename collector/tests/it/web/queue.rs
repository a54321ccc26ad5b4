//! Lists of tickets: the queue, the archive, search, acts on several.

use axum::http::StatusCode;
use watchkeep_collector::store::{people, views};
use watchkeep_core::rules::Priority;

use super::{signed_in, ticket};
use crate::support::{Bench, NOW, both, execute, place};

both!(
    the_queue_pages_show_each_ticket_once,
    search_takes_wildcards_as_letters,
    several_tickets_are_acknowledged_at_once,
    the_queue_is_filtered_by_whether_alerts_still_fire
);

async fn the_queue_pages_show_each_ticket_once(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let priorities = [Priority::P3, Priority::P1, Priority::P2, Priority::P4];
    for i in 0..120 {
        ticket(
            &bench,
            &place,
            &format!("disk.used_pct:/d{i}"),
            priorities[i % 4],
        )
        .await;
    }
    for state in ["open", "all"] {
        let mut seen: Vec<(String, i64)> = Vec::new();
        let mut after = String::new();
        for _ in 0..3 {
            let path = format!("/api/v1/tickets?state={state}&after={after}");
            let answer = browser.get(&path).await;
            let page: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
            for one in page["tickets"].as_array().unwrap() {
                let priority = one["priority"].as_str().unwrap().to_owned();
                seen.push((priority, one["number"].as_i64().unwrap()));
            }
            page["next"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut after);
        }
        assert_eq!(after, "", "three pages hold 120 tickets");
        let mut sorted = seen.clone();
        if state == "open" {
            sorted.sort();
        } else {
            sorted.sort_by_key(|(_, number)| -number);
        }
        assert_eq!(seen, sorted, "{state}");
        sorted.dedup();
        assert_eq!((seen.len(), sorted.len()), (120, 120), "{state}");
    }
}

async fn search_takes_wildcards_as_letters(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ticket(&bench, &place, "disk.used_pct:/a_b", Priority::P1).await;
    ticket(&bench, &place, "disk.used_pct:/axb", Priority::P1).await;
    for (search, found) in [
        ("a_b", 1),
        ("A_B", 1),
        ("99%25", 0),
        ("99+%25", 2),
        ("%23" /* # alone */, 2),
        ("1002", 1),
        ("%231002", 1),
        ("!", 0),
        ("web1", 2),
    ] {
        let answer = browser.get(&format!("/api/v1/tickets?q={search}")).await;
        let page: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(page["tickets"].as_array().unwrap().len(), found, "{search}");
    }
}

async fn several_tickets_are_acknowledged_at_once(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    for check in ["cpu.busy_pct", "mem.used_pct", "swap.used_pct", "load.1m"] {
        ticket(&bench, &place, check, Priority::P2).await;
    }
    // One is closed, one was acknowledged by hand.
    browser
        .post("/tickets/1002/act", "act=resolve_anyway")
        .await;
    browser.post("/tickets/1003/act", "act=acknowledge").await;
    let queue = browser.get("/tickets").await.text;
    let boxes = |number| queue.contains(&format!("name=\"ticket\" value=\"{number}\""));
    assert_eq!(
        [1001, 1002, 1003, 1004].map(boxes),
        [true, false, false, true]
    );

    let fields =
        "ticket=1001&ticket=1002&ticket=1003&ticket=1004&ticket=9999&back=/tickets%3Fpriority%3DP2";
    let answer = browser.post("/tickets/acknowledge", fields).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let text = &answer.text;
    assert!(text.contains("<h1>2 tickets acknowledged</h1>"), "{text}");
    assert!(text.contains("Not acknowledged: 3"), "{text}");
    assert!(text.contains("href=\"/tickets?priority=P2\""), "{text}");
    for reason in [
        "reopen it first",
        "it is acknowledged already, assigned to Ada",
        "there is no ticket with this number",
    ] {
        assert!(text.contains(reason), "{reason}: {text}");
    }
    let store = &bench.app.store;
    for (number, is_acknowledged) in [
        ("1001", true),
        ("1002", false),
        ("1003", true),
        ("1004", true),
    ] {
        let ticket = views::ticket(store, number).await.unwrap().unwrap();
        assert_eq!(
            ticket.acknowledged_at.is_some() && ticket.is_open(),
            is_acknowledged,
            "{number}"
        );
    }
    let log = people::audit_log(store, 100).await.unwrap();
    let lines = log
        .iter()
        .filter(|line| line.action == "ticket_acknowledge");
    let mut subjects: Vec<&str> = lines.map(|line| line.subject.as_str()).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["ticket 1001", "ticket 1003", "ticket 1004"]);

    for (fields, status) in [
        ("", StatusCode::BAD_REQUEST),
        ("ticket=x", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(
            browser.post("/tickets/acknowledge", fields).await.status,
            status
        );
    }
    let elsewhere = browser
        .post("/tickets/acknowledge", "ticket=1001&back=//evil.example")
        .await;
    assert!(
        elsewhere.text.contains("href=\"/tickets\">Back"),
        "{}",
        elsewhere.text
    );
}

async fn the_queue_is_filtered_by_whether_alerts_still_fire(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ticket(&bench, &place, "cpu.busy_pct", Priority::P2).await;
    ticket(&bench, &place, "mem.used_pct", Priority::P2).await;
    let sql = format!(
        "UPDATE ticket SET firing = 0, over_at = {} WHERE number = 1002; \
         UPDATE ticket SET firing = 1, over_at = NULL WHERE number = 1001",
        NOW.0
    );
    execute(&bench.url, &sql).await;
    for list in ["/tickets?", "/tickets?state=all&"] {
        for (alerts, shown) in [
            ("", [true, true]),
            ("alerts=firing", [true, false]),
            ("alerts=recovered", [false, true]),
        ] {
            let page = browser.get(&format!("{list}{alerts}")).await.text;
            let has = |number| page.contains(&format!("href=\"/tickets/{number}\""));
            assert_eq!([1001, 1002].map(has), shown, "{list}{alerts}");
        }
    }
    let answer = browser.get("/tickets?alerts=x").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}
