//! The ledger's account of simulated machines against what was true: nothing is said to be up or down
//! for longer than it was.

use proptest::{collection::vec, prelude::*};

use super::simulation::*;
use crate::ledger::ObservedState;

/// How long each span of a state is, milliseconds.
fn lengths(world: &World, state: ObservedState) -> Vec<i64> {
    let spans = world.account().spans.into_iter();
    spans
        .filter(|span| span.state == state)
        .map(|span| span.to.0 - span.from.0)
        .collect()
}

/// Milliseconds in one state, among 400 quiet seconds on both sides of one phase.
fn one_phase(between: Phase, state: ObservedState) -> i64 {
    let world = after(&[quiet(400), between, quiet(400)]);
    lengths(&world, state).into_iter().sum()
}

#[test]
fn each_happening_is_recognised_through_real_frames() {
    let with = |machine| phase(machine, true, Collector::Runs, 300);
    let off = |announced| with(Machine::Off { announced });
    for (happening, state) in [
        (
            phase(Machine::Runs, false, Collector::Runs, 300),
            ObservedState::UpProven,
        ),
        (
            phase(Machine::Runs, true, Collector::Gone, 300),
            ObservedState::UpProven,
        ),
        (off(false), ObservedState::DownReboot),
        (off(true), ObservedState::DownReboot),
        (with(Machine::Suspended), ObservedState::HostFrozen),
        (with(Machine::Paused), ObservedState::HostFrozen),
        (with(Machine::AgentKilled), ObservedState::AgentStopped),
        (with(Machine::AgentStopped), ObservedState::Stalled),
        (
            phase(Machine::AgentStopped, true, Collector::Gone, 300),
            ObservedState::CollectorDown,
        ),
    ] {
        let found = one_phase(happening, state);
        assert!(
            (280_000..=325_000).contains(&found),
            "{happening:?}: {found} ms {state:?}"
        );
    }
}

/// However rarely the agent beats: also if the machine stood still between two heartbeats that came
/// in time. It is as long as it was; where between the two it lay nobody knows.
#[test]
fn a_pause_is_found_at_every_interval() {
    for (interval_secs, still) in [(60, 30), (60, 80), (600, 120), (600, 1_500)] {
        for machine in [Machine::Suspended, Machine::Paused] {
            let options = Options {
                interval_secs,
                ..Options::default()
            };
            let runs = quiet(interval_secs * 6 + interval_secs / 3);
            let paused = phase(machine, true, Collector::Runs, still);
            let world = simulate(&[runs, paused, runs], options);
            let found: i64 = lengths(&world, ObservedState::HostFrozen).iter().sum();
            let story = format!("{machine:?} for {still} s at {interval_secs} s");
            assert!(
                (found - still * 1_000).abs() <= 2_000,
                "{story}: {found} ms, {:?}",
                world.account().states()
            );
            assert_eq!(
                world.account().availability.totals.down_ms,
                found,
                "{story}"
            );
        }
    }
}

/// Each of them as long as it was, from frames that came after the line was back.
#[test]
fn two_reboots_while_the_line_was_cut_are_two_outages() {
    let cut = |machine, secs| phase(machine, false, Collector::Runs, secs);
    let off = Machine::Off { announced: false };
    let world = after(&[
        quiet(400),
        cut(Machine::Runs, 60),
        cut(off, 100),
        cut(Machine::Runs, 200),
        cut(off, 150),
        cut(Machine::Runs, 100),
        quiet(400),
    ]);
    let found = lengths(&world, ObservedState::DownReboot);
    assert_eq!(found.len(), 2, "{:?}", world.account().states());
    for (found, secs) in found.into_iter().zip([100, 150]) {
        let off_by = (found - secs * 1_000).abs();
        assert!(off_by <= 2_000, "{secs} s: {found} ms");
    }
}

fn happenings() -> impl Strategy<Value = Vec<Phase>> {
    let machine = prop_oneof![
        4 => Just(Machine::Runs),
        1 => any::<bool>().prop_map(|announced| Machine::Off { announced }),
        1 => Just(Machine::Suspended),
        1 => Just(Machine::Paused),
        1 => Just(Machine::AgentKilled),
        1 => Just(Machine::AgentStopped),
    ];
    let collector = prop_oneof![
        6 => Just(Collector::Runs),
        1 => Just(Collector::Gone),
        1 => Just(Collector::HeldUp),
    ];
    let one = (machine, prop::bool::weighted(0.7), collector, 100..600_i64)
        .prop_map(|(machine, link, collector, secs)| phase(machine, link, collector, secs));
    vec(one, 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_more_is_claimed_than_was_true(mut phases in happenings(), slow_every in prop_oneof![Just(0), 3..9_i64]) {
        phases.push(quiet(300));
        let world = simulate(&phases, Options { slow_every, ..Options::default() });
        // At each edge of a phase up to an interval and a delivery can not be distinguished.
        let slack = phases.len() as i64 * (INTERVAL_SECS + 2);
        let (false_up, false_down) = world.false_claims();
        prop_assert!(false_up <= slack, "{false_up} s of {slack} said to be up");
        prop_assert!(false_down <= slack, "{false_down} s of {slack} said to be down");
    }

    #[test]
    fn where_chains_are_closed_changes_nothing(
        mut phases in happenings(),
        cut_every in 1..400_i64,
    ) {
        phases.push(quiet(300));
        let whole = after(&phases).account();
        let cut = simulate(&phases, Options { cut_every, ..Options::default() }).account();
        prop_assert_eq!(cut.spans, whole.spans);
        prop_assert_eq!(cut.availability, whole.availability);
    }

    #[test]
    fn what_was_spooled_is_proven_up(mut phases in happenings()) {
        for one in &mut phases {
            if !matches!(one.machine, Machine::Off { .. }) {
                one.machine = Machine::Runs;
            }
        }
        phases.push(quiet(300));
        let world = after(&phases);
        let totals = world.account().availability.totals;
        let up_secs = world.ran.iter().filter(|&&ran| ran).count() as i64;
        // Of a boot that never made a frame in time nobody learns how long the kernel ran alone.
        let slack_ms = phases.len() as i64 * ((INTERVAL_SECS + BOOT_SECS) * 1_000 + 2_000);
        prop_assert!(
            totals.up_ms + slack_ms >= up_secs * 1_000,
            "{up_secs} s up, {totals:?}"
        );
    }
}
