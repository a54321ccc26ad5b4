//! What an agent port must withstand: each bad input is a typed error or a documented acceptance,
//! and the other hosts do not notice.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value as Json;
use tokio_util::sync::{CancellationToken, DropGuard};
use watchkeep_shared::{
    ids::random_uuid,
    token::EnrolmentToken,
    wire::{
        CONTENT_TYPE_PROBLEM, PROTOCOL_VERSION,
        codec::Encoder,
        enroll::EnrollRequest,
        heartbeat::{Clocks, RejectReason},
        limits,
        problem::ProblemType,
    },
};
use watchkeep_tests::{
    both_stores,
    clock::clocks_now,
    fleet::{
        self, Identities, Options, Outside, Pace,
        connection::{Answer, BodyEncoding, Connection},
        identity::{key_and_request, post_enrolment},
        tls::{Resume, first_contact},
    },
    harness::{Collector, DatabaseKind, Scripted, Settings, wait_for},
    loopback::Target,
    store::Store,
};

const SOON: Duration = Duration::from_mins(1);
const DAY_MS: i64 = 24 * 3_600_000;
/// Hosts that beat normally throughout.
const NEIGHBOURS: usize = 5;

both_stores!(
    bad_bodies_are_typed_errors,
    odd_clocks_and_repeats_are_settled,
    strangers_are_refused,
);

async fn bad_bodies_are_typed_errors(kind: DatabaseKind) -> Result<()> {
    let mut collector = Collector::create(kind, &Settings::default()).await?;
    collector.start().await?;
    let token = collector.token(NEIGHBOURS + 1).await?;
    let neighbours = neighbours(&collector, &token).await?;
    let mut agent = Scripted::enroll(&token).await?;

    for (name, encoding, body, expected) in bad_bodies(&mut agent)? {
        let answer = agent.post(encoding, body).await.context(name)?;
        assert_problem(&answer, expected, name);
    }
    // After all that the same host is served as before.
    assert_eq!(agent.beat().await?.accepted, 1);

    let mut unknown_path = Connection::open(agent.target(), agent.trust().anonymous()?).await?;
    let answer = unknown_path
        .post("/agent/v1/other", BodyEncoding::Identity, Vec::new())
        .await?;
    assert_problem(&answer, ProblemType::NotFound, "an unknown path");
    neighbours.were_undisturbed().await?;
    collector.stop().await
}

