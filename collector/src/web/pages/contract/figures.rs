//! A contract's figures as text. One rule for all of them: the headline, a day of the calendar and
//! the verdict treat unknown time as the contract says; a share is rounded down; "100 %" means no
//! downtime and no unknown time.

use watchkeep_core::ledger::{Availability, ClassTotals, DayCell, DayClass, Ratio, UnknownRule};
use watchkeep_shared::DurationMs;

use crate::web::{
    format,
    parts::{Pill, pill},
};

/// Unknown time of a day that is worth a colour: more than this...
const UNKNOWN_FLOOR: DurationMs = DurationMs::from_mins(1);
/// ... and more than this part of the day's counted time.
const UNKNOWN_FLOOR_PART: i64 = 1_000;
/// Shown instead of a share where no time counts.
const NONE: &str = "–";

/// A contract's target, as it was agreed: `99.99 %`.
pub(in crate::web::pages) fn target(target_pct: f64) -> String {
    // The shortest text that reads back as this number is the one that was written.
    format!("{target_pct} %")
}

/// The share by the contract's rule for unknown time.
pub(in crate::web::pages) fn headline(totals: ClassTotals, rule: UnknownRule) -> String {
    let share = totals.headline(rule).map(Ratio::percent);
    share.map_or_else(|| NONE.to_owned(), |share| below_all(&share, totals))
}

/// A share of counted time.
pub(in crate::web::pages) fn share(share: Option<Ratio>) -> String {
    share.map_or_else(|| NONE.to_owned(), |share| format!("{} %", share.percent()))
}

/// As a percentage; all of it only where nothing was down or unknown.
fn below_all(percent: &str, totals: ClassTotals) -> String {
    if percent.starts_with("100") && !is_whole(totals) {
        return "99.9999 %".to_owned();
    }
    format!("{percent} %")
}

const fn is_whole(totals: ClassTotals) -> bool {
    totals.down_ms == 0 && totals.unknown_ms == 0
}

/// Whether the target is met, by the headline; the proven share of the time is shown next to it.
pub(in crate::web::pages) fn verdict(
    figures: &Availability,
    target_pct: f64,
    is_over: bool,
) -> Option<Pill> {
    // As it is printed: all of it is only met by all of it.
    let most = if is_whole(figures.totals) {
        100.0
    } else {
        99.9999
    };
    let is_met = (figures.headline? * 100.0).min(most) >= target_pct;
    Some(match (is_met, is_over) {
        (true, true) => pill("ok", "check", "Target met"),
        (true, false) => pill("ok", "check", "On target"),
        (false, true) => pill("crit", "crit", "Target missed"),
        (false, false) => pill("crit", "crit", "Below target"),
    })
}

/// One day of the calendar.
pub(super) struct Day {
    pub(super) number: String,
    pub(super) class: &'static str,
    pub(super) icon: &'static str,
    pub(super) text: String,
    /// For narrow screens.
    pub(super) short: String,
    pub(super) title: String,
}

/// How a day is shown.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Up,
    Down,
    Unknown,
    NoData,
    Excluded,
    NotCounted,
    Future,
}

fn shown(cell: &DayCell) -> Shown {
    let totals = cell.totals;
    match cell.class {
        DayClass::Excluded => Shown::Excluded,
        DayClass::NotCounted => Shown::NotCounted,
        DayClass::Future => Shown::Future,
        DayClass::Down => Shown::Down,
        DayClass::Up | DayClass::Unknown if totals.up_ms == 0 => Shown::NoData,
        DayClass::Up | DayClass::Unknown => {
            let floor = UNKNOWN_FLOOR
                .0
                .max(totals.counted_ms() / UNKNOWN_FLOOR_PART);
            if totals.unknown_ms > floor {
                Shown::Unknown
            } else {
                Shown::Up
            }
        }
    }
}

/// A day by the contract's rule.
pub(super) fn day(cell: &DayCell, rule: UnknownRule) -> Day {
    let totals = cell.totals;
    let mut figure = headline(totals, rule);
    if figure.starts_with("100") {
        "100 %".clone_into(&mut figure);
    }
    let (class, icon, text, word) = match shown(cell) {
        Shown::Up => ("up", "up", figure, "up"),
        Shown::Down => ("down", "crit", figure, "outage"),
        Shown::Unknown => ("unknown", "unknown", figure, "partly unknown"),
        Shown::NoData => ("none", "unknown", "no data".to_owned(), "no data"),
        Shown::Excluded => (
            "none",
            "pause",
            "excluded".to_owned(),
            "excluded by agreement",
        ),
        Shown::NotCounted => ("none", "", NONE.to_owned(), "not counted"),
        Shown::Future => ("none", "", String::new(), "not yet"),
    };
    let spans = |name: &str, ms: i64| {
        if ms == 0 {
            String::new()
        } else {
            format!(", {} {name}", format::span(DurationMs(ms)))
        }
    };
    Day {
        number: cell
            .date
            .rsplit('-')
            .next()
            .unwrap_or_default()
            .trim_start_matches('0')
            .to_owned(),
        class,
        icon,
        short: short(&text),
        title: format!(
            "{}: {word}{}{}{}",
            cell.date,
            spans("down", totals.down_ms),
            spans("unknown", totals.unknown_ms),
            spans("excluded", totals.excluded_ms),
        ),
        text,
    }
}

