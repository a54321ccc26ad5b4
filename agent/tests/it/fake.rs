//! A collector of a few lines: it enrols anyone, and answers heartbeats as the test says.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::json;
use uuid::Uuid;
use watchkeep_agent::tls;
use watchkeep_shared::{
    token::EnrolmentToken,
    wire::{
        codec::Decoder,
        enroll::{EnrollRequest, RenewRequest},
        heartbeat::{Ack, Batch},
        paths,
    },
};

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// What the collector says to a batch.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Status, further header lines, body.
    Http(u16, &'static str, String),
    /// Nothing: the connection is closed.
    Close,
    /// These bytes, which need not be HTTP, then the connection is closed.
    Raw(Vec<u8>),
    /// A good head and a body of which a byte comes now and then, until the agent goes.
    Drip,
    /// The first bytes, then the second ones again and again, until the agent goes.
    Endless(&'static str, String),
}

/// Everything was taken.
pub(crate) fn accept(batch: &Batch) -> Answer {
    ack(&Ack {
        accepted: batch.frames.len() as u32,
        ..Ack::default()
    })
}

pub(crate) fn ack(ack: &Ack) -> Answer {
    Answer::Http(200, "", serde_json::to_string(ack).unwrap())
}

type Handler = Box<dyn FnMut(&Batch) -> Answer + Send>;

/// A batch that arrived, and the certificate that it came with.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) batch: Batch,
    pub(crate) certificate: Vec<u8>,
}

struct Shared {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    tls: Arc<ServerConfig>,
    handler: Mutex<Handler>,
    arrivals: mpsc::SyncSender<Arrival>,
    /// Certificates from now on are past two thirds of their life.
    old_certificates: Mutex<bool>,
}

pub(crate) struct Fake {
    shared: Arc<Shared>,
    arrivals: mpsc::Receiver<Arrival>,
    connections: mpsc::Receiver<()>,
    url: String,
    ca_key_sha256: String,
}

impl Fake {
    /// Listens on a free port of this machine and accepts everything.
    pub(crate) fn start() -> Self {
        let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let ca_key_sha256 = tls::public_key_sha256(ca_certificate.der()).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let tls = server_config(&issuer, ca_certificate.der());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let (sender, arrivals) = mpsc::sync_channel(1_024);
        let shared = Arc::new(Shared {
            issuer,
            ca_pem: ca_certificate.pem(),
            tls,
            handler: Mutex::new(Box::new(accept)),
            arrivals: sender,
            old_certificates: Mutex::new(false),
        });
        let serving = shared.clone();
        let (connected, connections) = mpsc::channel();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let _ = connected.send(());
                let shared = serving.clone();
                // A connection that breaks is the agent's business.
                std::thread::spawn(move || drop(serve(&shared, connection)));
            }
        });
        Self {
            shared,
            arrivals,
            connections,
            url,
            ca_key_sha256,
        }
    }

    pub(crate) fn token(&self) -> EnrolmentToken {
        EnrolmentToken {
            url: self.url.clone(),
            id: Uuid::from_u128(1),
            secret: "secret".to_owned(),
            ca_key_sha256: self.ca_key_sha256.clone(),
        }
    }

    /// Answers batches so from now on, and forgets those that arrived so far. One more may arrive
    /// that was answered as before.
    pub(crate) fn answer(&self, handler: impl FnMut(&Batch) -> Answer + Send + 'static) {
        *self.shared.handler.lock().unwrap() = Box::new(handler);
        while self.arrivals.try_recv().is_ok() {}
    }

    /// Waits until an answer of the present kind has been taken by the agent: the first arrival may
    /// have been answered as before, and the third one follows what the second brought.
    pub(crate) fn settle(&self) {
        for _ in 0..3 {
            self.arrival();
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits for so many connections more, whatever became of them.
    pub(crate) fn wait_for_connections(&self, count: usize) {
        for _ in 0..count {
            self.connections
                .recv_timeout(DEADLINE)
                .expect("the agent connects");
        }
    }

    pub(crate) fn issue_old_certificates(&self, old: bool) {
        *self.shared.old_certificates.lock().unwrap() = old;
    }

    /// The next batch.
    pub(crate) fn arrival(&self) -> Arrival {
        self.arrivals
            .recv_timeout(DEADLINE)
            .expect("a batch arrives in time")
    }

    /// Batches up to the first that `wanted` takes, which is given.
    pub(crate) fn arrival_that(&self, wanted: impl Fn(&Arrival) -> bool) -> Arrival {
        loop {
            let arrival = self.arrival();
            if wanted(&arrival) {
                return arrival;
            }
        }
    }
}

fn server_config(
    issuer: &Issuer<'static, KeyPair>,
    ca: &CertificateDer<'static>,
) -> Arc<ServerConfig> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, issuer)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let provider = tls::provider();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![certificate.der().clone(), ca.clone()],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
        )
        .unwrap();
    Arc::new(config)
}

