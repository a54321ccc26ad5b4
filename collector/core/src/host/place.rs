//! Places a frame on the collector's time line, or rejects it.

use watchkeep_shared::{
    UnixMillis,
    wire::{
        heartbeat::{Event, Frame, RejectReason, Service},
        limits,
    },
};

use super::{
    Arrival, HostState,
    arrival::Certainty,
    clean::{MAX_SERVICES_BYTES, services_bytes},
    clock::{BootSkew, MAX_CLOCK_LAG_MS, place_by_age, skew_of},
    unbroken_ms,
};
use crate::text::is_safe;

/// Where and how a frame is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: UnixMillis,
    /// Not sent within the unbroken step of being made.
    pub(super) late: bool,
    /// It rests on a clock that is known to be right; else it proves nothing.
    pub(super) sure: bool,
}

/// Places a frame in time.
///
/// A frame of the running boot is placed by the boot-time clock: its age is the difference of two
/// readings of one clock, so a wrong or stepping wall clock moves nothing. Only for a late frame
/// from a time in which that clock stood still the wall clock is asked on which side it was made. A frame of an earlier
/// boot is placed by a known frame of that boot, else by the wall clock, which proves nothing where
/// it was set between the boots, and never after the running kernel's start.
pub(super) fn place(
    state: &HostState,
    frame: &Frame,
    arrival: &Arrival,
) -> Result<Place, RejectReason> {
    let boot = frame.boot.unwrap_or(arrival.boot);
    let (at, live_process, sure) = if boot == arrival.boot {
        let age = arrival.sent.boot_ms.saturating_sub(frame.clocks.boot_ms);
        if age < -limits::MAX_FRAME_AHEAD_MS {
            return Err(RejectReason::FromTheFuture);
        }
        let by_age = arrival.place(frame.clocks.boot_ms.min(arrival.sent.boot_ms));
        let is_live_process = frame
            .instance
            .is_none_or(|instance| instance == arrival.instance);
        let (at, sure) = place_by_age(state, (boot, frame.clocks, arrival.sent), by_age);
        let sure = sure && arrival.certainty != Certainty::Doubtful;
        // One that is not old is live whatever the wall clock did: the host runs.
        let sure = sure || age <= unbroken_ms(frame.interval_ms);
        (at, is_live_process, sure)
    } else {
        let kernel_start = arrival.origin_ms;
        let running = BootSkew {
            boot: arrival.boot,
            skew_ms: arrival.skew_ms(),
        };
        let skew_ms = skew_of(state, boot, running);
        let by_wall = frame
            .clocks
            .wall_ms
            .saturating_sub(skew_ms.unwrap_or(running.skew_ms));
        let by_boot = state.seen.place_by_boot(boot, frame.clocks.boot_ms);
        let (at, sure) = by_boot.map_or((UnixMillis(by_wall), skew_ms.is_some()), |(at, sure)| {
            // Where the two differ, the boot clock stood still or the wall clock was set.
            let differ_ms = at.0.saturating_sub(by_wall).saturating_abs();
            let agree = skew_ms.is_none() || differ_ms <= MAX_CLOCK_LAG_MS;
            (at, sure && agree)
        });
        (UnixMillis(at.0.min(kernel_start)), false, sure)
    };
    // At the sending: how long the request was under way is not the agent's delay.
    let age = arrival.place(arrival.sent.boot_ms).since(at).0;
    if age > limits::MAX_FRAME_AGE_MS {
        return Err(RejectReason::TooOld);
    }
    Ok(Place {
        at,
        late: !live_process || age > unbroken_ms(frame.interval_ms),
        sure,
    })
}

/// Checks a frame against the limits that do not depend on its schema.
pub(super) fn check_limits(frame: &Frame) -> Result<(), RejectReason> {
    if frame.seq == 0 || i64::try_from(frame.seq).is_err() {
        return Err(RejectReason::BadSequence);
    }
    let services = frame.services.as_deref().unwrap_or_default();
    let names = services.iter().map(|service| service.key.as_str());
    let mut names = names.chain(frame.events.iter().filter_map(log_rule));
    if !names.all(is_safe) {
        return Err(RejectReason::BadText);
    }
    let intervals = limits::MIN_INTERVAL_MS..=limits::MAX_INTERVAL_MS;
    let clocks = [
        frame.clocks.wall_ms,
        frame.clocks.mono_ms,
        frame.clocks.boot_ms,
    ];
    let over = frame.values.len() > limits::MAX_VALUES_PER_FRAME
        || services.len() > limits::MAX_SERVICES_PER_FRAME
        || frame.events.len() > limits::MAX_EVENTS_PER_FRAME
        || !intervals.contains(&frame.interval_ms)
        || clocks.iter().any(|ms| !CLOCK_RANGE_MS.contains(ms))
        || services.iter().any(has_long_text)
        || services.iter().map(services_bytes).sum::<usize>() > MAX_SERVICES_BYTES
        || frame.events.iter().any(is_over_limit);
    if over {
        Err(RejectReason::OverLimit)
    } else {
        Ok(())
    }
}

/// Readings of a clock that can be added and subtracted: 140,000 years either way.
const CLOCK_RANGE_MS: std::ops::RangeInclusive<i64> = -(1 << 52)..=1 << 52;

/// The name of the log rule that an event is about.
fn log_rule(event: &Event) -> Option<&str> {
    match event {
        Event::LogMatch { rule, .. } => Some(rule),
        _ => None,
    }
}

fn has_long_text(service: &Service) -> bool {
    is_long(&service.key) || service.detail.as_deref().is_some_and(is_long)
}

fn is_over_limit(event: &Event) -> bool {
    match event {
        Event::LogMatch {
            rule, path, lines, ..
        } => {
            lines.len() > limits::MAX_LINES_PER_LOG_MATCH
                || is_long(rule)
                || is_long(path)
                || lines.iter().any(|line| is_long(line))
        }
        Event::LogGap { path, .. } => is_long(path),
        Event::Discovered { proposals, .. } => {
            proposals.len() > limits::MAX_PROPOSALS
                || proposals.iter().any(|one| {
                    one.detail.as_deref().is_some_and(is_long)
                        || one.check.known().is_some_and(|check| is_long(&check.key()))
                })
        }
        Event::HostFacts(facts) => {
            let texts = [
                &facts.os,
                &facts.kernel,
                &facts.arch,
                &facts.hypervisor,
                &facts.container,
            ];
            facts.unseen.len() > limits::MAX_UNSEEN
                || texts
                    .into_iter()
                    .flatten()
                    .chain(&facts.unseen)
                    .any(|text| is_long(text))
        }
        Event::Processes(list) => [&list.by_cpu, &list.by_memory].into_iter().any(|list| {
            list.len() > limits::MAX_PROCESSES_LISTED || list.iter().any(|one| is_long(&one.name))
        }),
        Event::AgentStarted { .. }
        | Event::Goodbye { .. }
        | Event::SpoolLoss { .. }
        | Event::Other => false,
    }
}

const fn is_long(text: &str) -> bool {
    text.len() > limits::MAX_TEXT_BYTES
}
