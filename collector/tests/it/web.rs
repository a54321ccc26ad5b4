//! The pages and their API in process: who gets in, what is refused, what is shown.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use uuid::Uuid;
use watchkeep_collector::{
    live::Hint,
    store::{
        people,
        record::{self, NewEvent},
        tickets as rows, views,
    },
    tickets,
    web::{self, password},
};
use watchkeep_core::{
    alerts::{AlertEvidence, Raised},
    ids::{AlertId, TicketId, UserId},
    rules::{CheckKey, Priority, RuleId, Severity},
    tickets::{NewTicket, open},
};
use watchkeep_shared::{
    DurationMs, UnixMillis,
    wire::{
        heartbeat::Event,
        host::{HostFacts, Process, Processes},
    },
};

use crate::support::{Bench, NOW, Place, both, place};

both!(
    a_one_time_password_must_be_replaced_first,
    a_wrong_password_is_refused_and_soon_must_wait,
    a_session_ends_when_idle_and_when_old,
    a_session_can_be_ended_from_another,
    a_disabled_user_is_out_at_once,
    changes_need_the_sessions_token_and_our_own_pages,
    every_page_answers_empty_and_full,
    a_block_comes_without_the_page_around_it,
    what_an_agent_found_is_proposed_as_it_stands_now,
    what_the_agent_told_of_its_machine_is_shown,
    people_act_on_tickets_and_it_is_written_down,
    what_a_ticket_does_not_allow_is_refused,
    the_queue_pages_show_each_ticket_once,
    search_takes_wildcards_as_letters,
    open_pages_are_told_of_a_ticket,
    errors_are_told_without_secrets
);

const OLD: &str = "8dp7-4xrw-w8rb-qcqp";
const NEW: &str = "correct horse battery";

/// Every address that changes something.
const CHANGES: [&str; 4] = [
    "/logout",
    "/account/password",
    "/account/sessions/revoke",
    "/tickets/1001/act",
];

/// A browser: keeps its session's cookie and the token of its forms.
struct Browser {
    router: Router,
    cookie: String,
    csrf: String,
}

struct Answer {
    status: StatusCode,
    headers: header::HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Self {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }
}

impl Browser {
    fn new(bench: &Bench) -> Self {
        let router = web::router(bench.app.clone());
        Self {
            router,
            cookie: String::new(),
            csrf: String::new(),
        }
    }

    fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "watchkeep.example:8443")
            .header("cookie", &self.cookie)
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        Answer::of(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).body(Body::empty()).unwrap())
            .await
    }

    fn form(&self, path: &str, fields: &str) -> Request<Body> {
        self.request("POST", path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .body(Body::from(format!("{fields}&csrf={}", self.csrf)))
            .unwrap()
    }

    async fn post(&self, path: &str, fields: &str) -> Answer {
        self.send(self.form(path, fields)).await
    }

    async fn sign_in(&mut self, password: &str) -> Answer {
        let fields = format!("login=admin&password={}", password.replace(' ', "+"));
        let answer = self.post("/login", &fields).await;
        if answer.status == StatusCode::SEE_OTHER {
            let set = answer.header(header::SET_COOKIE);
            for guard in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
                assert!(set.contains(guard), "{set}");
            }
            set.split(';').next().unwrap().clone_into(&mut self.cookie);
            let page = self.get("/account/password").await;
            let (_, rest) = page.text.split_once("name=\"csrf\" value=\"").unwrap();
            rest.split('"').next().unwrap().clone_into(&mut self.csrf);
        }
        answer
    }
}

