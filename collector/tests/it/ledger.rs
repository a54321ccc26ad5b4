//! The record as reports read it: a month and its neighbours agree, whatever lies across midnight.

use watchkeep_collector::{reports, store::record};
use watchkeep_core::{
    evidence::{Evidence, EvidenceKind, FrameMark},
    ledger::{Cause, MonthReport},
};
use watchkeep_shared::{DurationMs, UnixMillis, wire::heartbeat::ServiceStatus};

use crate::{
    pipeline::{Rig, batch, frame as beat},
    support::{Bench, NOW, Place, both, mark, place},
};

both!(
    a_chain_across_midnight_is_up_in_both_months,
    a_host_that_fell_silent_before_the_month_had_sent_heartbeats,
    what_a_host_proved_is_a_row_when_its_day_is_over
);

/// 1 February 2027, midnight in Paris.
const MIDNIGHT: UnixMillis = UnixMillis(1_801_436_400_000);
const HOUR: i64 = 3_600;

fn at(secs: i64) -> UnixMillis {
    MIDNIGHT + DurationMs::from_secs(secs)
}

/// Frame `seq` of the one process, made so many seconds after midnight.
fn frame(seq: u64, secs: i64) -> FrameMark {
    mark(seq, at(secs))
}

/// Frames of which the last was recorded when it was made, or later.
fn frames(first: FrameMark, last: FrameMark, recorded: i64) -> Evidence {
    Evidence {
        host: None,
        kind: EvidenceKind::Frames {
            boot: first.boot,
            instance: first.instance,
            seq_from: first.seq,
            seq_to: last.seq,
            late: at(recorded) > last.at,
            max_step_ms: 25_000,
        },
        valid_from: first.at,
        valid_to: last.at,
        recorded_at: at(recorded),
    }
}

fn overdue(since: i64, noticed: i64) -> Evidence {
    Evidence {
        host: None,
        kind: EvidenceKind::Overdue,
        valid_from: at(since),
        valid_to: at(noticed),
        recorded_at: at(noticed),
    }
}

async fn store(bench: &Bench, place: &Place, rows: &[Evidence]) {
    let enrolled = Evidence {
        host: None,
        kind: EvidenceKind::Enrolled,
        valid_from: rows[0].valid_from,
        valid_to: rows[0].valid_from,
        recorded_at: rows[0].valid_from,
    };
    let rows: Vec<_> = rows
        .iter()
        .chain([&enrolled])
        .map(|row| Evidence {
            host: Some(place.host),
            ..row.clone()
        })
        .collect();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (bench.app.ids.next(row.recorded_at), row))
        .collect();
    let mut tx = bench.app.store.begin().await.unwrap();
    record::insert_evidence(&mut tx, &rows).await.unwrap();
    tx.commit().await.unwrap();
}

async fn month(bench: &Bench, place: &Place, month: &str, now: i64) -> MonthReport {
    let open = |_| None;
    reports::month(&bench.app.store, &open, place.contract, month, at(now))
        .await
        .unwrap()
        .unwrap()
}

async fn a_chain_across_midnight_is_up_in_both_months(bench: Bench) {
    let place = place(&bench.app).await;
    // The line was cut 3 s before midnight; what the agent kept came an hour later.
    let rows = [
        frames(frame(1, -HOUR), frame(361, -3), -3),
        overdue(-3, 60),
        frames(frame(362, 7), frame(720, HOUR), HOUR + 5),
        frames(frame(721, HOUR + 10), frame(1_081, 2 * HOUR), 2 * HOUR),
    ];
    store(&bench, &place, &rows).await;
    for (name, from, to) in [("2027-01", -HOUR, 0), ("2027-02", 0, 2 * HOUR)] {
        let report = month(&bench, &place, name, 2 * HOUR).await;
        let unproven: Vec<_> = report.hosts[0]
            .outages
            .iter()
            .filter(|one| one.to > at(from) && one.from < at(to))
            .map(|one| (one.from, one.to, one.state))
            .collect();
        assert_eq!(unproven, [], "{name}");
    }
}

async fn a_host_that_fell_silent_before_the_month_had_sent_heartbeats(bench: Bench) {
    let place = place(&bench.app).await;
    let silent = -2 * 24 * HOUR;
    let rows = [
        frames(frame(1, silent - HOUR), frame(361, silent), silent),
        overdue(silent, silent + 25),
    ];
    store(&bench, &place, &rows).await;
    let report = month(&bench, &place, "2027-02", HOUR).await;
    let causes: Vec<_> = report.hosts[0]
        .outages
        .iter()
        .map(|one| one.cause)
        .collect();
    assert_eq!(causes, [Cause::NoFrameSince { goodbye: None }]);
}

async fn what_a_host_proved_is_a_row_when_its_day_is_over(bench: Bench) {
    /// The heartbeat that is made at midnight in Paris: 15 hours after `NOW`, one each ten seconds.
    const AT_MIDNIGHT: u64 = 15 * 360;
    const FIRST: u64 = AT_MIDNIGHT - 12;
    const LAST: u64 = AT_MIDNIGHT + 12;
    let one = |seq| batch(vec![beat(seq, ServiceStatus::Running)]);
    let place = place(&bench.app).await;
    bench.clock.set(one(FIRST).0);
    let rig = Rig::start(&bench).await;
    for seq in FIRST..=LAST {
        let (at, sent) = one(seq);
        bench.clock.set(at);
        rig.send(place.host, at, sent).await;
    }
    let rows = record::evidence_of(&bench.app.store, place.host, NOW, one(LAST).0)
        .await
        .unwrap();
    let chains: Vec<_> = rows
        .iter()
        .filter_map(|row| match row.kind {
            EvidenceKind::Frames {
                seq_from, seq_to, ..
            } => Some((seq_from, seq_to)),
            _ => None,
        })
        .collect();
    // The pass over the hosts that follows midnight closes it.
    let [(from, to)] = chains[..] else {
        panic!("{chains:?}")
    };
    assert_eq!(from, FIRST);
    assert!((AT_MIDNIGHT..LAST).contains(&to), "{to}");
    rig.stop().await;
}
