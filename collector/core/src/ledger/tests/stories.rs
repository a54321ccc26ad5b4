//! One story for each thing that happens to a host, with the whole answer.

use watchkeep_shared::wire::heartbeat::GoodbyeReason;

use super::kit::*;
use crate::{
    evidence::EvidenceKind,
    ledger::{
        Cause, Interval,
        ObservedState::{
            AgentStopped, CollectorDown, HostFrozen, NotEnrolled, Retired, Silent, Stalled,
            Unknown, UpLive, UpProven,
        },
        observe,
    },
};

#[test]
fn a_quiet_host_is_up_to_the_last_second() {
    let ledger = account(&[enrolled(), FIRST.frames(0, 3_590, 3_590)], &[], 3_600);
    assert_eq!(
        ledger.states(),
        [(0, 3_590, UpLive), (3_590, 3_600, UpLive)]
    );
    assert_eq!(ledger.spans[1].cause, Cause::NextNotDue);
    assert_eq!(ledger.availability.a_min, Some(1.0));
}

#[test]
fn a_network_cut_that_was_spooled_is_up_with_one_link_incident() {
    let evidence = [
        enrolled(),
        FIRST.frames(0, 600, 600),
        row(EvidenceKind::Overdue, 600, 660, 660),
        resumed(FIRST.mark(600), FIRST.mark(1_200), -5_000),
        FIRST.frames(610, 900, 1_205),
        FIRST.frames(910, 1_190, 1_215),
        FIRST.frames(1_200, 3_600, 3_600),
    ];
    let ledger = account(&evidence, &[], 3_600);
    assert_eq!(
        ledger.states(),
        [
            (0, 600, UpLive),
            (600, 1_190, UpProven),
            (1_190, 3_600, UpLive)
        ]
    );
    assert_eq!(ledger.availability.a_min, Some(1.0));
    assert_eq!(ledger.availability.coverage, Some(1.0));
    assert_eq!(ledger.links.len(), 1);
    assert_eq!(
        Interval::new(ledger.links[0].from, ledger.links[0].to),
        secs(600, 1_190)
    );
    assert_eq!(ledger.links[0].frames_late, 59);
}

#[test]
fn before_its_backfill_the_same_cut_was_not_known_to_be_up() {
    let evidence = [
        enrolled(),
        FIRST.frames(0, 600, 600),
        row(EvidenceKind::Overdue, 600, 660, 660),
        resumed(FIRST.mark(600), FIRST.mark(1_200), -5_000),
        FIRST.frames(610, 1_190, 1_215),
        FIRST.frames(1_200, 1_200, 1_200),
    ];
    let record = record(&evidence);
    let window = secs(0, 3_600);
    let at_cut = observe(&record, &[], window, at(700), at(700));
    assert_eq!(at_cut.last().map(|span| span.state), Some(Silent));
    let at_return = observe(&record, &[], window, at(1_202), at(1_202));
    let cut = at_return.iter().find(|span| span.from == at(600));
    assert_eq!(cut.map(|span| span.state), Some(Stalled));
    let after = observe(&record, &[], window, at(1_215), at(1_215));
    assert!(after.iter().all(|span| span.state.is_up()), "{after:?}");
}

#[test]
fn a_killed_agent_says_nothing_about_its_machine() {
    let back = resumed(FIRST.mark(1_000), RESTARTED.mark(1_300), -5_000);
    let evidence = |back| {
        [
            enrolled(),
            FIRST.frames(0, 1_000, 1_000),
            back,
            RESTARTED.frames(1_300, 3_600, 3_600),
        ]
    };
    let killed = account(&evidence(back.clone()), &[], 3_600);
    assert_eq!(
        killed.states(),
        [
            (0, 1_000, UpLive),
            (1_000, 1_300, AgentStopped),
            (1_300, 3_600, UpLive)
        ]
    );
    assert_eq!(
        killed.cause_of(AgentStopped),
        Cause::AgentRestarted { goodbye: None }
    );
    assert_eq!(killed.availability.totals.down_ms, 0);
    assert_eq!(killed.availability.totals.unknown_ms, 300_000);
    assert_eq!(killed.availability.a_max, Some(1.0));

    let stopped = account(
        &evidence(with_goodbye(back, GoodbyeReason::Stop)),
        &[],
        3_600,
    );
    let goodbye = Some(GoodbyeReason::Stop);
    assert_eq!(
        stopped.cause_of(AgentStopped),
        Cause::AgentRestarted { goodbye }
    );
}

