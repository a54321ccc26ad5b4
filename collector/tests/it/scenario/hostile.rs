//! A host that sends whatever could hurt the others: more frames than it should, lists of metric
//! names without end, metrics that all breach, services that flap, log matches in masses, U+0000 in
//! every text, and frames that are refused.

use uuid::Uuid;
use watchkeep_collector::ingest::NotTaken;
use watchkeep_core::host::clean;
use watchkeep_shared::{
    BootId, DurationMs, HostId, InstanceId, UnixMillis, metric,
    wire::{
        heartbeat::{Ack, Batch, Clocks, Event, Frame, Schema, Service, ServiceStatus},
        limits::{
            MAX_EVENTS_PER_FRAME, MAX_FRAMES_PER_BATCH, MAX_SCHEMAS_PER_BATCH,
            MAX_SERVICES_PER_FRAME, MAX_VALUES_PER_FRAME,
        },
    },
};

/// No machine of a scenario has this identity.
const ID: u128 = 0xbad;
/// Batches in a second with lists of names that nobody knows: 86,400 lists and 32,400 frames an hour.
const FLOOD_BATCHES: usize = 3;
const FRAMES_A_BATCH: usize = 3;
/// How often it beats when it is not hostile.
const BEAT_EVERY_S: i64 = 10;
/// All metrics that a frame can have are sent so often.
const BREACH_EVERY_S: i64 = 10;
/// A batch as large as may be comes so often.
const FLAP_EVERY_S: i64 = 60;
/// What it sends comes past the agents' port, which cleans texts, so often.
const UNCLEAN_EVERY_S: i64 = 300;
const NUL: &str = "a\u{0}b";

/// The host.
#[derive(Debug)]
pub(super) struct Hostile {
    pub(super) host: HostId,
    /// `false`: it beats as every other host does, for comparison.
    attacks: bool,
    began: UnixMillis,
    seq: u64,
    lists: u64,
    /// A frame that is sent again.
    repeated: Option<Frame>,
    pub(super) sent: Tally,
}

/// What it sent, and what became of that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) frames: u64,
    pub(super) lists: u64,
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    /// Batches that were refused as a whole.
    pub(super) refused: u64,
}

impl Tally {
    pub(super) fn count(&mut self, answer: &Result<Ack, NotTaken>) {
        match answer {
            Ok(ack) => {
                self.accepted += u64::from(ack.accepted);
                self.rejected += ack.rejected.len() as u64;
            }
            Err(_) => self.refused += 1,
        }
    }
}

impl Hostile {
    pub(super) fn new(now: UnixMillis, attacks: bool) -> Self {
        Self {
            host: HostId(Uuid::from_u128(ID)),
            attacks,
            began: now - DurationMs::from_hours(1),
            seq: 0,
            lists: 0,
            repeated: None,
            sent: Tally::default(),
        }
    }

    /// What it sends in the second that ends at `now`.
    pub(super) fn batches(&mut self, now: UnixMillis) -> Vec<Batch> {
        let second = now.0 / 1_000;
        if !self.attacks {
            let is_due = second % BEAT_EVERY_S == 0;
            return is_due.then(|| self.plain(now)).into_iter().collect();
        }
        let mut batches: Vec<Batch> = (0..FLOOD_BATCHES).map(|n| self.flood(now, n)).collect();
        if second % FLAP_EVERY_S == 0 {
            batches.push(self.flaps(now));
        }
        batches.push(self.refusals(now));
        if second % BREACH_EVERY_S == 0 {
            batches.push(self.breaches(now));
        }
        if second % UNCLEAN_EVERY_S == 0 {
            NUL.clone_into(&mut batches[0].agent_version);
        } else {
            batches.iter_mut().for_each(clean);
        }
        for batch in &batches {
            self.sent.frames += batch.frames.len() as u64;
            self.sent.lists += batch.schemas.len() as u64;
        }
        batches
    }

    /// Frames, each with a list of its own, and one a second with all else that a frame can hold.
    fn flood(&mut self, now: UnixMillis, n: usize) -> Batch {
        let lists: Vec<Schema> = (0..MAX_SCHEMAS_PER_BATCH)
            .map(|_| {
                self.lists += 1;
                list(vec![
                    "cpu.busy_pct".to_owned(),
                    format!("{NUL}.{}", self.lists),
                ])
            })
            .collect();
        let flaps = if now.0 / 1_000 % 2 == 0 {
            ServiceStatus::Failed
        } else {
            ServiceStatus::Running
        };
        let frames = (0..FRAMES_A_BATCH)
            .map(|k| {
                let ago_ms = 1_000 - (n * FRAMES_A_BATCH + k + 1) as i64 * 80;
                let mut frame = self.frame(now - DurationMs(ago_ms), &lists[k]);
                if (n, k) == (0, 0) {
                    let services = (0..MAX_SERVICES_PER_FRAME).map(|n| service(n, flaps));
                    frame.services = Some(services.collect());
                    frame.events = (0..MAX_EVENTS_PER_FRAME).map(log_match).collect();
                }
                frame
            })
            .collect();
        self.batch(now, lists, frames)
    }

