//! Certificates in the forms and behind the servers that are met.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
};

use rustls::{RootCertStore, ServerConfig, ServerConnection, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use watchkeep_shared::wire::{
    heartbeat::ServiceStatus,
    policy::{ServiceCheck, StartTls},
};

use super::probe_tests::{Server, Story, certificate, http, page};
use crate::tls;

/// A user without rights.
const NOBODY: u32 = 65_534;

fn tls(address: &str, starttls: Option<StartTls>) -> ServiceCheck {
    ServiceCheck::Tls {
        address: address.to_owned(),
        server_name: Some("localhost".to_owned()),
        starttls,
    }
}

fn file(path: &Path) -> ServiceCheck {
    ServiceCheck::Certificate {
        path: path.to_str().unwrap().to_owned(),
    }
}

/// Serves each connection in turn by `serve`, with its number; ends with the test's process.
fn serve(serve: impl Fn(usize, TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let streams = listener.incoming().map_while(Result::ok);
        for (number, stream) in streams.enumerate() {
            serve(number, stream);
        }
    });
    address
}

/// An authority that was valid between these years.
fn authority(from: i32, to: i32) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Old Root");
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    params.self_signed(&key).unwrap().pem()
}

#[tokio::test]
async fn a_chain_is_judged_by_its_leaf() {
    use ServiceStatus::{Failed, Running};

    let mut story = Story::new("");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fullchain.pem");
    let (_, good) = certificate(2020, 2060);
    let (_, expired) = certificate(2010, 2020);
    let (current, old) = (authority(2020, 2060), authority(2000, 2021));
    for (chain, status, detail) in [
        (vec![&good, &current, &old], Running, "Old Root has expired"),
        (vec![&old, &good], Running, "Old Root has expired"),
        (vec![&good, &current], Running, "days"),
        (vec![&expired, &current], Failed, "expired"),
        (vec![&current, &old], Running, "has expired"),
        (vec![&old], Failed, "expired"),
    ] {
        let text: String = chain.into_iter().map(String::as_str).collect();
        std::fs::write(&path, text).unwrap();
        story.expect(&file(&path), status, detail).await;
    }
    story.tasks.stop().await;
}

#[tokio::test]
async fn files_in_other_forms_are_read() {
    let mut story = Story::new("");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let (_, pem) = certificate(2020, 2060);
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let trusted = pem.replace(" CERTIFICATE-", " TRUSTED CERTIFICATE-");
    let text = format!("subject=CN = Müller\r\n{}", pem.replace('\n', "\r\n"));
    let latin: Vec<u8> = [b"M\xfcller\n", pem.as_bytes()].concat();
    for bytes in [der.to_vec(), trusted.into_bytes(), text.into_bytes(), latin] {
        std::fs::write(&path, bytes).unwrap();
        story
            .expect(&file(&path), ServiceStatus::Running, "valid for")
            .await;
    }
    story.tasks.stop().await;
}

/// Opening one for reading waits for a writer, for ever if none comes.
#[tokio::test]
async fn a_named_pipe_in_place_of_a_certificate_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe.pem");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    let mut story = Story::new("");
    story
        .expect(&file(&path), ServiceStatus::Unknown, "not a file")
        .await;
    story.tasks.stop().await;
}

#[tokio::test]
async fn a_directory_that_keeps_the_agent_out_is_named_and_reported() {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};

    if rustix::process::geteuid().is_root() {
        // Nothing keeps root out: once more as another user.
        let name =
            "services::tls_tests::a_directory_that_keeps_the_agent_out_is_named_and_reported";
        let mut again = Command::new(std::env::current_exe().unwrap());
        let status = again.args([name, "--exact"]).uid(NOBODY).status();
        assert!(status.unwrap().success());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    std::fs::create_dir_all(live.join("www")).unwrap();
    let path = live.join("www/fullchain.pem");
    std::fs::write(&path, certificate(2020, 2060).1).unwrap();
    let mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&live, permissions).unwrap();
    };
    mode(0o000);
    let mut story = Story::new("");
    let why = format!("no access: the agent may not enter {}", live.display());
    story
        .expect(&file(&path), ServiceStatus::Unknown, &why)
        .await;
    let troubles = story.services.troubles();
    assert_eq!(troubles.len(), 1);
    assert!(troubles[0].detail.contains("may not enter"), "{troubles:?}");
    mode(0o700);
    story
        .expect(&file(&path), ServiceStatus::Running, "valid for")
        .await;
    assert_eq!(story.services.troubles(), []);
    story.tasks.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_trusted_where_it_is_listed() {
    use ServiceStatus::{Running, Stopped};

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let settings = format!("[limits]\nprobe_ca = {:?}\n", path.to_str().unwrap());
    // As `openssl req -x509` makes them: an authority, with or without alternative names.
    let make = |names: Vec<String>, to: i32| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "localhost");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        let certified = tls::certified_key(&pem, &key.serialize_pem()).unwrap();
        (certified, pem)
    };
    let localhost = || vec!["localhost".to_owned()];
    for (names, to, listed, status, detail) in [
        (localhost(), 2060, true, Running, "answers 200"),
        (Vec::new(), 2060, true, Running, "answers 200"),
        (localhost(), 2060, false, Stopped, "invalid peer"),
        (localhost(), 2021, true, Stopped, "Expired"),
        (
            vec!["other.example".to_owned()],
            2060,
            true,
            Stopped,
            "not valid for name",
        ),
    ] {
        let (key, pem) = make(names, to);
        let other = make(localhost(), 2060).1;
        std::fs::write(&path, if listed { pem } else { other }).unwrap();
        let server = Server::start(&page("200 OK", ""), Some(key));
        let by_name = server.address.replace("127.0.0.1", "localhost");
        let mut story = Story::new(&settings);
        story
            .expect(&http(format!("https://{by_name}/"), None), status, detail)
            .await;
        story.tasks.stop().await;
    }
}

