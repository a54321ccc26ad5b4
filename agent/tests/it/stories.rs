//! What the agent does when all is well and when it is not.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use watchkeep_shared::{
    InstanceId,
    wire::{
        heartbeat::{
            Ack, Batch, Event, Frame, GoodbyeReason, RejectReason, Rejected, ServiceStatus,
        },
        policy::ServiceCheck,
    },
};

use crate::agent::{Agent, events, policy, with_policy};
use crate::fake::{Answer, Arrival, Fake, accept, ack};

fn service(frame: &Frame, key: &str) -> Option<ServiceStatus> {
    let services = frame.services.as_ref()?;
    Some(services.iter().find(|service| service.key == key)?.status)
}

#[test]
fn enrolment_is_pinned_private_and_not_repeated_by_accident() {
    let fake = Fake::start();
    let agent = Agent::new();
    let mut wrong = fake.token();
    wrong.ca_key_sha256 = "ab".repeat(32);
    let output = agent.command(&["enroll", &wrong.to_string()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        text.contains("is not the collector that made this token"),
        "{text}"
    );

    let agent = Agent::enrolled(&fake);
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(agent.state("key.pem")), 0o600);
    assert_eq!(mode(agent.state("")), 0o700);

    let again = agent.command(&["enroll", &fake.token().to_string()]);
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success());
    assert!(text.contains("--force"), "{text}");
    let forced = agent.command(&["enroll", "--force", &fake.token().to_string()]);
    assert!(forced.status.success(), "{forced:?}");
}

/// Complete by itself: with its schema and the event of the start.
fn assert_first_heartbeat(first: &Arrival) {
    assert_eq!(first.batch.policy_version, 0);
    let frame = &first.batch.frames[0];
    assert_eq!(frame.seq, 1);
    let schema = &first.batch.schemas[0];
    assert_eq!(
        (schema.id, schema.names.len()),
        (frame.schema, frame.values.len())
    );
    let started = Event::AgentStarted {
        clean_stop: None,
        previous_boot: None,
    };
    assert_eq!(frame.events[0], started);
    let facts = frame.events.get(1);
    let complete =
        matches!(facts, Some(Event::HostFacts(f)) if f.kernel.is_some() && f.os.is_some());
    assert!(complete && frame.events.len() == 2, "{:?}", frame.events);
}

#[test]
fn a_healthy_life_from_the_first_heartbeat_to_the_goodbye() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let key = format!("tcp:{address}");
    let services = vec![
        ServiceCheck::Tcp { address },
        ServiceCheck::Tcp {
            address: "192.0.2.1:80".to_owned(),
        },
    ];
    fake.answer(with_policy(policy(&agent, services)));
    agent.append("ERROR from before\n");
    agent.start();

    assert_first_heartbeat(&fake.arrival());
    let applied = fake.arrival_that(|arrival| arrival.batch.policy_version == 3);
    assert!(
        applied.batch.schemas.is_empty(),
        "acknowledged schemas are not repeated"
    );
    let refused = applied.batch.refused.unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].item, "tcp:192.0.2.1:80");
    fake.arrival_that(|arrival| {
        let frames = &arrival.batch.frames;
        frames
            .iter()
            .any(|f| service(f, &key) == Some(ServiceStatus::Running))
    });
    drop(listener);
    fake.arrival_that(|arrival| {
        let frames = &arrival.batch.frames;
        frames
            .iter()
            .any(|f| service(f, &key) == Some(ServiceStatus::Stopped))
    });

    agent.append("fine\nERROR password=hunter2\n");
    let matched = fake.arrival_that(|arrival| {
        events(arrival).any(|event| matches!(event, Event::LogMatch { .. }))
    });
    let event = events(&matched).next().unwrap();
    let expected = Event::LogMatch {
        rule: "errors".to_owned(),
        path: agent.log().to_str().unwrap().to_owned(),
        count: 1,
        lines: vec!["ERROR password=[redacted]".to_owned()],
    };
    assert_eq!(*event, expected);
    assert_eq!(agent.status()["connection"], "connected");
    assert_eq!(agent.status()["running"], true);

    agent.stop();
    let goodbye = Event::Goodbye {
        reason: GoodbyeReason::Stop,
    };
    fake.arrival_that(|arrival| events(arrival).any(|event| *event == goodbye));
    agent.start();
    let clean = Event::AgentStarted {
        clean_stop: Some(true),
        previous_boot: None,
    };
    fake.arrival_that(|arrival| events(arrival).any(|event| *event == clean));
}