async fn admin(bench: &Bench, password: &str, must_change: bool) -> UserId {
    let user = people::NewUser {
        id: UserId(Uuid::now_v7()),
        login: "admin",
        name: "Ada <Admin>",
        password_hash: &password::hash(password).unwrap(),
        role: "admin",
        must_change,
        created_at: NOW,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    people::create_user(&mut tx, &user).await.unwrap();
    tx.commit().await.unwrap();
    user.id
}

async fn signed_in(bench: &Bench) -> Browser {
    admin(bench, NEW, false).await;
    let mut browser = Browser::new(bench);
    assert_eq!(browser.sign_in(NEW).await.status, StatusCode::SEE_OTHER);
    browser
}

async fn ticket(bench: &Bench, place: &Place, check: &str, priority: Priority) -> TicketId {
    let raised = Raised {
        alert: AlertId(Uuid::now_v7()),
        rule: RuleId("cpu-busy".to_owned()),
        check: CheckKey::metric(check),
        severity: Severity::Critical,
        priority,
        at: NOW,
        summary: format!("CPU busy: {check} is 99 % <script>"),
        evidence: AlertEvidence {
            value: Some(99.0),
            threshold: Some(90.0),
            ..Default::default()
        },
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    let new = NewTicket {
        id: TicketId(Uuid::now_v7()),
        number: rows::next_number(&mut tx).await.unwrap(),
        client: place.client,
        contract: Some(place.contract),
        host: Some(place.host),
        host_name: "web1".to_owned(),
        previous: None,
    };
    let applied = open(new, &raised, NOW);
    tickets::write(&bench.app, &mut tx, &applied, NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    applied.ticket.id
}

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
    assert!(unknown.text.contains("The login or the password is wrong."));
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

async fn every_page_answers_empty_and_full(bench: Bench) {
    let browser = signed_in(&bench).await;
    let fixed = [
        "/",
        "/tickets",
        "/tickets?state=all",
        "/contracts",
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
        format!("/api/v1/hosts/{host}"),
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

async fn what_an_agent_found_is_proposed_as_it_stands_now(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let found = |id: i64, unit: &str| {
        let proposals = serde_json::json!([
            { "check": { "type": "systemd", "unit": unit }, "detail": "enabled <b>" },
            { "check": { "type": "of a newer agent", "x": 1 } },
        ]);
        NewEvent {
            id,
            host: place.host,
            kind: "discovered",
            detail: serde_json::json!({ "type": "discovered", "proposals": proposals }).to_string(),
            at: UnixMillis(NOW.0 + id),
            recorded_at: UnixMillis(NOW.0 + id),
        }
    };
    let events = [found(1, "old.service"), found(2, "new.service")];
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_events(&mut tx, &events).await.unwrap();
    tx.commit().await.unwrap();
    let page = browser.get(&format!("/hosts/{}", place.host)).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert!(page.text.contains("Found here, not watched"));
    assert!(page.text.contains("new.service"));
    let line = "{ type = &#34;systemd&#34;, unit = &#34;new.service&#34; },";
    assert!(page.text.contains(line), "{}", page.text);
    assert!(!page.text.contains("old.service"));
    assert!(!page.text.contains("enabled <b>"));
}

/// Stores an event as the pipeline does.
async fn told(bench: &Bench, place: &Place, id: i64, event: &Event) {
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

async fn what_the_agent_told_of_its_machine_is_shown(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ticket(&bench, &place, "cpu.busy_pct", Priority::P1).await;
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
    told(&bench, &place, 1, &busiest("spinner")).await;
    told(&bench, &place, 2, &busiest("later")).await;
    let page = browser.get("/tickets/1001").await.text;
    for text in ["Busiest processes", "spinner", "188 %", "700 MiB", "4711"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("<b>large"), "it is escaped");
    assert!(
        !page.contains("later"),
        "the first list is the one of the breach"
    );
    let facts = Event::HostFacts(HostFacts {
        os: Some("Debian GNU/Linux 12".to_owned()),
        cpus: Some(2),
        container: Some("lxc".to_owned()),
        unseen: vec!["other users' processes".to_owned()],
        ..HostFacts::default()
    });
    told(&bench, &place, 3, &facts).await;
    let page = browser.get(&format!("/hosts/{}", place.host)).await.text;
    for text in [
        "Debian GNU/Linux 12",
        "2 processors",
        "a container (lxc)",
        "processes</dd>",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

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
        ("act=resolve", "resolved"),
        ("act=reopen", "open"),
        ("act=resolve", "resolved"),
        ("act=close", "closed"),
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
    browser.post(path, "act=close").await;
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
    let mut told = String::new();
    let reading = async {
        while !told.contains("event: ticket") {
            let frame = body.frame().await.expect("the stream goes on").unwrap();
            told.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading)
        .await
        .expect("the page is told");
    assert!(told.contains("event: fleet"), "{told}");
    assert!(told.contains("\"is_new\":true"), "{told}");
    assert!(told.contains("\"number\":1001"), "{told}");
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
