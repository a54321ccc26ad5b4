//! Calls to the operating system that do not return: the host beats on, and what hangs is reported.

use std::{collections::HashMap, fs};

use rustix::process::geteuid;
use watchkeep_shared::{ids::SchemaId, wire::heartbeat::Frame};

use crate::{
    agent::{Agent, policy, with_policy},
    fake::{Arrival, Fake},
    fuse::FuseMount,
};

/// Becomes the agent once a file exists, in a mount namespace of its own.
const AT_THE_GATE: &str = r#"until [ -e "$0" ]; do sleep 0.02; done; exec "$@""#;

/// Values by name, under the schemas that have come.
#[derive(Default)]
struct Values(HashMap<SchemaId, Vec<String>>);

impl Values {
    /// The value of the newest frame.
    fn newest(&mut self, arrival: &Arrival, name: &str) -> Option<f64> {
        for schema in &arrival.batch.schemas {
            self.0.insert(schema.id, schema.names.clone());
        }
        let frame: &Frame = arrival.batch.frames.last().unwrap();
        let names = &self.0[&frame.schema];
        let at = names.iter().position(|other| other == name)?;
        frame.values[at]
    }
}

/// Mounting takes the superuser, also within a namespace, to keep the device open outside of it.
fn can_mount() -> bool {
    let can = geteuid().is_root() && fs::File::open("/dev/fuse").is_ok();
    assert!(
        can || std::env::var_os("CI").is_none(),
        "this test needs root and /dev/fuse"
    );
    can
}

fn start_behind_gate(agent: &mut Agent) -> std::path::PathBuf {
    let gate = agent.dir.path().join("gate");
    let text = gate.to_str().unwrap().to_owned();
    agent.start_under(&["unshare", "--mount", "sh", "-c", AT_THE_GATE, &text]);
    gate
}

/// The agent's own namespace is there once it differs from the test's.
fn wait_for_namespace(agent: &Agent) {
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    while of(&agent.pid().to_string()) == of("self") {
        std::thread::yield_now();
    }
}

#[test]
fn a_mount_that_hangs_is_reported_until_it_answers_and_the_host_beats_on() {
    if !can_mount() {
        return;
    }
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let point = agent.dir.path().join("served");
    fs::create_dir(&point).unwrap();
    let name = format!("disk.hung:{}", point.display());
    fake.answer(with_policy(policy(&agent, Vec::new())));
    let gate = start_behind_gate(&mut agent);
    fs::write(gate, "").unwrap();
    let mut values = Values::default();
    let mut hung = |arrival: &Arrival| values.newest(arrival, &name);
    while hung(&fake.arrival()).is_some() {}

    let mount = FuseMount::mount(agent.pid(), &point);
    let mut beats = 0;
    let first = loop {
        let arrival = fake.arrival();
        beats += 1;
        if hung(&arrival) == Some(1.0) {
            break arrival;
        }
    };
    // It counts as hung after five seconds, in which every beat was made.
    assert!(beats > 5, "{beats}");
    mount.answer();
    while hung(&fake.arrival()) != Some(0.0) {}
    let whole = values.newest(&first, "disk.used_pct:/");
    assert!(whole.is_some(), "other disks are measured meanwhile");
    agent.stop();
}

#[test]
fn an_agent_that_starts_while_a_mount_hangs_beats() {
    if !can_mount() {
        return;
    }
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    let point = agent.dir.path().join("served");
    fs::create_dir(&point).unwrap();
    let name = format!("disk.hung:{}", point.display());
    fake.answer(with_policy(policy(&agent, Vec::new())));
    let gate = start_behind_gate(&mut agent);
    wait_for_namespace(&agent);
    let mount = FuseMount::mount(agent.pid(), &point);
    fs::write(gate, "").unwrap();
    let mut values = Values::default();
    while values.newest(&fake.arrival(), &name) != Some(1.0) {}
    mount.answer();
    while values.newest(&fake.arrival(), &name) != Some(0.0) {}
    agent.stop();
}