/// Every frame that the collector took, by instance and number; fails on a second time.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<BTreeSet<(InstanceId, u64)>>>);

impl Taken {
    fn take(&self, batch: &Batch) {
        let mut taken = self.0.lock().unwrap();
        for frame in &batch.frames {
            let key = (frame.instance.unwrap_or(batch.instance), frame.seq);
            assert!(
                taken.insert(key),
                "{key:?} came again although it was acknowledged"
            );
        }
    }

    fn of(&self, instance: InstanceId) -> Vec<u64> {
        let taken = self.0.lock().unwrap();
        let own = taken.iter().filter(|(i, _)| *i == instance);
        own.map(|(_, seq)| *seq).collect()
    }
}

#[test]
fn frames_of_an_outage_survive_kills_and_arrive_once_with_their_origin() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let policy = policy(&agent, Vec::new());
    fake.answer(with_policy(policy));
    agent.start();
    let applied = fake.arrival_that(|arrival| arrival.batch.policy_version == 3);
    let first = applied.batch.instance;

    fake.answer(|_| Answer::Close);
    let mut newest = 0;
    while newest < 12 {
        let arrival = fake.arrival_that(|arrival| arrival.batch.frames.len() > 1);
        newest = arrival.batch.frames.last().unwrap().seq;
    }
    agent.append("ERROR in the outage\n");
    let before = fake.arrival_that(|arrival| {
        events(arrival).any(|event| matches!(event, Event::LogMatch { .. }))
    });
    // A frame with events is on disk before it is sent; a plain one after it perhaps not yet.
    let mut frames = before.batch.frames.iter();
    let durable = frames.find(|frame| !frame.events.is_empty()).unwrap().seq;
    agent.kill();
    agent.append("ERROR while nobody looked\n");

    let taken = Taken::default();
    let book = taken.clone();
    fake.answer(move |batch| {
        if batch.instance == first {
            // The last words of the killed process were still on their way.
            return Answer::Close;
        }
        book.take(batch);
        accept(batch)
    });
    agent.start();
    let mut counts = 0;
    while counts < 2 {
        counts += events(&fake.arrival())
            .map(|event| match event {
                Event::LogMatch { count, .. } => *count,
                _ => 0,
            })
            .sum::<u64>();
    }
    let seqs = taken.of(first);
    let (from, to) = (seqs[0], *seqs.last().unwrap());
    assert!(to >= durable, "{to} is before {durable}");
    assert_eq!(
        seqs,
        (from..=to).collect::<Vec<_>>(),
        "no frame of the chain is missing"
    );
    assert_eq!(counts, 2, "each line counts once");
    agent.stop();
    assert_eq!(agent.status()["spool_frames"], 0);
}

#[test]
fn answers_that_make_no_sense_are_survived_and_said() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let interval = policy(&agent, Vec::new());
    fake.answer(with_policy(interval));
    agent.start();
    fake.arrival_that(|arrival| arrival.batch.policy_version == 3);

    for (answer, said) in [
        (Answer::Http(200, "", "nonsense".to_owned()), "wrong_server"),
        (
            Answer::Http(302, "location: https://example.com/\r\n", String::new()),
            "wrong_server",
        ),
        (
            Answer::Http(200, "", "{\"accepted\": 9999}".to_owned()),
            "wrong_server",
        ),
        (Answer::Http(200, "", "x".repeat(2 << 20)), "wrong_server"),
        (
            Answer::Http(503, "retry-after: 1\r\n", String::new()),
            "busy",
        ),
        (Answer::Http(500, "", String::new()), "refused"),
        (Answer::Close, "unreachable"),
    ] {
        let given = answer.clone();
        fake.answer(move |_| given.clone());
        fake.settle();
        assert_eq!(agent.status()["connection"], said, "{answer:?}");
        fake.answer(accept);
        fake.settle();
        assert_eq!(
            agent.status()["connection"],
            "connected",
            "after {answer:?}"
        );
    }
}

