//! Folding a batch of frames into a host's state.

use watchkeep_shared::{
    BootId, DurationMs, HostId, InstanceId, UnixMillis,
    wire::{
        heartbeat::{Batch, Event, Frame, GoodbyeReason, PreviousBoot, RejectReason},
        limits::MAX_TROUBLES,
    },
};

use super::{
    Arrival, Chain, HostState,
    arrival::{Certainty, arrive},
    chain_evidence,
    clock::{self, BootSkew, ClockOffset, MAX_CLOCK_LAG_MS, Pause},
    place::{check_limits, place},
    seen::Known,
    unbroken_ms,
};
use crate::evidence::{Evidence, EvidenceKind, FrameMark};

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchTaken {
    /// One entry a frame, in the batch's order.
    pub frames: Vec<FrameTaken>,
    /// Evidence to append.
    pub evidence: Vec<Evidence>,
    /// Something changed that the tail alone would not bring back: write the state.
    pub durable: bool,
    /// The host was overdue and a live frame ended that.
    pub back: bool,
    /// The wall clock was set by so much since the batch before.
    pub clock_step: Option<DurationMs>,
    /// The machine slept before the newest frame.
    pub pause: Option<Pause>,
}

/// What became of one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameTaken {
    /// Its sequence number.
    pub seq: u64,
    /// Its agent process.
    pub instance: InstanceId,
    /// How it ended.
    pub outcome: Outcome,
}

/// Every frame ends as exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Taken now: store it.
    Taken(Placed),
    /// Known already: acknowledge it.
    Repeat,
    /// Never to be taken.
    Rejected(RejectReason),
}

/// The place of a taken frame in the record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// Its mark.
    pub mark: FrameMark,
    /// Received late.
    pub late: bool,
    /// It is the newest of the host: rules look at it.
    pub newest: bool,
}

/// A run of late frames in this batch, to become one row of evidence.
#[derive(Clone, Copy, Debug)]
struct LateRun {
    first: FrameMark,
    last: FrameMark,
    max_step_ms: i64,
}

/// Folds a batch into a host's state. `names` gives the number of names of a schema, if it is known.
pub fn take_batch(
    state: &mut HostState,
    host: HostId,
    batch: &Batch,
    arrived_at: UnixMillis,
    names: &dyn Fn(&Frame) -> Option<usize>,
) -> BatchTaken {
    let arrival = arrive(state, batch, arrived_at);
    let mut take = Take {
        host,
        arrival,
        state,
        out: BatchTaken::default(),
        late: None,
    };
    take.correct_origin();
    for frame in &batch.frames {
        let instance = frame.instance.unwrap_or(batch.instance);
        let outcome = match take.frame(frame, names(frame)) {
            Ok(outcome) => outcome,
            Err(reason) => Outcome::Rejected(reason),
        };
        take.out.frames.push(FrameTaken {
            seq: frame.seq,
            instance,
            outcome,
        });
    }
    take.end_late_run();
    take.report(batch);
    take.out
}

/// A machine that was suspended, or paused by its hypervisor, comes back with a monotonic clock that
/// stood still: between two frames it must have advanced as much as the collector's own.
fn clocks_agree(before: &FrameMark, after: &FrameMark) -> bool {
    let ours = after.at.since(before.at).0;
    let theirs = (after.boot_ms - before.boot_ms).min(after.mono_ms - before.mono_ms);
    ours - theirs <= MAX_CLOCK_LAG_MS
}

struct Take<'a> {
    host: HostId,
    arrival: Arrival,
    state: &'a mut HostState,
    out: BatchTaken,
    late: Option<LateRun>,
}

