//! A policy under which the agent does not live.

use watchkeep_shared::wire::{heartbeat::Batch, policy::Policy};

use crate::{
    agent::{Agent, policy, with_policy},
    fake::{Answer, Arrival, Fake},
};

fn problem(arrival: &Arrival, item: &str) -> Option<String> {
    let troubles = arrival.batch.troubles.as_ref()?;
    let found = troubles.iter().find(|trouble| trouble.item == item);
    Some(found.map_or_else(String::new, |trouble| trouble.detail.clone()))
}

/// Sends `new` to an agent under another policy, and answers nothing under `new`.
fn deadly(new: &Policy) -> impl FnMut(&Batch) -> Answer + Send + use<> {
    let new = new.clone();
    let mut send = with_policy(new.clone());
    move |batch| {
        if batch.policy_version == new.version {
            Answer::Close
        } else {
            send(batch)
        }
    }
}

#[test]
fn a_policy_that_ends_the_agent_is_put_aside_and_reported() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let good = policy(&agent, Vec::new());
    fake.answer(with_policy(good.clone()));
    agent.start();
    fake.arrival_that(|arrival| arrival.batch.policy_version == good.version);
    fake.settle();

    let bad = Policy {
        version: 4,
        ..good.clone()
    };
    fake.answer(deadly(&bad));
    for _ in 0..3 {
        // In the process that receives it, and in two that start with it.
        fake.arrival_that(|arrival| arrival.batch.policy_version == bad.version);
        agent.kill();
        agent.start();
    }
    let arrival = fake.arrival_that(|arrival| {
        problem(arrival, "policy").is_some_and(|detail| !detail.is_empty())
    });
    assert_eq!(arrival.batch.policy_version, good.version);
    let detail = problem(&arrival, "policy").unwrap();
    assert!(detail.contains("version 4 was put aside"), "{detail}");
    let status = agent.status_text();
    assert!(status.contains("version 4 was put aside"), "{status}");
    // It comes again with each acknowledgement and is not run.
    for _ in 0..5 {
        assert_eq!(fake.arrival().batch.policy_version, good.version);
    }

    let better = Policy { version: 5, ..good };
    fake.answer(with_policy(better.clone()));
    let arrival = fake
        .arrival_that(|arrival| problem(arrival, "policy").is_some_and(|detail| detail.is_empty()));
    assert_eq!(arrival.batch.policy_version, better.version);
    agent.stop();
}

#[test]
fn a_renewal_that_fails_is_reported_at_once_and_not_asked_for_again_and_again() {
    let fake = Fake::start();
    fake.issue_old_certificates(true);
    let mut agent = Agent::enrolled(&fake);
    fake.answer(with_policy(policy(&agent, Vec::new())));
    fake.refuse_renewals(true);
    agent.start();
    let arrival = fake.arrival_that(|arrival| {
        problem(arrival, "certificate").is_some_and(|detail| !detail.is_empty())
    });
    let detail = problem(&arrival, "certificate").unwrap();
    assert!(detail.contains("no renewals today"), "{detail}");
    // Heartbeats go on meanwhile.
    fake.arrival_that(|arrival| arrival.batch.policy_version == 3);
    fake.settle();
    assert_eq!(fake.renewals(), 1);
    agent.stop();

    // The next attempt is a minute away; a new process makes one at once. Where its key can't be kept,
    // the collector is not asked.
    fake.refuse_renewals(false);
    fake.issue_old_certificates(false);
    std::fs::create_dir(agent.state("key.next.pem.tmp")).unwrap();
    agent.start();
    let arrival = fake.arrival_that(|arrival| {
        problem(arrival, "certificate").is_some_and(|detail| detail.contains("key.next.pem"))
    });
    assert_eq!(fake.renewals(), 1, "{arrival:?}");
    agent.stop();
    std::fs::remove_dir(agent.state("key.next.pem.tmp")).unwrap();
    agent.start();
    fake.arrival_that(|arrival| problem(arrival, "certificate").is_some_and(|d| d.is_empty()));
    assert_eq!(fake.renewals(), 2);
}
