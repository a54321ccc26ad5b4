//! When a batch was sent, by the collector's clock. Only the instant of its arrival is known, which is later by
//! the time that the request was under way.
//!
//! Within one boot the collector's clock minus the machine's boot clock is one number, the kernel's
//! start, as long as the machine is not paused. Each arrival gives an upper bound of it, and the
//! lowest of the arrivals is the best: the minimum filter of RFC 5905, section 10. A much later
//! arrival is a slow request or a machine that was paused meanwhile, whose boot clock stood still.
//! One arrival alone does not tell which: a pause is believed if the wall clock was put forward by
//! the same time, or if a later arrival finds the boot clock equally far behind.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{
    BootId, DurationMs, InstanceId, UnixMillis,
    wire::heartbeat::{Batch, Clocks},
};

use super::{
    HostState,
    clock::{ClockOffset, DRIFT, MAX_CLOCK_LAG_MS, origin_of},
    unbroken_ms,
};
use crate::evidence::FrameMark;

/// Two arrivals that far apart and equally late show a pause: a request that was held up is not
/// followed by another one that was held up for as long.
const CONFIRMED_AFTER: DurationMs = DurationMs(MAX_CLOCK_LAG_MS);
/// For how long a host is asked again for frames whose place is not known yet.
const ASK_FOR: DurationMs = DurationMs::from_mins(2);
/// After so long without a batch the time for asking begins again.
const ASK_ANEW: DurationMs = DurationMs::from_mins(1);

/// How a batch arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When, by the collector's clock.
    pub at: UnixMillis,
    /// The agent's clocks when it sent the batch.
    pub sent: Clocks,
    /// The running boot.
    pub boot: BootId,
    /// The running agent process.
    pub instance: InstanceId,
    /// The instant, Unix milliseconds, at which the running boot's clock showed zero.
    pub(super) origin_ms: i64,
    pub(super) certainty: Certainty,
}

/// How far the origin of an arrival can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// As well as clocks and networks allow.
    Settled,
    /// The arrival was late: the origin is that of the arrivals before.
    Delayed,
    /// The arrival was late and the wall clock was set by another time: frames that were made
    /// before it may belong anywhere.
    Doubtful,
}

/// Arrivals that were later than the boot clock lets expect, and that nothing explains yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lag {
    boot: BootId,
    /// The origin that they would have if the machine was paused, Unix milliseconds.
    origin_ms: i64,
    /// The first one with this origin.
    at: UnixMillis,
    /// The newest one.
    newest_at: UnixMillis,
    /// The first one, whatever its origin.
    since: UnixMillis,
}

/// What an arrival says.
#[derive(Clone, Copy, Debug)]
struct Judgement {
    origin_ms: i64,
    certainty: Certainty,
    lag: Option<Lag>,
}

impl Arrival {
    /// When a frame of the running boot was made, by its boot clock.
    pub(super) const fn place(&self, boot_ms: i64) -> UnixMillis {
        UnixMillis(self.origin_ms.saturating_add(boot_ms))
    }

    /// The wall clock of the running boot minus the collector's, milliseconds.
    pub(super) fn skew_ms(&self) -> i64 {
        let sent_at = self.place(self.sent.boot_ms);
        self.sent.wall_ms.saturating_sub(sent_at.0)
    }
}

/// Takes an arrival in: finds its origin and remembers what it leaves open.
pub(super) fn arrive(state: &mut HostState, batch: &Batch, at: UnixMillis) -> Arrival {
    let judged = judge(state, batch, at);
    state.lag = judged.lag;
    Arrival {
        at,
        sent: batch.sent,
        boot: batch.boot,
        instance: batch.instance,
        origin_ms: judged.origin_ms,
        certainty: judged.certainty,
    }
}

fn judge(state: &HostState, batch: &Batch, at: UnixMillis) -> Judgement {
    let (boot, sent) = (batch.boot, batch.sent);
    let here = at.0.saturating_sub(sent.boot_ms);
    let settled = |origin_ms| Judgement {
        origin_ms,
        certainty: Certainty::Settled,
        lag: None,
    };
    let Some(last) = state.last.filter(|last| last.boot == boot) else {
        return settled(here);
    };
    let ran_ms = sent.boot_ms.saturating_sub(last.boot_ms).max(0);
    let before = origin_of(&last);
    let expected = before.saturating_add(ran_ms / DRIFT);
    let lag_ms = here.saturating_sub(expected);
    if lag_ms <= MAX_CLOCK_LAG_MS {
        return settled(here.min(expected));
    }
    let now = ClockOffset::of(boot, sent);
    let earlier = state.live_clock.filter(|known| known.boot == boot);
    let set_ms = earlier.map_or(0, |earlier| now.since(earlier));
    if set_ms.saturating_sub(lag_ms).saturating_abs() <= MAX_CLOCK_LAG_MS / 2 {
        return settled(here);
    }
    let known = state
        .lag
        .filter(|known| known.boot == boot && at.since(known.newest_at) <= ASK_ANEW);
    let same = known
        .filter(|known| here.saturating_sub(known.origin_ms).saturating_abs() <= MAX_CLOCK_LAG_MS);
    if let Some(same) = same
        && at.since(same.at) >= CONFIRMED_AFTER
    {
        return settled(here.min(same.origin_ms));
    }
    let lag = Lag {
        boot,
        origin_ms: same.map_or(here, |same| here.min(same.origin_ms)),
        at: same.map_or(at, |same| same.at),
        newest_at: at,
        since: known.map_or(at, |known| known.since),
    };
    let certainty = if set_ms.saturating_abs() <= MAX_CLOCK_LAG_MS / 2 {
        Certainty::Delayed
    } else {
        Certainty::Doubtful
    };
    Judgement {
        origin_ms: before,
        certainty,
        lag: Some(lag),
    }
}

impl HostState {
    /// Whether a batch must be sent again before anything is made of it, because its place in time
    /// is not known well enough: it may have waited while the collector did not run
    /// (`may_have_waited`) and nothing else says for how long, or its arrival may be slow or after a
    /// pause, and it brings more than the next frame. The agent sends it again with a new reading of
    /// its clocks. What this arrival says is remembered, so that the next one is enough.
    pub fn asks_again(&mut self, batch: &Batch, at: UnixMillis, may_have_waited: bool) -> bool {
        let Some(last) = self.last.filter(|last| last.boot == batch.boot) else {
            return may_have_waited;
        };
        let Some(lag) = judge(self, batch, at).lag else {
            return false;
        };
        if may_have_waited {
            return true;
        }
        let asks = at.since(lag.since) <= ASK_FOR && !follows(&last, batch);
        if asks {
            self.lag = Some(lag);
        }
        asks
    }
}

/// Whether a batch holds only the next frames of the process that sent the newest live frame. Those are at most a
/// step away from its newest one, on whichever side of a pause they were made.
fn follows(last: &FrameMark, batch: &Batch) -> bool {
    batch.frames.iter().all(|frame| {
        let step_ms = frame.clocks.boot_ms.saturating_sub(last.boot_ms);
        frame.boot.unwrap_or(batch.boot) == last.boot
            && frame.instance.unwrap_or(batch.instance) == last.instance
            && step_ms <= unbroken_ms(frame.interval_ms)
    })
}
