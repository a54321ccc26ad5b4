//! From frames to evidence: what one host's heartbeats prove.
//!
//! [`HostState`] is the memory that the collector keeps of a host. [`take_batch`] folds a batch of
//! frames into it and returns the evidence that follows; [`take_silence`] does the same for a
//! deadline that passed. Most heartbeats only extend the open chain and change nothing that must be
//! written ([`BatchTaken::durable`] is false): their own rows in the tail are enough to rebuild the
//! rest, by [`HostState::replay`].
//!
//! It does not judge: whether a break was a reboot or a stopped agent is the ledger's business.

mod arrival;
mod clean;
mod clock;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod place;
mod presence;
mod seen;
mod senders;
mod take;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis,
    wire::{
        heartbeat::{GoodbyeReason, Service},
        policy::{Refusal, Trouble},
    },
};

use crate::{
    authority::HostTrust,
    evidence::{Evidence, EvidenceKind, FrameMark},
};
pub use arrival::Arrival;
pub(crate) use arrival::Lag;
pub use clean::{MAX_VERSION_BYTES, clean};
pub use clock::{Anchor, BootSkew, ClockOffset, Pause};
pub use seen::Seen;
pub use senders::{Admission, Origin, Quarantine, Senders, admit};
pub use take::{BatchTaken, FrameTaken, Outcome, Placed, take_batch};

/// A frame that arrives within this many intervals of being made is live, and two live frames at
/// most this far apart leave no doubt between them: one may be lost and its successor a little late.
const UNBROKEN_INTERVALS_X10: i64 = 25;
/// Lower bound of the above, milliseconds: very short intervals still cross real networks.
const UNBROKEN_MIN_MS: i64 = 2_000;

/// What the collector remembers of one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostState {
    /// The newest live frame.
    pub last: Option<FrameMark>,
    /// The interval that the newest live frame named, milliseconds.
    pub interval_ms: u32,
    /// The chain of live frames that ends with `last`, if it is still open.
    pub chain: Option<Chain>,
    /// Which frames have been taken.
    pub seen: Seen,
    /// The silence deadline has passed and no live frame has come since.
    pub overdue: bool,
    /// The goodbye that ended the chain, until frames come again.
    pub goodbye: Option<GoodbyeReason>,
    /// State of every watched service.
    pub services: Vec<Service>,
    /// Keys of services that were seen to exist on this machine.
    #[serde(default)]
    present: BTreeSet<String>,
    /// The agent's wall clock minus the collector's at the newest frame, milliseconds.
    pub skew_ms: i64,
    /// Policy that the agent runs.
    pub policy_version: u64,
    /// Policy items that the customer's configuration refuses.
    pub refused: Vec<Refusal>,
    /// What keeps the agent from doing all that it should.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
    /// The agent processes that sent lately.
    #[serde(default)]
    pub senders: Senders,
    /// Two machines use the host's identity: nothing is taken until it has a new key.
    #[serde(default)]
    pub quarantine: Option<Quarantine>,
    /// Which CAs it holds a certificate of and trusts.
    #[serde(default)]
    pub trust: HostTrust,
    /// The running boot's wall clock minus its boot clock.
    #[serde(default)]
    pub clock: Option<ClockOffset>,
    /// How the wall clock stood to the boot clock at the newest live frame.
    #[serde(default)]
    pub(crate) live_clock: Option<ClockOffset>,
    /// The earliest stand of a boot's wall clock, where late frames have another than later ones.
    #[serde(default)]
    pub(crate) doubted_clock: Option<ClockOffset>,
    /// Arrivals later than the boot clock lets expect.
    #[serde(default)]
    pub(crate) lag: Option<Lag>,
    /// Where the chain before the open one ended.
    #[serde(default)]
    pub(crate) before_break: Option<Anchor>,
    /// How the wall clock stood in earlier boots, oldest first.
    #[serde(default)]
    pub(crate) earlier_skews: Vec<BootSkew>,
}

/// An open chain of live frames; its end is [`HostState::last`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// When its first frame was made.
    pub from: UnixMillis,
    /// Its first sequence number.
    pub seq_from: u64,
    /// Longest step in it that counts as unbroken, milliseconds.
    pub max_step_ms: i64,
}

/// A stored frame, read back from the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFrame {
    /// Its boot, process, number and times.
    pub mark: FrameMark,
    /// It was taken as late.
    pub late: bool,
    /// The interval it named, milliseconds.
    pub interval_ms: u32,
}

impl HostState {
    /// The open chain as evidence, for reports that look at a running host.
    pub fn open_evidence(&self, host: HostId) -> Option<Evidence> {
        let (chain, last) = (self.chain?, self.last?);
        Some(chain_evidence(host, chain, last, last.arrived_at))
    }

