//! The running workers: a channel that hangs delays no other, a recipient that hangs delays no other,
//! and an acknowledgement is heeded up to the last moment.

use std::sync::Arc;

use watchkeep_collector::{
    notify::{self, Channel, Channels, Outgoing, SendError, Sending, Trace},
    store::{
        delivery,
        outbox::{self, NewMessage},
    },
    tickets,
};
use watchkeep_core::{
    delivery::MessageKind,
    ids::TicketId,
    tickets::{Action, Actor},
};

use super::{
    channels, configure, copies, file,
    http::Receiver,
    mail_settings, page,
    smtp::{Behaviour, Protection, Server},
};
use crate::support::{Bench, NOW, both};

/// Far longer than a test takes: what waits for a time-out hangs the test.
const NO_TIMEOUT: &str = "timeout_ms = 120000\n";

both!(
    a_mail_server_that_says_nothing_delays_no_webhook,
    a_recipient_that_hangs_takes_one_place,
    an_acknowledgement_while_a_page_is_being_sent_cancels_it,
    recipients_that_left_the_settings_are_given_up_and_their_pages_handed_over
);

async fn a_mail_server_that_says_nothing_delays_no_webhook(mut bench: Bench) {
    let server = Server::start(Protection::None, Behaviour::default()).await;
    server.behave(|behaviour| behaviour.is_mute = true);
    let receiver = Receiver::start(None, &[]).await;
    let secret = file(&bench, "secret", "0123456789abcdef");
    let mail = format!("to = [\"ada@example.org\"]\n{NO_TIMEOUT}");
    let text = format!(
        "{}[webhook]\nurl = \"http://{}/\"\nsecret_file = \"{secret}\"\n",
        mail_settings(&server, Protection::None, &mail),
        receiver.address
    );
    configure(&mut bench, &text);
    notify::begin(&bench.app).await.unwrap();
    notify::start(&bench.app, &channels(&bench));
    page(&bench).await;
    server.wait_for_connections(1).await;
    receiver.wait_for_requests(1).await;
    assert!(server.accepted().is_empty());
}

async fn a_recipient_that_hangs_takes_one_place(mut bench: Bench) {
    let server = Server::start(Protection::None, Behaviour::default()).await;
    server.behave(|behaviour| behaviour.stalls_for = vec!["p0@example.org"]);
    let people: Vec<String> = (0..8).map(|n| format!("\"p{n}@example.org\"")).collect();
    let more = format!("to = [{}]\n{NO_TIMEOUT}", people.join(", "));
    configure(&mut bench, &mail_settings(&server, Protection::None, &more));
    notify::begin(&bench.app).await.unwrap();
    notify::start(&bench.app, &channels(&bench));
    page(&bench).await;
    server.wait_for_mails(7).await;
}

/// Acknowledges the ticket when it is asked to send about it, then asks whether it still is to.
#[derive(Debug)]
struct SlowChannel {
    bench: watchkeep_collector::app::App,
    ticket: TicketId,
}

impl Channel for SlowChannel {
    fn name(&self) -> &'static str {
        "mail"
    }

    fn max_sends(&self) -> usize {
        1
    }

    fn deliver<'a>(
        &'a self,
        outgoing: &'a Outgoing<'_>,
        _trace: &'a mut Trace,
    ) -> Sending<'a, Result<(), SendError>> {
        Box::pin(async move {
            assert!((outgoing.still_wanted)().await);
            let link = Actor::Link {
                sent_to: "Ada".to_owned(),
            };
            tickets::act(&self.bench, self.ticket, Action::Acknowledge, link)
                .await
                .unwrap();
            if (outgoing.still_wanted)().await {
                return Ok(());
            }
            Err(SendError::Cancelled)
        })
    }
}

async fn an_acknowledgement_while_a_page_is_being_sent_cancels_it(mut bench: Bench) {
    let server = Server::start(Protection::None, Behaviour::default()).await;
    let to = "to = [\"ada@example.org\"]";
    configure(&mut bench, &mail_settings(&server, Protection::None, to));
    let ticket = page(&bench).await;
    let channel = SlowChannel {
        bench: bench.app.clone(),
        ticket,
    };
    let channels = Channels::of(vec![Arc::new(channel)]);
    notify::tick(&bench.app, &channels).await.unwrap();
    assert_eq!(copies(&bench, ticket).await[0].1, "cancelled");
    let recipients = delivery::recipients(&bench.app.store).await.unwrap();
    assert!(recipients.is_empty(), "{recipients:?}");
}

async fn recipients_that_left_the_settings_are_given_up_and_their_pages_handed_over(
    mut bench: Bench,
) {
    let server = Server::start(Protection::None, Behaviour::default()).await;
    let old = "to = [\"acda@example.org\"]";
    configure(&mut bench, &mail_settings(&server, Protection::None, old));
    let ticket = page(&bench).await;
    // A row of a version that had no recipients.
    let mut tx = bench.app.store.begin().await.unwrap();
    let id = bench.app.ids.next(NOW);
    let legacy = NewMessage {
        id,
        message: id,
        ticket: Some(ticket),
        channel: "mail",
        recipient: String::new(),
        tier: 1,
        kind: MessageKind::Page,
        payload: "{\"event\": \"opened\"}".to_owned(),
    };
    outbox::insert(&mut tx, &legacy, NOW).await.unwrap();
    tx.commit().await.unwrap();
    let new = "to = [\"ada@example.org\"]";
    configure(&mut bench, &mail_settings(&server, Protection::None, new));
    notify::begin(&bench.app).await.unwrap();
    notify::watch(&bench.app, NOW).await.unwrap();
    notify::tick(&bench.app, &channels(&bench)).await.unwrap();
    let states: Vec<_> = copies(&bench, ticket)
        .await
        .into_iter()
        .map(|(recipient, state, _)| (recipient, state))
        .collect();
    let copy = |recipient: &str, state: &str| (recipient.to_owned(), state.to_owned());
    assert_eq!(
        states,
        [
            copy("", "dead"),
            copy("acda@example.org", "dead"),
            copy("ada@example.org", "sent"),
            copy("ada@example.org", "sent"),
        ]
    );
    let text = &server.accepted()[0].text;
    assert!(
        text.contains("acda@example.org") || text.contains("all recipients"),
        "{text}"
    );
    // A typing mistake that is mended is no fault of the channel.
    let open = watchkeep_collector::store::tickets::open(&bench.app.store)
        .await
        .unwrap();
    assert_eq!(open.len(), 1);
}
