//! Services that the policy names: processes, looked at by the loop; endpoints and certificates, probed by
//! a task each; units of systemd and services of Windows, followed by one task for each kind. Tells the loop when a state changed; decides nothing
//! about it.

mod certificate;
mod discover;
mod http;
mod probe;
mod process;
mod restarts;
mod systemd;
mod tcp;
mod winsvc;

#[cfg(test)]
mod probe_tests;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reqwest::Client;
use rustls::ClientConfig;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use watchkeep_shared::{
    metric,
    wire::{
        heartbeat::{Event, Service, ServiceStatus},
        limits::MAX_SERVICES_PER_FRAME,
        policy::ServiceCheck,
    },
};

pub use self::systemd::SystemdPaths;
use self::{
    probe::{Probe, ProbeOutcome, Target},
    process::{Newcomers, ProcessWatch},
    systemd::WatchedUnits,
};
use crate::{clock, config::Limits, platform::ProcessEnd, process::Tasks, tls};

/// Most processes whose end the kernel is asked to tell; each costs a file descriptor.
const MAX_EXIT_NOTICES: usize = 64;
/// Probe results that may wait for the loop.
const QUEUE: usize = 64;

/// What a look at a service found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    status: ServiceStatus,
    detail: Option<String>,
}

/// A probe's result.
#[derive(Debug)]
pub struct ProbeResult {
    generation: u64,
    found: Found,
}

#[derive(Debug)]
enum Found {
    /// One service.
    One { key: String, seen: ProbeOutcome },
    /// All units of systemd, with their keys.
    Units(Vec<(String, Finding)>),
    /// Services that the policy names, with their keys.
    Several(Vec<(String, Finding)>),
    /// What could be watched, as the event that says so.
    Discovered(Event),
}

/// The watched services.
#[derive(Debug)]
pub struct Services {
    tasks: Tasks,
    processes: Vec<ProcessWatch>,
    newcomers: Newcomers,
    states: BTreeMap<String, Finding>,
    /// Values that go along as metrics, by the service's key: the metric's name and its value.
    values: BTreeMap<String, (String, Option<f64>)>,
    limits: watch::Sender<Limits>,
    results: mpsc::Sender<ProbeResult>,
    exits: mpsc::Sender<()>,
    exit_notices: Arc<Semaphore>,
    generation: u64,
    stop_probes: CancellationToken,
    units: watch::Sender<WatchedUnits>,
    windows: watch::Sender<winsvc::WatchedServices>,
    /// What was found last, and whether it is still to be reported.
    discovered: Option<(Event, bool)>,
}

/// What wakes the loop.
#[derive(Debug)]
pub struct Wakes {
    /// Results of probes, for [`Services::apply`].
    pub probes: mpsc::Receiver<ProbeResult>,
    /// A watched process ended: time for [`Services::check_processes`].
    pub exits: mpsc::Receiver<()>,
}

impl Services {
    /// Watches nothing yet but failed units, if the customer allows that. `place` is where systemd is
    /// found.
    pub fn new(tasks: Tasks, limits: &Limits, place: SystemdPaths) -> (Self, Wakes) {
        let (results, probes) = mpsc::channel(QUEUE);
        let (units, wanted) = watch::channel(WatchedUnits {
            failed: limits.failed_units,
            allowed: limits.units.clone(),
            ..WatchedUnits::default()
        });
        let follower = systemd::Watch {
            place,
            wanted,
            results: results.clone(),
            stop: tasks.stop_token(),
        };
        tasks.spawn("systemd", follower.run());
        let (windows, wanted) = watch::channel(winsvc::WatchedServices::default());
        let follower = winsvc::Watch {
            wanted,
            results: results.clone(),
            stop: tasks.stop_token(),
        };
        tasks.spawn("winsvc", follower.run());
        let (customer, current) = watch::channel(limits.clone());
        discover::start(&tasks, current, results.clone());
        let (exits, exit_wakes) = mpsc::channel(1);
        let services = Self {
            stop_probes: tasks.stop_token().child_token(),
            tasks,
            processes: Vec::new(),
            newcomers: Newcomers::default(),
            states: BTreeMap::new(),
            values: BTreeMap::new(),
            limits: customer,
            results,
            exits,
            exit_notices: Arc::new(Semaphore::new(MAX_EXIT_NOTICES)),
            generation: 0,
            units,
            windows,
            discovered: None,
        };
        let wakes = Wakes {
            probes,
            exits: exit_wakes,
        };
        (services, wakes)
    }

