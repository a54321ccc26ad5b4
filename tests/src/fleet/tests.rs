//! The fleet against a small collector that misbehaves on cue: what is acknowledged, what is sent
//! again, and what is counted.

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use watchkeep_shared::{
    HostId, InstanceId,
    ids::random_uuid,
    token::EnrolmentToken,
    wire::{
        codec::Decoder,
        enroll::{EnrollRequest, Enrolled},
        heartbeat::{Ack, Batch, RejectReason, Rejected},
        paths,
        problem::{Problem, ProblemType},
    },
};

use super::{journal::Acknowledged, *};

/// What the collector does with a batch, instead of taking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cue {
    Busy,
    TakeAndHangUp,
    HangUp,
    ForgetSchemas,
    RejectFirst,
    BadBody,
}

struct Fake {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    cues: Mutex<VecDeque<Cue>>,
    /// How often each frame was taken.
    taken: Mutex<HashMap<(InstanceId, u64), u32>>,
}

struct Running {
    fake: Arc<Fake>,
    token: EnrolmentToken,
    _server: JoinSet<()>,
}

async fn start(cues: impl Into<VecDeque<Cue>>) -> Running {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let parsed = rustls::server::ParsedCertificate::try_from(ca.der()).unwrap();
    let digest = Sha256::digest(parsed.subject_public_key_info().as_ref());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        tls::provider(),
    );
    let config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(
            vec![leaf.der().clone(), ca.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let fake = Arc::new(Fake {
        issuer,
        ca_pem: ca.pem(),
        cues: Mutex::new(cues.into()),
        taken: Mutex::default(),
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let token = EnrolmentToken {
        url: format!("https://{}", listener.local_addr().unwrap()),
        id: random_uuid(),
        secret: "c2VjcmV0".to_owned(),
        ca_key_sha256: tls::hex(&digest),
    };
    let mut server = JoinSet::new();
    server.spawn(serve(
        listener,
        TlsAcceptor::from(Arc::new(config)),
        fake.clone(),
    ));
    Running {
        fake,
        token,
        _server: server,
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, fake: Arc<Fake>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, fake) = (acceptor.clone(), fake.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(|request| answer(fake.clone(), request));
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    fake: Arc<Fake>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let respond = |status: u16, body: String| {
        let response = Response::builder().status(status);
        Ok(response
            .header(header::RETRY_AFTER, "0")
            .body(Full::new(Bytes::from(body)))
            .unwrap())
    };
    if path == paths::ENROLL {
        return respond(200, fake.enroll(&body));
    }
    let problem = |kind: ProblemType| {
        let problem = Problem::new(kind, "on cue");
        respond(kind.status(), serde_json::to_string(&problem).unwrap())
    };
    let hang_up = || Err(std::io::Error::other("on cue"));
    let batch: Batch = Decoder::new().unwrap().decode(&body).unwrap();
    let mut ack = Ack::default();
    let cue = fake.cues.lock().unwrap().pop_front();
    match cue {
        Some(Cue::Busy) => return problem(ProblemType::Busy),
        Some(Cue::BadBody) => return problem(ProblemType::BadBody),
        Some(Cue::HangUp) => return hang_up(),
        Some(Cue::ForgetSchemas) => ack.unknown_schemas = vec![batch.frames[0].schema],
        Some(Cue::RejectFirst) => {
            ack.rejected = vec![Rejected {
                instance: None,
                seq: batch.frames[0].seq,
                reason: RejectReason::TooOld,
            }];
            ack.accepted = batch.frames.len() as u32 - 1;
            fake.take(&batch, 1);
        }
        Some(Cue::TakeAndHangUp) => {
            fake.take(&batch, 0);
            return hang_up();
        }
        None => {
            ack.accepted = batch.frames.len() as u32;
            fake.take(&batch, 0);
        }
    }
    respond(200, serde_json::to_string(&ack).unwrap())
}

impl Fake {
    fn enroll(&self, body: &[u8]) -> String {
        let request: EnrollRequest = serde_json::from_slice(body).unwrap();
        let csr = CertificateSigningRequestParams::from_pem(&request.csr_pem).unwrap();
        let enrolled = Enrolled {
            host: HostId(random_uuid()),
            certificate_pem: csr.signed_by(&self.issuer).unwrap().pem(),
            ca_pem: self.ca_pem.clone(),
        };
        serde_json::to_string(&enrolled).unwrap()
    }

    fn take(&self, batch: &Batch, skip: usize) {
        let mut taken = self.taken.lock().unwrap();
        for frame in batch.frames.iter().skip(skip) {
            *taken.entry((batch.instance, frame.seq)).or_default() += 1;
        }
    }
}

fn quick() -> Options {
    let pace = Pace::Every(Duration::from_millis(20));
    let mut options = Options::new(pace, Duration::from_millis(400));
    options.backoff_max = Duration::from_millis(50);
    options
}

async fn run_fleet(running: &Running, agents: usize, options: Options) -> Report {
    let identities = Identities::enrol(&running.token, agents).await.unwrap();
    let outside = Outside {
        collector_pid: Some(std::process::id()),
        store: None,
    };
    let stop = CancellationToken::new();
    run(&identities, options, &outside, stop).await.unwrap()
}

#[tokio::test]
async fn a_plain_run_acknowledges_what_it_makes() {
    let running = start([]).await;
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let options = Options {
        journal: Some(journal.clone()),
        ..quick()
    };
    let report = run_fleet(&running, 3, options).await;
    assert!(report.made >= 3 * 10, "{report}");
    assert_eq!(
        (report.acked, report.owed, report.lost),
        (report.made, 0, 0),
        "{report}"
    );
    assert_eq!(
        (report.connect.handshakes, report.handshakes),
        (3, 0),
        "{report}"
    );
    assert!(report.errors.is_empty(), "{report}");
    assert!(report.answer_latency.max_ms > 0.0);
    assert!(
        (500.0..1_500.0).contains(&report.wire.sent_per_heartbeat),
        "{report}"
    );
    assert!(report.collector.unwrap().rss_after_bytes > 0);
    let lines = Journal::read(&journal).unwrap();
    let taken = running.fake.taken.lock().unwrap();
    let mut times: HashMap<_, _> = taken.clone();
    for Acknowledged { instance, seq, .. } in &lines {
        assert_eq!(times.remove(&(*instance, *seq)), Some(1));
    }
    assert!(times.is_empty(), "taken, and not in the journal: {times:?}");
}

#[tokio::test]
async fn what_is_not_acknowledged_is_sent_again_until_it_is() {
    let cues = [
        Cue::Busy,
        Cue::HangUp,
        Cue::TakeAndHangUp,
        Cue::ForgetSchemas,
        Cue::Busy,
        Cue::TakeAndHangUp,
    ];
    let running = start(cues).await;
    let report = run_fleet(&running, 1, quick()).await;
    assert_eq!((report.acked, report.owed), (report.made, 0), "{report}");
    let taken = running.fake.taken.lock().unwrap();
    assert_eq!(taken.len() as u64, report.made);
    assert!(report.sent > report.made);
    assert_eq!(report.errors.get("busy_503"), Some(&2), "{report}");
    assert_eq!(report.errors.get("connection_lost"), Some(&3), "{report}");
    assert_eq!(report.errors.get("unknown_schema"), Some(&1), "{report}");
    assert_eq!(report.handshakes, 3, "{report}");
}

#[tokio::test]
async fn what_is_refused_for_good_is_counted_and_not_sent_again() {
    let running = start([Cue::RejectFirst, Cue::BadBody]).await;
    let report = run_fleet(&running, 1, quick()).await;
    assert_eq!(report.rejected.get("too_old"), Some(&1), "{report}");
    assert!(report.rejected.get("request") >= Some(&1), "{report}");
    let refused: u64 = report.rejected.values().sum();
    assert_eq!(report.acked + refused, report.made, "{report}");
    let taken = running.fake.taken.lock().unwrap();
    assert_eq!(taken.len() as u64, report.acked);
}

#[tokio::test]
async fn a_storm_reconnects_every_agent_once() {
    let running = start([]).await;
    let options = Options {
        mode: Mode::Storm,
        ..quick()
    };
    let report = run_fleet(&running, 4, options).await;
    assert_eq!(
        (report.connect.handshakes, report.handshakes),
        (4, 4),
        "{report}"
    );
    assert_eq!((report.acked, report.owed), (report.made, 0), "{report}");
    assert!(report.reconnect.unwrap().max_ms > 0.0);
}

#[tokio::test]
async fn half_the_fleet_falls_silent() {
    let running = start([]).await;
    let options = Options {
        mode: Mode::HalfDead,
        ..quick()
    };
    run_fleet(&running, 4, options).await;
    let mut last: HashMap<InstanceId, u64> = HashMap::new();
    for (instance, seq) in running.fake.taken.lock().unwrap().keys() {
        let newest = last.entry(*instance).or_default();
        *newest = (*newest).max(*seq);
    }
    let longest = last.values().max().unwrap();
    let silent = last
        .values()
        .filter(|last| **last * 3 < *longest * 2)
        .count();
    assert_eq!(silent, 2, "{last:?}");
}

#[tokio::test]
async fn the_backlog_goes_before_the_run_and_the_goodbye_after_it() {
    let running = start([]).await;
    let options = Options {
        prefill_frames: 250,
        goodbye: true,
        pace: Pace::AsFastAsAcknowledged,
        ..quick()
    };
    let report = run_fleet(&running, 2, options).await;
    assert_eq!(report.connect.acked, 500, "{report}");
    assert!(report.acked > 20, "{report}");
    assert_eq!(report.owed, 0);
    let taken = running.fake.taken.lock().unwrap();
    assert_eq!(taken.len() as u64, 500 + report.acked);
    assert!(taken.values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_token_for_another_ca_is_not_used() {
    let running = start([]).await;
    let token = EnrolmentToken {
        ca_key_sha256: "00".repeat(32),
        ..running.token.clone()
    };
    let error = Identities::enrol(&token, 1).await.unwrap_err();
    assert!(format!("{error:#}").contains("handshake"), "{error:#}");
}

#[tokio::test]
async fn a_silent_port_is_a_connect_error_and_the_frames_stay_owed() {
    let running = start([]).await;
    let mut identities = Identities::enrol(&running.token, 1).await.unwrap();
    let port = crate::harness::ports::Port::take().unwrap();
    identities.url = format!("https://127.0.0.1:{}", port.number());
    let options = Options {
        drain: Duration::ZERO,
        ..quick()
    };
    let stop = CancellationToken::new();
    let report = run(&identities, options, &Outside::default(), stop)
        .await
        .unwrap();
    assert_eq!(report.owed, report.made, "{report}");
    assert!(report.errors.get("connect") > Some(&1), "{report}");
}
