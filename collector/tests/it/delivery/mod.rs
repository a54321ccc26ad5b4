//! Messages on their way to real peers: a mail server and a receiver of webhooks that are written for
//! these tests, over real sockets and real TLS, with the outbox in a real store.

mod http;
mod mail;
mod smtp;
mod webhook;
mod workers;

use std::sync::Arc;

use uuid::Uuid;
use watchkeep_collector::{
    config::Config,
    notify::Channels,
    store::{delivery, record, tickets as rows, views},
    tickets as service,
};
use watchkeep_core::{
    alerts::{AlertEvidence, Raised},
    ids::{AlertId, TicketId},
    rules::{CheckKey, Priority, RuleId, Severity},
    tickets::{NewTicket, TicketContext, open},
};

use self::smtp::{Protection, Server};
use crate::support::{Bench, NOW, place};

/// Gives a collector other settings.
fn configure(bench: &mut Bench, text: &str) {
    let text = format!(
        "data_dir = \"{}\"\n[web]\npublic_url = \"https://watchkeep.example:8443\"\n{text}",
        bench.app.config.data_dir.display()
    );
    let store = bench.app.config.store.clone();
    let mut config = Config::parse("test", &text, []).unwrap();
    config.store = store;
    bench.app.config = Arc::new(config);
}

/// The `[mail]` section for a server; `more` has recipients and what else is wanted.
fn mail_settings(server: &Server, protection: Protection, more: &str) -> String {
    let tls = match protection {
        Protection::None => "none",
        Protection::StartTls => "start_tls",
        Protection::Implicit => "implicit",
    };
    format!(
        "[mail]\nhost = \"localhost\"\nport = {}\ntls = \"{tls}\"\n\
         from = \"Watchkeep <watchkeep@example.org>\"\n{more}\n",
        server.address.port()
    )
}

/// Writes a file into the collector's directory. Returns its path.
fn file(bench: &Bench, name: &str, content: &str) -> String {
    let path = bench.app.config.data_dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn channels(bench: &Bench) -> Channels {
    Channels::new(&bench.app.config).unwrap()
}

/// Opens a ticket about a host, which pages.
async fn page(bench: &Bench) -> TicketId {
    let place = place(&bench.app).await;
    let raised = Raised {
        alert: AlertId(Uuid::from_u128(1)),
        rule: RuleId("disk-full".to_owned()),
        check: CheckKey::metric("disk.used_pct:/srv"),
        severity: Severity::Critical,
        priority: Priority::P1,
        at: NOW,
        summary: "Disk /srv 98 % full (limit 95 %)".to_owned(),
        evidence: AlertEvidence {
            detail: Some("über 95 %".to_owned()),
            ..Default::default()
        },
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    let new = NewTicket {
        id: TicketId(Uuid::from_u128(2)),
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
    let alert = record::NewAlert {
        id: raised.alert,
        host: place.host,
        rule: raised.rule.as_str(),
        check: raised.check.as_str(),
        severity: raised.severity.as_str(),
        priority: raised.priority.as_str(),
        summary: &raised.summary,
        evidence: serde_json::to_string(&raised.evidence).unwrap(),
        raised_at: NOW,
        recorded_at: NOW,
        ticket: applied.ticket.id,
    };
    record::insert_alerts(&mut tx, &[alert]).await.unwrap();
    tx.commit().await.unwrap();
    applied.ticket.id
}

/// Recipient, state and last error of each copy about a ticket.
async fn copies(bench: &Bench, ticket: TicketId) -> Vec<(String, String, String)> {
    let list = views::deliveries(&bench.app.store, ticket, 100)
        .await
        .unwrap();
    let mut list: Vec<_> = list
        .into_iter()
        .map(|one| (one.recipient, one.state, one.last_error.unwrap_or_default()))
        .collect();
    list.sort();
    list
}

/// The recipients that fail.
async fn failing(bench: &Bench) -> Vec<String> {
    let list = delivery::recipients(&bench.app.store).await.unwrap();
    list.into_iter()
        .filter(|one| one.failing_since.is_some())
        .map(|one| one.address)
        .collect()
}
