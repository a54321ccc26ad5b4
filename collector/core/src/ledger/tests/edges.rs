//! Evidence that is scarce, odd or contradicts itself: what may then be claimed, and what not.

use super::kit::*;
use crate::{
    evidence::EvidenceKind,
    ledger::{
        Cause,
        ObservedState::{
            AgentStopped, DownReboot, HostFrozen, Retired, Silent, Stalled, Unknown, UpLive,
            UpProven,
        },
    },
};

#[test]
fn a_sign_of_life_long_after_the_last_frame_proves_nothing_about_the_time_between() {
    let rebooted = Process {
        started: 5_000,
        ..REBOOTED
    };
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_200, 1_200),
        with_last_seen(
            resumed(FIRST.mark(1_200), rebooted.mark(5_000), 4_970),
            4_000,
        ),
        rebooted.frames(5_000, 6_000, 6_000),
    ];
    assert_eq!(
        account(&evidence, &[], 6_000).states(),
        [
            (0, 1_200, UpLive),
            (1_200, 4_000, Unknown),
            (4_000, 4_970, DownReboot),
            (4_970, 5_000, UpProven),
            (5_000, 6_000, UpLive)
        ]
    );
}

#[test]
fn a_clock_that_stood_still_for_part_of_a_break_proves_no_downtime() {
    let mut after = FIRST.mark(1_600);
    after.mono_ms = FIRST.mark(1_000).mono_ms + 300_000;
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_000, 1_000),
        resumed(FIRST.mark(1_000), after, -5_000),
        FIRST.frames(1_600, 3_600, 3_600),
    ];
    assert_eq!(
        account(&evidence, &[], 3_600).states()[1],
        (1_000, 1_600, Stalled)
    );
}

#[test]
fn two_reboots_in_one_cut_claim_no_more_than_is_known() {
    let middle = Process {
        boot: 12,
        instance: 25,
        started: 1_100,
    };
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_000, 1_000),
        resumed(FIRST.mark(1_000), REBOOTED.mark(1_300), 1_270),
        middle.frames(1_100, 1_200, 1_305),
        REBOOTED.frames(1_300, 3_600, 3_600),
    ];
    assert_eq!(
        account(&evidence, &[], 3_600).states(),
        [
            (0, 1_000, UpLive),
            (1_000, 1_100, Unknown),
            (1_100, 1_200, UpProven),
            (1_200, 1_270, Unknown),
            (1_270, 1_300, UpProven),
            (1_300, 3_600, UpLive)
        ]
    );
}

#[test]
fn neighbouring_chains_decide_a_gap_without_a_row_of_its_break() {
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_000, 1_000),
        RESTARTED.frames(1_300, 1_400, 1_400),
        REBOOTED.frames(1_500, 1_600, 1_600),
    ];
    let ledger = account(&evidence, &[], 1_600);
    assert_eq!(
        ledger.states()[1..4],
        [
            (1_000, 1_300, AgentStopped),
            (1_300, 1_400, UpLive),
            (1_400, 1_500, Unknown)
        ]
    );
    assert_eq!(ledger.cause_of(Unknown), Cause::BootTimeUnknown);
}

#[test]
fn a_missing_sequence_number_breaks_a_chain() {
    let evidence = |next| [enrolled(), FIRST.frames(0, 600, 600), next];
    let joined = account(&evidence(FIRST.frames(610, 700, 700)), &[], 700);
    assert_eq!(joined.states(), [(0, 700, UpLive)]);
    let broken = account(&evidence(FIRST.frames(620, 700, 700)), &[], 700);
    assert_eq!(broken.states()[1], (600, 620, Unknown));
}

#[test]
fn a_break_hardly_longer_than_a_step_is_no_freeze() {
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_000, 1_000),
        resumed(FIRST.mark(1_000), FIRST.mark(1_028), -5_000),
        FIRST.frames(1_028, 3_600, 3_600),
    ];
    assert_eq!(
        account(&evidence, &[], 3_600).states()[1],
        (1_000, 1_028, Stalled)
    );
}

