//! The pages and their API in process, as a browser sees them.

mod contracts;
mod described;
mod fleet;
mod health;
mod host_page;
mod hosts;
mod pages;
mod queue;
mod sessions;
mod tickets;

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use uuid::Uuid;
use watchkeep_collector::{
    store::{people, tickets as rows},
    tickets as service,
    web::{self, password},
};
use watchkeep_core::{
    alerts::{AlertEvidence, Raised},
    ids::{AlertId, TicketId, UserId},
    rules::{CheckKey, Priority, RuleId, Severity},
    tickets::{NewTicket, TicketContext, open},
};

use crate::support::{Bench, NOW, Place};

const OLD: &str = "8dp7-4xrw-w8rb-qcqp";
const NEW: &str = "correct horse battery";

/// Every address that changes something.
const CHANGES: [&str; 11] = [
    "/logout",
    "/account/password",
    "/account/sessions/revoke",
    "/tickets/1001/act",
    "/tickets/acknowledge",
    "/hosts/HOST/rekey",
    "/hosts/HOST/edit",
    "/hosts/HOST/watch",
    "/hosts/HOST/unwatch",
    "/health/test",
    "/health/send-again",
];

/// A browser: keeps its session's cookie and the token of its forms.
pub(crate) struct Browser {
    router: Router,
    cookie: String,
    csrf: String,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: header::HeaderMap,
    pub(crate) text: String,
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
        let router = web::router(bench.app.clone()).unwrap();
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

    pub(crate) async fn get(&self, path: &str) -> Answer {
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
        id: UserId(Uuid::new_v4()),
        login: "admin",
        name: "Ada <Admin>",
        password_hash: &password::hash(password).unwrap(),
        role: "admin",
        must_change,
        created_at: NOW,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    assert!(people::create_user(&mut tx, &user).await.unwrap());
    tx.commit().await.unwrap();
    user.id
}

pub(crate) async fn signed_in(bench: &Bench) -> Browser {
    admin(bench, NEW, false).await;
    let mut browser = Browser::new(bench);
    assert_eq!(browser.sign_in(NEW).await.status, StatusCode::SEE_OTHER);
    browser
}

async fn ticket(bench: &Bench, place: &Place, check: &str, priority: Priority) -> TicketId {
    let raised = Raised {
        alert: AlertId(Uuid::new_v4()),
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
        id: TicketId(Uuid::new_v4()),
        number: rows::next_number(&mut tx).await.unwrap(),
        client: place.client,
        contract: Some(place.contract),
        host: Some(place.host),
        host_name: "web1".to_owned(),
        previous: None,
    };
    let applied = open(
        new,
        &raised,
        TicketContext {
            now: NOW,
            paging: &bench.app.config.paging,
        },
    );
    service::write(&bench.app, &mut tx, &applied, NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    applied.ticket.id
}
