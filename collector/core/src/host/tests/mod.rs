//! The fold of frames: each frame once, whatever order and repetition the network makes of them;
//! replaying the tail gives what was in memory; breaks give their facts.

mod arrival;
mod text;

use proptest::prelude::*;
use uuid::Uuid;
use watchkeep_shared::{
    BootId, DurationMs, HostId, InstanceId, UnixMillis,
    ids::SchemaId,
    wire::{
        heartbeat::{
            Batch, Clocks, Event, Frame, GoodbyeReason, PreviousBoot, Proposal, RejectReason,
            Service, ServiceStatus,
        },
        limits::{MAX_SERVICES_PER_FRAME, MAX_TROUBLES},
        policy::{Refusal, ServiceCheck, Trouble},
    },
};

use super::{HostState, Outcome, StoredFrame, take_batch, take_silence};
use crate::evidence::{Evidence, EvidenceKind};

const INTERVAL_MS: u32 = 10_000;
/// When the machine of these tests booted, on the collector's time line.
const BOOTED: i64 = 1_800_000_000_000;

fn host() -> HostId {
    HostId(Uuid::from_u128(1))
}

fn boot(n: u128) -> BootId {
    BootId(Uuid::from_u128(0xb000 + n))
}

fn instance(n: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(0xa000 + n))
}

/// A frame made `boot_ms` after the boot; the wall clock is wrong by an hour on purpose.
fn frame(seq: u64, boot_ms: i64) -> Frame {
    Frame {
        boot: None,
        instance: None,
        seq,
        clocks: Clocks {
            wall_ms: BOOTED + boot_ms + 3_600_000,
            mono_ms: boot_ms,
            boot_ms,
        },
        interval_ms: INTERVAL_MS,
        schema: SchemaId(1),
        values: vec![Some(1.0)],
        services: None,
        events: Vec::new(),
    }
}

fn batch(sent_boot_ms: i64, frames: Vec<Frame>) -> Batch {
    Batch {
        v: 1,
        agent_version: "0.1.0".to_owned(),
        boot: boot(1),
        instance: instance(1),
        sent: Clocks {
            wall_ms: BOOTED + sent_boot_ms + 3_600_000,
            mono_ms: sent_boot_ms,
            boot_ms: sent_boot_ms,
        },
        policy_version: 0,
        trusts: Vec::new(),
        refused: None,
        troubles: None,
        schemas: Vec::new(),
        frames,
    }
}

fn at(boot_ms: i64) -> UnixMillis {
    UnixMillis(BOOTED + boot_ms)
}

/// Hands a batch over at the moment it was sent, or `delay_ms` later.
fn take(state: &mut HostState, batch: &Batch, delay_ms: i64) -> super::BatchTaken {
    let arrived = at(batch.sent.boot_ms + delay_ms);
    take_batch(state, host(), batch, arrived, &|_| Some(1))
}

fn kinds(evidence: &[Evidence]) -> Vec<&'static str> {
    evidence
        .iter()
        .map(|row| match row.kind {
            EvidenceKind::Frames { late: false, .. } => "live",
            EvidenceKind::Frames { late: true, .. } => "late",
            EvidenceKind::Overdue => "overdue",
            EvidenceKind::Resumed { .. } => "resumed",
            EvidenceKind::Goodbye { .. } => "goodbye",
            _ => "other",
        })
        .collect()
}

#[test]
fn a_steady_host_writes_once() {
    let mut state = HostState::default();
    for n in 1..=100 {
        let taken = take(
            &mut state,
            &batch(n * 10_000, vec![frame(n as u64, n * 10_000)]),
            0,
        );
        assert_eq!(taken.durable, n == 1, "frame {n}");
        assert_eq!(taken.evidence, [], "frame {n}");
    }
    let open = state.open_evidence(host()).unwrap();
    assert_eq!(
        (open.valid_from, open.valid_to),
        (at(10_000), at(1_000_000))
    );
}

#[test]
fn the_wall_clock_places_nothing() {
    let mut state = HostState::default();
    let mut early = frame(1, 5_000);
    early.clocks.wall_ms = 0;
    take(&mut state, &batch(6_000, vec![early]), 250);
    // Made one second before it was sent; arrived 250 ms after that.
    assert_eq!(state.last.unwrap().at, at(5_250));
    assert_eq!(state.skew_ms, 3_600_000 - 250);
}

#[test]
fn a_frame_of_the_future_is_refused_and_spoils_nothing() {
    let mut state = HostState::default();
    let taken = take(
        &mut state,
        &batch(10_000, vec![frame(1, 12_000), frame(2, 10_000)]),
        0,
    );
    assert_eq!(
        taken.frames[0].outcome,
        Outcome::Rejected(RejectReason::FromTheFuture)
    );
    assert!(matches!(taken.frames[1].outcome, Outcome::Taken(_)));
}

