//! Evidence: what was observed about a host, when it happened (*valid* time) and when the
//! collector learned it (*recorded* time). Rows are appended and never changed; every observed
//! state is derived from them (see [`crate::ledger`]).
//!
//! All times are on the collector's own time line. A frame of the running boot is placed by
//! `arrival - (sent.boot_ms - frame.boot_ms)`, so an agent's wrong wall clock moves nothing.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{BootId, HostId, InstanceId, UnixMillis, wire::heartbeat::GoodbyeReason};

/// One evidence row of one host, or of the collector itself where `host` is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The host; `None` for the collector's own record.
    pub host: Option<HostId>,
    pub kind: EvidenceKind,
    /// When it began.
    pub valid_from: UnixMillis,
    /// When it ended; equal to `valid_from` for what happens at one instant.
    pub valid_to: UnixMillis,
    /// When the collector learned it.
    pub recorded_at: UnixMillis,
}

/// What was observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EvidenceKind {
    /// The host was enrolled: its record begins.
    Enrolled,
    /// The host was retired: its record ends.
    Retired,
    /// An unbroken chain of frames `seq_from..=seq_to` of one agent process, made at `valid_from`
    /// (the first) to `valid_to` (the last), consecutive ones at most `max_step_ms` apart. Proof
    /// that the machine ran throughout. Two rows of one instance join when the sequence numbers
    /// are adjacent and the distance is at most `max_step_ms`.
    Frames {
        /// Their boot.
        boot: BootId,
        /// Their agent process.
        instance: InstanceId,
        /// First sequence number.
        seq_from: u64,
        /// Last sequence number.
        seq_to: u64,
        /// Received late (from the spool), not within the silence deadline.
        late: bool,
        /// Longest step that still counts as unbroken, milliseconds.
        max_step_ms: i64,
    },
    /// No frame has come since `valid_from`, noticed at `valid_to`: the silence deadline passed.
    Overdue,
    /// Frames came again after a break from `valid_from` (the last frame before) to `valid_to` (the
    /// first frame after): what both sides of the break say.
    Resumed {
        /// The last frame before the break.
        before: FrameMark,
        /// The first frame after it.
        after: FrameMark,
        /// When the running kernel booted.
        kernel_boot_at: UnixMillis,
        /// Last sign of life of the previous boot that the operating system kept. Only in rows of
        /// older versions: it is [`Self::PreviousBoot`] now.
        #[serde(default)]
        previous_boot_last_seen: Option<UnixMillis>,
        /// The goodbye that ended the chain before the break, if there was one.
        goodbye: Option<GoodbyeReason>,
    },
    /// What the operating system recorded of a boot, reported by the first agent process of the
    /// next: `valid_from` is its last sign of life, `valid_to` the start of the next kernel.
    PreviousBoot {
        /// The boot that it is about.
        boot: BootId,
        /// The boot that reported it.
        next: BootId,
        /// Later signs of life would not have been reported: the wall clock of the next boot
        /// began here. Before `valid_to` where the clock went back between the two.
        reaches: UnixMillis,
    },
    /// The kernel of a boot of which the first frame came late: it started at `valid_from` and ran
    /// to `valid_to`.
    Booted {
        /// The boot.
        boot: BootId,
    },
    /// The agent said goodbye.
    Goodbye { reason: GoodbyeReason },
    /// The collector itself was not running, or not able to commit, from `valid_from` to `valid_to`.
    CollectorDown,
}

/// The position of one frame in time and in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameMark {
    pub boot: BootId,
    /// Its agent process.
    pub instance: InstanceId,
    /// Its sequence number.
    pub seq: u64,
    /// When it was made, on the collector's time line.
    pub at: UnixMillis,
    pub arrived_at: UnixMillis,
    /// `CLOCK_MONOTONIC` when it was made, milliseconds.
    pub mono_ms: i64,
    /// `CLOCK_BOOTTIME` when it was made, milliseconds.
    pub boot_ms: i64,
}