#[test]
fn a_new_boot_from_before_the_old_ones_last_frame_proves_nothing() {
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_200, 1_200),
        resumed(FIRST.mark(1_200), REBOOTED.mark(1_300), 600),
        REBOOTED.frames(1_300, 3_600, 3_600),
    ];
    let ledger = account(&evidence, &[], 3_600);
    assert_eq!(ledger.states()[1], (1_200, 1_300, Unknown));
    assert_eq!(ledger.cause_of(Unknown), Cause::BootTimeUnknown);
}

#[test]
fn the_shorter_account_of_a_break_goes_before_the_longer() {
    let mut thawed = FIRST.mark(1_200);
    thawed.mono_ms = FIRST.mark(1_100).mono_ms + 1_000;
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_000, 1_000),
        resumed(FIRST.mark(1_000), RESTARTED.mark(1_300), -5_000),
        resumed(FIRST.mark(1_100), thawed, -5_000),
        RESTARTED.frames(1_300, 3_600, 3_600),
    ];
    assert_eq!(
        account(&evidence, &[], 3_600).states()[1..5],
        [
            (1_000, 1_100, AgentStopped),
            (1_100, 1_101, UpProven),
            (1_101, 1_200, HostFrozen),
            (1_200, 1_300, AgentStopped)
        ]
    );
}

#[test]
fn a_break_whose_ends_were_placed_a_little_apart_from_its_chains_has_one_verdict() {
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_000, 1_000),
        resumed(FIRST.mark(1_002), RESTARTED.mark(1_298), -5_000),
        RESTARTED.frames(1_300, 3_600, 3_600),
    ];
    assert_eq!(
        account(&evidence, &[], 3_600).states()[1],
        (1_000, 1_300, AgentStopped)
    );
    let mut thawed = FIRST.mark(1_598);
    thawed.mono_ms = FIRST.mark(1_002).mono_ms;
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_000, 1_000),
        resumed(FIRST.mark(1_002), thawed, -5_000),
        FIRST.frames(1_600, 3_600, 3_600),
    ];
    assert_eq!(
        account(&evidence, &[], 3_600).states()[1],
        (1_000, 1_600, HostFrozen)
    );
}

#[test]
fn frames_that_came_a_little_late_are_no_link_incident() {
    let evidence = |to| {
        [
            enrolled(),
            FIRST.frames(0, 600, 600),
            FIRST.frames(610, to, to + 30),
            FIRST.frames(to + 10, 3_600, 3_600),
        ]
    };
    assert_eq!(account(&evidence(620), &[], 3_600).links, []);
    assert_eq!(account(&evidence(630), &[], 3_600).links.len(), 1);
}

#[test]
fn frames_that_are_missing_inside_one_process_are_not_its_end() {
    // Frames up to 1,000 in time; those of 1,010 to 1,030 were lost, the next came late, after a new
    // process had been received.
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_000, 1_000),
        resumed(FIRST.mark(1_000), RESTARTED.mark(1_300), -5_000),
        RESTARTED.frames(1_300, 3_600, 3_600),
        FIRST.frames(1_040, 1_060, 1_310),
    ];
    let account = account(&evidence, &[], 3_600);
    assert_eq!(
        account.states(),
        [
            (0, 1_000, UpLive),
            (1_000, 1_040, Unknown),
            (1_040, 1_060, UpProven),
            (1_060, 1_300, AgentStopped),
            (1_300, 3_600, UpLive)
        ]
    );
    assert_eq!(account.cause_of(Unknown), Cause::NoProof);
}

#[test]
fn a_record_that_ends_before_the_next_frame_was_due_does_not_end_in_silence() {
    let retired = |at| {
        let evidence = [
            enrolled(),
            FIRST.frames(0, 1_000, 1_000),
            row(EvidenceKind::Retired, at, at, at),
        ];
        account(&evidence, &[], 3_600).states()
    };
    assert_eq!(
        retired(1_007),
        [
            (0, 1_000, UpLive),
            (1_000, 1_007, UpLive),
            (1_007, 3_600, Retired)
        ]
    );
    assert_eq!(
        retired(1_300),
        [
            (0, 1_000, UpLive),
            (1_000, 1_300, Silent),
            (1_300, 3_600, Retired)
        ]
    );
}
