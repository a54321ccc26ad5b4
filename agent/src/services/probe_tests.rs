//! Probes against real servers on this machine.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, sign::CertifiedKey};
use watchkeep_shared::wire::{
    heartbeat::{Service, ServiceStatus},
    policy::ServiceCheck,
};

use super::{Services, SystemdPaths, Wakes};
use crate::{config::Config, process::Tasks, tls};

const DEADLINE: Duration = Duration::from_secs(30);

/// A web server that answers all with one text, which may change. Over TLS where it has a key.
struct Server {
    address: String,
    answer: Arc<Mutex<String>>,
}

impl Server {
    fn start(answer: &str, key: Option<CertifiedKey>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer = Arc::new(Mutex::new(answer.to_owned()));
        let config = key.map(|key| {
            let server = ServerConfig::builder_with_provider(tls::provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
            Arc::new(server)
        });
        let shared = answer.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answer = shared.lock().unwrap().clone();
                // A client that leaves after the handshake is what a probe does.
                let _ = match &config {
                    Some(config) => {
                        let session = ServerConnection::new(config.clone()).unwrap();
                        reply(StreamOwned::new(session, stream), &answer)
                    }
                    None => reply(stream, &answer),
                };
            }
        });
        Self { address, answer }
    }

    fn says(&self, answer: &str) {
        answer.clone_into(&mut self.answer.lock().unwrap());
    }
}

fn reply(mut stream: impl std::io::Read + std::io::Write, answer: &str) -> std::io::Result<()> {
    let _ = stream.read(&mut [0; 4_096])?;
    stream.write_all(answer.as_bytes())?;
    stream.flush()
}

fn page(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// A certificate of its own for `localhost`, valid between these years; its key; its PEM.
fn certificate(from: i32, to: i32) -> (CertifiedKey, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let pem = certificate.pem();
    let certified = tls::certified_key(&pem, &key.serialize_pem()).unwrap();
    (certified, pem)
}

fn http(url: String, contains: Option<&str>) -> ServiceCheck {
    ServiceCheck::Http {
        url,
        status: vec![200],
        contains: contains.map(str::to_owned),
        timeout_ms: Some(20_000),
    }
}

struct Story {
    tasks: Tasks,
    services: Services,
    wakes: Wakes,
}

impl Story {
    fn new(settings: &str) -> Self {
        let config = Config::parse(settings, "agent.toml", &|_| None).unwrap();
        let nowhere = SystemdPaths {
            socket: "/nonexistent".into(),
            booted: "/nonexistent".into(),
        };
        let tasks = Tasks::default();
        let (services, wakes) = Services::new(tasks.clone(), &config.limits, nowhere);
        Self {
            tasks,
            services,
            wakes,
        }
    }

    /// Watches one service again and gives what is first seen, with the value that goes along.
    async fn first_look(&mut self, check: &ServiceCheck) -> (Service, Option<f64>) {
        self.services.set(&[], 1_000);
        self.services.set(std::slice::from_ref(check), 1_000);
        let seen = async {
            loop {
                let result = self.wakes.probes.recv().await.unwrap();
                self.services.apply(result);
                let service = self.services.snapshot().remove(0);
                if service.detail.as_deref() != Some("not probed yet") {
                    break service;
                }
            }
        };
        let service = tokio::time::timeout(DEADLINE, seen).await.unwrap();
        let value = self.services.values().first().and_then(|(_, value)| *value);
        (service, value)
    }

    async fn expect(&mut self, check: &ServiceCheck, status: ServiceStatus, detail: &str) {
        let (service, _) = self.first_look(check).await;
        assert_eq!(service.status, status, "{service:?}");
        let text = service.detail.unwrap_or_default();
        assert!(text.contains(detail), "{text}");
    }
}

#[tokio::test]
async fn a_page_is_judged_by_its_status_and_its_text() {
    let server = Server::start(&page("200 OK", "all is well"), None);
    let mut story = Story::new("");
    let check = http(format!("http://{}/health", server.address), Some("is well"));
    let (service, latency) = story.first_look(&check).await;
    assert_eq!(service.status, ServiceStatus::Running, "{service:?}");
    assert!(latency.unwrap() > 0.0);
    let name = format!("http.latency_ms:http://{}/health", server.address);
    assert_eq!(story.services.values()[0].0, name);

    server.says(&page("200 OK", "all is lost"));
    let text = "answers 200, without the expected text";
    story.expect(&check, ServiceStatus::Failed, text).await;
    server.says(&page("503 Busy", "all is well"));
    story
        .expect(&check, ServiceStatus::Failed, "answers 503")
        .await;
    // Whether a redirect is well is the policy's word; it is not followed.
    server.says("HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\nconnection: close\r\n\r\n");
    story
        .expect(&check, ServiceStatus::Failed, "answers 302")
        .await;
    let by_name = server.address.replace("127.0.0.1", "localhost");
    server.says(&page("200 OK", ""));
    let by_name = http(format!("http://{by_name}/"), None);
    story
        .expect(&by_name, ServiceStatus::Running, "answers 200")
        .await;
    let closed = http("http://127.0.0.1:1/".to_owned(), None);
    story
        .expect(&closed, ServiceStatus::Stopped, "refused")
        .await;
    story.tasks.stop().await;
}

#[tokio::test]
async fn https_is_verified_unless_the_customer_says_otherwise() {
    let (key, pem) = certificate(2020, 2060);
    let server = Server::start(&page("200 OK", ""), Some(key));
    let check = http(format!("https://{}/", server.address), None);
    let mut story = Story::new("");
    let untrusted = "invalid peer certificate";
    story
        .expect(&check, ServiceStatus::Stopped, untrusted)
        .await;
    story.tasks.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, pem).unwrap();
    let ca = format!("[limits]\nprobe_ca = {:?}\n", path.to_str().unwrap());
    let insecure = format!("[limits]\ninsecure_probes = [\"{}\"]\n", server.address);
    for settings in [ca, insecure] {
        let mut story = Story::new(&settings);
        story
            .expect(&check, ServiceStatus::Running, "answers 200")
            .await;
        story.tasks.stop().await;
    }
}