type BadBody = (&'static str, BodyEncoding, Vec<u8>, ProblemType);

fn bad_bodies(agent: &mut Scripted) -> Result<Vec<BadBody>> {
    use BodyEncoding::{Identity, Zstd};

    let clocks = clocks_now();
    let frame = agent.frame(clocks);
    let good = serde_json::to_value(agent.batch(clocks, vec![frame.clone()]))?;
    let changed = |change: &dyn Fn(&mut Json)| {
        let mut json = good.clone();
        change(&mut json);
        Encoder::new()?.encode(&json).context("encoding")
    };
    let bomb = vec![b' '; 64 * 1024 * 1024];
    let many = agent.batch(clocks, vec![frame; limits::MAX_FRAMES_PER_BATCH + 1]);
    Ok(vec![
        (
            "an oversized body",
            Zstd,
            vec![0; limits::MAX_BODY_BYTES + 1],
            ProblemType::BodyTooLarge,
        ),
        (
            "a decompression bomb",
            Zstd,
            zstd::bulk::compress(&bomb, 3)?,
            ProblemType::BodyTooLarge,
        ),
        (
            "broken JSON",
            Zstd,
            zstd::bulk::compress(b"{\"v\": 1, ", 3)?,
            ProblemType::BadBody,
        ),
        ("not zstd", Zstd, b"{}".to_vec(), ProblemType::BadEncoding),
        ("an empty body", Zstd, Vec::new(), ProblemType::BadBody),
        (
            "JSON of another shape",
            Identity,
            b"[1, 2]".to_vec(),
            ProblemType::BadBody,
        ),
        (
            "a missing field",
            Zstd,
            changed(&|json| json["sent"] = Json::Null)?,
            ProblemType::BadBody,
        ),
        (
            "another protocol version",
            Zstd,
            changed(&|json| json["v"] = (PROTOCOL_VERSION + 98).into())?,
            ProblemType::UnsupportedVersion,
        ),
        (
            "no frames",
            Zstd,
            changed(&|json| json["frames"] = Json::Array(Vec::new()))?,
            ProblemType::OverLimit,
        ),
        (
            "too many frames",
            Zstd,
            Encoder::new()?.encode(&many)?,
            ProblemType::OverLimit,
        ),
    ])
}

async fn odd_clocks_and_repeats_are_settled(kind: DatabaseKind) -> Result<()> {
    let mut collector = Collector::create(kind, &Settings::default()).await?;
    collector.start().await?;
    let token = collector.token(NEIGHBOURS + 1).await?;
    let neighbours = neighbours(&collector, &token).await?;
    let mut agent = Scripted::enroll(&token).await?;
    let store = collector.store().await?;

    unknown_fields_are_ignored(&mut agent).await?;
    a_repeat_changes_nothing(&mut agent, &store).await?;
    a_frame_from_the_future_is_rejected(&mut agent, &store).await?;
    bad_frames_are_rejected_one_by_one(&mut agent).await?;
    a_clock_a_day_ahead_moves_no_frame(&mut agent, &store).await?;
    neighbours.were_undisturbed().await?;
    collector.stop().await
}

async fn unknown_fields_are_ignored(agent: &mut Scripted) -> Result<()> {
    let clocks = clocks_now();
    let frame = agent.frame(clocks);
    let mut json = serde_json::to_value(agent.batch(clocks, vec![frame]))?;
    json["from_the_next_version"] = "yes".into();
    json["frames"][0]["from_the_next_version"] = 7.into();
    let body = Encoder::new()?.encode(&json)?;
    let answer = agent.post(BodyEncoding::Zstd, body).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    Ok(())
}

async fn a_repeat_changes_nothing(agent: &mut Scripted, store: &Store) -> Result<()> {
    let clocks = clocks_now();
    let frame = agent.frame(clocks);
    let batch = agent.batch(clocks, vec![frame]);
    assert_eq!(agent.send_ok(&batch).await?.accepted, 1);
    let before = rows_of(agent, store).await?;
    let again = agent.send_ok(&batch).await?;
    assert_eq!((again.accepted, again.rejected), (1, Vec::new()));
    assert_eq!(rows_of(agent, store).await?, before);
    Ok(())
}

async fn a_frame_from_the_future_is_rejected(agent: &mut Scripted, store: &Store) -> Result<()> {
    let sent = clocks_now();
    let ahead = Clocks {
        boot_ms: sent.boot_ms + limits::MAX_FRAME_AHEAD_MS + 60_000,
        ..sent
    };
    let before = rows_of(agent, store).await?;
    let (future, present) = (agent.frame(ahead), agent.frame(sent));
    let rejected = future.seq;
    let ack = agent
        .send_ok(&agent.batch(sent, vec![future, present]))
        .await?;
    assert_eq!(ack.accepted, 1);
    assert_eq!(ack.rejected.len(), 1);
    assert_eq!(ack.rejected[0].seq, rejected);
    assert_eq!(ack.rejected[0].reason, RejectReason::FromTheFuture);
    assert_eq!(rows_of(agent, store).await?, before + 1);
    Ok(())
}

async fn bad_frames_are_rejected_one_by_one(agent: &mut Scripted) -> Result<()> {
    let sent = clocks_now();
    let mut frames: Vec<_> = (0..4).map(|_| agent.frame(sent)).collect();
    frames[0].clocks.boot_ms -= limits::MAX_FRAME_AGE_MS + DAY_MS;
    frames[1].values.push(Some(1.0));
    frames[2].seq = 0;
    let ack = agent.send_ok(&agent.batch(sent, frames)).await?;
    let reasons: BTreeMap<_, _> = ack.rejected.iter().map(|r| (r.reason, r.seq)).collect();
    assert_eq!(ack.accepted, 1, "{ack:?}");
    assert_eq!(reasons.len(), 3, "{ack:?}");
    assert_eq!(reasons.get(&RejectReason::BadSequence), Some(&0));
    assert!(reasons.contains_key(&RejectReason::TooOld), "{ack:?}");
    assert!(reasons.contains_key(&RejectReason::ValueCount), "{ack:?}");
    Ok(())
}

/// The frames are taken at the time when they arrive, and the skew is an alert of its own.
async fn a_clock_a_day_ahead_moves_no_frame(agent: &mut Scripted, store: &Store) -> Result<()> {
    let now = clocks_now();
    let ahead = Clocks {
        wall_ms: now.wall_ms + DAY_MS,
        ..now
    };
    let frame = agent.frame(ahead);
    let seq = frame.seq;
    let batch = agent.batch(ahead, vec![frame]);
    assert_eq!(agent.send_ok(&batch).await?.accepted, 1);
    let host = store.id(agent.host().uuid());
    let placed = format!("SELECT at FROM heartbeat WHERE host_id = {host} AND seq = {seq}");
    let off_ms = store.int(&placed).await? - now.wall_ms;
    assert!(
        (0..60_000).contains(&off_ms),
        "placed {off_ms} ms from its arrival"
    );
    let skew = format!("SELECT COUNT(*) FROM alert WHERE host_id = {host} AND check_key = 'clock'");
    wait_for("the skew is an alert", SOON, async || {
        Ok((store.int(&skew).await? == 1).then_some(()))
    })
    .await;
    Ok(())
}

async fn strangers_are_refused(kind: DatabaseKind) -> Result<()> {
    let mut collector = Collector::create(kind, &Settings::default()).await?;
    collector.start().await?;
    let token = collector.token(NEIGHBOURS + 1).await?;
    let neighbours = neighbours(&collector, &token).await?;
    let mut agent = Scripted::enroll(&token).await?;
    assert_eq!(agent.beat().await?.accepted, 1);

    wrong_tokens_are_refused(&token).await?;
    no_certificate_is_refused(&agent).await?;
    another_cas_certificate_is_refused(&agent).await?;
    an_expired_certificate_is_refused(&agent, &collector).await?;
    let host = agent.host().to_string();
    collector.run(&["host", "revoke", &host, "--yes"]).await?;
    // On the connection that is open, and on a new one.
    revoked(&mut agent).await;
    agent.disconnect();
    revoked(&mut agent).await;
    neighbours.were_undisturbed().await?;
    collector.stop().await
}

async fn wrong_tokens_are_refused(token: &EnrolmentToken) -> Result<()> {
    let target = Target::parse(&token.url)?;
    let tls = first_contact(&token.ca_key_sha256)?;
    let (_, csr_pem) = key_and_request()?;
    let request = |token_id, secret: &str| EnrollRequest {
        v: PROTOCOL_VERSION,
        token_id,
        token_secret: secret.to_owned(),
        csr_pem: csr_pem.clone(),
        hostname: "stranger".to_owned(),
        agent_version: "0.1.0".to_owned(),
    };
    for (name, request) in [
        ("a wrong secret", request(token.id, "c2VjcmV0")),
        ("an unknown token", request(random_uuid(), &token.secret)),
        ("a token that is used up", request(token.id, &token.secret)),
    ] {
        let body = serde_json::to_vec(&request)?;
        let answer = post_enrolment(&target, tls.clone(), body).await?;
        assert_problem(&answer, ProblemType::TokenRefused, name);
    }
    // The token also says who the collector is: with another pin the agent refuses to talk.
    let elsewhere = first_contact(&"0".repeat(64))?;
    assert!(
        post_enrolment(&target, elsewhere, Vec::new())
            .await
            .is_err()
    );
    Ok(())
}

async fn no_certificate_is_refused(agent: &Scripted) -> Result<()> {
    let mut anonymous = Connection::open(agent.target(), agent.trust().anonymous()?).await?;
    let path = watchkeep_shared::wire::paths::HEARTBEATS;
    let answer = anonymous
        .post(path, BodyEncoding::Zstd, b"{}".to_vec())
        .await?;
    assert_problem(&answer, ProblemType::CertificateRequired, "no certificate");
    Ok(())
}

/// The certificate names the same host and is well-formed; only its signature is another's.
async fn another_cas_certificate_is_refused(agent: &Scripted) -> Result<()> {
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::Issuer::new(params, rcgen::KeyPair::generate()?);
    let key = rcgen::KeyPair::generate()?;
    let certificate = client_certificate(agent)?.signed_by(&key, &ca)?.pem();
    let tls = agent
        .trust()
        .client(&certificate, &key.serialize_pem(), Resume::Never)?;
    assert_refused(agent.target(), tls).await
}

/// The collector's own CA signed it, for this host; it ended yesterday.
async fn an_expired_certificate_is_refused(agent: &Scripted, collector: &Collector) -> Result<()> {
    let read = |name: &str| std::fs::read_to_string(collector.path("data/ca").join(name));
    let ca_key = rcgen::KeyPair::from_pem(&read("ca.key.pem")?)?;
    let ca = rcgen::Issuer::from_ca_cert_pem(&read("ca.pem")?, ca_key)?;
    let mut params = client_certificate(agent)?;
    let key = rcgen::KeyPair::generate()?;
    let valid = params.signed_by(&key, &ca)?.pem();
    params.not_after = rcgen::date_time_ymd(2026, 1, 1);
    let expired = params.signed_by(&key, &ca)?.pem();
    let trust = agent.trust();
    let tls = trust.client(&expired, &key.serialize_pem(), Resume::Never)?;
    assert_refused(agent.target(), tls).await?;
    // Nothing but its end is wrong with it.
    let tls = trust.client(&valid, &key.serialize_pem(), Resume::Never)?;
    let mut connection = Connection::open(agent.target(), tls).await?;
    let path = watchkeep_shared::wire::paths::HEARTBEATS;
    connection
        .post(path, BodyEncoding::Zstd, Vec::new())
        .await?;
    Ok(())
}

/// What a client certificate for the agent's host says.
fn client_certificate(agent: &Scripted) -> Result<rcgen::CertificateParams> {
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let host = agent.host().to_string();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, host);
    Ok(params)
}