#[tokio::test]
async fn a_certificate_counts_though_the_server_then_refuses_the_client() {
    let (key, pem) = certificate(2020, 2060);
    let mut roots = RootCertStore::empty();
    let own = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(own).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider());
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    let config = Arc::new(config);
    let address = serve(move |_, mut stream| {
        let mut session = ServerConnection::new(config.clone()).unwrap();
        let _ = session.complete_io(&mut stream);
    });
    let mut story = Story::new("");
    let check = tls(&address, None);
    let (service, days) = story.first_look(&check).await;
    assert_eq!(service.status, ServiceStatus::Running, "{service:?}");
    assert!(days.unwrap() > 10_000.0);
    let detail = service.detail.unwrap();
    assert!(
        detail.contains("the handshake failed after that"),
        "{detail}"
    );
    story.tasks.stop().await;
}

/// A handshake message in a record.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32;
    let mut record = vec![22, 3, 1];
    record.extend((length as u16 + 4).to_be_bytes());
    record.push(kind);
    record.extend(&length.to_be_bytes()[1..]);
    record.extend(body);
    record
}

#[tokio::test]
async fn the_days_left_of_a_server_with_old_tls_are_reported() {
    for (version, to, status, detail) in [
        (1, 2060, ServiceStatus::Unknown, "TLS 1.0 at most"),
        (1, 2021, ServiceStatus::Failed, "expired"),
        (
            3,
            2060,
            ServiceStatus::Running,
            "ciphers that are out of use",
        ),
    ] {
        let (_, pem) = certificate(2020, to);
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let address = serve(move |number, mut stream| {
            let _ = stream.read(&mut [0; 4_096]);
            if number.is_multiple_of(2) {
                // What the library offers is not enough: "protocol version".
                let _ = stream.write_all(&[21, 3, 1, 0, 2, 2, 70]);
                return;
            }
            let mut hello = vec![3, version];
            hello.extend([0; 36]);
            let length = (leaf.len() as u32).to_be_bytes();
            let list = [&length[1..], &leaf].concat();
            let total = (list.len() as u32).to_be_bytes();
            let list = [&total[1..], &list].concat();
            let _ = stream.write_all(&[record(2, &hello), record(11, &list)].concat());
        });
        let mut story = Story::new("");
        let (service, days) = story.first_look(&tls(&address, None)).await;
        assert_eq!(service.status, status, "{service:?}");
        let text = service.detail.unwrap();
        assert!(text.contains(detail), "{text}");
        assert!(days.is_some());
        story.tasks.stop().await;
    }
}

#[tokio::test]
async fn a_mail_server_shows_its_certificate_after_starttls() {
    let (key, _) = certificate(2020, 2060);
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    let config = Arc::new(config);
    let address = serve(move |_, mut stream| {
        let mut line = [0; 512];
        for says in ["220 x\r\n", "250-x\r\n250 STARTTLS\r\n", "220 go\r\n"] {
            let _ = stream.write_all(says.as_bytes());
            if says.starts_with("220 go") {
                break;
            }
            let _ = stream.read(&mut line);
        }
        let mut session = ServerConnection::new(config.clone()).unwrap();
        let _ = session.complete_io(&mut stream);
    });
    let mut story = Story::new("");
    let check = tls(&address, Some(StartTls::Smtp));
    story
        .expect(&check, ServiceStatus::Running, "valid for")
        .await;
    story.tasks.stop().await;
}