    /// The customer allows this from now on: of units at once, of probes with the next [`Self::set`].
    pub fn set_limits(&mut self, limits: &Limits) {
        self.limits.send_replace(limits.clone());
        self.units.send_modify(|wanted| {
            wanted.failed = limits.failed_units;
            wanted.allowed.clone_from(&limits.units);
        });
    }

    /// Watches these from now on. A service that stays keeps its state.
    pub fn set(&mut self, checks: &[ServiceCheck], interval_ms: u32) {
        self.stop_probes.cancel();
        self.stop_probes = self.tasks.stop_token().child_token();
        self.generation += 1;
        // They are found again at once, and the waiting for their ends begins again.
        self.processes.clear();
        let mut units = Vec::new();
        let mut windows = Vec::new();
        let mut clients = Clients::default();
        let mut before = std::mem::take(&mut self.states);
        self.values.clear();
        for check in checks {
            let key = check.key();
            match check {
                ServiceCheck::Process { name, min, max } => {
                    self.processes.push(ProcessWatch::new(name, *min, *max));
                    continue;
                }
                ServiceCheck::Systemd { unit } => units.push(unit.clone()),
                ServiceCheck::WindowsService { name } => windows.push(name.clone()),
                _ => match self.target(check, &mut clients) {
                    Ok(target) => self.spawn_probe(&key, target, interval_ms),
                    Err(problem) => {
                        before.insert(key.clone(), unknown(problem));
                    }
                },
            }
            let state = before.remove(&key);
            let state = state.unwrap_or_else(|| unknown("not probed yet".to_owned()));
            self.states.insert(key, state);
        }
        self.units.send_modify(|wanted| {
            wanted.generation = self.generation;
            wanted.units = units;
        });
        self.windows.send_replace(winsvc::WatchedServices {
            generation: self.generation,
            names: windows,
        });
        self.check_processes();
    }

    /// When to look at the processes again; `None` if none is watched.
    pub fn check_processes_after(&self) -> Option<Duration> {
        (!self.processes.is_empty()).then(|| process::check_after(&self.processes))
    }

    /// Looks at the watched processes. Returns whether a state changed.
    pub fn check_processes(&mut self) -> bool {
        let mut processes = std::mem::take(&mut self.processes);
        let now_ms = clock::now().boot_ms;
        let mut newcomers = std::mem::take(&mut self.newcomers);
        let notice = |pid| self.notice_exit(pid);
        process::check(&mut processes, &mut newcomers, &notice, now_ms);
        self.processes = processes;
        self.newcomers = newcomers;
        let mut changed = false;
        for watch in &self.processes {
            let key = format!("process:{}", watch.name());
            changed |= set_state(&mut self.states, key, watch.finding(now_ms));
        }
        changed
    }

    /// Takes a probe's result. Returns whether a state changed.
    pub fn apply(&mut self, result: ProbeResult) -> bool {
        if let Found::Discovered(event) = result.found {
            let is_new = self
                .discovered
                .as_ref()
                .is_none_or(|(last, _)| *last != event);
            if is_new {
                self.discovered = Some((event, true));
            }
            return false;
        }
        // A result of a probe that the policy has since ended means nothing.
        if result.generation != self.generation {
            return false;
        }
        match result.found {
            Found::One { key, seen } => {
                if let Some((_, value)) = self.values.get_mut(&key) {
                    *value = seen.value;
                }
                set_state(&mut self.states, key, seen.finding)
            }
            Found::Units(units) => self.set_units(units),
            Found::Several(findings) => {
                findings.into_iter().fold(false, |changed, (key, finding)| {
                    set_state(&mut self.states, key, finding) | changed
                })
            }
            Found::Discovered(_) => false,
        }
    }

    fn set_units(&mut self, units: Vec<(String, Finding)>) -> bool {
        let count = self.states.len();
        self.states.retain(|key, _| {
            !key.starts_with("systemd:") || units.iter().any(|(known, _)| known == key)
        });
        let mut changed = self.states.len() != count;
        for (key, finding) in units {
            if self.states.len() < MAX_SERVICES_PER_FRAME || self.states.contains_key(&key) {
                changed |= set_state(&mut self.states, key, finding);
            }
        }
        changed
    }

    /// The state of all services.
    pub fn snapshot(&self) -> Vec<Service> {
        self.states
            .iter()
            .map(|(key, finding)| Service {
                key: key.clone(),
                status: finding.status,
                detail: finding.detail.clone(),
            })
            .collect()
    }

