//! An agent, or an address, that asks too often is sent away with a typed error; nobody else notices,
//! and it is served again once it has waited.

use std::{io::Write as _, time::Duration};

use anyhow::{Context, Result};
use tokio::{net::TcpStream, time::Instant};
use watchkeep_shared::{
    ids::random_uuid,
    wire::{
        CONTENT_TYPE_PROBLEM, PROTOCOL_VERSION,
        enroll::EnrollRequest,
        problem::{Problem, ProblemType},
    },
};
use watchkeep_tests::{
    both_stores,
    fleet::{
        connection::{Answer, BodyEncoding, Connection},
        identity::{key_and_request, post_enrolment},
        tls::{Trust, first_contact},
    },
    harness::{Agent, Collector, DatabaseKind, Scripted, Settings, wait_for},
    loopback::Target,
};

const SOON: Duration = Duration::from_mins(1);
/// More requests than any limit here lets through.
const MANY: usize = 5_000;
/// Silent connections to each port: more than may be pending from one address.
const SILENT: usize = 1_000;
/// Enrolments that one address may send at once in these tests.
const ENROLMENTS_AT_ONCE: usize = 3;

both_stores!(
    a_noisy_host_is_sent_away_alone,
    an_address_that_guesses_tokens_is_slowed_down,
    silent_connections_keep_nobody_out,
);

async fn a_noisy_host_is_sent_away_alone(kind: DatabaseKind) -> Result<()> {
    let mut collector = Collector::create(kind, &Settings::default()).await?;
    collector.start().await?;
    let store = collector.store().await?;
    let token = collector.token(2).await?;
    let mut quiet = Agent::enroll(&token).await?;
    quiet.start()?;
    let count = quiet.heartbeats(&store, 0).await;
    let mut noisy = Scripted::enroll(&token).await?;
    assert_eq!(noisy.beat().await?.accepted, 1);

    // Requests that cost the collector nothing come far faster than the allowed rate.
    let mut refused = None;
    for _ in 0..MANY {
        let Ok(answer) = noisy.post(BodyEncoding::Identity, b"{}".to_vec()).await else {
            // A refused request's body is not read, which may end the connection.
            noisy.disconnect();
            continue;
        };
        if answer.status == ProblemType::TooManyRequests.status() {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, ProblemType::BadBody.status(), "{answer:?}");
    }
    assert_too_many(&refused.context("the host is sent away")?);
    assert!(counted(&collector).await? >= 1);
    quiet.heartbeats(&store, count).await;
    wait_for("the host is served again", SOON, async || {
        Ok((noisy.beat().await?.accepted == 1).then_some(()))
    })
    .await;
    quiet.stop().await?;
    collector.stop().await
}

async fn an_address_that_guesses_tokens_is_slowed_down(kind: DatabaseKind) -> Result<()> {
    let settings = Settings {
        enrolments: (1, ENROLMENTS_AT_ONCE as u32),
        ..Settings::default()
    };
    let mut collector = Collector::create(kind, &settings).await?;
    collector.start().await?;
    let store = collector.store().await?;
    let token = collector.token(1).await?;
    let mut agent = Agent::enroll(&token).await?;
    agent.start()?;
    let count = agent.heartbeats(&store, 0).await;

    let target = Target::parse(&token.url)?;
    let tls = first_contact(&token.ca_key_sha256)?;
    let (_, csr_pem) = key_and_request()?;
    let guess = EnrollRequest {
        v: PROTOCOL_VERSION,
        token_id: random_uuid(),
        token_secret: "c2VjcmV0".to_owned(),
        csr_pem,
        hostname: "stranger".to_owned(),
        agent_version: "0.1.0".to_owned(),
    };
    let body = serde_json::to_vec(&guess)?;
    let mut refused = None;
    for _ in 0..MANY {
        let answer = post_enrolment(&target, tls.clone(), body.clone()).await?;
        if answer.status == ProblemType::TooManyRequests.status() {
            refused = Some(answer);
            break;
        }
        assert_eq!(
            answer.status,
            ProblemType::TokenRefused.status(),
            "{answer:?}"
        );
    }
    assert_too_many(&refused.context("the address is sent away")?);
    // The hosts that stand at that address are served as before.
    agent.heartbeats(&store, count).await;
    agent.stop().await?;
    collector.stop().await
}

/// Connections that send nothing, more than may be pending, to both ports: an agent connects, a page
/// answers, and a new agent enrols and beats, while the newest of them are still open.
async fn silent_connections_keep_nobody_out(kind: DatabaseKind) -> Result<()> {
    let mut collector = Collector::create(kind, &Settings::default()).await?;
    collector.start().await?;
    let store = collector.store().await?;
    let token = collector.token(2).await?;
    let web = Target::parse(&collector.web_url())?;
    let mut known = Scripted::enroll(&token).await?;
    known.disconnect();
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(collector.agents_address()).await?);
        silent.push(TcpStream::connect(web.address).await?);
    }
    let begun = Instant::now();
    assert_eq!(known.beat().await?.accepted, 1);
    let agent_took = begun.elapsed();
    let ca = std::fs::read_to_string(collector.path("data/ca/ca.pem"))?;
    let begun = Instant::now();
    let mut page = Connection::open(&web, Trust::new(&ca)?.anonymous()?).await?;
    assert_eq!(page.get("/login").await?.status, 200);
    let page_took = begun.elapsed();
    writeln!(
        std::io::stdout(),
        "{SILENT} silent connections to each port, {kind:?}: an agent connected and was \
         acknowledged after {agent_took:.0?}, a page was there after {page_took:.0?}"
    )?;
    let mut agent = Agent::enroll(&token).await?;
    agent.start()?;
    agent.heartbeats(&store, 0).await;
    for newest in silent.iter().rev().take(2) {
        // Nothing to read and not closed: it was not waited for until it timed out.
        let closed = newest.try_read(&mut [0; 1]);
        let open = closed.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(
            open,
            "a silent connection was closed before the others were served"
        );
    }
    drop(silent);
    agent.stop().await?;
    collector.stop().await
}

/// How many requests the collector says it sent away.
async fn counted(collector: &Collector) -> Result<u64> {
    let ca = std::fs::read_to_string(collector.path("data/ca/ca.pem"))?;
    let tls = Trust::new(&ca)?.anonymous()?;
    let mut web = Connection::open(&Target::parse(&collector.web_url())?, tls).await?;
    let text = String::from_utf8(web.get("/metrics").await?.body.to_vec())?;
    let line = text
        .lines()
        .find(|line| line.contains("requests_refused") && line.contains("too-many-requests"))
        .context("the refusal is counted")?;
    Ok(line.rsplit(' ').next().context("a value")?.parse()?)
}

fn assert_too_many(answer: &Answer) {
    let problem = answer.problem();
    let kind = problem.as_ref().and_then(Problem::known_type);
    assert_eq!(kind, Some(ProblemType::TooManyRequests), "{answer:?}");
    assert_eq!(answer.content_type, CONTENT_TYPE_PROBLEM);
    assert!(answer.retry_after.is_some(), "{answer:?}");
}
