//! The world of a scenario: a manual clock, machines, people, and a collector made of its real
//! parts: pipeline, store, and the workers' ticks. Nothing runs by itself; every second of the
//! scenario each part takes its turn in a fixed order, so that a scenario plays the same each time.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use watchkeep_collector::{
    app::App,
    ingest::{Arrival, Inbox, NotTaken, Pipeline, metrics::Metrics},
    notify::{self, Channels},
    own,
    process::Process,
    store::{fleet, identity, tickets as rows},
    tickets,
};
use watchkeep_core::{
    authority::HostTrust,
    delivery::Failure,
    ids::{SiteId, UserId},
    tickets::{Action, Actor},
};
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis,
    wire::heartbeat::{Ack, Batch, ServiceStatus},
};

use super::{
    channels::Recorders, invariants, invariants::Witness, log::Log, machine::Machine, probe::Probe,
};
use crate::support::{Bench, NOW, place};

/// How far the clock moves at a time.
const STEP: DurationMs = DurationMs::from_secs(1);
/// The site that [`place`] makes.
const FIRST_SITE: &str = "Oven";

/// A machine of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host(pub(super) usize);

/// See the module.
pub(crate) struct World {
    bench: Bench,
    app: App,
    pub(super) now: UnixMillis,
    pub(super) machines: Vec<Machine>,
    /// `None` while the collector does not run.
    pipeline: Option<Pipeline>,
    inbox: Option<Inbox>,
    pub(super) log: Log,
    pub(super) probe: Probe,
    pub(super) witness: Witness,
    recorders: Recorders,
    channels: Channels,
    is_checked: bool,
}

/// People are known by their names.
fn user_id(name: &str) -> UserId {
    let number = name.bytes().fold(0, |n, byte| n * 256 + u128::from(byte));
    UserId(Uuid::from_u128(number))
}

impl World {
    /// A collector that has just started, without machines.
    pub(crate) async fn start(bench: Bench) -> Self {
        place(&bench.app).await;
        let probe = Probe::connect(&bench.url).await;
        let recorders = Recorders::default();
        let mut world = Self {
            app: bench.app.clone(),
            now: NOW,
            machines: Vec::new(),
            pipeline: None,
            inbox: None,
            log: Log::default(),
            probe,
            witness: Witness::default(),
            channels: recorders.channels(),
            recorders,
            is_checked: true,
            bench,
        };
        world.begin().await;
        world
    }

    /// What the collector's parts share.
    pub(super) const fn bench(&self) -> &Bench {
        &self.bench
    }

    /// The scenario's log, after a last look at the invariants.
    pub(crate) async fn finish(mut self) -> String {
        if self.is_checked {
            self.check().await;
        }
        self.log.into_text()
    }

    async fn begin(&mut self) {
        let app = App {
            process: Process::new(),
            ..self.bench.app.clone()
        };
        let (inbox, queue) = mpsc::channel(4_096);
        let node = Uuid::from_u128(9);
        let pipeline = Pipeline::begin(app.clone(), node, Arc::new(Metrics::default()), queue)
            .await
            .unwrap();
        self.app = app;
        self.inbox = Some(inbox);
        self.pipeline = Some(pipeline);
        self.witness.collector_could_not_hear(self.now, self.now);
    }

    // --- Machines ---

    /// Enrols a machine at the site; its agent begins to beat at once.
    pub(crate) async fn host(&mut self, name: &str) -> Host {
        self.host_at(FIRST_SITE, name).await
    }