impl Take<'_> {
    fn frame(&mut self, frame: &Frame, names: Option<usize>) -> Result<Outcome, RejectReason> {
        check_limits(frame)?;
        if names.is_some_and(|count| count != frame.values.len()) {
            return Err(RejectReason::ValueCount);
        }
        let place = place(self.state, frame, &self.arrival)?;
        let instance = frame.instance.unwrap_or(self.arrival.instance);
        match self.state.seen.look_up(instance, frame.seq, place.at) {
            Known::New => {}
            Known::Repeat => return Ok(Outcome::Repeat),
            Known::Forgotten => return Err(RejectReason::TooOld),
        }
        let mark = FrameMark {
            boot: frame.boot.unwrap_or(self.arrival.boot),
            instance,
            seq: frame.seq,
            at: place.at,
            arrived_at: self.arrival.at,
            mono_ms: frame.clocks.mono_ms,
            boot_ms: frame.clocks.boot_ms,
        };
        let first_of_boot = !self.state.seen.is_empty() && !self.state.seen.knows_boot(mark.boot);
        self.out.durable |= self.state.seen.insert(&mark);
        let newest = !place.late && self.is_newest(&mark);
        if newest {
            self.live(frame, mark);
        } else if place.sure {
            if first_of_boot {
                self.booted(&mark, mark.at);
            }
            self.add_to_late_run(frame, mark);
        } else {
            self.state.seen.doubt(mark.instance);
            clock::note_doubt(self.state, ClockOffset::of(mark.boot, frame.clocks));
            self.out.durable = true;
        }
        self.events(frame, &mark, newest || place.sure);
        if newest {
            self.services(frame);
        }
        Ok(Outcome::Taken(Placed {
            mark,
            late: place.late,
            newest,
        }))
    }

    fn is_newest(&self, mark: &FrameMark) -> bool {
        self.state.last.is_none_or(|last| {
            if last.instance == mark.instance {
                mark.seq > last.seq
            } else {
                mark.at >= last.at
            }
        })
    }

    /// A live frame that is the newest of its host: it extends the open chain or breaks it.
    fn live(&mut self, frame: &Frame, mark: FrameMark) {
        let step_ms = unbroken_ms(frame.interval_ms);
        if let Some(last) = &self.state.last {
            self.out.pause = clock::pause(last, &mark).or(self.out.pause);
        }
        let extends = self.state.last.is_some_and(|last| {
            let allowed = step_ms.max(unbroken_ms(self.state.interval_ms));
            self.state.chain.is_some()
                && last.instance == mark.instance
                && (0..=allowed).contains(&(mark.boot_ms - last.boot_ms))
                && clocks_agree(&last, &mark)
        });
        if !extends {
            self.break_chain(mark);
            self.state.chain = Some(Chain {
                from: mark.at,
                seq_from: mark.seq,
                max_step_ms: step_ms,
            });
        } else if frame.interval_ms != self.state.interval_ms
            && let Some(chain) = &mut self.state.chain
        {
            chain.max_step_ms = chain.max_step_ms.max(step_ms);
            self.out.durable = true;
        }
        // Two marks of one process never run backwards, whatever the network's delay was.
        let at = self.state.last.map_or(mark.at, |last| mark.at.max(last.at));
        self.state.last = Some(FrameMark { at, ..mark });
        self.state.interval_ms = frame.interval_ms;
        // After a pause the wall clock is another one than where the frame was placed.
        if self.arrival.certainty != Certainty::Doubtful {
            self.state.live_clock = Some(ClockOffset::of(mark.boot, frame.clocks));
            self.state.skew_ms = self.arrival.skew_ms();
        }
        if self.state.overdue {
            self.state.overdue = false;
            self.out.back = true;
            self.out.durable = true;
        }
        if self.state.goodbye.take().is_some() {
            self.out.durable = true;
        }
    }

    /// An arrival that took much less time than those before shows that their frames were made
    /// earlier than they were placed.
    fn correct_origin(&mut self) {
        let Some(last) = self
            .state
            .last
            .filter(|last| last.boot == self.arrival.boot)
        else {
            return;
        };
        let early_ms = clock::origin_of(&last).saturating_sub(self.arrival.origin_ms);
        let ran_ms = self.arrival.sent.boot_ms.saturating_sub(last.boot_ms);
        if early_ms <= MAX_CLOCK_LAG_MS.saturating_add(ran_ms.max(0) / clock::DRIFT) {
            return;
        }
        let earlier = |at: UnixMillis| UnixMillis(at.0.saturating_sub(early_ms));
        let last = FrameMark {
            at: earlier(last.at),
            ..last
        };
        self.state.last = Some(last);
        let mut first_at = last.at;
        if let Some(chain) = &mut self.state.chain {
            chain.from = earlier(chain.from);
            first_at = chain.from;
        }
        self.out.durable = true;
        self.booted(&last, first_at);
    }

    fn break_chain(&mut self, after: FrameMark) {
        self.out.durable = true;
        let Some(before) = self.state.last else {
            return;
        };
        if before.boot != after.boot {
            clock::remember_skew(self.state, before.boot);
        }
        self.state.before_break = Some(self.state.anchor(before));
        if let Some(chain) = self.state.chain.take() {
            self.out
                .evidence
                .push(chain_evidence(self.host, chain, before, self.arrival.at));
        }
        let stood_ms = self.may_have_stood_ms(after.boot);
        let ran_ms = after.boot_ms.saturating_add(stood_ms);
        let kernel_boot_at = UnixMillis(after.at.0.saturating_sub(ran_ms));
        self.push(
            EvidenceKind::Resumed {
                before,
                after,
                kernel_boot_at,
                previous_boot_last_seen: None,
                goodbye: self.state.goodbye,
            },
            before.at,
            after.at.max(before.at),
        );
    }

    /// Late frames come rarely and many at once: the state is written with each such batch, so a
    /// host that is overdue never has rows in the tail that its state lacks.
    fn add_to_late_run(&mut self, frame: &Frame, mark: FrameMark) {
        self.out.durable = true;
        let step_ms = unbroken_ms(frame.interval_ms);
        if let Some(run) = &mut self.late {
            let joins = run.last.instance == mark.instance
                && run.last.seq.checked_add(1) == Some(mark.seq)
                && (0..=step_ms.max(run.max_step_ms)).contains(&(mark.boot_ms - run.last.boot_ms))
                && clocks_agree(&run.last, &mark);
            if joins {
                run.last = mark;
                run.max_step_ms = run.max_step_ms.max(step_ms);
                return;
            }
        }
        self.end_late_run();
        self.late = Some(LateRun {
            first: mark,
            last: mark,
            max_step_ms: step_ms,
        });
    }

    fn end_late_run(&mut self) {
        let Some(run) = self.late.take() else { return };
        let kind = EvidenceKind::Frames {
            boot: run.last.boot,
            instance: run.last.instance,
            seq_from: run.first.seq,
            seq_to: run.last.seq,
            late: true,
            max_step_ms: run.max_step_ms,
        };
        self.push(kind, run.first.at, run.last.at.max(run.first.at));
    }

    fn events(&mut self, frame: &Frame, mark: &FrameMark, is_sure: bool) {
        for event in &frame.events {
            match event {
                // At an instant that is not known it proves nothing.
                Event::Goodbye { reason } if is_sure => self.goodbye(*reason, mark),
                Event::AgentStarted {
                    previous_boot: Some(previous),
                    ..
                } => {
                    self.previous_boot(frame, mark, previous);
                }
                _ => {}
            }
        }
    }

    fn goodbye(&mut self, reason: GoodbyeReason, mark: &FrameMark) {
        self.push(EvidenceKind::Goodbye { reason }, mark.at, mark.at);
        // A goodbye that arrives after its successor's frames is history.
        if self
            .state
            .last
            .is_some_and(|last| last.instance == mark.instance)
        {
            self.state.goodbye = Some(reason);
            self.out.durable = true;
        }
    }

    /// What the operating system kept of the boot before, whenever it arrives. It is dated by that
    /// boot's own wall clock; if how that stood is not known, it proves nothing.
    fn previous_boot(&mut self, frame: &Frame, mark: &FrameMark, previous: &PreviousBoot) {
        let (Some(boot), Some(wall_ms)) = (previous.boot, previous.last_seen_wall_ms) else {
            return;
        };
        // The kernel may have started earlier than its boot clock says: never down for longer.
        let stood_ms = self.may_have_stood_ms(mark.boot);
        let at = UnixMillis(mark.at.0.saturating_sub(stood_ms));
        let teller = BootSkew {
            boot: mark.boot,
            skew_ms: frame.clocks.wall_ms.saturating_sub(at.0),
        };
        let Some(skew_ms) = clock::skew_of(self.state, boot, teller) else {
            return;
        };
        let started = at.0.saturating_sub(frame.clocks.boot_ms);
        let wall_at_start_ms = frame.clocks.wall_ms.saturating_sub(frame.clocks.boot_ms);
        let seen_at = UnixMillis(wall_ms.saturating_sub(skew_ms).min(started));
        let reaches = UnixMillis(wall_at_start_ms.saturating_sub(skew_ms).min(started));
        let kind = EvidenceKind::PreviousBoot {
            boot,
            next: mark.boot,
            reaches,
        };
        self.push(kind, seen_at, UnixMillis(started));
    }

    /// How much earlier a kernel may have started than its boot clock says.
    fn may_have_stood_ms(&self, boot: BootId) -> i64 {
        if boot != self.arrival.boot {
            return 0;
        }
        clock::may_have_stood_ms(self.state, ClockOffset::of(boot, self.arrival.sent))
    }

    /// What a frame of a boot says of its kernel, if not the first of its boot that was received
    /// in time: when it started, and that it ran to an instant.
    fn booted(&mut self, mark: &FrameMark, to: UnixMillis) {
        let started = UnixMillis(clock::origin_of(mark));
        let suspended_ms = mark.boot_ms.saturating_sub(mark.mono_ms);
        let ran_to = if suspended_ms <= MAX_CLOCK_LAG_MS {
            to.max(started)
        } else {
            started
        };
        self.push(EvidenceKind::Booted { boot: mark.boot }, started, ran_to);
    }

    /// Only the newest frame says how services are now.
    fn services(&mut self, frame: &Frame) {
        if let Some(services) = &frame.services
            && *services != self.state.services
        {
            // Those of before, for a state that was written by a version that noted none.
            self.state.note_present();
            self.state.services.clone_from(services);
            self.state.note_present();
            self.out.durable = true;
        }
    }

    fn report(&mut self, batch: &Batch) {
        // A batch that was overtaken by a newer process is history.
        if self
            .state
            .last
            .is_some_and(|last| last.instance == batch.instance)
        {
            self.out.clock_step =
                clock::take_reading(&mut self.state.clock, batch.boot, batch.sent);
            self.out.durable |= self.out.clock_step.is_some();
        }
        if let Some(troubles) = &batch.troubles
            && *troubles != self.state.troubles
        {
            self.state.troubles.clone_from(troubles);
            self.state.troubles.truncate(MAX_TROUBLES);
            self.out.durable = true;
        }
        if batch.policy_version != self.state.policy_version {
            self.state.policy_version = batch.policy_version;
            self.out.durable = true;
        }
        if let Some(refused) = &batch.refused
            && *refused != self.state.refused
        {
            self.state.refused.clone_from(refused);
            self.out.durable = true;
        }
    }

    fn push(&mut self, kind: EvidenceKind, from: UnixMillis, to: UnixMillis) {
        self.out.evidence.push(Evidence {
            host: Some(self.host),
            kind,
            valid_from: from,
            valid_to: to,
            recorded_at: self.arrival.at,
        });
    }
}
