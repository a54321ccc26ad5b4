//! Mail to a server that refuses, delays, wants TLS or a login.

use watchkeep_collector::notify::{self, Channels, Selection, TestResult, send_tests};
use watchkeep_shared::DurationMs;

use super::{
    channels, configure, copies, failing, file, mail_settings, page,
    smtp::{Behaviour, Protection, Server},
};
use crate::support::{Bench, NOW, both};

/// `\0watchkeep\0geheim 1`, in base64.
const LOGIN: &str = "AHdhdGNoa2VlcABnZWhlaW0gMQ==";
const ADA_AND_BOB: &str = "to = [\"Ada <ada@example.org>\", \"bob@example.org\"]";

both!(
    a_recipient_that_is_refused_holds_back_no_other,
    a_greylisted_mail_comes_later_and_is_the_same,
    an_address_outside_ascii_fails_alone_at_a_plain_server,
    mail_says_whose_server_it_is_and_that_it_is_automatic,
    a_private_authority_is_trusted_by_file,
    a_wrong_password_is_tried_again_with_the_one_in_the_file,
    a_test_shows_each_step,
    settings_that_serve_would_refuse_are_found_at_once
);

fn state(recipient: &str, state: &str, error: &str) -> (String, String, String) {
    (recipient.to_owned(), state.to_owned(), error.to_owned())
}

async fn a_recipient_that_is_refused_holds_back_no_other(mut bench: Bench) {
    let server = Server::start(Protection::None, Behaviour::default()).await;
    server.behave(|behaviour| {
        let reply = vec!["550 5.1.1 no such mailbox"];
        behaviour
            .replies
            .insert("ada@example.org".to_owned(), reply);
    });
    configure(
        &mut bench,
        &mail_settings(&server, Protection::None, ADA_AND_BOB),
    );
    let ticket = page(&bench).await;
    notify::tick(&bench.app, &channels(&bench)).await.unwrap();
    let refused = "recipient: 550 5.1.1 no such mailbox";
    assert_eq!(
        copies(&bench, ticket).await,
        [
            state("ada@example.org", "dead", refused),
            state("bob@example.org", "sent", ""),
        ]
    );
    assert_eq!(server.accepted()[0].to, "bob@example.org");
    assert_eq!(failing(&bench).await, ["ada@example.org"]);
}

async fn a_greylisted_mail_comes_later_and_is_the_same(mut bench: Bench) {
    let server = Server::start(Protection::None, Behaviour::default()).await;
    server.behave(|behaviour| {
        behaviour.data_replies = vec!["451 4.7.1 greylisted", "451 4.7.1 greylisted"];
    });
    let to = "to = [\"ada@example.org\"]";
    configure(&mut bench, &mail_settings(&server, Protection::None, to));
    let ticket = page(&bench).await;
    let channels = channels(&bench);
    for secs in [0, 2, 6] {
        bench.clock.set(NOW + DurationMs::from_secs(secs));
        assert_eq!(notify::tick(&bench.app, &channels).await.unwrap(), 1);
        assert_eq!(notify::tick(&bench.app, &channels).await.unwrap(), 0);
    }
    assert_eq!(
        copies(&bench, ticket).await,
        [state("ada@example.org", "sent", "")]
    );
    let mut mails = server.refused();
    mails.extend(server.accepted());
    let id = |header: &str| {
        mails
            .iter()
            .map(|mail| mail.header(header))
            .collect::<Vec<_>>()
    };
    let (ids, dates) = (id("Message-ID"), id("Date"));
    assert_eq!(ids.len(), 3);
    assert!(
        ids.iter().all(|id| *id == ids[0] && id.is_some()),
        "{ids:?}"
    );
    assert!(dates.iter().all(|date| *date == dates[0]), "{dates:?}");
}

