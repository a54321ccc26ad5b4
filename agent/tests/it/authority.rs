//! What the agent makes of a collector that says whom to trust and asks for another certificate.

use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use watchkeep_agent::tls;
use watchkeep_shared::{
    CaId,
    wire::heartbeat::{Ack, Batch},
};

use crate::{
    agent::{Agent, policy},
    fake::{Answer, Fake, ack},
};

/// A CA that nobody here has the key of.
fn other_ca() -> (String, CaId) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let hash = tls::public_key_sha256(certificate.der()).unwrap();
    (certificate.pem(), CaId::of_key_sha256(&hash).unwrap())
}

/// Says so with each acknowledgement.
#[derive(Clone, Default)]
struct Says {
    ca_pem: Option<String>,
    renew_within_ms: Option<u32>,
}

/// A fake that says what the test puts there.
fn saying(agent: &Agent, fake: &Fake) -> Arc<Mutex<Says>> {
    let says = Arc::new(Mutex::new(Says::default()));
    let (here, policy) = (says.clone(), policy(agent, Vec::new()));
    fake.answer(move |batch: &Batch| -> Answer {
        let says = here.lock().unwrap().clone();
        ack(&Ack {
            accepted: batch.frames.len() as u32,
            policy: (batch.policy_version != policy.version).then(|| policy.clone()),
            ca_pem: says.ca_pem,
            renew_within_ms: says.renew_within_ms,
            ..Ack::default()
        })
    });
    says
}

#[test]
fn another_authority_is_trusted_only_beside_one_that_is() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let says = saying(&agent, &fake);
    agent.start();
    let first = fake.arrival();
    let own_pem = std::fs::read_to_string(agent.state("ca.pem")).unwrap();
    let [own] = first.batch.trusts[..] else {
        panic!("{:?}", first.batch.trusts)
    };
    let (other_pem, other) = other_ca();

    // Strangers alone, too many, and what is no certificate: nothing changes.
    let many: String = (0..5).map(|_| other_ca().0).collect();
    for bad in [
        other_pem.clone(),
        format!("{own_pem}{many}"),
        "PEM".to_owned(),
    ] {
        says.lock().unwrap().ca_pem = Some(bad);
        fake.settle();
        assert_eq!(fake.arrival().batch.trusts, [own]);
        assert_eq!(
            std::fs::read_to_string(agent.state("ca.pem")).unwrap(),
            own_pem
        );
    }

    // Both: said from the next batch on, and still so after `kill -9`.
    let both = format!("{own_pem}{other_pem}");
    says.lock().unwrap().ca_pem = Some(both.clone());
    let mut wanted = [own, other];
    wanted.sort_unstable();
    fake.arrival_that(|arrival| arrival.batch.trusts == wanted);
    agent.kill();
    says.lock().unwrap().ca_pem = None;
    assert_eq!(
        std::fs::read_to_string(agent.state("ca.pem")).unwrap(),
        both
    );
    agent.start();
    let instance = fake.arrival_that(|arrival| arrival.batch.instance != first.batch.instance);
    assert_eq!(instance.batch.trusts, wanted);

    // And back.
    says.lock().unwrap().ca_pem = Some(own_pem);
    fake.arrival_that(|arrival| arrival.batch.trusts == [own]);
}

#[test]
fn a_certificate_that_the_collector_wants_replaced_is_renewed_once() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let says = saying(&agent, &fake);
    agent.start();
    let first = fake.arrival();
    // A time far away is kept to, however often it is said.
    says.lock().unwrap().renew_within_ms = Some(u32::MAX);
    fake.settle();
    assert_eq!(fake.arrival().certificate, first.certificate);
    // A new process asks again; now it is at once.
    agent.kill();
    says.lock().unwrap().renew_within_ms = Some(0);
    agent.start();
    let renewed = fake.arrival_that(|arrival| arrival.certificate != first.certificate);
    says.lock().unwrap().renew_within_ms = None;
    fake.settle();
    let last = fake.arrival();
    fake.settle();
    assert_eq!(fake.arrival().certificate, last.certificate);
    assert_ne!(renewed.certificate, first.certificate);
}
