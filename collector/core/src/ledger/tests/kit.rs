//! A host's history in plain calls. Times are seconds after [`START`]; the agent beats every ten.

use uuid::Uuid;
use watchkeep_shared::{BootId, HostId, InstanceId, UnixMillis, wire::heartbeat::GoodbyeReason};

use crate::{
    evidence::{Evidence, EvidenceKind, FrameMark},
    ledger::{
        Availability, Cause, HostRecord, Interval, LinkIncident, ObservedState, Span, Terms,
        UnknownRule, availability, classify, link_incidents, observe,
    },
};

/// 2026-03-01T00:00:00Z.
pub(super) const START: i64 = 1_772_323_200_000;
pub(super) const STEP_MS: i64 = 25_000;
pub(super) const HOST: HostId = HostId(Uuid::from_u128(1));

pub(super) fn at(secs: i64) -> UnixMillis {
    UnixMillis(START + secs * 1_000)
}

pub(super) fn secs(from: i64, to: i64) -> Interval {
    Interval::new(at(from), at(to))
}

/// One agent process on one boot. `beat` gives its sequence number at a time on the ten-second grid.
#[derive(Clone, Copy)]
pub(super) struct Process {
    pub(super) boot: u128,
    pub(super) instance: u128,
    pub(super) started: i64,
}

/// The process that each story begins with.
pub(super) const FIRST: Process = Process {
    boot: 10,
    instance: 20,
    started: 0,
};

/// The same boot, a new agent process.
pub(super) const RESTARTED: Process = Process {
    boot: 10,
    instance: 21,
    started: 1_300,
};

/// A new boot and so a new process; its kernel booted at 1 270.
pub(super) const REBOOTED: Process = Process {
    boot: 11,
    instance: 22,
    started: 1_300,
};

impl Process {
    pub(super) fn seq(self, secs: i64) -> u64 {
        ((secs - self.started) / 10 + 1) as u64
    }

    pub(super) fn mark(self, secs: i64) -> FrameMark {
        FrameMark {
            boot: BootId(Uuid::from_u128(self.boot)),
            instance: InstanceId(Uuid::from_u128(self.instance)),
            seq: self.seq(secs),
            at: at(secs),
            arrived_at: at(secs),
            mono_ms: secs * 1_000,
            boot_ms: secs * 1_000,
        }
    }

    /// Frames from `from` to `to`, learned at `recorded`, late if that is after the last of them.
    pub(super) fn frames(self, from: i64, to: i64, recorded: i64) -> Evidence {
        let kind = EvidenceKind::Frames {
            boot: BootId(Uuid::from_u128(self.boot)),
            instance: InstanceId(Uuid::from_u128(self.instance)),
            seq_from: self.seq(from),
            seq_to: self.seq(to),
            late: recorded > to,
            max_step_ms: STEP_MS,
        };
        row(kind, from, to, recorded)
    }
}

pub(super) fn row(kind: EvidenceKind, from: i64, to: i64, recorded: i64) -> Evidence {
    Evidence {
        host: Some(HOST),
        kind,
        valid_from: at(from),
        valid_to: at(to),
        recorded_at: at(recorded),
    }
}

pub(super) fn enrolled() -> Evidence {
    row(EvidenceKind::Enrolled, 0, 0, 0)
}

/// Frames again after a break: the two marks, and the boot time of the later one's kernel.
pub(super) fn resumed(before: FrameMark, after: FrameMark, kernel_boot: i64) -> Evidence {
    Evidence {
        host: Some(HOST),
        kind: EvidenceKind::Resumed {
            before,
            after,
            kernel_boot_at: at(kernel_boot),
            previous_boot_last_seen: None,
            goodbye: None,
        },
        valid_from: before.at,
        valid_to: after.at,
        recorded_at: after.at,
    }
}

pub(super) fn with_goodbye(mut row: Evidence, reason: GoodbyeReason) -> Evidence {
    if let EvidenceKind::Resumed { goodbye, .. } = &mut row.kind {
        *goodbye = Some(reason);
    }
    row
}

pub(super) fn with_last_seen(mut row: Evidence, secs: i64) -> Evidence {
    if let EvidenceKind::Resumed {
        previous_boot_last_seen,
        ..
    } = &mut row.kind
    {
        *previous_boot_last_seen = Some(at(secs));
    }
    row
}

pub(super) fn collector_down(from: i64, to: i64) -> Evidence {
    Evidence {
        host: None,
        ..row(EvidenceKind::CollectorDown, from, to, to)
    }
}

/// What the ledger says of a history up to `now`.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) spans: Vec<Span>,
    pub(super) links: Vec<LinkIncident>,
    pub(super) availability: Availability,
}

pub(super) fn record(evidence: &[Evidence]) -> HostRecord {
    HostRecord {
        host: HOST,
        name: "db1".to_owned(),
        evidence: evidence.to_vec(),
    }
}

pub(super) fn account(evidence: &[Evidence], collector: &[Evidence], now: i64) -> Account {
    let record = record(evidence);
    let window = secs(0, now);
    let spans = observe(&record, collector, window, at(now), at(now));
    let classed = classify(&spans, &Terms::default());
    Account {
        links: link_incidents(&record, collector, window, at(now), at(now)),
        availability: availability(&classed, UnknownRule::CountAsDown),
        spans,
    }
}

impl Account {
    /// The spans as seconds and states.
    pub(super) fn states(&self) -> Vec<(i64, i64, ObservedState)> {
        let secs = |at: UnixMillis| (at.0 - START) / 1_000;
        self.spans
            .iter()
            .map(|span| (secs(span.from), secs(span.to), span.state))
            .collect()
    }

    pub(super) fn cause_of(&self, state: ObservedState) -> Cause {
        self.spans
            .iter()
            .find(|span| span.state == state)
            .unwrap_or_else(|| panic!("no span is {}: {:?}", state.name(), self.spans))
            .cause
    }
}
