//! Makes frames: numbers them, measures, and decides whether the services go along.

use std::sync::Arc;

use watchkeep_shared::{
    ids::SchemaId,
    metric::{self, round_to_hundredth},
    wire::{
        heartbeat::{Clocks, Event, Frame, Service},
        limits::MAX_VALUES_PER_FRAME,
    },
};

use crate::{
    process::Tasks,
    sampler::{Busiest, Facts, NamedSchema, Sample, Sampler},
    timekeeping::Timekeeping,
};

/// Every so many frames carry the services even without a change.
const SERVICES_EVERY: u64 = 30;
/// A frame so soon after another repeats its values: differences over less time say little.
const SHORTEST_SAMPLE_MS: i64 = 150;

#[derive(Debug)]
pub(super) struct FrameMaker {
    sampler: Sampler,
    timekeeping: Timekeeping,
    seq: u64,
    started: Option<Event>,
    facts: Facts,
    busiest: Busiest,
    sent_services: Vec<Service>,
    last: Option<(Clocks, Sample)>,
    /// The sampler's schema and ours, which has the names of what was asked or probed besides.
    joined: Option<(SchemaId, Arc<NamedSchema>)>,
}

pub(super) struct Input {
    pub(super) clocks: Clocks,
    pub(super) interval_ms: u32,
    pub(super) spool_frames: usize,
    pub(super) services: Vec<Service>,
    /// Metrics that probes of services gave.
    pub(super) values: Vec<(String, Option<f64>)>,
    /// Whether frames before this one are not acknowledged yet, so that this one must speak for
    /// itself.
    pub(super) behind: bool,
    pub(super) events: Vec<Event>,
}

impl FrameMaker {
    /// `started` is the event of the first frame.
    pub(super) fn new(tasks: &Tasks, now: Clocks, started: Event) -> Self {
        Self {
            sampler: Sampler::new(now),
            timekeeping: Timekeeping::start(tasks),
            seq: 0,
            started: Some(started),
            facts: Facts::default(),
            busiest: Busiest::default(),
            sent_services: Vec::new(),
            last: None,
            joined: None,
        }
    }

    /// Number of the last frame; 0 before the first.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// The collector asks for the busiest processes, which the customer allows or not.
    pub(super) fn ask_for_processes(&mut self, now: Clocks, allowed: bool) {
        self.busiest.ask(now, allowed);
    }

    pub(super) fn make(&mut self, input: Input) -> (Frame, Arc<NamedSchema>) {
        self.seq += 1;
        let sample = self.measure(input.clocks, input.spool_frames);
        let mut values = self.timekeeping.values();
        values.extend(input.values);
        let sample = self.with_values(sample, &values);
        let mut events: Vec<Event> = self.started.take().into_iter().collect();
        events.extend(self.facts.news(input.clocks));
        events.extend(self.busiest.answer(input.clocks));
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

    /// Appends values that the sampler did not measure, as many as a frame may have.
    fn with_values(&mut self, mut sample: Sample, values: &[(String, Option<f64>)]) -> Sample {
        let room = MAX_VALUES_PER_FRAME.saturating_sub(sample.values.len());
        let values = &values[..values.len().min(room)];
        if values.is_empty() {
            return sample;
        }
        let base = &sample.schema;
        let is_ours = |joined: &NamedSchema| {
            joined.names.len() == base.names.len() + values.len()
                && joined.names[base.names.len()..]
                    .iter()
                    .eq(values.iter().map(|(name, _)| name))
        };
        let schema = match &self.joined {
            Some((of, joined)) if *of == base.id && is_ours(joined) => joined.clone(),
            _ => {
                let ours = values.iter().map(|(name, _)| name.clone());
                let names: Vec<String> = base.names.iter().cloned().chain(ours).collect();
                let id = metric::schema_id(&names);
                let joined = Arc::new(NamedSchema { id, names });
                self.joined = Some((base.id, joined.clone()));
                joined
            }
        };
        sample.schema = schema;
        let rounded = values
            .iter()
            .map(|(_, value)| value.map(round_to_hundredth));
        sample.values.extend(rounded);
        sample
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

#[cfg(test)]
mod tests {
    use watchkeep_shared::wire::heartbeat::GoodbyeReason;

    use super::*;
    use crate::clock;

    #[tokio::test]
    async fn what_keeps_the_clock_and_what_was_probed_go_along_under_their_names() {
        let tasks = Tasks::default();
        let clocks = clock::now();
        let started = Event::Goodbye {
            reason: GoodbyeReason::Other,
        };
        let mut maker = FrameMaker::new(&tasks, clocks, started);
        let mut values_of = |timekeeping: Timekeeping, probed: &[f64]| {
            maker.timekeeping = timekeeping;
            let probed = probed
                .iter()
                .map(|days| ("tls.days_left:x".to_owned(), Some(*days)));
            let (frame, schema) = maker.make(Input {
                clocks,
                interval_ms: 10_000,
                spool_frames: 0,
                services: Vec::new(),
                values: probed.collect(),
                behind: false,
                events: Vec::new(),
            });
            assert_eq!(frame.schema, metric::schema_id(&schema.names));
            assert_eq!(frame.values.len(), schema.names.len());
            let named = schema.names.iter().cloned().zip(frame.values);
            named.collect::<Vec<_>>()
        };
        let clock = [("clock.synchronised", 1.0), ("clock.offset_ms", -0.25)];
        let clock = clock.map(|(name, value)| (name.to_owned(), Some(value)));
        let probed = ("tls.days_left:x".to_owned(), Some(30.0));
        let both = values_of(Timekeeping::reported(true, -0.251), &[30.0]);
        assert!(
            both.ends_with(&[clock[0].clone(), clock[1].clone(), probed.clone()]),
            "{both:?}"
        );
        let alone = values_of(Timekeeping::reported(true, -0.251), &[]);
        assert!(alone.ends_with(&clock), "{alone:?}");
        let neither = values_of(Timekeeping::start(&tasks), &[30.0]);
        assert!(neither.ends_with(&[probed]), "{neither:?}");
        assert!(neither.iter().all(|(name, _)| !name.starts_with("clock.")));
        tasks.stop().await;
    }
}
