//! The verbs of a scenario: what happens to machines and to the collector, and what people do.

use uuid::Uuid;
use watchkeep_collector::{
    store::{
        Tx,
        faults::{Failure, Point},
        fleet, identity, tickets as rows,
    },
    tickets,
};
use watchkeep_core::{
    delivery,
    ids::{SiteId, UserId},
    rules::CheckKey,
    tickets::{Action, Actor},
};
use watchkeep_shared::{DurationMs, HostId, wire::heartbeat::ServiceStatus};

use super::{
    hostile::Hostile,
    log::FIRST_NUMBER,
    machine::Machine,
    network::Line,
    world::{Host, World},
};

/// The site that [`crate::support::place`] makes.
const FIRST_SITE: &str = "Oven";
/// The site of a host that the log leaves out.
const OTHER_SITE: &str = "Elsewhere";

/// The identity of the first machine.
pub(super) const FIRST_ID: u128 = 0x1000;
/// Agents of a fleet begin to beat in the course of so many seconds: the default interval.
const SPREAD_S: i64 = 10;

/// People are known by their names.
pub(super) fn user_id(name: &str) -> UserId {
    let number = name.bytes().fold(0, |n, byte| n * 256 + u128::from(byte));
    UserId(Uuid::from_u128(number))
}

impl World {
    // --- Machines ---

    /// Enrols a machine at the site; its agent begins to beat at once.
    pub(crate) async fn host(&mut self, name: &str) -> Host {
        self.host_at(FIRST_SITE, name).await
    }

    /// Enrols a machine at another site of the same client, made if it is missing.
    pub(crate) async fn host_at(&mut self, site: &str, name: &str) -> Host {
        let site = self.site(site).await;
        let mut tx = self.app.store.begin().await.unwrap();
        let host = self.enrol(&mut tx, site, name).await;
        tx.commit().await.unwrap();
        host
    }

