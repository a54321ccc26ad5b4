//! A simulated server with its agent: beats at its interval, keeps what was not acknowledged, and
//! sends it again.

use uuid::Uuid;
use watchkeep_shared::{
    BootId, DurationMs, HostId, InstanceId, UnixMillis, metric,
    wire::{
        heartbeat::{
            Ack, Batch, Clocks, Event, Frame, GoodbyeReason, Schema, Service, ServiceStatus,
        },
        limits::MAX_FRAMES_PER_BATCH,
    },
};

use super::network::{Heard, Line};

/// What every machine measures.
pub(super) const METRICS: [&str; 2] = ["cpu.busy_pct", "disk.used_pct:/"];
/// The one service that every machine watches.
pub(super) const SERVICE: &str = "systemd:shop.service";
/// How often an agent beats.
pub(super) const INTERVAL: DurationMs = DurationMs::from_secs(10);
/// Most frames that an agent keeps while it can't send.
const SPOOL_FRAMES: usize = 4_096;

/// The machine.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of a test"
)]
pub(crate) struct Machine {
    pub(crate) host: HostId,
    pub(crate) name: String,
    /// Whether it runs.
    pub(super) is_on: bool,
    /// Whether it lost its power: it sends not even what it was about to.
    has_no_power: bool,
    /// Whether its agent reaches the collector.
    pub(super) is_connected: bool,
    /// Whether it was retired: the collector refuses its certificate.
    pub(super) is_retired: bool,
    /// When its agent beats next.
    pub(super) next_beat: UnixMillis,
    /// Its line, if requests take their time or get lost.
    pub(super) line: Option<Line>,
    /// Nothing on it runs before this instant.
    stalled_until: UnixMillis,
    /// Its wall clock minus the true time.
    wall_ahead: DurationMs,
    /// When it was off, the last time perhaps still.
    off: Vec<(UnixMillis, Option<UnixMillis>)>,
    /// When the collector took something from it, oldest first.
    heard: Vec<UnixMillis>,
    /// Frames that were acknowledged as taken, by instance and number.
    pub(super) acknowledged: Vec<(Uuid, u64)>,
    cpu_pct: f64,
    disk_pct: f64,
    service: ServiceStatus,
    /// Further services, all of which have failed.
    more_failed: std::ops::Range<usize>,
    boot: Uuid,
    booted_at: UnixMillis,
    instance: Uuid,
    seq: u64,
    spool: Vec<Frame>,
    sends_services: bool,
    events: Vec<Event>,
}

impl Machine {
    pub(super) fn new(host: HostId, name: &str, now: UnixMillis) -> Self {
        let mut machine = Self {
            host,
            name: name.to_owned(),
            is_on: true,
            has_no_power: false,
            is_connected: true,
            is_retired: false,
            next_beat: now,
            line: None,
            stalled_until: now,
            wall_ahead: DurationMs(0),
            off: Vec::new(),
            heard: Vec::new(),
            acknowledged: Vec::new(),
            cpu_pct: 5.0,
            disk_pct: 40.0,
            service: ServiceStatus::Running,
            more_failed: 0..0,
            boot: Uuid::nil(),
            booted_at: now,
            instance: Uuid::nil(),
            seq: 0,
            spool: Vec::new(),
            sends_services: true,
            events: Vec::new(),
        };
        machine.boot_up(now - DurationMs::from_hours(1));
        machine.next_beat = now;
        machine
    }

    /// Starts the machine with a new boot.
    pub(super) fn boot_up(&mut self, now: UnixMillis) {
        self.is_on = true;
        self.has_no_power = false;
        if let Some((_, end)) = self.off.last_mut() {
            end.get_or_insert(now);
        }
        self.boot = Uuid::new_v4();
        self.booted_at = now;
        self.restart_agent(now);
    }

    /// Starts a new agent process. What the one before could not send is kept.
    pub(super) fn restart_agent(&mut self, now: UnixMillis) {
        self.instance = Uuid::new_v4();
        self.seq = 0;
        self.next_beat = now;
        self.sends_services = true;
        self.events.push(Event::AgentStarted {
            clean_stop: None,
            previous_boot: None,
        });
    }