fn serve(shared: &Shared, connection: TcpStream) -> io::Result<()> {
    let tls = ServerConnection::new(shared.tls.clone()).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(tls, connection);
    loop {
        let (path, body) = read_request(&mut stream)?;
        let certificate = stream
            .conn
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|certificate| certificate.to_vec());
        let answer = match path.as_str() {
            paths::ENROLL => {
                let request: EnrollRequest = serde_json::from_slice(&body)?;
                let host = Uuid::from_u128(7);
                let pem = sign(shared, &request.csr_pem);
                let body = json!({ "host": host, "certificate_pem": pem, "ca_pem": shared.ca_pem });
                Answer::Http(200, "", body.to_string())
            }
            paths::RENEW if certificate.is_some() => {
                let request: RenewRequest = serde_json::from_slice(&body)?;
                let pem = sign(shared, &request.csr_pem);
                let body = json!({ "certificate_pem": pem, "ca_pem": shared.ca_pem });
                Answer::Http(200, "", body.to_string())
            }
            paths::HEARTBEATS if certificate.is_some() => {
                let batch: Batch = Decoder::new().unwrap().decode(&body).unwrap();
                let answer = (shared.handler.lock().unwrap())(&batch);
                let certificate = certificate.unwrap_or_default();
                // The test may be over.
                let _ = shared.arrivals.send(Arrival { batch, certificate });
                answer
            }
            _ => Answer::Http(404, "", String::new()),
        };
        let (status, headers, body) = match answer {
            Answer::Http(status, headers, body) => (status, headers, body),
            other => return misbehave(&mut stream, other),
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} x\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )?;
        stream.flush()?;
    }
}

fn misbehave(stream: &mut impl Write, answer: Answer) -> io::Result<()> {
    match answer {
        Answer::Http(..) | Answer::Close => Ok(()),
        Answer::Raw(bytes) => {
            stream.write_all(&bytes)?;
            stream.flush()
        }
        Answer::Drip => {
            write!(stream, "HTTP/1.1 200 x\r\ncontent-length: 100000\r\n\r\n")?;
            loop {
                stream.write_all(b" ")?;
                stream.flush()?;
                // The server's own pace; nothing waits for it.
                std::thread::park_timeout(Duration::from_millis(100));
            }
        }
        Answer::Endless(first, again) => {
            stream.write_all(first.as_bytes())?;
            loop {
                stream.write_all(again.as_bytes())?;
            }
        }
    }
}

fn sign(shared: &Shared, csr_pem: &str) -> String {
    let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
    request.params.not_before = date_time_ymd(1975, 1, 1);
    let old = *shared.old_certificates.lock().unwrap();
    // Two thirds of the life passed in 2018, or pass in the year 3388.
    request.params.not_after = date_time_ymd(if old { 2040 } else { 4095 }, 1, 1);
    request.signed_by(&shared.issuer).unwrap().pem()
}

/// Path and body of the next request.
fn read_request(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let path = head.split(' ').nth(1).unwrap_or("").to_owned();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((path, body))
}
