//! The agent program in a directory of its own, and what tests ask of it.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use watchkeep_shared::wire::{
    heartbeat::{Ack, Batch, Event},
    policy::{LogCheck, LogRule, Policy, ServiceCheck},
};

use crate::fake::{Answer, Arrival, Fake, ack};

pub(crate) struct Agent {
    pub(crate) dir: TempDir,
    pub(crate) child: Option<Child>,
}

impl Agent {
    /// An enrolled agent that does not run yet.
    pub(crate) fn enrolled(fake: &Fake) -> Self {
        let agent = Self::new();
        let output = agent.command(&["enroll", &fake.token().to_string()]);
        assert!(output.status.success(), "{output:?}");
        agent
    }

    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "state_dir = \"{0}/state\"\n[limits]\nlog_paths = [\"{0}/logs/**\"]\n",
            dir.path().display(),
        );
        std::fs::write(dir.path().join("agent.toml"), config).unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        Self { dir, child: None }
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.dir.path().join("state").join(name)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("logs/app.log")
    }

    pub(crate) fn append(&self, text: &str) {
        let mut log = OpenOptions::new();
        let mut log = log.append(true).create(true).open(self.log()).unwrap();
        log.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchkeep-agent"));
        command
            .arg("--config")
            .arg(self.dir.path().join("agent.toml"));
        command
    }

    pub(crate) fn command(&self, args: &[&str]) -> Output {
        self.program().args(args).output().unwrap()
    }

    pub(crate) fn start(&mut self) {
        let program = self.program();
        self.spawn(program);
    }

    /// Starts it by way of another program, which must become the agent by `exec`.
    pub(crate) fn start_under(&mut self, wrapper: &[&str]) {
        let program = self.program();
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(program.get_program())
            .args(program.get_args());
        self.spawn(command);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// What `status` says to people.
    pub(crate) fn status_text(&self) -> String {
        let output = self.command(&["status"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn spawn(&mut self, mut program: Command) {
        let log = std::fs::File::create(self.dir.path().join("agent.log")).unwrap();
        let child = program
            .arg("run")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let output = self.command(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn policy(agent: &Agent, services: Vec<ServiceCheck>) -> Policy {
    Policy {
        version: 3,
        interval_ms: 200,
        services: services.into_iter().map(Into::into).collect(),
        logs: vec![LogCheck {
            path: agent.log().to_str().unwrap().to_owned(),
            rules: vec![LogRule {
                name: "errors".to_owned(),
                pattern: "ERROR".to_owned(),
                lines_per_minute: None,
            }],
            record_start: None,
            journal: None,
            event_log: None,
        }],
    }
}

/// Accepts everything and sends `policy` to an agent that does not have it.
pub(crate) fn with_policy(policy: Policy) -> impl FnMut(&Batch) -> Answer + Send {
    move |batch| {
        ack(&Ack {
            accepted: batch.frames.len() as u32,
            policy: (batch.policy_version != policy.version).then(|| policy.clone()),
            ..Ack::default()
        })
    }
}

pub(crate) fn events(arrival: &Arrival) -> impl Iterator<Item = &Event> {
    arrival.batch.frames.iter().flat_map(|frame| &frame.events)
}