    /// Ends the machine without a word.
    pub(super) fn cut_power(&mut self, now: UnixMillis) {
        self.turn_off(now);
        self.has_no_power = true;
        if let Some(line) = &mut self.line {
            line.fail(now);
        }
    }

    fn turn_off(&mut self, now: UnixMillis) {
        if self.is_on {
            self.is_on = false;
            self.off.push((now, None));
        }
    }

    /// Whether it was off at any time between two instants.
    pub(super) fn was_off(&self, from: UnixMillis, to: UnixMillis) -> bool {
        let mut off = self.off.iter();
        off.any(|(start, end)| *start < to && end.is_none_or(|end| from < end))
    }

    /// Since when it is off.
    pub(super) fn off_since(&self) -> Option<UnixMillis> {
        let last = self.off.last();
        last.filter(|(_, end)| end.is_none())
            .map(|(start, _)| *start)
    }

    /// Nothing on it runs for a while (it was stopped, or its disk hangs).
    pub(super) fn stall(&mut self, until: UnixMillis) {
        self.stalled_until = until;
    }

    /// Someone sets its wall clock.
    pub(super) fn set_wall(&mut self, by: DurationMs) {
        self.wall_ahead = DurationMs(self.wall_ahead.0 + by.0);
    }

    /// The collector's time jumped by so much, as it does when it starts after its clock was set.
    /// Nothing happened to the machine.
    pub(super) fn shift(&mut self, by: DurationMs) {
        let own = [
            &mut self.next_beat,
            &mut self.stalled_until,
            &mut self.booted_at,
        ];
        for at in own.into_iter().chain(&mut self.heard) {
            *at = *at + by;
        }
        for (start, end) in &mut self.off {
            *start = *start + by;
            *end = end.map(|end| end + by);
        }
        // Its own wall clock does not jump with the collector's.
        self.wall_ahead = DurationMs(self.wall_ahead.0 - by.0);
        if let Some(line) = &mut self.line {
            line.shift(by);
        }
    }

    /// Says goodbye with the next beat, which comes at once; then the machine is off.
    pub(super) fn shut_down(&mut self, now: UnixMillis) {
        self.events.push(Event::Goodbye {
            reason: GoodbyeReason::Shutdown,
        });
        self.beat(now);
        self.turn_off(now);
    }

    pub(super) fn set_disk(&mut self, pct: f64) {
        self.disk_pct = pct;
    }

    /// A change of the service's state is sent at once: with the next second's frame.
    pub(super) fn set_service(&mut self, status: ServiceStatus, now: UnixMillis) {
        if self.service != status {
            self.service = status;
            self.sends_services = true;
            self.next_beat = now + DurationMs::from_secs(1);
        }
    }

    /// These further services have failed, and no others.
    pub(super) fn set_more_failed(&mut self, which: std::ops::Range<usize>, now: UnixMillis) {
        self.more_failed = which;
        self.sends_services = true;
        self.next_beat = now + DurationMs::from_secs(1);
    }

    /// Makes a frame of this instant, if one is due.
    pub(super) fn beat_if_due(&mut self, now: UnixMillis) {
        if now < self.stalled_until {
            return;
        }
        // What was due meanwhile is not made afterwards.
        if self.next_beat < self.stalled_until {
            self.next_beat = now;
        }
        while self.is_on && self.next_beat <= now {
            let at = self.next_beat;
            self.beat(at);
            self.next_beat = at + INTERVAL;
        }
    }