async fn an_address_outside_ascii_fails_alone_at_a_plain_server(mut bench: Bench) {
    let server = Server::start(Protection::None, Behaviour::default()).await;
    let to = "to = [\"jürgen@example.org\", \"bob@bücher.example\"]";
    configure(&mut bench, &mail_settings(&server, Protection::None, to));
    let ticket = page(&bench).await;
    let channels = channels(&bench);
    notify::tick(&bench.app, &channels).await.unwrap();
    let why = "sender: the server does not support addresses outside ASCII (SMTPUTF8)";
    assert_eq!(
        copies(&bench, ticket).await,
        [
            state("bob@bücher.example", "sent", ""),
            state("jürgen@example.org", "dead", why),
        ]
    );
    // The domain has a form in ASCII, which every server takes.
    assert_eq!(server.accepted()[0].to, "bob@xn--bcher-kva.example");
    server.behave(|behaviour| behaviour.has_smtputf8 = true);
    let results = send_tests(&bench.app.config, &channels, Selection::default(), NOW).await;
    assert!(results.iter().all(|one| one.error.is_none()), "{results:?}");
    let accepted = server.accepted();
    assert!(accepted.iter().any(|mail| mail.to == "jürgen@example.org"));
}

async fn mail_says_whose_server_it_is_and_that_it_is_automatic(mut bench: Bench) {
    let server = Server::start(Protection::None, Behaviour::default()).await;
    configure(
        &mut bench,
        &mail_settings(&server, Protection::None, ADA_AND_BOB),
    );
    let ticket = page(&bench).await;
    let channels = channels(&bench);
    notify::tick(&bench.app, &channels).await.unwrap();
    let due = NOW + DurationMs::from_mins(5);
    bench.clock.set(due);
    watchkeep_collector::tickets::carry_out_due(&bench.app, due)
        .await
        .unwrap();
    notify::tick(&bench.app, &channels).await.unwrap();
    let mails = server.accepted();
    assert_eq!(mails.len(), 4);
    let (opened, escalated) = (&mails[0], &mails[2]);
    let thread = format!("<ticket-{ticket}@watchkeep.example>");
    let header = |mail: &super::smtp::Accepted, name| mail.header(name).unwrap_or_default();
    assert_eq!(header(opened, "Message-ID"), thread);
    assert_eq!(header(opened, "In-Reply-To"), "");
    assert_eq!(header(opened, "Date"), "Fri, 15 Jan 2027 08:00:00 +0000");
    assert_eq!(header(opened, "MIME-Version"), "1.0");
    assert_eq!(header(opened, "Auto-Submitted"), "auto-generated");
    assert_eq!(header(opened, "X-Auto-Response-Suppress"), "All");
    assert!(header(opened, "Content-Type").starts_with("multipart/alternative;"));
    assert_eq!(
        header(opened, "Subject"),
        "[#1001 P1 new] Bakery / Oven / web1: Disk /srv 98 % full (limit 95 %) (contract Bakery \
         servers)"
    );
    assert_eq!(header(opened, "To"), opened.to);
    assert_eq!(header(escalated, "In-Reply-To"), thread);
    assert_eq!(header(escalated, "References"), thread);
    assert_ne!(header(escalated, "Message-ID"), thread);
    assert!(header(escalated, "Subject").starts_with("[#1001 P1 escalated to tier 2] Bakery"));
    for text in [
        "Client:   Bakery",
        "Site:     Oven",
        "Contract: Bakery servers",
        "Host:     web1",
        "Escalated to tier 2: not acknowledged for 5 min.",
        "No tier 2 is configured, so this goes to tier 1 again.",
        "Rule:     disk-full (critical)",
        "  Disk /srv 98 % full (limit 95 %)",
        "  =C3=BCber 95 %",
    ] {
        assert!(escalated.text.contains(text), "{text}: {}", escalated.text);
    }
    assert!(opened.text.contains("Rule:     disk-full (critical)"));
}

async fn a_private_authority_is_trusted_by_file(mut bench: Bench) {
    for protection in [Protection::StartTls, Protection::Implicit] {
        let server = Server::start(protection, Behaviour::default()).await;
        let to = "to = [\"ada@example.org\"]";
        configure(&mut bench, &mail_settings(&server, protection, to));
        let [refused] = &test(&bench, &channels(&bench)).await[..] else {
            panic!("one recipient");
        };
        let error = refused.error.as_ref().unwrap().to_string();
        assert!(error.starts_with("TLS: "), "{error}");
        assert!(error.contains("UnknownIssuer"), "{error}");
        let ca = file(&bench, "mail-ca.pem", &server.ca_pem);
        let more = format!("{to}\nca_file = \"{ca}\"");
        configure(&mut bench, &mail_settings(&server, protection, &more));
        let results = test(&bench, &channels(&bench)).await;
        assert_eq!(results[0].error, None, "{protection:?} {results:?}");
        assert_eq!(server.accepted().len(), 1);
    }
}

