//! The observed states of a host's last day, as a coloured strip.

use watchkeep_core::ledger::{Interval, ObservedState};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::web::{context::Ctx, error::WebError, format};

/// Width of the strip, in its own units.
const STRIP_WIDTH: i64 = 1_440;

/// The observed states of the last day.
pub(super) struct Strip {
    pub(super) width: i64,
    pub(super) parts: Vec<StripPart>,
}

pub(super) struct StripPart {
    pub(super) class: &'static str,
    pub(super) x: i64,
    pub(super) width: i64,
    pub(super) title: String,
}

/// The states of the last day as parts of a strip; short ones keep a visible width.
pub(super) async fn strip(ctx: &Ctx, id: HostId) -> Result<Option<Strip>, WebError> {
    let from = ctx.now - DurationMs::from_hours(24);
    let spans = crate::reports::observed(&ctx.web.app, id, Interval::new(from, ctx.now)).await?;
    let x = |at: UnixMillis| at.since(from).0 * STRIP_WIDTH / DurationMs::from_hours(24).0;
    let parts: Vec<StripPart> = spans
        .iter()
        .map(|span| StripPart {
            class: state_class(span.state),
            x: x(span.from),
            width: (x(span.to) - x(span.from)).max(2),
            title: format!(
                "{} for {}: {}",
                state_word(span.state),
                format::span(span.to.since(span.from)),
                span.cause.text()
            ),
        })
        .collect();
    Ok((!parts.is_empty()).then_some(Strip {
        width: STRIP_WIDTH,
        parts,
    }))
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