    /// What could be watched here, if that is news; once.
    pub fn take_discovered(&mut self) -> Option<Event> {
        let (event, is_news) = self.discovered.as_mut()?;
        std::mem::take(is_news).then(|| event.clone())
    }

    /// What the probes measured, by names of metrics; `None` where the last look gave no value.
    pub fn values(&self) -> Vec<(String, Option<f64>)> {
        self.values.values().cloned().collect()
    }

    /// Asks for a notification when a process ends. Returns whether that will be so.
    fn notice_exit(&self, pid: u32) -> bool {
        let Ok(permit) = self.exit_notices.clone().try_acquire_owned() else {
            return false;
        };
        let Some(end) = ProcessEnd::of(pid) else {
            return false;
        };
        let (exits, stop) = (self.exits.clone(), self.stop_probes.clone());
        self.tasks.spawn("process-exit", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = end.wait() => {
                    // A full channel already says it.
                    let _ = exits.try_send(());
                }
            }
            drop(permit);
        });
        true
    }

    /// What to probe for a check that is probed; the error is for people.
    fn target(&self, check: &ServiceCheck, clients: &mut Clients) -> Result<Target, String> {
        match check {
            ServiceCheck::Tcp { address } => Ok(Target::Tcp(address.clone())),
            ServiceCheck::Http { url, .. } => {
                let insecure = crate::policy::address_of(url)
                    .is_some_and(|address| self.limits.borrow().insecure_probes.contains(&address));
                let client = clients.http(&self.limits.borrow(), !insecure)?;
                let check = http::Check::new(check).ok_or("not an HTTP check")?;
                Ok(Target::Http(check, client))
            }
            ServiceCheck::Tls {
                address,
                server_name,
            } => Ok(Target::Tls {
                address: address.clone(),
                server_name: server_name.clone(),
                config: clients.tls(),
            }),
            ServiceCheck::Certificate { path } => Ok(Target::Certificate(path.clone())),
            ServiceCheck::Process { .. }
            | ServiceCheck::Systemd { .. }
            | ServiceCheck::WindowsService { .. } => Err("not probed".to_owned()),
        }
    }

    fn spawn_probe(&mut self, key: &str, target: Target, interval_ms: u32) {
        let instance = key.split_once(':').map_or(key, |(_, instance)| instance);
        if let Some(family) = target.metric() {
            let name = format!("{family}:{instance}");
            if metric::is_valid_name(&name) {
                self.values.insert(key.to_owned(), (name, None));
            }
        }
        let (shortest, longest) = match &target {
            Target::Tcp(_) => (1_000, 5_000),
            Target::Http(..) => (10_000, 60_000),
            Target::Tls { .. } | Target::Certificate(_) => (60_000, 60_000),
        };
        let probe = Probe {
            key: key.to_owned(),
            target,
            every: Duration::from_millis(u64::from(interval_ms).clamp(shortest, longest)),
            generation: self.generation,
            results: self.results.clone(),
            stop: self.stop_probes.clone(),
        };
        self.tasks.spawn("probe", probe.run());
    }
}

/// What the probes of one policy share; made when first needed, for trusted certificates take memory.
#[derive(Default)]
struct Clients {
    verifying: Option<Client>,
    trusting: Option<Client>,
    tls: Option<Arc<ClientConfig>>,
}

impl Clients {
    fn http(&mut self, limits: &Limits, verify: bool) -> Result<Client, String> {
        let place = if verify {
            &mut self.verifying
        } else {
            &mut self.trusting
        };
        if let Some(client) = place {
            return Ok(client.clone());
        }
        let client = http::client(limits.probe_ca.as_deref(), verify)?;
        *place = Some(client.clone());
        Ok(client)
    }

    fn tls(&mut self) -> Arc<ClientConfig> {
        let config = self
            .tls
            .get_or_insert_with(|| Arc::new(tls::trusting_config()));
        config.clone()
    }
}

fn unknown(detail: String) -> Finding {
    Finding {
        status: ServiceStatus::Unknown,
        detail: Some(detail),
    }
}

/// A text of others, cut to what a page shows.
fn short(text: &str) -> String {
    text[..text.floor_char_boundary(200)].to_owned()
}

/// How a restart loop is described to people.
fn loop_text(restarts: usize) -> String {
    let minutes = restarts::WINDOW_MS / 60_000;
    format!("{restarts} or more restarts within {minutes} min")
}

fn set_state(states: &mut BTreeMap<String, Finding>, key: String, finding: Finding) -> bool {
    let before = states.get(&key).map(|finding| finding.status);
    let changed = before != Some(finding.status);
    states.insert(key, finding);
    changed
}
