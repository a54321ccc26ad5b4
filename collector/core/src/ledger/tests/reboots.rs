//! Stories of reboots: what proves an outage and its length.

use uuid::Uuid;
use watchkeep_shared::{BootId, wire::heartbeat::GoodbyeReason};

use super::kit::*;
use crate::{
    evidence::{Evidence, EvidenceKind},
    ledger::{
        Cause, DownSince,
        ObservedState::{CollectorDown, DownReboot, Unknown, UpLive, UpProven},
    },
};

#[test]
fn a_reboot_is_down_only_where_a_goodbye_or_a_record_proves_it() {
    let reboot = resumed(FIRST.mark(1_200), REBOOTED.mark(1_300), 1_270);
    let evidence = |reboot| {
        [
            REBOOTED.frames(1_300, 3_600, 3_600),
            enrolled(),
            FIRST.frames(0, 1_200, 1_200),
            reboot,
        ]
    };
    let states = |off| {
        [
            (0, 1_200, UpLive),
            (1_200, 1_270, off),
            (1_270, 1_300, UpProven),
            (1_300, 3_600, UpLive),
        ]
    };
    // The agent may have been dead long before the machine was.
    let unclean = account(&evidence(reboot.clone()), &[], 3_600);
    assert_eq!(unclean.states(), states(Unknown));
    assert_eq!(unclean.cause_of(Unknown), Cause::RebootedSometime);

    let stopped = with_goodbye(reboot.clone(), GoodbyeReason::Stop);
    let stopped = account(&evidence(stopped), &[], 3_600);
    assert_eq!(stopped.states(), states(Unknown));

    let shutdown = with_goodbye(reboot, GoodbyeReason::Shutdown);
    let clean = account(&evidence(shutdown), &[], 3_600);
    assert_eq!(clean.states(), states(DownReboot));
    assert_eq!(
        clean.cause_of(DownReboot),
        Cause::BootChanged {
            clean: true,
            since: DownSince::LastFrame
        }
    );
    assert_eq!(clean.availability.totals.down_ms, 70_000);
    assert_eq!(clean.availability.coverage, Some(1.0));
}

/// The operating system's record of `FIRST`, reported by `REBOOTED` and recorded whenever.
fn os_record(seen: i64, reaches: i64, started: i64, recorded: i64) -> Evidence {
    let kind = EvidenceKind::PreviousBoot {
        boot: FIRST.mark(0).boot,
        next: REBOOTED.mark(1_300).boot,
        reaches: at(reaches),
    };
    row(kind, seen, started, recorded)
}

#[test]
fn an_os_record_counts_whenever_it_comes() {
    // The agent was stopped at 20 s; the machine ran until 1,240 s.
    let evidence = [
        enrolled(),
        FIRST.frames(0, 20, 20),
        resumed(FIRST.mark(20), REBOOTED.mark(1_300), 1_270),
        REBOOTED.frames(1_300, 3_600, 3_600),
        os_record(1_240, 1_270, 1_270, 2_000),
    ];
    assert_eq!(
        account(&evidence, &[], 3_600).states()[1..4],
        [
            (20, 1_240, Unknown),
            (1_240, 1_270, DownReboot),
            (1_270, 1_300, UpProven)
        ]
    );
}

#[test]
fn a_clock_that_went_back_makes_a_record_prove_less() {
    let evidence = |seen, reaches| {
        let record = os_record(seen, reaches, 1_270, 1_300);
        let back = resumed(FIRST.mark(1_200), REBOOTED.mark(1_300), 1_270);
        let frames = [FIRST.frames(0, 1_200, 1_200), back, record];
        let rest = [enrolled(), REBOOTED.frames(1_300, 3_600, 3_600)];
        account(&[&frames[..], &rest[..]].concat(), &[], 3_600).states()[1]
    };
    // The clock stood still while the machine was off: the record ends with the frames.
    assert_eq!(evidence(1_200, 1_204), (1_200, 1_270, DownReboot));
    // Entries after 600 s were passed over.
    assert_eq!(evidence(1_200, 600), (1_200, 1_270, Unknown));
}

