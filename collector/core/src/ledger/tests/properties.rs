//! What holds for any evidence, sensible or absurd.

use proptest::{collection::vec, option, prelude::*};
use uuid::Uuid;
use watchkeep_shared::{BootId, InstanceId, UnixMillis, wire::heartbeat::GoodbyeReason};

use super::kit::*;
use crate::{
    evidence::{Evidence, EvidenceKind, FrameMark},
    ledger::{
        Cause, ClassTotals, Interval, Span, Terms, UnknownRule, availability, classify,
        link_incidents, observe, state_totals,
    },
};

/// The last second of the histories drawn here; `now` lies beyond it by more than any step.
const END: i64 = 4_000;

fn instant() -> impl Strategy<Value = UnixMillis> {
    prop_oneof![
        20 => (0..END).prop_map(at),
        // On a coarse grid, so that ends meet.
        20 => (0..40_i64).prop_map(|tenth| at(tenth * 100)),
        1 => any::<i64>().prop_map(UnixMillis),
    ]
}

/// As above, and never so late that it could reach past `now`.
fn sane_instant() -> impl Strategy<Value = UnixMillis> {
    prop_oneof![
        (0..END).prop_map(at),
        (0..40_i64).prop_map(|tenth| at(tenth * 100))
    ]
}

fn boot() -> impl Strategy<Value = BootId> {
    (0..2_u128).prop_map(|id| BootId(Uuid::from_u128(id)))
}

fn instance() -> impl Strategy<Value = InstanceId> {
    (0..3_u128).prop_map(|id| InstanceId(Uuid::from_u128(id)))
}

fn seq() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..12_u64, 1 => any::<u64>()]
}

fn goodbye() -> impl Strategy<Value = GoodbyeReason> {
    prop_oneof![
        Just(GoodbyeReason::Stop),
        Just(GoodbyeReason::Shutdown),
        Just(GoodbyeReason::Upgrade)
    ]
}

fn mark() -> impl Strategy<Value = FrameMark> {
    let clock = || prop_oneof![8 => 0..END * 1_000, 1 => any::<i64>()];
    (boot(), instance(), seq(), instant(), clock(), clock()).prop_map(
        |(boot, instance, seq, at, mono_ms, boot_ms)| FrameMark {
            boot,
            instance,
            seq,
            at,
            arrived_at: at,
            mono_ms,
            boot_ms,
        },
    )
}

fn frames() -> impl Strategy<Value = EvidenceKind> {
    let step = prop_oneof![8 => 0..600_000_i64, 1 => any::<i64>()];
    (boot(), instance(), seq(), seq(), any::<bool>(), step).prop_map(
        |(boot, instance, seq_from, seq_to, late, max_step_ms)| EvidenceKind::Frames {
            boot,
            instance,
            seq_from,
            seq_to,
            late,
            max_step_ms,
        },
    )
}

fn break_told() -> impl Strategy<Value = EvidenceKind> {
    (
        mark(),
        mark(),
        instant(),
        option::of(instant()),
        option::of(goodbye()),
    )
        .prop_map(
            |(before, after, kernel_boot_at, previous_boot_last_seen, goodbye)| {
                EvidenceKind::Resumed {
                    before,
                    after,
                    kernel_boot_at,
                    previous_boot_last_seen,
                    goodbye,
                }
            },
        )
}

fn kind() -> impl Strategy<Value = EvidenceKind> {
    prop_oneof![
        8 => frames(),
        6 => break_told(),
        1 => Just(EvidenceKind::Enrolled),
        1 => Just(EvidenceKind::Retired),
        2 => Just(EvidenceKind::Overdue),
        2 => goodbye().prop_map(|reason| EvidenceKind::Goodbye { reason }),
        2 => Just(EvidenceKind::CollectorDown),
    ]
}

fn evidence(
    kind: impl Strategy<Value = EvidenceKind>,
    time: impl Strategy<Value = UnixMillis> + Clone,
) -> impl Strategy<Value = Evidence> {
    (kind, time.clone(), time.clone(), time).prop_map(|(kind, a, b, recorded_at)| {
        let host = (kind != EvidenceKind::CollectorDown).then_some(HOST);
        Evidence {
            host,
            kind,
            valid_from: a.min(b),
            valid_to: a.max(b),
            recorded_at,
        }
    })
}

/// An enrolled host's rows; the collector's own are among them.
fn history() -> impl Strategy<Value = Vec<Evidence>> {
    vec(evidence(kind(), instant().boxed()), 0..24).prop_map(|mut rows| {
        rows.push(enrolled());
        rows
    })
}

fn window() -> impl Strategy<Value = Interval> {
    (-100..END, 1..END).prop_map(|(from, len)| secs(from, from + len))
}

fn tiles(spans: &[Span], window: Interval) -> bool {
    let mut next = window.from;
    for span in spans {
        if span.from != next || span.to <= span.from {
            return false;
        }
        next = span.to;
    }
    next == window.to.max(window.from)
}

fn classes(spans: &[Span]) -> ClassTotals {
    availability(&classify(spans, &Terms::default()), UnknownRule::Exclude).totals
}

fn see(rows: &[Evidence], window: Interval, cutoff: UnixMillis, now: UnixMillis) -> Vec<Span> {
    let (own, collector): (Vec<_>, Vec<_>) =
        rows.iter().cloned().partition(|row| row.host.is_some());
    observe(&record(&own), &collector, window, cutoff, now)
}

