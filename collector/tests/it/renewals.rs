//! Certificates of one host: how many it may have, and which of them a renewal ends.

use watchkeep_collector::{
    identity::{self, CA_DIR, Cas, EnrollError, Renewal},
    store::identity as rows,
};
use watchkeep_core::ids::SiteId;
use watchkeep_shared::{DurationMs, wire::enroll::EnrollRequest};

use crate::support::{Bench, NOW, both, place, token_for};

both!(
    a_revoked_certificate_is_never_renewed,
    renewals_are_bounded_and_end_older_certificates,
    what_an_enrolment_says_is_bounded,
);

fn init(bench: &Bench) -> Cas {
    let dir = bench.app.config.data_dir.join(CA_DIR);
    std::fs::create_dir_all(&dir).unwrap();
    Cas::init(&dir, NOW).unwrap()
}

fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::default();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

/// Renews with a certificate of this serial number; gives the serial number of the new one.
async fn renew(
    bench: &Bench,
    cas: &Cas,
    host: watchkeep_shared::HostId,
    serial: &str,
    csr_pem: &str,
) -> Result<String, EnrollError> {
    let renewal = Renewal {
        host,
        serial,
        csr_pem,
    };
    let renewed = identity::renew(&bench.app, cas, renewal).await?;
    let pem = renewed.certificate_pem.as_bytes();
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(pem).unwrap();
    Ok(identity::peer_identity(&der).unwrap().serial)
}

async fn good(bench: &Bench, host: watchkeep_shared::HostId) -> Vec<String> {
    let mut tx = bench.app.store.begin().await.unwrap();
    let mut good = rows::good(&mut tx, host, bench.app.clock.now())
        .await
        .unwrap();
    good.sort_unstable();
    good
}

async fn a_revoked_certificate_is_never_renewed(bench: Bench) {
    let cas = init(&bench);
    let host = place(&bench.app).await.host;
    let first = renew(&bench, &cas, host, "0", &csr()).await.unwrap();
    let second = renew(&bench, &cas, host, &first, &csr()).await.unwrap();
    // Its key is replaced; the port has not read the list of revoked certificates yet.
    identity::rekey(&bench.app, &cas, host, "ada")
        .await
        .unwrap()
        .unwrap();
    for serial in [&first, &second] {
        let refused = renew(&bench, &cas, host, serial, &csr()).await;
        assert!(matches!(refused, Err(EnrollError::Revoked)), "{refused:?}");
    }
    assert_eq!(good(&bench, host).await, [""; 0]);
}

async fn renewals_are_bounded_and_end_older_certificates(bench: Bench) {
    let cas = init(&bench);
    let host = place(&bench.app).await.host;
    let csr = csr();
    let held = renew(&bench, &cas, host, "0", &csr).await.unwrap();
    let mut newest = Vec::new();
    let mut refused = 0;
    for n in 1..=106 {
        // Answers get lost: it comes with the same certificate each time.
        bench.clock.set(NOW + DurationMs::from_secs(n));
        match renew(&bench, &cas, host, &held, &csr).await {
            Ok(serial) => newest.push(serial),
            Err(EnrollError::TooMany) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((newest.len(), refused), (23, 83));
    let mut kept = vec![held.clone(), newest.pop().unwrap(), newest.pop().unwrap()];
    kept.sort_unstable();
    assert_eq!(good(&bench, host).await, kept);
    bench.clock.set(NOW + DurationMs::from_hours(25));
    renew(&bench, &cas, host, &held, &csr).await.unwrap();
}

async fn what_an_enrolment_says_is_bounded(bench: Bench) {
    let cas = init(&bench);
    place(&bench.app).await;
    let site = watchkeep_collector::store::fleet::sites(&bench.app.store)
        .await
        .unwrap()[0]
        .id;
    let day = DurationMs::from_hours(24);
    let token = identity::create_token(&bench.app, &cas, &token_for(SiteId(site), day))
        .await
        .unwrap();
    let good = EnrollRequest {
        v: 1,
        token_id: token.id,
        token_secret: token.secret,
        csr_pem: csr(),
        hostname: "web1".to_owned(),
        agent_version: format!("0.1.0\0{}", "x".repeat(1_000)),
    };
    let bad = |change: &dyn Fn(&mut EnrollRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for request in [
        bad(&|request| "a\0b".clone_into(&mut request.hostname)),
        bad(&|request| "a\u{202e}b".clone_into(&mut request.hostname)),
        bad(&|request| request.hostname = "x".repeat(254)),
        bad(&|request| request.token_secret = "x".repeat(257)),
        bad(&|request| request.csr_pem = "x".repeat(16 * 1024 + 1)),
    ] {
        let refused = identity::enroll(&bench.app, &cas, &request).await;
        assert!(
            matches!(refused, Err(EnrollError::BadRequest(_))),
            "{refused:?}"
        );
    }
    let host = identity::enroll(&bench.app, &cas, &good)
        .await
        .unwrap()
        .host;
    let view = watchkeep_collector::store::views::host(&bench.app.store, host)
        .await
        .unwrap()
        .unwrap();
    assert!(view.agent_version.starts_with("0.1.0\u{fffd}x"));
    assert_eq!(view.agent_version.len(), 64);
}