/// `99.9` for `99.9312 %`, cut and not rounded.
fn short(text: &str) -> String {
    let Some(figure) = text.strip_suffix(" %") else {
        return String::new();
    };
    if figure.starts_with("100") {
        return "100".to_owned();
    }
    let end = figure.find('.').map_or(figure.len(), |dot| dot + 2);
    figure.get(..end).unwrap_or(figure).to_owned()
}

#[cfg(test)]
mod tests {
    use watchkeep_shared::UnixMillis;

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn totals(up_ms: i64, down_ms: i64, unknown_ms: i64) -> ClassTotals {
        ClassTotals {
            up_ms,
            down_ms,
            unknown_ms,
            ..ClassTotals::default()
        }
    }

    #[test]
    fn targets_are_printed_as_they_were_given() {
        for (given, text) in [
            (99.99, "99.99 %"),
            (99.999, "99.999 %"),
            (99.5, "99.5 %"),
            (100.0, "100 %"),
        ] {
            assert_eq!(target(given), text);
        }
    }

    #[test]
    fn all_of_it_needs_all_of_it() {
        for (down, unknown, all) in [(0, 0, true), (0, 11_000, false), (1, 0, false)] {
            let totals = totals(24 * HOUR, down, unknown);
            for rule in [
                UnknownRule::CountAsUp,
                UnknownRule::CountAsDown,
                UnknownRule::Exclude,
            ] {
                let text = headline(totals, rule);
                assert_eq!(text == "100.0000 %", all, "{rule:?} {totals:?}: {text}");
            }
        }
        assert_eq!(headline(totals(0, 0, 0), UnknownRule::CountAsUp), NONE);
    }

    #[test]
    fn days_verdict_and_headline_follow_one_rule() {
        let cell = |totals: ClassTotals, class| DayCell {
            date: "2026-11-07".to_owned(),
            from: UnixMillis(0),
            to: UnixMillis(24 * HOUR),
            totals,
            class,
        };
        for (totals, class, shows, text) in [
            // Without any proof a day is neither up nor down, whatever the rule.
            (
                totals(0, 0, 24 * HOUR),
                DayClass::Unknown,
                Shown::NoData,
                "no data",
            ),
            (
                totals(12 * HOUR, 0, 12 * HOUR),
                DayClass::Unknown,
                Shown::Unknown,
                "99.9999 %",
            ),
            // The second between enrolment and the first heartbeat colours nothing.
            (
                totals(24 * HOUR - 900, 0, 900),
                DayClass::Unknown,
                Shown::Up,
                "99.9999 %",
            ),
            (
                totals(18 * HOUR, 6 * HOUR, 0),
                DayClass::Down,
                Shown::Down,
                "75.0000 %",
            ),
            (totals(24 * HOUR, 0, 0), DayClass::Up, Shown::Up, "100 %"),
        ] {
            let cell = cell(totals, class);
            assert_eq!(shown(&cell), shows);
            let day = day(&cell, UnknownRule::CountAsUp);
            assert_eq!((day.text.as_str(), day.number.as_str()), (text, "7"));
        }
        // Agent restarts do not make a target unmeetable when the rule leaves unknown time out.
        let rule = UnknownRule::Exclude;
        let figures = Availability::of(totals(720 * HOUR, 0, 11_000), rule);
        assert_eq!(verdict(&figures, 99.99, true).unwrap().word, "Target met");
        assert_eq!(
            verdict(&figures, 100.0, true).unwrap().word,
            "Target missed"
        );
        let rule = UnknownRule::CountAsDown;
        let figures = Availability::of(totals(90 * HOUR, 0, 10 * HOUR), rule);
        assert_eq!(verdict(&figures, 99.5, false).unwrap().word, "Below target");
        let nothing = Availability::of(totals(0, 0, 5 * HOUR), UnknownRule::Exclude);
        assert!(verdict(&nothing, 99.5, true).is_none());
    }

    #[test]
    fn narrow_figures_are_cut() {
        assert_eq!(short("99.9999 %"), "99.9");
        assert_eq!(short("100 %"), "100");
        assert_eq!(short("no data"), "");
    }
}