    /// A site of the client, made if it is missing.
    async fn site(&mut self, name: &str) -> SiteId {
        let sites = fleet::sites(&self.app.store).await.unwrap();
        let first = &sites[0];
        if !sites.iter().any(|row| row.name == name) {
            let mut tx = self.app.store.begin().await.unwrap();
            let (client, contract) = (first.client_id.into(), first.contract_id.map(Into::into));
            fleet::put_site(&mut tx, client, contract, name, self.now)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        let sites = fleet::sites(&self.app.store).await.unwrap();
        let found = sites.iter().find(|row| row.name == name).unwrap();
        found.id.into()
    }

    /// Identities grow with the order of enrolment, so that hosts that are due at one instant are
    /// always decided on in the same order.
    async fn enrol(&mut self, tx: &mut Tx, site: SiteId, name: &str) -> Host {
        let id = HostId(Uuid::from_u128(FIRST_ID + self.machines.len() as u128));
        let new = fleet::NewHost {
            id,
            site,
            name: name.to_owned(),
            agent_version: "0.1.0".to_owned(),
            enrolled_at: self.now,
        };
        fleet::insert_host(tx, &new).await.unwrap();
        self.machines.push(Machine::new(id, name, self.now));
        Host(self.machines.len() - 1)
    }

    /// Enrols a fleet, so many machines a site, whose agents beat spread over the interval.
    pub(crate) async fn fleet(&mut self, count: usize, a_site: usize) -> Vec<Host> {
        let mut tx = self.app.store.begin().await.unwrap();
        let first = &fleet::sites(&self.app.store).await.unwrap()[0];
        let (client, contract) = (first.client_id.into(), first.contract_id.map(Into::into));
        for n in 0..count.div_ceil(a_site) {
            fleet::put_site(&mut tx, client, contract, &format!("Site {n:04}"), self.now)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        let mut sites = fleet::sites(&self.app.store).await.unwrap();
        sites.retain(|site| site.name.starts_with("Site "));
        let mut tx = self.app.store.begin().await.unwrap();
        let hosts = (0..count).map(|n| (n, sites[n / a_site].id.into()));
        let mut enrolled = Vec::with_capacity(count);
        for (n, site) in hosts {
            enrolled.push(self.enrol(&mut tx, site, &format!("h{n:05}")).await);
            let machine = &mut self.machines[enrolled[n].0];
            machine.next_beat = self.now + DurationMs::from_secs(n as i64 % SPREAD_S);
        }
        tx.commit().await.unwrap();
        enrolled
    }

    /// Enrols a host that beats from now on, in some way, and that the log leaves out.
    pub(crate) async fn add_hostile(&mut self, is_hostile: bool) {
        let hostile = Hostile::new(self.now, is_hostile);
        let new = fleet::NewHost {
            id: hostile.host,
            site: self.site(OTHER_SITE).await,
            name: "hostile".to_owned(),
            agent_version: "0.1.0".to_owned(),
            enrolled_at: self.now,
        };
        let mut tx = self.app.store.begin().await.unwrap();
        fleet::insert_host(&mut tx, &new).await.unwrap();
        tx.commit().await.unwrap();
        self.log.leave_out(hostile.host);
        self.hostile = Some(hostile);
    }

    pub(crate) fn cut_power(&mut self, host: Host) {
        self.say(&format!("power of {} is cut", self.machines[host.0].name));
        self.machines[host.0].cut_power(self.now);
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

    /// Gives a machine a bad line.
    pub(crate) fn bad_line(&mut self, host: Host, seed: u64) {
        self.machines[host.0].line = Some(Line::new(seed, self.now));
    }

    /// Nothing on a machine runs for a while.
    pub(crate) fn stall(&mut self, host: Host, length: DurationMs) {
        let until = self.now + length;
        let machine = &mut self.machines[host.0];
        machine.stall(until);
        let text = format!("{} stalls for {} s", machine.name, length.0 / 1_000);
        self.say(&text);
    }

    /// Someone sets the wall clock of a machine.
    pub(crate) fn set_wall(&mut self, host: Host, by: DurationMs) {
        let machine = &mut self.machines[host.0];
        machine.set_wall(by);
        let text = format!(
            "wall clock of {} is set by {} s",
            machine.name,
            by.0 / 1_000
        );
        self.say(&text);
    }

    /// Cuts or restores the lines of some machines.
    pub(crate) fn connect(&mut self, hosts: &[Host], is_connected: bool) {
        let names: Vec<&str> = hosts
            .iter()
            .map(|host| self.machines[host.0].name.as_str())
            .collect();
        let what = if is_connected { "restored" } else { "cut" };
        self.say(&format!("line of {} is {what}", names.join(", ")));
        self.set_lines(hosts, is_connected);
    }

    /// The same for more machines than can be named.
    pub(crate) fn connect_many(&mut self, hosts: &[Host], is_connected: bool) {
        let what = if is_connected { "restored" } else { "cut" };
        self.say(&format!("line of {} machines is {what}", hosts.len()));
        self.set_lines(hosts, is_connected);
    }

    fn set_lines(&mut self, hosts: &[Host], is_connected: bool) {
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

    /// The store fails at some point of each transaction for a while. Nothing is delivered meanwhile:
    /// what becomes of a message whose outcome can't be recorded is not decided by the clock that
    /// scenarios move.
    pub(crate) async fn fail_store(&mut self, point: Point, failure: Failure, length: DurationMs) {
        self.say(&format!(
            "the store fails for {} s: {failure:?} at {point:?}",
            length.0 / 1_000
        ));
        self.app.store.faults().arm_always(point, failure);
        self.is_store_failing = true;
        self.pass_unchecked(length).await;
        self.is_store_failing = false;
        self.app.store.faults().disarm();
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
    pub(crate) fn refuse(&mut self, recipient: &str, failure: Option<delivery::Failure>) {
        let what = match failure {
            None => "receives messages again",
            Some(delivery::Failure::Final) => "is refused for good",
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

    /// The same with the open ticket about a machine's silence.
    pub(crate) async fn act_on(&mut self, host: Host, action: Action, who: &str) {
        let id = self.machines[host.0].host;
        let open = rows::open(&self.app.store).await.unwrap();
        let ticket = open.iter().find(|ticket| {
            let is_of_host = ticket
                .check
                .as_ref()
                .is_some_and(|check| *check == CheckKey::host());
            ticket.host == Some(id) && is_of_host
        });
        let number = ticket.expect("the machine is silent").number - FIRST_NUMBER;
        self.act(number, action, who).await;
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
                number + FIRST_NUMBER
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

    /// Numbers of all tickets but those of a hostile host, `#1` as 1.
    pub(super) async fn all_tickets(&mut self) -> Vec<i64> {
        let rows: Vec<(i64, Option<Uuid>)> = self
            .probe
            .rows("SELECT number, host_id FROM ticket ORDER BY number")
            .await;
        let apart = self.hostile.as_ref().map(|host| host.host.uuid());
        let others = rows
            .into_iter()
            .filter(|(_, host)| host.is_none() || *host != apart);
        others.map(|(number, _)| number - FIRST_NUMBER).collect()
    }

    /// Numbers of the open tickets but those of a hostile host, `#1` as 1.
    pub(super) async fn open_tickets(&mut self) -> Vec<i64> {
        let open = rows::open(&self.app.store).await.unwrap();
        let apart = self.hostile.as_ref().map(|host| host.host);
        open.iter()
            .filter(|ticket| ticket.host.is_none() || ticket.host != apart)
            .map(|ticket| ticket.number - FIRST_NUMBER)
            .collect()
    }
}