#[test]
fn a_revoked_agent_keeps_its_frames_and_says_so() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let problem = r#"{"type":"urn:watchkeep:problem:certificate-revoked","title":"t","status":403,"detail":"this host was retired"}"#;
    fake.answer(|_| Answer::Http(403, "", problem.to_owned()));
    agent.start();
    fake.arrival();
    agent.stop();
    let status = agent.status();
    assert!(
        status["last_error"]
            .as_str()
            .unwrap()
            .contains("this host was retired")
    );
    assert!(status["spool_frames"].as_u64().unwrap() >= 2);

    // With a new key for the same host its frames go out after all.
    let forced = agent.command(&["enroll", "--force", &fake.token().to_string()]);
    assert!(forced.status.success(), "{forced:?}");
    assert!(agent.state("spool").exists());
    // Under another identity its frames would count for another host.
    let path = agent.state("identity.json");
    let mut identity: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    identity["host"] = uuid::Uuid::from_u128(8).to_string().into();
    std::fs::write(path, identity.to_string()).unwrap();
    let forced = agent.command(&["enroll", "--force", &fake.token().to_string()]);
    assert!(forced.status.success(), "{forced:?}");
    assert!(!agent.state("spool").exists());
}

#[test]
fn rejected_frames_are_not_sent_again_and_forgotten_schemas_are() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let policy = policy(&agent, Vec::new());
    fake.answer(with_policy(policy));
    agent.start();
    fake.arrival_that(|arrival| arrival.batch.policy_version == 3);

    fake.answer(|batch| {
        if batch.schemas.is_empty() {
            return ack(&Ack {
                unknown_schemas: batch.frames.iter().map(|frame| frame.schema).collect(),
                ..Ack::default()
            });
        }
        ack(&Ack {
            rejected: batch
                .frames
                .iter()
                .map(|frame| Rejected {
                    instance: frame.instance,
                    seq: frame.seq,
                    reason: RejectReason::OverLimit,
                })
                .collect(),
            ..Ack::default()
        })
    });
    let rejected = fake.arrival_that(|arrival| !arrival.batch.schemas.is_empty());
    let last = rejected.batch.frames.last().unwrap().seq;
    fake.answer(accept);
    fake.settle();
    for _ in 0..3 {
        let arrival = fake.arrival();
        assert!(
            arrival.batch.frames[0].seq > last,
            "a rejected frame came again"
        );
    }
    let given_up = agent.status()["given_up"].to_string();
    assert!(given_up.contains("over_limit"), "{given_up}");
}

#[test]
fn a_certificate_past_two_thirds_of_its_life_is_renewed_and_used_at_once() {
    let fake = Fake::start();
    fake.issue_old_certificates(true);
    let mut agent = Agent::enrolled(&fake);
    fake.issue_old_certificates(false);
    let before = std::fs::read(agent.state("cert.pem")).unwrap();
    let policy = policy(&agent, Vec::new());
    fake.answer(with_policy(policy));
    agent.start();
    let first = fake.arrival();
    let after = std::fs::read_to_string(agent.state("cert.pem")).unwrap();
    assert_ne!(before, after.as_bytes());
    let renewed = watchkeep_agent::tls::certificates(&after, "renewed").unwrap();
    assert_eq!(first.certificate, renewed[0].to_vec());
    agent.stop();
    agent.start();
    let again = fake.arrival();
    assert_eq!(again.certificate, renewed[0].to_vec());
}

#[test]
fn two_agents_do_not_share_a_state_directory() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    agent.start();
    fake.arrival();
    let second = agent.command(&["run"]);
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(text.contains("another watchkeep-agent uses"), "{text}");
}