#[test]
fn the_collectors_own_absence_is_unknown_until_the_backfill_proves_it_up() {
    let down = [collector_down(605, 900)];
    let mut evidence = vec![
        enrolled(),
        FIRST.frames(0, 600, 600),
        resumed(FIRST.mark(600), FIRST.mark(930), -5_000),
        FIRST.frames(930, 3_600, 3_600),
    ];
    let before = account(&evidence, &down, 3_600);
    assert_eq!(
        before.states(),
        [
            (0, 600, UpLive),
            (600, 930, CollectorDown),
            (930, 3_600, UpLive)
        ]
    );
    assert_eq!(before.availability.a_max, Some(1.0));

    evidence.push(FIRST.frames(610, 920, 935));
    let after = account(&evidence, &down, 3_600);
    assert_eq!(
        after.states(),
        [(0, 600, UpLive), (600, 920, UpProven), (920, 3_600, UpLive)]
    );
    assert_eq!(after.links, [], "our own absence is no fault of the link");
}

#[test]
fn what_two_clocks_prove_is_not_hidden_by_an_absence_of_the_collector() {
    let down = [collector_down(1_500, 1_510)];
    let mut after = FIRST.mark(3_000);
    after.mono_ms = FIRST.mark(1_000).mono_ms + 8_000;
    let evidence = |after| {
        [
            enrolled(),
            FIRST.frames(0, 1_000, 1_000),
            resumed(FIRST.mark(1_000), after, -5_000),
            FIRST.frames(3_000, 3_600, 3_600),
        ]
    };
    assert_eq!(
        account(&evidence(after), &down, 3_600).states(),
        [
            (0, 1_000, UpLive),
            (1_000, 1_008, UpProven),
            (1_008, 3_000, HostFrozen),
            (3_000, 3_600, UpLive)
        ]
    );
    // An absence that began long after the silence explains no more than itself.
    assert_eq!(
        account(&evidence(FIRST.mark(3_000)), &down, 3_600).states()[1..4],
        [
            (1_000, 1_500, Stalled),
            (1_500, 1_510, CollectorDown),
            (1_510, 3_000, Stalled)
        ]
    );
}

#[test]
fn a_freeze_shorter_than_a_step_is_found() {
    // 12 s of the 22 between two frames in order: the chain was broken there, and stays so.
    let mut thawed = FIRST.mark(1_012);
    thawed.seq = FIRST.mark(1_000).seq + 1;
    thawed.mono_ms = FIRST.mark(1_000).mono_ms + 2_000;
    let next = Process {
        started: 1_012 - 10 * (thawed.seq as i64 - 1),
        ..FIRST
    };
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_000, 1_000),
        resumed(FIRST.mark(1_000), thawed, -5_000),
        next.frames(1_012, 3_612, 3_612),
    ];
    assert_eq!(
        account(&evidence, &[], 3_612).states()[1..3],
        [(1_000, 1_002, UpProven), (1_002, 1_012, HostFrozen)]
    );
}

#[test]
fn a_suspended_machine_is_frozen_and_a_stopped_process_is_stalled() {
    let mut thawed = FIRST.mark(1_600);
    thawed.mono_ms = FIRST.mark(1_000).mono_ms + 9_000;
    let evidence = |after| {
        [
            enrolled(),
            FIRST.frames(0, 1_000, 1_000),
            resumed(FIRST.mark(1_000), after, -5_000),
            FIRST.frames(1_600, 3_600, 3_600),
        ]
    };
    let frozen = account(&evidence(thawed), &[], 3_600);
    assert_eq!(
        frozen.states(),
        [
            (0, 1_000, UpLive),
            (1_000, 1_009, UpProven),
            (1_009, 1_600, HostFrozen),
            (1_600, 3_600, UpLive)
        ]
    );
    assert_eq!(
        frozen.cause_of(HostFrozen),
        Cause::ClockStoodStill { still_ms: 591_000 }
    );
    assert_eq!(frozen.availability.totals.down_ms, 591_000);

    let stalled = account(&evidence(FIRST.mark(1_600)), &[], 3_600);
    assert_eq!(
        stalled.states(),
        [
            (0, 1_000, UpLive),
            (1_000, 1_600, Stalled),
            (1_600, 3_600, UpLive)
        ]
    );
    assert_eq!(stalled.availability.totals.unknown_ms, 600_000);
}

