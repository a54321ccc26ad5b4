//! Makes frames: numbers them, measures, and decides whether the services go along.

use std::sync::Arc;

use watchkeep_shared::wire::heartbeat::{Clocks, Event, Frame, Service};

use crate::sampler::{NamedSchema, Sample, Sampler};

/// Every so many frames carry the services even without a change.
const SERVICES_EVERY: u64 = 30;
/// A frame so soon after another repeats its values: differences over less time say little.
const SHORTEST_SAMPLE_MS: i64 = 150;

#[derive(Debug)]
pub(super) struct FrameMaker {
    sampler: Sampler,
    seq: u64,
    started: Option<Event>,
    sent_services: Vec<Service>,
    last: Option<(Clocks, Sample)>,
}

pub(super) struct Input {
    pub(super) clocks: Clocks,
    pub(super) interval_ms: u32,
    pub(super) spool_frames: usize,
    pub(super) services: Vec<Service>,
    /// Whether frames before this one are not acknowledged yet, so that this one must speak for
    /// itself.
    pub(super) behind: bool,
    pub(super) events: Vec<Event>,
}

impl FrameMaker {
    /// `started` is the event of the first frame.
    pub(super) fn new(sampler: Sampler, started: Event) -> Self {
        Self {
            sampler,
            seq: 0,
            started: Some(started),
            sent_services: Vec::new(),
            last: None,
        }
    }

    /// Number of the last frame; 0 before the first.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn make(&mut self, input: Input) -> (Frame, Arc<NamedSchema>) {
        self.seq += 1;
        let sample = self.measure(input.clocks, input.spool_frames);
        let mut events: Vec<Event> = self.started.take().into_iter().collect();
        events.extend(input.events);
        let with_services = self.seq == 1
            || input.behind
            || self.seq.is_multiple_of(SERVICES_EVERY)
            || input.services != self.sent_services;
        let services = with_services.then(|| input.services.clone());
        self.sent_services = input.services;
        let frame = Frame {
            boot: None,
            instance: None,
            seq: self.seq,
            clocks: input.clocks,
            interval_ms: input.interval_ms,
            schema: sample.schema.id,
            values: sample.values,
            services,
            events,
        };
        (frame, sample.schema)
    }

    fn measure(&mut self, clocks: Clocks, spool_frames: usize) -> Sample {
        if let Some((at, sample)) = &self.last
            && clocks.boot_ms - at.boot_ms < SHORTEST_SAMPLE_MS
        {
            return sample.clone();
        }
        let sample = self.sampler.sample(clocks, spool_frames);
        self.last = Some((clocks, sample.clone()));
        sample
    }
}
