//! The loop: it owns all state and ties the parts together. On each turn it waits for the next
//! deadline, an answer, a probe's result, a change of a log or a signal; then it does what is due.
//!
//! A heartbeat is made at each interval, and at once when a service changed or a log rule matched.
//! It goes into the spool and from there up. The loop ends on SIGTERM or SIGINT with a goodbye;
//! nothing else ends it. SIGHUP, or a change of its file, reads the configuration again.

mod frames;
mod notice;
mod reload;
mod wake;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tracing_subscriber::filter::Targets;
use watchkeep_shared::{
    BootId, InstanceId, ids,
    wire::{
        heartbeat::{Clocks, Event, Frame},
        host::Want,
        policy::{Policy, Trouble},
    },
};

use self::{
    frames::FrameMaker,
    notice::LogNotice,
    reload::{Reload, ReloadReason},
    wake::Schedule,
};
use crate::{
    boot::{self, BootError},
    clock,
    config::{Config, Source},
    files,
    identity::{Identity, IdentityError},
    logs::{self, LogWatcher, Redactor},
    platform::{self, ReloadSignal, StopSignal},
    policy::{self, Effective},
    process::Tasks,
    services::{ProbeResult, Services, SystemdPaths, Wakes},
    spool::{Keep, Run, Spool},
    status::{Connection, Status},
    uplink::{
        Effects, Moment, Request, Uplink,
        http::{ClientError, Failure},
    },
};

const LOCK: &str = "lock";
const SPOOL: &str = "spool";
/// The first heartbeat waits so long for rates to have something to differ from.
const FIRST_SAMPLE_AFTER: Duration = Duration::from_millis(200);

/// Channels of the Event Log that nothing came in are asked again after this,
const EVENT_LOG_POLL: Duration = Duration::from_secs(1);
/// and those that can't be read after this.
const EVENT_LOG_RETRY: Duration = Duration::from_secs(10);

/// How long a request under way may take when the agent stops.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the agent can't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not enrolled, or damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS or HTTP can't be set up.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The kernel does not say which boot this is.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The state directory can't be used.
    #[error("state_dir {dir}: {source}")]
    StateDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent runs.
    #[error(
        "another watchkeep-agent uses {dir}: stop it first, or give this one another state_dir"
    )]
    Locked {
        /// The state directory.
        dir: PathBuf,
    },
    /// Signals can't be received.
    #[error("signals can't be received: {0}")]
    Signals(#[source] io::Error),
}