#[test]
fn a_cut_line_gives_a_break_and_then_its_late_frames() {
    let mut state = HostState::default();
    for n in 1..=3 {
        take(
            &mut state,
            &batch(n * 10_000, vec![frame(n as u64, n * 10_000)]),
            0,
        );
    }
    let silent = take_silence(&mut state, host(), at(55_000));
    assert_eq!(kinds(&silent), ["live", "overdue"]);
    assert_eq!(
        state.silence_deadline(DurationMs(25_000), DurationMs(0)),
        None
    );
    // Back at 100 s: the newest frame first, then the six spooled ones.
    let back = take(&mut state, &batch(100_000, vec![frame(10, 100_000)]), 0);
    assert!(back.back && back.durable);
    assert_eq!(kinds(&back.evidence), ["resumed"]);
    let spooled = (4..=9).map(|n| frame(n, n as i64 * 10_000)).collect();
    let late = take(&mut state, &batch(101_000, spooled), 0);
    // Those of the last 25 seconds are not late, but not the newest either.
    assert_eq!(kinds(&late.evidence), ["late"]);
    let row = &late.evidence[0];
    assert_eq!((row.valid_from, row.valid_to), (at(40_000), at(90_000)));
    assert_eq!(state.last.unwrap().seq, 10);
}

#[test]
fn a_reboot_tells_both_sides_and_what_the_machine_remembers() {
    let mut state = HostState::default();
    let mut last = frame(7, 70_000);
    last.events = vec![Event::Goodbye {
        reason: GoodbyeReason::Shutdown,
    }];
    take(&mut state, &batch(70_000, vec![last]), 0);
    assert_eq!(state.goodbye, Some(GoodbyeReason::Shutdown));
    // The next boot began at 90 s of the old boot's clock and sends its first frame 20 s later.
    let mut first = frame(1, 20_000);
    let previous = PreviousBoot {
        boot: Some(boot(1)),
        // By the clock of the old boot; the new one's began again where that one had begun.
        last_seen_wall_ms: Some(frame(7, 75_000).clocks.wall_ms),
    };
    first.events = vec![Event::AgentStarted {
        clean_stop: Some(true),
        previous_boot: Some(previous),
    }];
    let mut second_boot = batch(20_000, vec![first]);
    second_boot.boot = boot(2);
    second_boot.instance = instance(2);
    let taken = take_batch(&mut state, host(), &second_boot, at(110_000), &|_| Some(1));
    let resumed = taken.evidence.iter().find_map(|row| match &row.kind {
        EvidenceKind::Resumed {
            before,
            after,
            kernel_boot_at,
            previous_boot_last_seen,
            goodbye,
        } => Some((
            before.boot,
            after.boot,
            *kernel_boot_at,
            *previous_boot_last_seen,
            *goodbye,
        )),
        _ => None,
    });
    let shutdown = Some(GoodbyeReason::Shutdown);
    assert_eq!(
        resumed,
        Some((boot(1), boot(2), at(90_000), None, shutdown))
    );
    let record = taken.evidence.iter().find_map(|row| match row.kind {
        EvidenceKind::PreviousBoot {
            boot,
            next,
            reaches,
        } => Some((boot, next, reaches, row.valid_from, row.valid_to)),
        _ => None,
    });
    assert_eq!(
        record,
        Some((boot(1), boot(2), at(0), at(75_000), at(90_000)))
    );
    assert_eq!(state.goodbye, None);
}

#[test]
fn a_spooled_frame_of_the_boot_before_is_placed_by_that_boots_own_clock() {
    let mut state = HostState::default();
    take(&mut state, &batch(70_000, vec![frame(7, 70_000)]), 0);
    let mut old = frame(8, 80_000);
    old.boot = Some(boot(1));
    old.instance = Some(instance(1));
    old.clocks.wall_ms = 0;
    let mut next = batch(20_000, vec![old]);
    next.boot = boot(2);
    next.instance = instance(2);
    let taken = take_batch(&mut state, host(), &next, at(110_000), &|_| Some(1));
    let Outcome::Taken(placed) = taken.frames[0].outcome else {
        panic!("{taken:?}")
    };
    assert_eq!(placed.mark.at, at(80_000));
    assert!(placed.late);
}