#[tokio::test]
async fn certificates_are_judged_by_their_dates_on_the_wire_and_on_disk() {
    let mut story = Story::new("");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pem");
    let on_disk = ServiceCheck::Certificate {
        path: path.to_str().unwrap().to_owned(),
    };
    story
        .expect(&on_disk, ServiceStatus::NotFound, "no such file")
        .await;
    let cases = [
        (2020, 2060, ServiceStatus::Running, "valid for"),
        (2020, 2021, ServiceStatus::Failed, "expired"),
        (2050, 2060, ServiceStatus::Failed, "not valid yet"),
    ];
    for (from, to, status, detail) in cases {
        let (key, pem) = certificate(from, to);
        let server = Server::start("", Some(key));
        let on_the_wire = ServiceCheck::Tls {
            address: server.address.clone(),
            server_name: Some("localhost".to_owned()),
        };
        // The one that expires first counts.
        let (_, longer) = certificate(from, to + 30);
        std::fs::write(&path, format!("{longer}{pem}")).unwrap();
        for check in [&on_the_wire, &on_disk] {
            story.expect(check, status, detail).await;
            let (_, days) = story.first_look(check).await;
            let now_years = 1970.0 + crate::clock::now().wall_ms as f64 / 86_400_000.0 / 365.25;
            let expected = (f64::from(to) - now_years) * 365.25;
            assert!((days.unwrap() - expected).abs() < 2.0, "{days:?}");
        }
    }
    std::fs::write(&path, "no certificate").unwrap();
    let text = "no certificate in PEM form";
    story.expect(&on_disk, ServiceStatus::Unknown, text).await;
    story.tasks.stop().await;
}