    fn beat(&mut self, at: UnixMillis) {
        self.seq += 1;
        let services = std::mem::take(&mut self.sends_services).then(|| {
            let service = |key: String, status| Service {
                key,
                status,
                detail: (status == ServiceStatus::Failed).then(|| "exit code 3".to_owned()),
            };
            let more = self
                .more_failed
                .clone()
                .map(|n| service(format!("systemd:job-{n}.service"), ServiceStatus::Failed));
            let first = service(SERVICE.to_owned(), self.service);
            std::iter::once(first).chain(more).collect()
        });
        self.spool.push(Frame {
            boot: Some(BootId(self.boot)),
            instance: Some(InstanceId(self.instance)),
            seq: self.seq,
            clocks: self.clocks(at),
            interval_ms: INTERVAL.0 as u32,
            schema: metric::schema_id(&names()),
            values: vec![Some(self.cpu_pct), Some(self.disk_pct)],
            services,
            events: std::mem::take(&mut self.events),
        });
        if self.spool.len() > SPOOL_FRAMES {
            self.spool.remove(0);
        }
    }

    fn clocks(&self, at: UnixMillis) -> Clocks {
        let up_ms = at.since(self.booted_at).0;
        Clocks {
            wall_ms: at.0 + self.wall_ahead.0,
            mono_ms: up_ms,
            boot_ms: up_ms,
        }
    }

    /// Whether the collector took something from it between two instants, both left out.
    pub(super) fn was_heard(&self, from: UnixMillis, to: UnixMillis) -> bool {
        let first_after = self.heard.partition_point(|at| *at <= from);
        self.heard.get(first_after).is_some_and(|at| *at < to)
    }

    /// What it would send now: all that was not acknowledged, oldest first.
    pub(super) fn batch(&self, now: UnixMillis) -> Option<Batch> {
        if self.has_no_power || !self.is_connected || self.is_retired || self.spool.is_empty() {
            return None;
        }
        let frames = &self.spool[..self.spool.len().min(MAX_FRAMES_PER_BATCH)];
        Some(Batch {
            v: 1,
            agent_version: "0.1.0".to_owned(),
            boot: BootId(self.boot),
            instance: InstanceId(self.instance),
            sent: self.clocks(now),
            policy_version: 0,
            trusts: Vec::new(),
            refused: None,
            troubles: None,
            schemas: vec![Schema {
                id: metric::schema_id(&names()),
                names: names(),
            }],
            frames: frames.to_vec(),
        })
    }

    /// What reaches the collector now.
    pub(super) fn arriving(&mut self, now: UnixMillis) -> Option<Batch> {
        let Some(mut line) = self.line.take() else {
            return self.batch(now);
        };
        if line.is_free(now)
            && now >= self.stalled_until
            && let Some(batch) = self.batch(now)
        {
            line.send(batch, now);
        }
        let arriving = line.arriving(now);
        self.line = Some(line);
        arriving
    }

    /// The collector took a batch and answers.
    pub(super) fn taken(&mut self, batch: &Batch, ack: &Ack, now: UnixMillis) {
        let learned = self.line.as_mut().map_or(Heard::Answer, Line::answered);
        match learned {
            Heard::Answer => self.answered(batch, ack, now),
            Heard::Nothing => self.heard.push(now),
        }
    }

    /// The collector wants to have it again: it knows that the machine is there.
    pub(super) fn asked_again(&mut self, now: UnixMillis) {
        self.heard.push(now);
        self.not_taken(now);
    }

    /// The collector can't be reached, or does not answer.
    pub(super) fn not_taken(&mut self, now: UnixMillis) {
        if let Some(line) = &mut self.line {
            line.fail(now);
        }
    }

    /// Drops what an answer says is taken or refused.
    fn answered(&mut self, batch: &Batch, ack: &Ack, now: UnixMillis) {
        self.heard.push(now);
        if !ack.unknown_schemas.is_empty() {
            return;
        }
        let is_rejected = |frame: &Frame| {
            ack.rejected
                .iter()
                .any(|one| one.seq == frame.seq && one.instance == frame.instance)
        };
        for frame in batch.frames.iter().filter(|frame| !is_rejected(frame)) {
            let instance = frame.instance.unwrap_or(batch.instance);
            self.acknowledged.push((instance.0, frame.seq));
        }
        self.spool.drain(..batch.frames.len());
    }
}

fn names() -> Vec<String> {
    METRICS.map(str::to_owned).to_vec()
}