/// In TLS 1.3 the client is done before the server has looked at its certificate, so the refusal
/// comes with the handshake or with the first answer.
async fn assert_refused(target: &Target, tls: std::sync::Arc<rustls::ClientConfig>) -> Result<()> {
    let Ok(mut connection) = Connection::open(target, tls).await else {
        return Ok(());
    };
    let path = watchkeep_shared::wire::paths::HEARTBEATS;
    let answer = connection
        .post(path, BodyEncoding::Zstd, b"{}".to_vec())
        .await;
    assert!(answer.is_err(), "a stranger was answered: {answer:?}");
    Ok(())
}

/// Waits until a heartbeat is answered with the news that the certificate is revoked.
async fn revoked(agent: &mut Scripted) {
    wait_for("the revocation bites", SOON, async || {
        let clocks = clocks_now();
        let frame = agent.frame(clocks);
        let batch = agent.batch(clocks, vec![frame]);
        let answer = agent.send(&batch).await?;
        if answer.status == 200 {
            return Ok(None);
        }
        assert_problem(
            &answer,
            ProblemType::CertificateRevoked,
            "a revoked certificate",
        );
        Ok(Some(()))
    })
    .await;
}

fn assert_problem(answer: &Answer, expected: ProblemType, name: &str) {
    let problem = answer.problem();
    let kind = problem
        .as_ref()
        .and_then(watchkeep_shared::wire::problem::Problem::known_type);
    assert_eq!(kind, Some(expected), "{name}: {answer:?}");
    assert_eq!(answer.status.as_u16(), expected.status(), "{name}");
    assert_eq!(answer.content_type, CONTENT_TYPE_PROBLEM, "{name}");
    let detail = problem.map(|problem| problem.detail).unwrap_or_default();
    assert!(
        !detail.is_empty(),
        "{name}: a problem says what would be right"
    );
}

