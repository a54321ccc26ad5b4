//! A simulated machine whose true state is known, with its agent, its line and the collector; its
//! frames are taken by the real frame handling ([`crate::host`]).

use std::collections::VecDeque;

use uuid::Uuid;
use watchkeep_shared::{
    BootId, DurationMs, InstanceId, UnixMillis,
    ids::SchemaId,
    wire::heartbeat::{Batch, Clocks, Event, Frame, GoodbyeReason, PreviousBoot},
};

use super::kit::*;
use crate::{
    evidence::Evidence,
    host::{HostState, take_batch, take_silence},
};

/// How often the agent beats, unless a story says otherwise.
pub(super) const INTERVAL_SECS: i64 = 10;
/// A host is silent after so long, or two and a half intervals if that is longer.
const SILENT_AFTER_SECS: i64 = 60;
/// From the kernel's start to the agent's.
pub(super) const BOOT_SECS: i64 = 20;
/// After its start the collector waits so long before it calls a host silent.
const GRACE_SECS: i64 = 90;
/// The agent gives a request up after so long, and sends its frames in a new one.
const REQUEST_SECS: i64 = 10;
/// So long after a hold-up requests may have waited for the collector.
const SETTLE_SECS: i64 = 5;

/// What happens to the machine for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    Runs,
    /// Off, and then booted; announced by the agent or not.
    Off {
        announced: bool,
    },
    /// Suspended: its monotonic clock stops, its boot-time clock runs on.
    Suspended,
    /// Halted by its hypervisor: both clocks stand.
    Paused,
    /// The agent is killed, and started when this is over.
    AgentKilled,
    /// The agent's process is stopped by a signal.
    AgentStopped,
}

/// What happens to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collector {
    Runs,
    /// Not there: requests are refused.
    Gone,
    /// Stopped by a signal: requests wait in its sockets until it runs again.
    HeldUp,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) machine: Machine,
    pub(super) link: bool,
    pub(super) collector: Collector,
    pub(super) secs: i64,
}