#[test]
fn an_older_boots_frames_prove_nothing_of_a_later_boot() {
    let middle = BootId(Uuid::from_u128(12));
    let last = Process {
        started: 1_380,
        ..REBOOTED
    };
    let record = |boot, next, seen, started| {
        let kind = EvidenceKind::PreviousBoot {
            boot,
            next,
            reaches: at(started),
        };
        row(kind, seen, started, 1_400)
    };
    let first = FIRST.mark(0).boot;
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_276, 1_276),
        resumed(FIRST.mark(1_276), last.mark(1_380), 1_373),
        record(middle, last.mark(1_380).boot, 1_361, 1_373),
        last.frames(1_380, 3_600, 3_600),
    ];
    assert_eq!(
        account(&evidence, &[], 3_600).states()[1..3],
        [(1_276, 1_361, Unknown), (1_361, 1_373, DownReboot)]
    );
    // The boot in between was reported, late.
    let late = [
        row(EvidenceKind::Booted { boot: middle }, 1_323, 1_331, 1_400),
        record(first, middle, 1_276, 1_323),
    ];
    let evidence = [&evidence[..], &late[..]].concat();
    assert_eq!(
        account(&evidence, &[], 3_600).states()[1..5],
        [
            (1_276, 1_323, DownReboot),
            (1_323, 1_331, UpProven),
            (1_331, 1_361, Unknown),
            (1_361, 1_373, DownReboot)
        ]
    );
}

#[test]
fn the_old_boots_own_record_shortens_a_reboot() {
    let reboot = resumed(FIRST.mark(1_200), REBOOTED.mark(1_300), 1_270);
    let evidence = [
        enrolled(),
        FIRST.frames(0, 1_200, 1_200),
        with_last_seen(reboot, 1_230),
        REBOOTED.frames(1_300, 3_600, 3_600),
    ];
    let ledger = account(&evidence, &[], 3_600);
    assert_eq!(
        ledger.states(),
        [
            (0, 1_200, UpLive),
            (1_200, 1_230, UpProven),
            (1_230, 1_270, DownReboot),
            (1_270, 1_300, UpProven),
            (1_300, 3_600, UpLive)
        ]
    );
    assert_eq!(
        ledger.cause_of(DownReboot),
        Cause::BootChanged {
            clean: false,
            since: DownSince::OsRecord
        }
    );
}

#[test]
fn a_reboot_while_the_collector_was_away_is_down_only_where_the_old_boot_proves_its_end() {
    let down = [collector_down(1_205, 1_290)];
    let reboot = resumed(FIRST.mark(1_200), REBOOTED.mark(1_300), 1_270);
    let mut evidence = vec![
        enrolled(),
        FIRST.frames(0, 1_200, 1_200),
        reboot,
        REBOOTED.frames(1_300, 3_600, 3_600),
    ];
    assert_eq!(
        account(&evidence, &down, 3_600).states(),
        [
            (0, 1_200, UpLive),
            (1_200, 1_270, CollectorDown),
            (1_270, 1_300, UpProven),
            (1_300, 3_600, UpLive)
        ]
    );
    evidence.push(FIRST.frames(1_210, 1_240, 1_305));
    assert_eq!(
        account(&evidence, &down, 3_600).states(),
        [
            (0, 1_200, UpLive),
            (1_200, 1_240, UpProven),
            (1_240, 1_270, CollectorDown),
            (1_270, 1_300, UpProven),
            (1_300, 3_600, UpLive)
        ]
    );
    evidence.push(os_record(1_240, 1_270, 1_270, 1_305));
    assert_eq!(
        account(&evidence, &down, 3_600).states()[2],
        (1_240, 1_270, DownReboot)
    );
}