    /// Once in a while: a batch as large as may be, in each frame of which other services have failed
    /// and other log rules have matched.
    fn flaps(&mut self, now: UnixMillis) -> Batch {
        let list = list(vec!["cpu.busy_pct".to_owned()]);
        let frames = (0..MAX_FRAMES_PER_BATCH).map(|k| {
            let mut frame = self.frame(now - DurationMs((MAX_FRAMES_PER_BATCH - k) as i64), &list);
            let services = (0..MAX_SERVICES_PER_FRAME).map(|n| Service {
                key: format!("systemd:flaps-{k}-{n}.service"),
                ..service(n, ServiceStatus::Failed)
            });
            frame.services = Some(services.collect());
            frame.events = (0..MAX_EVENTS_PER_FRAME)
                .map(|n| Event::LogMatch {
                    rule: format!("rule {k} {n}"),
                    path: NUL.to_owned(),
                    count: u64::MAX,
                    lines: Vec::new(),
                })
                .collect();
            frame
        });
        let frames = frames.collect();
        self.batch(now, vec![list], frames)
    }

    /// One frame as any host sends it.
    fn plain(&mut self, now: UnixMillis) -> Batch {
        let list = list(vec!["cpu.busy_pct".to_owned()]);
        let mut frame = self.frame(now, &list);
        frame.values = vec![Some(5.0)];
        self.batch(now, vec![list], vec![frame])
    }

    /// As many breaching metrics as fit into a frame.
    fn breaches(&mut self, now: UnixMillis) -> Batch {
        let names = (0..MAX_VALUES_PER_FRAME).map(|n| format!("disk.used_pct:/mnt/{n}"));
        let list = list(names.collect());
        let mut frame = self.frame(now, &list);
        frame.values = vec![Some(99.0); MAX_VALUES_PER_FRAME];
        self.batch(now, vec![list], vec![frame])
    }

    /// Frames that are refused, each for a reason of its own, one that was taken before, and one
    /// that is taken.
    fn refusals(&mut self, now: UnixMillis) -> Batch {
        let known = list(vec!["cpu.busy_pct".to_owned()]);
        let mut old = self.frame(now, &known);
        old.clocks.boot_ms -= DurationMs::from_hours(24 * 30).0;
        let mut future = self.frame(now, &known);
        future.clocks.boot_ms += DurationMs::from_hours(1).0;
        let mut sequence = self.frame(now, &known);
        sequence.seq = 0;
        let mut count = self.frame(now, &known);
        count.values.push(Some(f64::MAX));
        let mut text = self.frame(now, &known);
        text.services = Some(vec![Service {
            key: NUL.to_owned(),
            ..service(0, ServiceStatus::Failed)
        }]);
        let mut frames = vec![old, future, sequence, count, text];
        let known_frame = self.frame(now, &known);
        frames.extend(self.repeated.replace(known_frame.clone()));
        frames.push(known_frame);
        self.batch(now, vec![known], frames)
    }

    fn frame(&mut self, at: UnixMillis, list: &Schema) -> Frame {
        self.seq += 1;
        Frame {
            boot: None,
            instance: None,
            seq: self.seq,
            clocks: self.clocks(at),
            interval_ms: 10_000,
            schema: list.id,
            values: vec![Some(99.0); list.names.len()],
            services: None,
            events: Vec::new(),
        }
    }

    fn batch(&self, now: UnixMillis, schemas: Vec<Schema>, frames: Vec<Frame>) -> Batch {
        Batch {
            v: 1,
            agent_version: "0.1.0".to_owned(),
            boot: BootId(Uuid::from_u128(ID)),
            instance: InstanceId(Uuid::from_u128(ID)),
            sent: self.clocks(now),
            policy_version: 0,
            trusts: Vec::new(),
            refused: None,
            troubles: None,
            schemas,
            frames,
        }
    }

    fn clocks(&self, at: UnixMillis) -> Clocks {
        let up_ms = at.since(self.began).0;
        Clocks {
            wall_ms: at.0,
            mono_ms: up_ms,
            boot_ms: up_ms,
        }
    }
}

fn list(names: Vec<String>) -> Schema {
    Schema {
        id: metric::schema_id(&names),
        names,
    }
}

fn service(n: usize, status: ServiceStatus) -> Service {
    Service {
        key: format!("systemd:flaps-{n}.service"),
        status,
        detail: Some(NUL.to_owned()),
    }
}

fn log_match(n: usize) -> Event {
    Event::LogMatch {
        rule: format!("rule {n}"),
        path: format!("/var/log/{NUL}/{n}"),
        count: u64::MAX,
        lines: vec![NUL.to_owned(); 10],
    }
}