/// Takes the state directory for this process; it is free again when the file is closed.
pub fn lock_state_dir(dir: &Path) -> Result<File, RunError> {
    let state_dir = |source| RunError::StateDir {
        dir: dir.to_owned(),
        source,
    };
    files::make_private_dir(dir).map_err(state_dir)?;
    let file = File::create(dir.join(LOCK)).map_err(state_dir)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(RunError::Locked {
            dir: dir.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(state_dir(source)),
    }
}

/// Removes what belongs to the identity before: its unsent heartbeats and its policy. They would
/// count for another host.
pub fn forget_previous_host(state_dir: &Path) -> Result<(), RunError> {
    let spool = std::fs::remove_dir_all(state_dir.join(SPOOL));
    for removed in [spool, policy::forget(state_dir)] {
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(RunError::StateDir {
                    dir: state_dir.to_owned(),
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets the level of the log while the agent runs.
pub type SetLogLevel = Box<dyn Fn(Targets)>;

/// Runs until SIGTERM or SIGINT. `source` is where `config` came from.
pub async fn run(
    config: Config,
    source: Source,
    set_log_level: SetLogLevel,
) -> Result<(), RunError> {
    let _lock = lock_state_dir(&config.state_dir)?;
    let mut stop_signal = StopSignal::listen().map_err(RunError::Signals)?;
    let mut hangup = ReloadSignal::listen().map_err(RunError::Signals)?;
    let tasks = Tasks::default();
    let reload = Reload::new(source, set_log_level);
    let began = boot::Start::look(&config.state_dir).await?;
    let (mut agent, mut inputs) = Agent::new(config, reload, &tasks, &began)?;
    let stop = stop_signal.wait();
    tokio::pin!(stop);
    loop {
        agent.turn();
        let wake = agent.wake_at();
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = hangup.wait() => agent.reload(ReloadReason::BySignal),
            Some(()) = inputs.config.recv() => agent.config_changed(Instant::now()),
            answer = answer_of(&mut agent.request) => agent.answered(answer),
            Some(result) = inputs.services.probes.recv() => agent.probed(result),
            Some(()) = inputs.services.exits.recv() => agent.schedule.process_ended(),
            Some(()) = inputs.logs.recv() => agent.schedule.logs_changed(Instant::now()),
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    agent.stop().await;
    tasks.stop().await;
    Ok(())
}

/// Waits for the request under way; for ever if there is none.
async fn answer_of(request: &mut Option<Request>) -> Result<Vec<u8>, Failure> {
    match request {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

/// What wakes the loop from outside.
struct Inputs {
    services: Wakes,
    logs: mpsc::Receiver<()>,
    config: mpsc::Receiver<()>,
}

struct Agent {
    config: Config,
    reload: Reload,
    boot: BootId,
    instance: InstanceId,
    policy: Effective,
    /// What `policy` was made of.
    asked: Option<Policy>,
    /// What the collector was last sent about this agent's own problems.
    troubles: Option<Vec<Trouble>>,
    services: Services,
    logs: LogWatcher,
    notice: LogNotice,
    frames: FrameMaker,
    spool: Spool,
    uplink: Uplink,
    request: Option<Request>,
    schedule: Schedule,
}

impl Agent {
    fn new(
        config: Config,
        reload: Reload,
        tasks: &Tasks,
        began: &boot::Start,
    ) -> Result<(Self, Inputs), RunError> {
        let identity = Identity::load(&config.state_dir)?;
        let now = clock::now();
        let boot = began.boot;
        let instance = InstanceId(ids::random_uuid());
        let run = Run { boot, instance };
        tracing::info!(host.id = %identity.host, collector = %identity.url, "agent starts");
        let spool = Spool::open(&config.state_dir.join(SPOOL), config.spool, run);
        let uplink = Uplink::new(identity, &config.state_dir, run, config.proxy.clone())?;
        let mut logs = LogWatcher::new(
            spool.note(),
            config.limits.log_paths.clone(),
            Arc::new(Redactor::new(config.redaction_extra.clone())),
        );
        let (notice, log_changes, config_changes) = LogNotice::new(reload.file());
        logs.read_journal_with(logs::Launcher {
            program: "journalctl".into(),
            tasks: tasks.clone(),
            changes: notice.changes(),
            since_wall_us: now.wall_ms * 1_000,
            machine: logs::machine_id(),
        });
        logs.read_event_log_with(logs::EventLauncher {
            source: platform::event_log(),
            tasks: tasks.clone(),
            changes: notice.changes(),
            poll: EVENT_LOG_POLL,
            retry: EVENT_LOG_RETRY,
        });
        let (services, wakes) =
            Services::new(tasks.clone(), &config.limits, SystemdPaths::system());
        let start = Instant::now();
        let mut agent = Self {
            policy: Effective::without_policy(&config.limits),
            asked: None,
            troubles: None,
            reload,
            boot,
            instance,
            services,
            logs,
            notice,
            frames: FrameMaker::new(tasks, now, began.event(now)),
            spool,
            uplink,
            request: None,
            schedule: Schedule::new(start, start + FIRST_SAMPLE_AFTER),
            config,
        };
        if let Some(policy) = policy::load(&agent.config.state_dir) {
            agent.apply_policy(policy);
        }
        agent.write_status(now, false);
        let inputs = Inputs {
            services: wakes,
            logs: log_changes,
            config: config_changes,
        };
        Ok((agent, inputs))
    }

    /// Does everything that is due.
    fn turn(&mut self) {
        let now = Instant::now();
        if self.reload.is_due(now) {
            self.reload(ReloadReason::ByChange);
        }
        if let Some(every) = self.services.check_processes_after()
            && self.schedule.processes_due(now, every)
            && self.services.check_processes()
        {
            self.schedule.services_changed(now);
        }
        if self.schedule.logs_due(now) {
            let more = self.logs.scan(clock::now().boot_ms);
            let unhurried = self.notice.is_live() && !self.logs.record_waits();
            self.schedule.logs_read(now, more, unhurried);
            self.notice.watch(self.logs.directories());
            if self.logs.has_events() {
                self.schedule.log_matched(now);
            }
            self.save_positions(now);
        }
        if self.schedule.beat_due(now) {
            self.beat(now);
        }
        if self.request.is_none() {
            let clocks = clock::now();
            let version = self.policy.version;
            self.request = self.uplink.start(&mut self.spool, now, clocks, version);
        }
    }

    fn wake_at(&self) -> Instant {
        let attempt = self.uplink.next_attempt(&self.spool);
        let at = self
            .schedule
            .wake_at(attempt, self.services.check_processes_after());
        self.reload.due_at().map_or(at, |due| at.min(due))
    }

    fn beat(&mut self, now: Instant) {
        // What could not be delivered within an interval must survive a crash.
        self.spool.persist();
        let clocks = clock::now();
        self.make_frame(clocks, Vec::new());
        self.tell_troubles();
        let interval = Duration::from_millis(u64::from(self.policy.interval_ms));
        self.schedule.beaten(now, interval);
        // While all is well the answer, which is on its way within moments, has it written.
        if !self.uplink.is_healthy() {
            self.write_status(clocks, false);
        }
    }

    /// Makes a frame with everything that happened since the last one and puts it into the spool.
    fn make_frame(&mut self, clocks: Clocks, last_events: Vec<Event>) {
        let mut events = self.spool.make_room(clocks);
        let (log_events, positions) = self.logs.take();
        events.extend(log_events);
        events.extend(self.services.take_discovered());
        events.extend(last_events);
        let behind = !self.spool.is_empty() || !self.uplink.is_healthy();
        let services = self.services.snapshot();
        let (frame, names) = self.frames.make(frames::Input {
            clocks,
            interval_ms: self.policy.interval_ms,
            spool_frames: self.spool.len(),
            services,
            values: self.services.values(),
            behind,
            events,
        });
        let keep = keep(&frame, positions);
        self.spool.push(frame, &names.names, keep);
    }

    fn answered(&mut self, answer: Result<Vec<u8>, Failure>) {
        self.request = None;
        let now = Instant::now();
        let clocks = clock::now();
        let Effects {
            policy,
            want,
            persist,
            reconnected,
        } = self.uplink.answered(
            answer,
            &mut self.spool,
            Moment {
                instant: now,
                clocks,
            },
        );
        if persist {
            self.spool.persist();
        }
        if reconnected {
            // Agents that lost the same collector must not continue beating in step.
            let interval_ms = u64::from(self.policy.interval_ms);
            self.schedule.rephase(
                now,
                Duration::from_millis(rand::random_range(0..=interval_ms)),
            );
        }
        if want.contains(&Want::Processes) {
            let allowed = self.config.limits.busiest_processes;
            self.frames.ask_for_processes(clocks, allowed);
        }
        if let Some(policy) = policy {
            policy::store(&self.config.state_dir, &policy);
            self.apply_policy(policy);
        }
        self.write_status(clocks, false);
    }

    fn apply_policy(&mut self, policy: Policy) {
        let effective = Effective::new(&policy, &self.config.limits, &policy::is_local);
        self.asked = Some(policy);
        tracing::info!(
            policy.version = effective.version,
            refused = effective.refused.len(),
            "policy applies"
        );
        self.services
            .set(&effective.services, effective.interval_ms);
        self.logs.set(&effective.logs);
        self.uplink.report_refused(effective.refused.clone());
        let now = Instant::now();
        self.schedule
            .policy_changed(now, self.policy.interval_ms, effective.interval_ms);
        if !effective.services.is_empty() {
            self.schedule.services_changed(now);
        }
        self.policy = effective;
    }

    fn probed(&mut self, result: ProbeResult) {
        if self.services.apply(result) {
            self.schedule.services_changed(Instant::now());
        }
    }

    /// Log positions that go along with no frame. Without a disk they wait for one that does.
    fn save_positions(&mut self, now: Instant) {
        let routine = self.schedule.save_due(now);
        if self.spool.write_error().is_none()
            && let Some(positions) = self.logs.save(routine)
        {
            self.spool.save_note(positions);
        }
    }

    async fn stop(&mut self) {
        let reason = boot::goodbye_reason();
        tracing::info!(?reason, "agent stops");
        // An answer that is on its way spares sending the same frames again.
        if self.request.is_some() {
            let under_way = answer_of(&mut self.request);
            if let Ok(answer) = tokio::time::timeout(LAST_ANSWER_TIMEOUT, under_way).await {
                self.answered(answer);
            }
        }
        self.request = None;
        let clocks = clock::now();
        self.logs.scan(clocks.boot_ms);
        self.spool.persist();
        self.make_frame(clocks, vec![Event::Goodbye { reason }]);
        if let Some(positions) = self.logs.save(true) {
            self.spool.save_note(positions);
        }
        let version = self.policy.version;
        self.uplink
            .send_goodbye(&mut self.spool, clocks, version)
            .await;
        self.spool.persist();
        self.write_status(clock::now(), true);
    }

    fn write_status(&self, clocks: Clocks, stopped: bool) {
        let identity = self.uplink.identity();
        let status = Status {
            agent_version: crate::VERSION.to_owned(),
            host: identity.host,
            collector: identity.url.clone(),
            boot: self.boot,
            instance: self.instance,
            pid: std::process::id(),
            written_wall_ms: clocks.wall_ms,
            clean_stop: stopped,
            connection: if stopped {
                Connection::Stopped
            } else {
                self.uplink.connection()
            },
            last_ack_wall_ms: self.uplink.last_ack_wall_ms(),
            last_error: self.uplink.last_error().map(str::to_owned),
            seq: self.frames.seq(),
            spool_frames: self.spool.len(),
            spool_bytes: self.spool.bytes(),
            spool_error: self.spool.write_error().map(str::to_owned),
            config_error: self.reload.error().map(str::to_owned),
            policy_version: self.policy.version,
            interval_ms: self.policy.interval_ms,
            refused: self.policy.refused.clone(),
            certificate_expires_wall_ms: identity.validity_ms().map(|(_, to)| to),
            trusts: self.uplink.trusts().to_vec(),
            given_up: self.uplink.given_up().map(str::to_owned).collect(),
        };
        status.write(&self.config.state_dir);
    }
}

/// Frames with events are on disk before they are sent, together with the log positions.
fn keep(frame: &Frame, positions: Option<String>) -> Keep {
    if frame.events.is_empty() && positions.is_none() {
        Keep::Memory
    } else {
        Keep::Disk { note: positions }
    }
}
