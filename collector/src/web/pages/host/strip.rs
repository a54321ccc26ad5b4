//! The observed states of a host's last day, as a coloured strip.

use serde::Serialize;
use watchkeep_core::ledger::{Interval, ObservedState, Span};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::web::{context::Ctx, error::WebError, format, parts::Time};

/// Width of the strip, in its own units.
const STRIP_WIDTH: i64 = 1_440;
const DAY: DurationMs = DurationMs::from_hours(24);

/// Hours from one label of the axis to the next.
const AXIS_HOURS: i64 = 3;
/// A label nearer to an edge than this, in tenths of a percent, would be cut.
const AXIS_MARGIN: i64 = 25;

/// The observed states of the last day.
pub(super) struct Strip {
    pub(super) width: i64,
    pub(super) parts: Vec<StripPart>,
    pub(super) hours: Vec<Hour>,
}

pub(super) struct StripPart {
    pub(super) class: &'static str,
    pub(super) x: i64,
    pub(super) width: i64,
    pub(super) title: String,
    pub(super) from: Time,
    pub(super) state: &'static str,
    pub(super) length: String,
    pub(super) cause: String,
}

/// A label below the strip: UTC, until the page's script shows the reader's zone.
pub(super) struct Hour {
    pub(super) percent: String,
    pub(super) at: i64,
    pub(super) text: String,
}

/// A time in which the host was not known to be up, for the charts.
#[derive(Debug, Serialize)]
pub(super) struct Shade {
    from: i64,
    to: i64,
    down: bool,
}

/// The observed states since an instant, oldest first.
pub(super) async fn spans(ctx: &Ctx, id: HostId, since: UnixMillis) -> Result<Vec<Span>, WebError> {
    Ok(crate::reports::observed(&ctx.web.app, id, Interval::new(since, ctx.now)).await?)
}

/// The states of the last day as parts of a strip; short ones keep a visible width.
pub(super) fn strip(ctx: &Ctx, spans: &[Span]) -> Option<Strip> {
    let from = ctx.now - DAY;
    let x = |at: UnixMillis| at.since(from).0 * STRIP_WIDTH / DAY.0;
    let today = spans.iter().filter(|span| span.to > from);
    let parts: Vec<StripPart> = today
        .map(|span| {
            let began = span.from.max(from);
            let (state, length) = (state_word(span.state), format::span(span.to.since(began)));
            let cause = span.cause.text();
            let (first, last) = (format::utc(began), format::utc(span.to));
            StripPart {
                class: state_class(span.state),
                x: x(began),
                width: (x(span.to) - x(began)).max(2),
                title: format!("{state} for {length}, {first} to {last}: {cause}"),
                from: Time::new(began, ctx.now),
                state,
                length,
                cause,
            }
        })
        .collect();
    (!parts.is_empty()).then_some(Strip {
        width: STRIP_WIDTH,
        parts,
        hours: hours(from),
    })
}

fn hours(from: UnixMillis) -> Vec<Hour> {
    let step = DurationMs::from_hours(AXIS_HOURS).0;
    let first = (from.0 / step + 1) * step;
    (0..24 / AXIS_HOURS)
        .map(|i| first + i * step)
        .map(|at| (at, (at - from.0) * 1_000 / DAY.0))
        .filter(|(_, thousandth)| (AXIS_MARGIN..=1_000 - AXIS_MARGIN).contains(thousandth))
        .map(|(at, thousandth)| Hour {
            percent: format!("{}.{}", thousandth / 10, thousandth % 10),
            at,
            text: format::utc(UnixMillis(at))
                .chars()
                .skip(11)
                .take(5)
                .collect(),
        })
        .collect()
}

/// The times in which the host was down or nobody knows, for the charts.
pub(super) fn shades(spans: &[Span]) -> Vec<Shade> {
    let gaps = spans
        .iter()
        .filter_map(|span| match state_class(span.state) {
            "s-down" => Some((span, true)),
            "s-unknown" => Some((span, false)),
            _ => None,
        });
    gaps.map(|(span, down)| Shade {
        from: span.from.0,
        to: span.to.0,
        down,
    })
    .collect()
}

/// How a state is coloured.
const fn state_class(state: ObservedState) -> &'static str {
    match state {
        ObservedState::UpLive => "s-up",
        ObservedState::UpProven => "s-proven",
        ObservedState::DownReboot | ObservedState::HostFrozen => "s-down",
        ObservedState::AgentStopped
        | ObservedState::Stalled
        | ObservedState::CollectorDown
        | ObservedState::Silent
        | ObservedState::Unknown => "s-unknown",
        ObservedState::NotEnrolled | ObservedState::Retired => "s-none",
    }
}

/// A state's name for people.
pub(crate) const fn state_word(state: ObservedState) -> &'static str {
    match state {
        ObservedState::UpLive => "Up",
        ObservedState::UpProven => "Up, proven later",
        ObservedState::DownReboot => "Down: reboot",
        ObservedState::HostFrozen => "Down: frozen",
        ObservedState::AgentStopped => "Agent stopped",
        ObservedState::Stalled => "Agent stalled",
        ObservedState::CollectorDown => "Collector down",
        ObservedState::Silent => "Silent",
        ObservedState::Unknown => "Unknown",
        ObservedState::NotEnrolled => "Not enrolled",
        ObservedState::Retired => "Retired",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_whole_hours_inside_the_strip() {
        // 2026-11-21 21:04 UTC a day after the strip's beginning.
        let from = UnixMillis(1_795_295_045_678) - DAY;
        let hours = hours(from);
        let texts: Vec<&str> = hours.iter().map(|hour| hour.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "00:00", "03:00", "06:00", "09:00", "12:00", "15:00", "18:00"
            ]
        );
        assert_eq!(hours[0].percent, "12.2");
    }
}
