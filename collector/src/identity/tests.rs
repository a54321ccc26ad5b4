//! Certificates of every phase in real handshakes, and the CAs' files.

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use uuid::Uuid;
use watchkeep_core::authority::{HostTrust, Rotation, Step};
use watchkeep_shared::{HostId, UnixMillis, wire::heartbeat::Ack};

use super::{
    Authority, Ca, Cas, PortNames, PortTls, WebTls, agent_server, peer_identity, web_server,
};

/// The time of the machine, which rustls checks validity with.
fn now() -> UnixMillis {
    crate::clock::Clock::system().now()
}

fn names() -> Vec<String> {
    vec!["collector.example".to_owned()]
}

fn put(dir: &Path, before: &Cas, step: Step<Arc<Ca>>) -> Cas {
    let after = before.rotation().clone().step(step).unwrap();
    Cas::put(dir, before, &after, now()).unwrap()
}

/// The CAs in every phase there and back, from one rotation.
fn phases(dir: &Path) -> Vec<Cas> {
    let steady = Cas::init(dir, now()).unwrap();
    let new = Arc::new(Ca::make_next(dir, now()).unwrap());
    let both = put(dir, &steady, Step::Begin(new));
    let reissue = put(dir, &both, Step::Reissue);
    let dropped = put(dir, &reissue, Step::Finish);
    vec![steady, both, reissue, dropped]
}

/// A client's certificate and key, by a CA.
fn client_of(ca: &Ca) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    let host = HostId(Uuid::from_u128(5));
    let issued = ca.sign_agent(&csr, host, now(), 3_600_000).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    (vec![certificate], key)
}

/// Connects with a certificate of `holds`, trusting the certificate `trusts` (PEM) alone; gives the
/// chain that the server showed.
fn connect(
    server: &Arc<ServerConfig>,
    holds: &Ca,
    trusts: &str,
) -> Result<Vec<CertificateDer<'static>>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusts.as_bytes()).unwrap())?;
    let (chain, key) = client_of(holds);
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let name = ServerName::try_from("collector.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut up = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        server.read_tls(&mut up.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut down = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        client.read_tls(&mut down.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(client.peer_certificates().unwrap_or_default().to_vec())
}

#[test]
fn whoever_trusts_and_holds_what_counts_in_a_phase_can_connect_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let phases = phases(dir.path());
    let all: Vec<Arc<Ca>> = phases[1].rotation().kept().into_iter().cloned().collect();
    for cas in &phases {
        let trusted = cas.ids().trusted();
        let agents = agent_server(cas, &names(), &crate::clock::Clock::system()).unwrap();
        let web = WebTls {
            files: None,
            names: &names(),
            tls12: false,
        };
        let web = web_server(cas, &web, now()).unwrap();
        for trusts in &all {
            for holds in &all {
                let good = trusted.contains(&&trusts.id()) && trusted.contains(&&holds.id());
                let answer = connect(&agents, holds, trusts.pem());
                let phase = cas.rotation().phase();
                assert_eq!(
                    answer.is_ok(),
                    good,
                    "{phase} {holds:?} {trusts:?} {answer:?}"
                );
                // The key that a token names is in the chain, for each CA that counts.
                let Ok(chain) = answer else { continue };
                for ca in cas.rotation().trusted() {
                    let pinned = |der: &CertificateDer<'_>| {
                        super::ca::spki_sha256(der).unwrap() == ca.key_sha256()
                    };
                    assert!(chain[1..].iter().any(pinned), "{phase}");
                }
            }
            let browser = connect(&web, &all[0], trusts.pem());
            assert_eq!(browser.is_ok(), trusted.contains(&&trusts.id()));
        }
    }
}

#[test]
fn a_certificate_names_its_issuer_and_counts_while_that_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let [steady, both, reissue, dropped] = &phases(dir.path())[..] else {
        panic!("four phases")
    };
    let [old, new] = both.rotation().kept()[..] else {
        panic!("two authorities")
    };
    let of_old = peer_identity(&client_of(old).0[0]).unwrap();
    let of_new = peer_identity(&client_of(new).0[0]).unwrap();
    for (cas, by_old, by_new) in [
        (steady, Some(old.id()), None),
        (both, Some(old.id()), Some(new.id())),
        (reissue, Some(old.id()), Some(new.id())),
        (dropped, None, Some(new.id())),
    ] {
        assert_eq!(cas.issuer_of(&of_old), by_old);
        assert_eq!(cas.issuer_of(&of_new), by_new);
    }
    let host = HostTrust {
        holds: Some(old.id()),
        issued_at: now(),
        trusts: vec![old.id()],
    };
    let sent = |cas: &Cas| {
        let mut ack = Ack::default();
        cas.tell(&host, 7, &mut ack);
        (ack.ca_pem, ack.renew_within_ms)
    };
    assert_eq!(sent(steady), (None, None));
    assert_eq!(sent(both), (Some(both.trust_pem()), None));
    assert_eq!(sent(reissue), (Some(both.trust_pem()), Some(7)));
}