/// A request that is under way.
#[derive(Debug)]
struct Request {
    batch: Batch,
    arrives_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct World {
    now: i64,
    /// The machine's clocks, seconds since its boot.
    mono: i64,
    boot: i64,
    boots: u128,
    instances: u128,
    seq: u64,
    /// The running boot has made a frame.
    beat_in_boot: bool,
    next_beat: i64,
    spool: VecDeque<(u128, u128, Frame)>,
    state: HostState,
    evidence: Vec<Evidence>,
    collector_down: Vec<Evidence>,
    collector_since: i64,
    /// Requests that arrive until then may have waited.
    waited_until: i64,
    requests: Vec<Request>,
    /// Until then the agent waits for an answer.
    busy_until: i64,
    /// Requests that were sent, for the drawing of their delays.
    sent: i64,
    /// One request in so many takes up to half a minute; none if zero.
    slow_every: i64,
    /// Whether the machine ran, second by second.
    pub(super) ran: Vec<bool>,
    /// The last sign of life of the boot before, until it is reported.
    os_record: Option<(u128, i64)>,
    /// The collector closes and reopens the open chain this often, seconds; never if zero.
    cut_every: i64,
    interval_secs: i64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            evidence: vec![enrolled()],
            ..Self::default()
        };
        world.start_kernel();
        world.start_agent();
        world
    }

    fn start_kernel(&mut self) {
        (self.mono, self.boot) = (0, 0);
        self.beat_in_boot = false;
        self.boots += 1;
    }

    fn start_agent(&mut self) {
        self.instances += 1;
        self.seq = 0;
        self.next_beat = self.mono;
    }

    fn live(&mut self, mut phase: Phase) {
        // Between a boot and its first frame no clock of the machine distinguishes a pause from a later
        // start of the kernel.
        if phase.machine == Machine::Paused && !self.beat_in_boot {
            phase.machine = Machine::Suspended;
        }
        let end = self.now + phase.secs;
        if phase.machine == (Machine::Off { announced: true }) {
            self.beat(Some(GoodbyeReason::Shutdown));
            self.exchange(phase);
        }
        if phase.collector != Collector::Runs {
            self.collector_down.push(collector_down(self.now, end));
        }
        while self.now < end {
            self.second(phase);
        }
        match phase.machine {
            Machine::Off { .. } => {
                self.os_record = Some((self.boots, end - phase.secs));
                self.start_kernel();
                let started = self.now + BOOT_SECS;
                let booting = Phase {
                    machine: Machine::AgentKilled,
                    ..phase
                };
                while self.now < started {
                    self.second(booting);
                }
                if phase.collector != Collector::Runs {
                    self.collector_down.push(collector_down(end, started));
                }
                self.start_agent();
            }
            Machine::AgentKilled => self.start_agent(),
            _ => {}
        }
        if phase.collector != Collector::Runs {
            self.collector_since = self.now;
            self.waited_until = self.now + SETTLE_SECS;
        }
    }

    fn second(&mut self, phase: Phase) {
        self.now += 1;
        let runs = match phase.machine {
            Machine::Runs | Machine::AgentKilled | Machine::AgentStopped => true,
            Machine::Off { .. } | Machine::Paused | Machine::Suspended => false,
        };
        self.ran.push(runs);
        self.mono += i64::from(runs);
        self.boot += i64::from(runs || phase.machine == Machine::Suspended);
        if phase.machine == Machine::Runs && self.mono >= self.next_beat {
            self.next_beat = self.mono + self.interval_secs;
            self.beat(None);
        }
        if phase.machine == Machine::Runs && !self.spool.is_empty() {
            self.exchange(phase);
        }
        if phase.collector == Collector::Gone {
            self.requests.clear();
        }
        if phase.collector == Collector::Runs {
            self.arrivals();
        }
        let runs = phase.collector == Collector::Runs;
        if runs && self.cut_every > 0 && self.now % self.cut_every == 0 {
            self.evidence.extend(self.state.cut(HOST, at(self.now)));
        }
        let heard_out = self.now >= self.collector_since + GRACE_SECS;
        let limit = DurationMs::from_secs(SILENT_AFTER_SECS.max(self.interval_secs * 5 / 2));
        let deadline = self.state.silence_deadline(limit, limit);
        if runs && heard_out && deadline.is_some_and(|deadline| deadline <= at(self.now)) {
            let rows = take_silence(&mut self.state, HOST, at(self.now));
            self.evidence.extend(rows);
        }
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            wall_ms: at(self.now).0,
            mono_ms: self.mono * 1_000,
            boot_ms: self.boot * 1_000,
        }
    }

    fn beat(&mut self, goodbye: Option<GoodbyeReason>) {
        self.seq += 1;
        self.beat_in_boot = true;
        let frame = Frame {
            boot: None,
            instance: None,
            seq: self.seq,
            clocks: self.clocks(),
            interval_ms: self.interval_secs as u32 * 1_000,
            schema: SchemaId(0),
            values: Vec::new(),
            services: None,
            events: self.events(goodbye),
        };
        self.spool.push_back((self.boots, self.instances, frame));
    }

    fn events(&mut self, goodbye: Option<GoodbyeReason>) -> Vec<Event> {
        let record = self.os_record.take().map(|(boot, secs)| PreviousBoot {
            boot: Some(boot_id(boot)),
            last_seen_wall_ms: Some(at(secs).0),
        });
        let started = record.map(|previous_boot| Event::AgentStarted {
            clean_stop: None,
            previous_boot: Some(previous_boot),
        });
        let goodbye = goodbye.map(|reason| Event::Goodbye { reason });
        started.into_iter().chain(goodbye).collect()
    }

    /// Sends what is spooled, if nothing is under way.
    fn exchange(&mut self, phase: Phase) {
        if !phase.link || phase.collector == Collector::Gone || self.now < self.busy_until {
            return;
        }
        let frames = self.spool.iter().take(50);
        let frames = frames
            .map(|(boot, instance, frame)| Frame {
                boot: (*boot != self.boots).then(|| boot_id(*boot)),
                instance: (*instance != self.instances).then(|| instance_id(*instance)),
                ..frame.clone()
            })
            .collect();
        let batch = Batch {
            v: 1,
            agent_version: "0.1.0".to_owned(),
            boot: boot_id(self.boots),
            instance: instance_id(self.instances),
            sent: self.clocks(),
            policy_version: 0,
            trusts: Vec::new(),
            refused: None,
            troubles: None,
            schemas: Vec::new(),
            frames,
        };
        self.sent += 1;
        // The first of a boot is quick: nothing else shows how long it was under way.
        let running = boot_id(self.boots);
        let is_known = self.state.last.is_some_and(|last| last.boot == running);
        let is_slow = is_known && self.slow_every > 0 && self.sent % self.slow_every == 0;
        let under_way_ms = self.sent * 7_919 % if is_slow { 30_000 } else { 1_500 };
        self.requests.push(Request {
            batch,
            arrives_ms: at(self.now).0 + under_way_ms,
        });
        self.busy_until = self.now + REQUEST_SECS;
    }

    /// The collector takes in what has arrived; the agent forgets what is acknowledged.
    fn arrivals(&mut self) {
        let now = at(self.now);
        let (mut here, on_the_way): (Vec<_>, Vec<_>) = std::mem::take(&mut self.requests)
            .into_iter()
            .partition(|one| one.arrives_ms <= now.0);
        self.requests = on_the_way;
        here.sort_by_key(|one| one.arrives_ms);
        for request in here {
            // The collector reads what waited when it runs again.
            let since = at(self.collector_since).0;
            let arrived_at = UnixMillis(request.arrives_ms.max(since));
            let batch = request.batch;
            let may_have_waited = self.now <= self.waited_until;
            let is_answer = batch.instance == instance_id(self.instances);
            if is_answer {
                self.busy_until = self.now;
            }
            if self.state.asks_again(&batch, arrived_at, may_have_waited) {
                continue;
            }
            let taken = take_batch(&mut self.state, HOST, &batch, arrived_at, &|_| Some(0));
            self.evidence.extend(taken.evidence);
            if is_answer {
                let known: Vec<_> = batch
                    .frames
                    .iter()
                    .map(|frame| (frame.instance.unwrap_or(batch.instance), frame.seq))
                    .collect();
                self.spool.retain(|(_, instance, frame)| {
                    !known.contains(&(instance_id(*instance), frame.seq))
                });
            }
        }
    }

    /// Seconds that are said to be up while the machine did not run, and down while it ran.
    pub(super) fn false_claims(&self) -> (i64, i64) {
        let (mut false_up, mut false_down) = (0, 0);
        for span in self.account().spans {
            let second = |at: UnixMillis| ((at.0 - at_start().0) / 1_000).max(0) as usize;
            let end = second(span.to).min(self.ran.len());
            let ran = &self.ran[second(span.from).min(end)..end];
            let (up, down) = (span.state.is_up(), span.state.is_down());
            false_up += ran.iter().filter(|&&ran| up && !ran).count() as i64;
            false_down += ran.iter().filter(|&&ran| down && ran).count() as i64;
        }
        (false_up, false_down)
    }

    pub(super) fn account(&self) -> Account {
        let mut evidence = self.evidence.clone();
        evidence.extend(self.state.open_evidence(HOST));
        // By then the last batch has arrived.
        account(&evidence, &self.collector_down, self.now + 2)
    }
}

fn at_start() -> UnixMillis {
    at(0)
}

fn boot_id(boot: u128) -> BootId {
    BootId(Uuid::from_u128(1_000 + boot))
}

fn instance_id(instance: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(2_000 + instance))
}

pub(super) const fn phase(machine: Machine, link: bool, collector: Collector, secs: i64) -> Phase {
    Phase {
        machine,
        link,
        collector,
        secs,
    }
}

pub(super) const fn quiet(secs: i64) -> Phase {
    phase(Machine::Runs, true, Collector::Runs, secs)
}

/// What varies beside the history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) cut_every: i64,
    pub(super) slow_every: i64,
    pub(super) interval_secs: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cut_every: 0,
            slow_every: 0,
            interval_secs: INTERVAL_SECS,
        }
    }
}

pub(super) fn after(phases: &[Phase]) -> World {
    simulate(phases, Options::default())
}

pub(super) fn simulate(phases: &[Phase], options: Options) -> World {
    let mut world = World::new();
    world.interval_secs = options.interval_secs;
    world.cut_every = options.cut_every;
    world.slow_every = options.slow_every;
    for &one in phases {
        world.live(one);
    }
    world
}