const AFTER: i64 = 2 * END;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn spans_tile_the_window_up_to_now(
        rows in history(), window in window(), cutoff in instant(), now in instant()
    ) {
        let spans = see(&rows, window, cutoff, now);
        let seen = Interval::new(window.from, window.to.min(now));
        prop_assert!(tiles(&spans, seen), "{spans:?}");
        let totals = classes(&spans);
        prop_assert_eq!(totals.sum_ms(), seen.len_ms());
        prop_assert_eq!(state_totals(&spans).values().sum::<i64>(), seen.len_ms());
        for incident in link_incidents(&record(&rows), &[], window, cutoff, now) {
            prop_assert!(window.from <= incident.from && incident.to <= seen.to);
            prop_assert!(incident.from < incident.to && incident.frames_late > 0);
        }
    }

    #[test]
    fn absurd_windows_are_tiled_too(rows in history(), from: i64, to: i64, now: i64) {
        let held = |ms: i64| UnixMillis(ms.clamp(-(1 << 52), 1 << 52));
        let window = Interval::new(UnixMillis(from), UnixMillis(to));
        let spans = see(&rows, window, UnixMillis(i64::MAX), UnixMillis(now));
        let seen = Interval::new(held(from), held(to).min(held(now)));
        prop_assert!(spans.is_empty() && seen.is_empty() || tiles(&spans, seen));
    }

    #[test]
    fn a_window_is_the_sum_of_its_parts(
        rows in history(), window in window(), part in 0.0..1.0_f64
    ) {
        let middle = UnixMillis(window.from.0 + (window.len_ms() as f64 * part) as i64);
        let now = at(AFTER);
        let whole = see(&rows, window, now, now);
        let first = see(&rows, Interval::new(window.from, middle), now, now);
        let second = see(&rows, Interval::new(middle, window.to), now, now);
        prop_assert_eq!(classes(&whole), classes(&first).plus(classes(&second)));
        let mut states = state_totals(&first);
        for (state, ms) in state_totals(&second) {
            *states.entry(state).or_default() += ms;
        }
        prop_assert_eq!(state_totals(&whole), states);
    }

    #[test]
    fn the_order_of_rows_and_repeats_change_nothing(
        (rows, shuffled) in history().prop_flat_map(|rows| {
            let twice = [rows.clone(), rows.iter().take(5).cloned().collect()].concat();
            (Just(rows), Just(twice).prop_shuffle())
        }),
        window in window(),
    ) {
        let now = at(AFTER);
        prop_assert_eq!(see(&rows, window, now, now), see(&shuffled, window, now, now));
        prop_assert_eq!(
            link_incidents(&record(&rows), &[], window, now, now),
            link_incidents(&record(&shuffled), &[], window, now, now)
        );
    }

    #[test]
    fn more_frames_never_take_uptime_away(
        rows in history(), more in vec(evidence(frames(), sane_instant().boxed()), 1..6),
        window in window(),
    ) {
        let now = at(AFTER);
        let before = see(&rows, window, now, now);
        let after = see(&[rows, more].concat(), window, now, now);
        // That the next frame is not due yet is no proof and may turn out wrong.
        let proven = |span: &&Span| span.state.is_up() && span.cause != Cause::NextNotDue;
        for up in before.iter().filter(proven) {
            let still: i64 = after
                .iter()
                .filter(|span| span.state.is_up())
                .map(|span| Interval::new(span.from, span.to))
                .map(|span| span.intersect(Interval::new(up.from, up.to)).len_ms())
                .sum();
            prop_assert_eq!(still, Interval::new(up.from, up.to).len_ms(), "{:?}", up);
        }
    }

    #[test]
    fn rows_recorded_after_the_cutoff_are_as_if_not_there(
        rows in history(), cutoff in sane_instant(), window in window()
    ) {
        let known: Vec<_> = rows.iter().filter(|row| row.recorded_at <= cutoff).cloned().collect();
        let now = at(AFTER);
        prop_assert_eq!(see(&rows, window, cutoff, now), see(&known, window, now, now));
    }

    #[test]
    fn the_headline_lies_between_its_bounds(
        rows in history(), window in window(),
        excluded in vec((sane_instant(), sane_instant()), 0..4),
    ) {
        let now = at(AFTER);
        let spans = see(&rows, window, now, now);
        let excluded = excluded.into_iter().map(|(a, b)| Interval::new(a.min(b), a.max(b)));
        let terms = Terms { excluded: excluded.collect(), ..Terms::default() };
        let classed = classify(&spans, &terms);
        prop_assert_eq!(ClassTotals::of(&classed).sum_ms(), window.len_ms());
        prop_assert!(classed.windows(2).all(|pair| pair[0].to == pair[1].from));
        for rule in [UnknownRule::CountAsUp, UnknownRule::CountAsDown, UnknownRule::Exclude] {
            let figure = availability(&classed, rule);
            prop_assert_eq!(figure.a_min.is_some(), figure.totals.counted_ms() > 0);
            if let (Some(low), Some(high)) = (figure.a_min, figure.a_max) {
                prop_assert!((0.0..=1.0).contains(&low) && low <= high && high <= 1.0);
                let spread = figure.coverage.map_or(0.0, |coverage| 1.0 - coverage);
                prop_assert!((high - low - spread).abs() < 1e-9);
                if let Some(headline) = figure.headline {
                    prop_assert!(low <= headline && headline <= high);
                }
            }
        }
    }
}