    /// Enrols a machine at another site of the same client, made if it is missing.
    pub(crate) async fn host_at(&mut self, site: &str, name: &str) -> Host {
        let sites = fleet::sites(&self.app.store).await.unwrap();
        let first = &sites[0];
        if !sites.iter().any(|row| row.name == site) {
            let mut tx = self.app.store.begin().await.unwrap();
            let (client, contract) = (first.client_id.into(), first.contract_id.map(Into::into));
            fleet::put_site(&mut tx, client, contract, site, self.now)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        let sites = fleet::sites(&self.app.store).await.unwrap();
        let found = sites.iter().find(|row| row.name == site).unwrap();
        self.enrol(found.id.into(), name).await
    }

    /// Identities grow with the order of enrolment, so that hosts that are due at one instant are
    /// always decided on in the same order.
    async fn enrol(&mut self, site: SiteId, name: &str) -> Host {
        let id = HostId(Uuid::from_u128(0x1000 + self.machines.len() as u128));
        let new = fleet::NewHost {
            id,
            site,
            name: name.to_owned(),
            agent_version: "0.1.0".to_owned(),
            enrolled_at: self.now,
        };
        let mut tx = self.app.store.begin().await.unwrap();
        fleet::insert_host(&mut tx, &new).await.unwrap();
        tx.commit().await.unwrap();
        self.machines.push(Machine::new(id, name, self.now));
        Host(self.machines.len() - 1)
    }

    pub(crate) fn cut_power(&mut self, host: Host) {
        self.say(&format!("power of {} is cut", self.machines[host.0].name));
        self.machines[host.0].cut_power();
    }

    pub(crate) fn boot(&mut self, host: Host) {
        self.say(&format!("{} boots", self.machines[host.0].name));
        self.machines[host.0].boot_up(self.now);
    }

    pub(crate) fn shut_down(&mut self, host: Host) {
        self.say(&format!("{} is shut down", self.machines[host.0].name));
        self.machines[host.0].shut_down(self.now);
    }

    pub(crate) fn restart_agent(&mut self, host: Host) {
        self.say(&format!("agent of {} restarts", self.machines[host.0].name));
        self.machines[host.0].restart_agent(self.now);
    }

    /// Cuts or restores the lines of some machines.
    pub(crate) fn connect(&mut self, hosts: &[Host], is_connected: bool) {
        let names: Vec<&str> = hosts
            .iter()
            .map(|host| self.machines[host.0].name.as_str())
            .collect();
        let what = if is_connected { "restored" } else { "cut" };
        self.say(&format!("line of {} is {what}", names.join(", ")));
        for host in hosts {
            self.machines[host.0].is_connected = is_connected;
        }
    }

    pub(crate) fn service(&mut self, host: Host, status: ServiceStatus) {
        let machine = &mut self.machines[host.0];
        machine.set_service(status, self.now);
        let text = format!("service on {} is {}", machine.name, status.text());
        self.say(&text);
    }

    pub(crate) fn more_failed(&mut self, host: Host, which: std::ops::Range<usize>) {
        let machine = &mut self.machines[host.0];
        let count = which.len();
        machine.set_more_failed(which, self.now);
        let text = format!("{count} more services of {} have failed", machine.name);
        self.say(&text);
    }

    pub(crate) fn disk(&mut self, host: Host, pct: f64) {
        self.machines[host.0].set_disk(pct);
        self.say(&format!(
            "disk of {} is {pct} % full",
            self.machines[host.0].name
        ));
    }

    /// Retires a host, as `host retire` does: the collector refuses its certificate from now on.
    pub(crate) async fn retire(&mut self, host: Host) {
        let machine = &mut self.machines[host.0];
        machine.is_retired = true;
        let (id, text) = (machine.host, format!("{} is retired", machine.name));
        self.say(&text);
        let mut tx = self.app.store.begin().await.unwrap();
        fleet::retire_host(&mut tx, id, self.now).await.unwrap();
        identity::revoke_host(&mut tx, id, self.now).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Revokes a host's certificates, as `host revoke` does: the collector refuses them from now on.
    pub(crate) async fn revoke(&mut self, host: Host) {
        let machine = &mut self.machines[host.0];
        machine.is_retired = true;
        let (id, text) = (
            machine.host,
            format!("access of {} is revoked", machine.name),
        );
        self.say(&text);
        let mut tx = self.app.store.begin().await.unwrap();
        identity::revoke_host(&mut tx, id, self.now).await.unwrap();
        tx.commit().await.unwrap();
    }

    // --- The collector ---

    /// Someone sets the clock of the collector's machine.
    pub(crate) fn set_clock(&mut self, by: DurationMs) {
        self.say(&format!(
            "the collector's wall clock is set by {} min",
            by.0 / 60_000
        ));
        self.bench.clock.step_wall(by);
    }

    /// The collector does nothing for a while (it was stopped, its disk was frozen), then goes on.
    /// Its first round finds nothing in the queue; the agents' tries come after it.
    pub(crate) async fn hold_up(&mut self, length: DurationMs) {
        self.say(&format!(
            "the collector is held up for {} s",
            length.0 / 1_000
        ));
        let from = self.now;
        self.now = self.now + length;
        self.bench.clock.set(self.now);
        for machine in &mut self.machines {
            machine.beat_if_due(self.now);
        }
        self.witness.collector_could_not_hear(from, self.now);
        self.collector_turn().await;
    }

    /// The collector dies (kill -9).
    pub(crate) fn kill_collector(&mut self) {
        self.say("the collector is killed");
        self.pipeline = None;
        self.inbox = None;
    }

    /// The collector starts again.
    pub(crate) async fn start_collector(&mut self) {
        self.say("the collector starts");
        self.begin().await;
    }

    // --- People ---

    /// From now on messages to a recipient fail in this way, or are delivered again.
    pub(crate) fn refuse(&mut self, recipient: &str, failure: Option<Failure>) {
        let what = match failure {
            None => "receives messages again",
            Some(Failure::Final) => "is refused for good",
            Some(_) => "can't be reached",
        };
        self.say(&format!("{recipient} {what}"));
        self.recorders.set(recipient, failure);
    }

    /// A person does something with a ticket (`#1` is the first).
    pub(crate) async fn act(&mut self, number: i64, action: Action, who: &str) {
        if let Err(error) = self.try_act(number, action, who).await {
            self.log
                .line(self.now, &format!("refused to {who}: {error}"));
        }
        self.log.collect(&mut self.probe, self.now).await;
    }

    /// A person gives a ticket to a person.
    pub(crate) async fn assign(&mut self, number: i64, to: &str, who: &str) {
        let to = Some((user_id(to), to.to_owned()));
        self.act(number, Action::Assign { to }, who).await;
    }

    pub(super) async fn try_act(
        &mut self,
        number: i64,
        action: Action,
        who: &str,
    ) -> Result<(), tickets::ActError> {
        let found: Vec<(Uuid,)> = self
            .probe
            .rows(format!(
                "SELECT id FROM ticket WHERE number = {}",
                number + 1_000
            ))
            .await;
        let [(id,)] = found[..] else {
            return Err(tickets::ActError::NotFound);
        };
        let actor = Actor::User {
            id: user_id(who),
            name: who.to_owned(),
        };
        tickets::act(&self.app, id.into(), action, actor).await
    }

    // --- Time ---

    /// Lets time pass, one second after the other.
    pub(crate) async fn pass(&mut self, length: DurationMs) {
        let end = self.now + length;
        while self.now < end {
            self.now = (self.now + STEP).min(end);
            self.bench.clock.set(self.now);
            self.second().await;
        }
        if self.is_checked {
            self.check().await;
        }
    }

    /// One second: the agents send, the collector decides, the workers tick.
    async fn second(&mut self) {
        for machine in &mut self.machines {
            machine.beat_if_due(self.now);
        }
        if self.pipeline.is_none() {
            self.witness
                .collector_could_not_hear(self.now - STEP, self.now);
            return;
        }
        let sent = self.send().await;
        self.collector_turn().await;
        for (i, batch, mut answer) in sent {
            match answer.try_recv() {
                Ok(Ok(ack)) => self.machines[i].answered(&batch, &ack, self.now),
                Ok(Err(NotTaken::Busy)) | Err(_) => {
                    self.witness
                        .collector_could_not_hear(self.now - STEP, self.now);
                }
                Ok(Err(_)) => {}
            }
        }
        self.work().await;
    }

    async fn send(&mut self) -> Vec<(usize, Batch, oneshot::Receiver<Result<Ack, NotTaken>>)> {
        let inbox = self.inbox.clone().unwrap();
        let mut sent = Vec::new();
        for (i, machine) in self.machines.iter().enumerate() {
            let Some(batch) = machine.batch(self.now) else {
                continue;
            };
            let (reply, answer) = oneshot::channel();
            let arrival = Arrival {
                host: machine.host,
                at: self.now,
                from: "192.0.2.1".to_owned(),
                trust: HostTrust {
                    holds: None,
                    issued_at: NOW,
                    trusts: Vec::new(),
                },
                batch: batch.clone(),
                place: None,
                reply,
            };
            inbox.send(arrival).await.unwrap();
            sent.push((i, batch, answer));
        }
        sent
    }

    async fn collector_turn(&mut self) {
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.turn().await.unwrap();
        }
        self.log.collect(&mut self.probe, self.now).await;
    }

    /// The workers' ticks: escalation, evidence, delivery.
    async fn work(&mut self) {
        if self.now.since(NOW).0 % 10_000 == 0 {
            own::tend(&self.app, self.now).await.unwrap();
        }
        tickets::carry_out_due(&self.app, self.now).await.unwrap();
        tickets::keep_evidence(&self.app, self.now).await.unwrap();
        notify::watch(&self.app, self.now).await.unwrap();
        self.log.collect(&mut self.probe, self.now).await;
        self.deliver().await;
    }

    /// Delivers what is due; channels take everything and record it, unless they refuse.
    async fn deliver(&mut self) {
        while notify::tick(&self.app, &self.channels).await.unwrap() > 0 {}
        for one in self.recorders.take() {
            self.log.message(self.now, &one);
        }
    }

    fn say(&mut self, text: &str) {
        self.log.comment(self.now, text);
    }

    // --- Invariants ---

    /// Checks the invariants; panics with the log if one is broken.
    pub(crate) async fn check(&mut self) {
        if let Err(broken) = invariants::check(self).await {
            panic!("{broken}\n\nthe scenario so far:\n{}", self.log.text());
        }
    }

    /// The invariants that are broken now, for the random driver.
    pub(super) async fn broken(&mut self) -> Option<String> {
        invariants::check(self).await.err()
    }

    /// Leaves the checks to the caller.
    pub(super) fn unchecked(mut self) -> Self {
        self.is_checked = false;
        self
    }

    /// Numbers of the open tickets, `#1` as 1.
    pub(super) async fn open_tickets(&mut self) -> Vec<i64> {
        let open = rows::open(&self.app.store).await.unwrap();
        open.iter().map(|ticket| ticket.number - 1_000).collect()
    }
}