#[test]
fn keys_are_kept_for_the_way_back_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let phases = phases(dir);
    let dropped = &phases[3];
    let [first, second] = dropped.rotation().kept()[..] else {
        panic!("two authorities")
    };
    assert!(dir.join("ca.key.pem").exists());
    // Back to the second phase: the same two again, and read from disk they are the same too.
    let back = put(dir, dropped, Step::Back);
    let back = put(dir, &back, Step::Back);
    assert_eq!(Cas::open(dir).unwrap().ids(), phases[1].ids());
    assert_eq!(
        back.signing_since(),
        Cas::open(dir).unwrap().signing_since()
    );
    // Forward again, and then another rotation: the first one's key is of no more use.
    let again = put(dir, &back, Step::Reissue);
    let again = put(dir, &again, Step::Finish);
    let third = Arc::new(Ca::make_next(dir, now()).unwrap());
    let next = put(dir, &again, Step::Begin(Arc::clone(&third)));
    assert!(!dir.join("ca.key.pem").exists() && !dir.join("ca.pem").exists());
    let cas = Rotation::TrustBoth {
        old: second.id(),
        new: third.id(),
    };
    assert_eq!(*next.ids(), cas);
    assert_ne!(first.id(), second.id());
    // `init` leaves all that alone.
    assert_eq!(*Cas::init(dir, now()).unwrap().ids(), cas);
    let key = dir.join(format!("{}.key.pem", third.stem()));
    let mode = std::fs::metadata(key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_root_writes_the_collector_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let is_root = std::fs::metadata(dir.path()).unwrap().uid() == 0;
    if is_root {
        chown(dir.path(), Some(12_345), Some(12_345)).unwrap();
    }
    let steady = Cas::init(dir.path(), now()).unwrap();
    let new = Arc::new(Ca::make_next(dir.path(), now()).unwrap());
    put(dir.path(), &steady, Step::Begin(new));
    let owner = std::fs::metadata(dir.path()).unwrap().uid();
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        assert_eq!(file.unwrap().metadata().unwrap().uid(), owner);
    }
}

#[test]
fn a_running_collector_follows_the_files_and_outlives_damaged_ones() {
    let dir = tempfile::tempdir().unwrap();
    let steady = Cas::init(dir.path(), now()).unwrap();
    let authority = Authority::new(dir.path().to_owned(), Cas::open(dir.path()).unwrap());
    let before = authority.refresh().unwrap();
    assert_eq!(before.ids(), steady.ids());
    let new = Arc::new(Ca::make_next(dir.path(), now()).unwrap());
    let both = put(dir.path(), &steady, Step::Begin(new));
    assert_eq!(authority.refresh().unwrap().ids(), both.ids());
    std::fs::write(dir.path().join("rotation.json"), "{").unwrap();
    assert!(authority.refresh().is_err());
    assert_eq!(authority.current().ids(), both.ids());
}

/// A certificate of an operator's own, and its key, in PEM.
fn operators_certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(names()).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn a_web_certificate_that_is_renewed_on_disk_is_served_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let cas = Cas::init(dir.path(), now()).unwrap();
    let ca = Arc::clone(cas.signs());
    let (chain_file, key_file) = (dir.path().join("web.pem"), dir.path().join("web.key"));
    let (first, first_key) = operators_certificate();
    std::fs::write(&chain_file, &first).unwrap();
    std::fs::write(&key_file, &first_key).unwrap();
    let ports = PortTls::new(
        Arc::new(Authority::new(dir.path().to_owned(), cas)),
        PortNames {
            agents: names(),
            web: names(),
            web_files: Some((chain_file.clone(), key_file.clone())),
            web_tls12: false,
        },
        crate::clock::Clock::system(),
    )
    .unwrap();
    // What the port was given once, at its start.
    let (web, agents) = (ports.web(), ports.agents());
    let is_served = |pem: &str| connect(&web.load_full(), &ca, pem).is_ok();
    let (second, second_key) = operators_certificate();
    assert!(is_served(&first) && !is_served(&second));

    // The chain is replaced before its key: the port keeps the old pair.
    std::fs::write(&chain_file, &second).unwrap();
    ports.refresh().unwrap_err();
    assert!(is_served(&first) && !is_served(&second));
    std::fs::write(&key_file, &second_key).unwrap();
    ports.refresh().unwrap();
    assert!(!is_served(&first) && is_served(&second));

    // Files that are gone for a moment change nothing, nor does a further look at the same ones.
    std::fs::remove_file(&key_file).unwrap();
    ports.refresh().unwrap_err();
    assert!(is_served(&second));
    std::fs::write(&key_file, &second_key).unwrap();
    let before = web.load_full();
    ports.refresh().unwrap();
    assert!(Arc::ptr_eq(&before, &web.load_full()));
    connect(&agents.load_full(), &ca, ca.pem()).unwrap();
}
