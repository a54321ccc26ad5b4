//! The customer's configuration, changed while the agent runs.

use std::fs;

use rustix::process::Signal;
use watchkeep_shared::wire::{heartbeat::Event, policy::Refusal};

use crate::{
    agent::{Agent, events, policy, with_policy},
    fake::{Arrival, Fake},
};

impl Agent {
    fn config(&self) -> String {
        fs::read_to_string(self.dir.path().join("agent.toml")).unwrap()
    }

    /// Puts another configuration in place of the one before, as a package manager does.
    fn configure(&self, text: &str) {
        let new = self.dir.path().join("agent.toml.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.dir.path().join("agent.toml")).unwrap();
    }
}

fn refuses_log(arrival: &Arrival) -> bool {
    let refused = arrival.batch.refused.iter().flatten();
    refused
        .into_iter()
        .any(|one: &Refusal| one.item.starts_with("log:"))
}

fn config_trouble(arrival: &Arrival) -> Option<String> {
    let troubles = arrival.batch.troubles.as_ref()?;
    let found = troubles.iter().find(|trouble| trouble.item == "config");
    Some(found.map_or_else(String::new, |trouble| trouble.detail.clone()))
}

fn matches(arrival: &Arrival) -> u64 {
    let counts = events(arrival).map(|event| match event {
        Event::LogMatch { count, .. } => *count,
        _ => 0,
    });
    counts.sum()
}

#[test]
fn a_tightened_limit_bites_at_once_and_a_loosened_one_lets_go_on_where_it_was() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    fake.answer(with_policy(policy(&agent, Vec::new())));
    agent.append("ERROR one\n");
    agent.start();
    fake.arrival_that(|arrival| arrival.batch.policy_version == 3);
    agent.append("ERROR two\n");
    let first = fake.arrival_that(|arrival| matches(arrival) > 0);
    let loose = agent.config();

    agent.configure(&loose.replace("/logs/**", "/other/**"));
    fake.arrival_that(refuses_log);
    agent.append("ERROR that must not leave\n");
    for _ in 0..4 {
        assert_eq!(matches(&fake.arrival()), 0, "read although it is forbidden");
    }

    agent.configure(&loose);
    fake.arrival_that(|arrival| arrival.batch.refused.as_ref().is_some_and(Vec::is_empty));
    agent.append("ERROR three\n");
    fake.arrival_that(|arrival| matches(arrival) > 0);
    // It is one process throughout.
    assert_eq!(fake.arrival().batch.instance, first.batch.instance);
    agent.stop();
}

#[test]
fn a_wrong_configuration_changes_nothing_and_is_said_everywhere() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    fake.answer(with_policy(policy(&agent, Vec::new())));
    agent.start();
    fake.arrival_that(|arrival| arrival.batch.policy_version == 3);
    let good = agent.config();

    agent.configure(&good.replace("log_paths", "log_path"));
    let arrival =
        fake.arrival_that(|arrival| config_trouble(arrival).is_some_and(|t| !t.is_empty()));
    let detail = config_trouble(&arrival).unwrap();
    assert!(detail.contains("did you mean \"log_paths\"?"), "{detail}");
    let status = agent.status_text();
    assert!(status.contains("the new one is wrong"), "{status}");
    let log = fs::read_to_string(agent.dir.path().join("agent.log")).unwrap();
    assert!(log.contains("the one before stays in force"), "{log}");
    agent.append("ERROR still read\n");
    fake.arrival_that(|arrival| matches(arrival) == 1);

    // The state directory can't move under a running agent.
    agent.configure(&good.replace("/state", "/elsewhere"));
    fake.arrival_that(|arrival| config_trouble(arrival).is_some_and(|t| t.contains("restart")));

    agent.configure(&good);
    fake.arrival_that(|arrival| config_trouble(arrival).is_some_and(|t| t.is_empty()));
    assert!(agent.status()["config_error"].is_null());
    agent.stop();
}

#[test]
fn a_hangup_reads_the_configuration_that_no_notice_told_of() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    fake.answer(with_policy(policy(&agent, Vec::new())));
    // The file itself is elsewhere: the kernel reports nothing about the target of a link.
    let real = agent.dir.path().join("elsewhere");
    fs::create_dir(&real).unwrap();
    let text = agent.config();
    fs::write(real.join("real.toml"), &text).unwrap();
    fs::remove_file(agent.dir.path().join("agent.toml")).unwrap();
    std::os::unix::fs::symlink(real.join("real.toml"), agent.dir.path().join("agent.toml"))
        .unwrap();
    agent.start();
    fake.arrival_that(|arrival| arrival.batch.policy_version == 3);
    fs::write(
        real.join("real.toml"),
        text.replace("/logs/**", "/other/**"),
    )
    .unwrap();
    agent.signal(Signal::HUP);
    fake.arrival_that(refuses_log);
    agent.stop();
}