    /// Closes a chain that began on an earlier day of `zone` than its newest frame, and opens the
    /// next one at that frame. So what a host that runs for months proves is in rows that are never
    /// changed, and was recorded within a day: a report as of an earlier instant has it. The two
    /// rows touch, and read as one. `None` if there is nothing to close.
    pub fn close_day(
        &mut self,
        host: HostId,
        zone: &TimeZone,
        now: UnixMillis,
    ) -> Option<Evidence> {
        let (chain, last) = (self.chain?, self.last?);
        self.is_day_over(zone)
            .then(|| self.cut_chain(host, chain, last, now))
    }

    /// Whether the open chain began on an earlier day of `zone` than its newest frame.
    pub fn is_day_over(&self, zone: &TimeZone) -> bool {
        let day = |at: UnixMillis| {
            let instant = Timestamp::from_millisecond(at.0).ok()?;
            Some(zone.to_datetime(instant).date())
        };
        let from = self.chain.and_then(|chain| day(chain.from));
        let to = self.last.and_then(|last| day(last.at));
        from.zip(to).is_some_and(|(from, to)| from < to)
    }

    fn cut_chain(
        &mut self,
        host: HostId,
        chain: Chain,
        last: FrameMark,
        now: UnixMillis,
    ) -> Evidence {
        self.chain = Some(Chain {
            from: last.at,
            seq_from: last.seq,
            ..chain
        });
        chain_evidence(host, chain, last, now)
    }

    /// Closes the open chain whenever it has a length, for tests of what that may not change.
    #[cfg(test)]
    pub(crate) fn cut(&mut self, host: HostId, now: UnixMillis) -> Option<Evidence> {
        let (chain, last) = (self.chain?, self.last?);
        (chain.from < last.at).then(|| self.cut_chain(host, chain, last, now))
    }

    /// When the host becomes overdue: `silent_after` past the last arrival, longer for hosts that
    /// beat slowly, and `announced` after a goodbye for a shutdown or an upgrade, which are over
    /// soon if all goes well. `None` once it is overdue, before its first frame, and in quarantine,
    /// which has a ticket of its own.
    pub fn silence_deadline(
        &self,
        silent_after: DurationMs,
        announced: DurationMs,
    ) -> Option<UnixMillis> {
        let last = self.last?;
        if self.overdue || self.quarantine.is_some() {
            return None;
        }
        let slow = DurationMs(unbroken_ms(self.interval_ms));
        let patience = match self.goodbye {
            Some(GoodbyeReason::Shutdown | GoodbyeReason::Upgrade) => announced,
            Some(GoodbyeReason::Stop | GoodbyeReason::Other) | None => DurationMs(0),
        };
        Some(last.arrived_at + silent_after.max(slow).max(patience))
    }

    /// Folds a stored frame of the tail back in, in arrival order. By construction such a frame
    /// changed nothing durable when it was taken.
    pub fn replay(&mut self, frame: StoredFrame) {
        self.seen.insert(&frame.mark);
        if !frame.late && self.last.is_none_or(|last| frame.mark.at > last.at) {
            self.last = Some(frame.mark);
            self.interval_ms = frame.interval_ms;
        }
    }
}

/// Folds in that the silence deadline passed at `now` without a live frame.
pub fn take_silence(state: &mut HostState, host: HostId, now: UnixMillis) -> Vec<Evidence> {
    let Some(last) = state.last else {
        return Vec::new();
    };
    let mut evidence = Vec::new();
    if let Some(chain) = state.chain.take() {
        evidence.push(chain_evidence(host, chain, last, now));
    }
    state.overdue = true;
    evidence.push(Evidence {
        host: Some(host),
        kind: EvidenceKind::Overdue,
        valid_from: last.at,
        valid_to: now.max(last.at),
        recorded_at: now,
    });
    evidence
}

/// The longest step between two frames that counts as unbroken, milliseconds.
pub fn unbroken_ms(interval_ms: u32) -> i64 {
    (i64::from(interval_ms) * UNBROKEN_INTERVALS_X10 / 10).max(UNBROKEN_MIN_MS)
}

fn chain_evidence(host: HostId, chain: Chain, last: FrameMark, now: UnixMillis) -> Evidence {
    Evidence {
        host: Some(host),
        kind: EvidenceKind::Frames {
            boot: last.boot,
            instance: last.instance,
            seq_from: chain.seq_from,
            seq_to: last.seq,
            late: false,
            max_step_ms: chain.max_step_ms,
        },
        valid_from: chain.from,
        valid_to: last.at.max(chain.from),
        recorded_at: now,
    }
}