/// One step of a random network: frames made so far are sent again in some order.
#[derive(Clone, Debug)]
enum Step {
    Beat { after_ms: i64 },
    Resend { picks: Vec<prop::sample::Index> },
    Silence,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let beat = prop_oneof![4 => 9_000..11_000_i64, 1 => 20_000..90_000_i64];
    let step = prop_oneof![
        5 => beat.prop_map(|after_ms| Step::Beat { after_ms }),
        2 => prop::collection::vec(any::<prop::sample::Index>(), 1..6)
            .prop_map(|picks| Step::Resend { picks }),
        1 => Just(Step::Silence),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever is sent again, each frame is taken exactly once; nothing is refused; and the state
    /// rebuilt from what was last written plus the tail equals the one in memory.
    #[test]
    fn once_each_and_rebuilt_from_the_tail(steps in steps(), lost in prop::collection::vec(any::<bool>(), 60)) {
        let mut state = HostState::default();
        let mut written = state.clone();
        let mut tail: Vec<StoredFrame> = Vec::new();
        let mut made: Vec<Frame> = Vec::new();
        let mut taken_seqs = std::collections::BTreeSet::new();
        let mut now = 0;
        for (step, lost) in steps.iter().zip(lost) {
            let frames = match step {
                Step::Beat { after_ms } => {
                    now += after_ms;
                    let next = frame(made.len() as u64 + 1, now);
                    made.push(next.clone());
                    if lost { continue }
                    vec![next]
                }
                Step::Resend { picks } if !made.is_empty() => {
                    picks.iter().map(|pick| pick.get(&made).clone()).collect()
                }
                Step::Resend { .. } => continue,
                Step::Silence => {
                    let due = state.silence_deadline(DurationMs(25_000), DurationMs(0));
                    if due.is_some_and(|due| due <= at(now)) {
                        take_silence(&mut state, host(), at(now));
                        written = state.clone();
                        tail.clear();
                    }
                    continue;
                }
            };
            let taken = take(&mut state, &batch(now, frames), 0);
            for frame in &taken.frames {
                match frame.outcome {
                    Outcome::Taken(placed) => {
                        prop_assert!(taken_seqs.insert(frame.seq), "{} taken twice", frame.seq);
                        let late = placed.late || !placed.newest;
                        tail.push(StoredFrame { mark: placed.mark, late, interval_ms: INTERVAL_MS });
                    }
                    Outcome::Repeat => prop_assert!(taken_seqs.contains(&frame.seq)),
                    Outcome::Rejected(reason) => prop_assert!(false, "refused: {reason:?}"),
                }
            }
            if taken.durable {
                written = state.clone();
                tail.clear();
            }
            let mut rebuilt: HostState =
                serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
            for frame in &tail {
                rebuilt.replay(*frame);
            }
            prop_assert_eq!(&rebuilt.last, &state.last);
            prop_assert_eq!(&rebuilt.chain, &state.chain);
            prop_assert_eq!(&rebuilt.seen, &state.seen);
            prop_assert_eq!(rebuilt.overdue, state.overdue);
        }
    }

    /// Evidence never claims a frame before it was made or after it arrived, and chains never run
    /// backwards.
    #[test]
    fn evidence_stays_within_what_happened(steps in steps()) {
        let mut state = HostState::default();
        let mut made: Vec<Frame> = Vec::new();
        let mut now = 0;
        for step in steps {
            let Step::Beat { after_ms } = step else { continue };
            now += after_ms;
            let next = frame(made.len() as u64 + 1, now);
            made.push(next.clone());
            let taken = take(&mut state, &batch(now, vec![next]), 0);
            for row in taken.evidence.iter().chain(&state.open_evidence(host())) {
                prop_assert!(row.valid_from <= row.valid_to);
                prop_assert!(row.valid_to <= at(now));
            }
        }
    }
}

#[test]
fn an_announced_shutdown_is_given_time_and_a_stopped_agent_is_not() {
    let (usual, announced) = (DurationMs(25_000), DurationMs(300_000));
    for (reason, patience) in [
        (GoodbyeReason::Shutdown, announced),
        (GoodbyeReason::Upgrade, announced),
        (GoodbyeReason::Stop, usual),
    ] {
        let mut state = HostState::default();
        let mut last = frame(1, 10_000);
        last.events.push(Event::Goodbye { reason });
        take(&mut state, &batch(10_000, vec![last]), 0);
        let due = state.silence_deadline(usual, announced).unwrap();
        assert_eq!(due, at(10_000) + patience, "{reason:?}");
        // After its next frame everything is as usual.
        take(&mut state, &batch(20_000, vec![frame(2, 20_000)]), 0);
        let due = state.silence_deadline(usual, announced).unwrap();
        assert_eq!(due, at(20_000) + usual);
    }
}