#[test]
fn silence_begins_at_the_last_frame_and_says_what_the_agent_said() {
    let mut evidence = vec![enrolled(), FIRST.frames(0, 1_000, 1_000)];
    assert_eq!(
        account(&evidence, &[], 1_020).states()[1],
        (1_000, 1_020, UpLive)
    );
    assert_eq!(
        account(&evidence, &[], 1_030).states()[1],
        (1_000, 1_030, Silent)
    );
    evidence.push(row(EvidenceKind::Overdue, 1_000, 1_015, 1_015));
    assert_eq!(
        account(&evidence, &[], 1_020).states()[1],
        (1_000, 1_020, Silent)
    );
    let reason = GoodbyeReason::Shutdown;
    evidence.push(row(EvidenceKind::Goodbye { reason }, 1_000, 1_000, 1_000));
    let goodbye = Some(reason);
    assert_eq!(
        account(&evidence, &[], 2_000).cause_of(Silent),
        Cause::NoFrameSince { goodbye }
    );
}

#[test]
fn after_a_restart_of_the_collector_hosts_get_time_to_come_back() {
    let evidence = [enrolled(), FIRST.frames(0, 1_000, 1_000)];
    let down = [collector_down(1_005, 1_300)];
    assert_eq!(
        account(&evidence, &down, 1_310).states()[1],
        (1_000, 1_310, CollectorDown)
    );
    assert_eq!(
        account(&evidence, &down, 1_500).states()[1..],
        [(1_000, 1_420, CollectorDown), (1_420, 1_500, Silent)]
    );
    let noticed = row(EvidenceKind::Overdue, 1_000, 1_360, 1_360);
    let evidence = [&evidence[..], &[noticed]].concat();
    assert_eq!(
        account(&evidence, &down, 1_500).states()[1..],
        [(1_000, 1_300, CollectorDown), (1_300, 1_500, Silent)]
    );
}

#[test]
fn a_record_has_a_beginning_and_an_end() {
    let evidence = [
        row(EvidenceKind::Enrolled, 100, 100, 100),
        FIRST.frames(130, 900, 900),
        row(EvidenceKind::Retired, 800, 800, 800),
    ];
    let ledger = account(&evidence, &[], 1_000);
    assert_eq!(
        ledger.states(),
        [
            (0, 100, NotEnrolled),
            (100, 130, Unknown),
            (130, 800, UpLive),
            (800, 1_000, Retired)
        ]
    );
    assert_eq!(ledger.availability.totals.counted_ms(), 700_000);
    assert_eq!(ledger.availability.totals.not_counted_ms, 300_000);
    assert_eq!(
        account(&[enrolled()], &[], 500).states(),
        [(0, 500, Silent)]
    );
    assert_eq!(account(&[], &[], 500).states(), [(0, 500, NotEnrolled)]);
}

#[test]
fn frames_spooled_before_a_suspension_are_not_taken_for_a_running_clock() {
    let mut thawed = FIRST.mark(1_800);
    thawed.mono_ms = FIRST.mark(1_200).mono_ms + 9_000;
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_000, 1_000),
        resumed(FIRST.mark(1_000), thawed, -5_000),
        FIRST.frames(1_010, 1_200, 1_805),
        FIRST.frames(1_800, 3_600, 3_600),
    ];
    assert_eq!(
        account(&evidence, &[], 3_600).states()[1..4],
        [
            (1_000, 1_200, UpProven),
            (1_200, 1_209, UpProven),
            (1_209, 1_800, HostFrozen)
        ]
    );
}
