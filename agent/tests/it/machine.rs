//! What the agent reports of its machine on request.

use std::{fs::OpenOptions, io::Write as _};

use watchkeep_shared::wire::{
    heartbeat::{Ack, Batch, Event},
    host::{Processes, Want},
};

use crate::{
    agent::{Agent, events, policy},
    fake::{Answer, Fake, ack},
};

/// Accepts everything, and asks once, with the first answer, for the busiest processes.
fn asking(agent: &Agent) -> impl FnMut(&Batch) -> Answer + Send + use<> {
    let policy = policy(agent, Vec::new());
    let mut asked = false;
    move |batch| {
        let want = if asked {
            Vec::new()
        } else {
            vec![Want::Processes]
        };
        asked = true;
        ack(&Ack {
            accepted: batch.frames.len() as u32,
            policy: (batch.policy_version != policy.version).then(|| policy.clone()),
            want,
            ..Ack::default()
        })
    }
}

/// The one list that is sent; ten more heartbeats hold none.
fn process_list(fake: &Fake) -> Processes {
    let lists = |arrival: &crate::fake::Arrival| -> Vec<Processes> {
        events(arrival)
            .filter_map(|event| match event {
                Event::Processes(list) => Some(list.clone()),
                _ => None,
            })
            .collect()
    };
    let arrival = fake.arrival_that(|arrival| !lists(arrival).is_empty());
    let mut found = lists(&arrival);
    assert_eq!(found.len(), 1);
    for _ in 0..10 {
        assert_eq!(lists(&fake.arrival()), []);
    }
    found.remove(0)
}

#[test]
fn the_busiest_processes_are_told_once_when_asked_for() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    fake.answer(asking(&agent));
    agent.start();
    let list = process_list(&fake);
    assert!(!list.refused);
    assert!((1..=5).contains(&list.by_cpu.len()) && (1..=5).contains(&list.by_memory.len()));
    assert!(list.by_cpu.is_sorted_by(|a, b| a.cpu_pct >= b.cpu_pct));
    assert!(
        list.by_memory
            .is_sorted_by(|a, b| a.rss_bytes >= b.rss_bytes)
    );
    assert!(list.by_memory[0].rss_bytes > 0);
    for process in list.by_cpu.iter().chain(&list.by_memory) {
        assert!(
            process.name.len() <= 64,
            "a name, no command line: {process:?}"
        );
    }
}

#[test]
fn a_customer_can_refuse_to_tell_processes() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let mut config = OpenOptions::new()
        .append(true)
        .open(agent.dir.path().join("agent.toml"))
        .unwrap();
    // The file ends within the limits.
    config.write_all(b"busiest_processes = false\n").unwrap();
    fake.answer(asking(&agent));
    agent.start();
    let list = process_list(&fake);
    assert!(list.refused && list.by_cpu.is_empty() && list.by_memory.is_empty());
}