async fn test(bench: &Bench, channels: &Channels) -> Vec<TestResult> {
    send_tests(&bench.app.config, channels, Selection::default(), NOW).await
}

async fn a_wrong_password_is_tried_again_with_the_one_in_the_file(mut bench: Bench) {
    let server = Server::start(Protection::StartTls, Behaviour::default()).await;
    server.behave(|behaviour| behaviour.wants_login = Some(LOGIN));
    let (ca, password) = (
        file(&bench, "mail-ca.pem", &server.ca_pem),
        file(&bench, "password", "expired\n"),
    );
    let more = format!(
        "to = [\"ada@example.org\"]\nca_file = \"{ca}\"\nuser = \"watchkeep\"\n\
         password_file = \"{password}\""
    );
    configure(
        &mut bench,
        &mail_settings(&server, Protection::StartTls, &more),
    );
    let ticket = page(&bench).await;
    let channels = channels(&bench);
    notify::tick(&bench.app, &channels).await.unwrap();
    let wrong = "login: 535 5.7.8 wrong password";
    assert_eq!(
        copies(&bench, ticket).await,
        [state("ada@example.org", "pending", wrong)]
    );
    file(&bench, "password", "geheim 1\n");
    bench.clock.set(NOW + DurationMs::from_secs(2));
    notify::tick(&bench.app, &channels).await.unwrap();
    assert_eq!(
        copies(&bench, ticket).await,
        [state("ada@example.org", "sent", "")]
    );
    assert!(server.accepted()[0].is_authenticated);
}

async fn a_test_shows_each_step(mut bench: Bench) {
    let server = Server::start(Protection::StartTls, Behaviour::default()).await;
    server.behave(|behaviour| {
        let reply = vec!["550 5.1.1 no such mailbox"];
        behaviour
            .replies
            .insert("eve@example.org".to_owned(), reply);
    });
    let ca = file(&bench, "mail-ca.pem", &server.ca_pem);
    let more =
        format!("to = [\"ada@example.org\"]\ntier2_to = [\"eve@example.org\"]\nca_file = \"{ca}\"");
    configure(
        &mut bench,
        &mail_settings(&server, Protection::StartTls, &more),
    );
    let results = test(&bench, &channels(&bench)).await;
    let steps = |at: usize| {
        let steps = results[at].steps.iter();
        steps
            .map(|step| (step.name, step.is_ok))
            .collect::<Vec<_>>()
    };
    let all = [
        "resolve",
        "connect",
        "greeting",
        "TLS",
        "sender",
        "recipient",
        "hand over",
    ];
    assert_eq!(steps(0), all.map(|name| (name, true)));
    assert_eq!(results[0].steps[6].detail, "250 2.0.0 queued as 4711");
    let refused = all[..6].iter().map(|name| (*name, *name != "recipient"));
    assert_eq!(steps(1), refused.collect::<Vec<_>>());
    assert_eq!(results[1].steps[5].detail, "550 5.1.1 no such mailbox");
    assert_eq!(results[1].endpoint.tier, 2);
    assert!(server.accepted()[0].text.contains("This is a test message"));
    let tier2 = Selection {
        channel: Some("mail"),
        tier: Some(2),
    };
    let results = send_tests(&bench.app.config, &channels(&bench), tier2, NOW).await;
    assert_eq!(results.len(), 1);
}

async fn settings_that_serve_would_refuse_are_found_at_once(mut bench: Bench) {
    let server = Server::start(Protection::StartTls, Behaviour::default()).await;
    let (ca, secret) = (
        file(&bench, "not-a-ca.pem", "no certificate"),
        file(&bench, "secret", "too short"),
    );
    let more = format!(
        "to = [\"ada@example.org\"]\nca_file = \"{ca}\"\nuser = \"watchkeep\"\n\
         password_file = \"/nowhere\"\n[webhook]\nurl = \"https://localhost/\"\n\
         secret_file = \"{secret}\""
    );
    configure(
        &mut bench,
        &mail_settings(&server, Protection::StartTls, &more),
    );
    let error = bench.app.config.check_files().unwrap_err().to_string();
    for part in [
        "mail.password_file: /nowhere: No such file",
        "not-a-ca.pem: no certificate in it (expected PEM)",
        "webhook.secret_file: ",
        "at least 16 bytes",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