async fn rows_of(agent: &Scripted, store: &Store) -> Result<i64> {
    let host = store.id(agent.host().uuid());
    store
        .int(&format!(
            "SELECT COUNT(*) FROM heartbeat WHERE host_id = {host}"
        ))
        .await
}

/// Hosts that beat normally while another one misbehaves.
struct Neighbours {
    store: Store,
    fleet: tokio::task::JoinHandle<Result<fleet::Report>>,
    stop: DropGuard,
}

async fn neighbours(collector: &Collector, token: &EnrolmentToken) -> Result<Neighbours> {
    let identities = Identities::enrol(token, NEIGHBOURS).await?;
    let store = collector.store().await?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let fleet = tokio::task::spawn_blocking(move || {
        let pace = Pace::Every(Duration::from_millis(200));
        let options = Options::new(pace, Duration::from_mins(10));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(fleet::run(
            &identities,
            options,
            &Outside::default(),
            stopped,
        ))
    });
    let neighbours = Neighbours {
        store,
        fleet,
        stop: stop.drop_guard(),
    };
    neighbours.beat().await?;
    Ok(neighbours)
}

impl Neighbours {
    /// Waits until each of them has beaten at least once more.
    async fn beat(&self) -> Result<()> {
        let sql = "SELECT COUNT(*) FROM heartbeat";
        let before = self.store.int(sql).await?;
        wait_for("the neighbours beat", SOON, async || {
            let more = self.store.int(sql).await? - before;
            Ok((more >= 2 * NEIGHBOURS as i64).then_some(()))
        })
        .await;
        Ok(())
    }

    async fn were_undisturbed(self) -> Result<()> {
        self.beat().await?;
        drop(self.stop);
        let run = self.fleet.await??;
        assert_eq!((run.owed, run.handshakes), (0, 0), "{run}");
        assert!(run.errors.is_empty() && run.rejected.is_empty(), "{run}");
        Ok(())
    }
}
