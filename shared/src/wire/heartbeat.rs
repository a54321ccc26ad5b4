//! Heartbeats: what an agent sends, and the collector's acknowledgement.

use serde::{Deserialize, Serialize};

use super::{
    host::{HostFacts, Processes, Want},
    policy::{Item, Policy, Refusal, ServiceCheck, Trouble},
};
use crate::ids::{BootId, CaId, InstanceId, SchemaId};

/// The agent's three clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// The agent's wall clock, milliseconds since the Unix epoch. Used to report skew, never to
    /// place a frame of the running boot in time.
    pub wall_ms: i64,
    /// `CLOCK_MONOTONIC` (`clock_gettime(2)`), milliseconds: stops while the machine sleeps.
    pub mono_ms: i64,
    /// `CLOCK_BOOTTIME`, milliseconds: runs on while the machine sleeps.
    pub boot_ms: i64,
}

/// The body of `POST /agent/v1/heartbeats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Protocol version, [`super::PROTOCOL_VERSION`].
    pub v: u16,
    /// Version of the agent program, as in `0.1.0`.
    pub agent_version: String,
    /// The running boot.
    pub boot: BootId,
    /// The running agent process.
    pub instance: InstanceId,
    /// The clocks when this batch was sent. `sent.boot_ms - frame.clocks.boot_ms` is the age of a
    /// frame of the running boot, free of any wall clock.
    pub sent: Clocks,
    /// Version of the policy the agent runs; 0 before it has one.
    pub policy_version: u64,
    /// The CAs that the agent trusts, at most [`super::limits::MAX_TRUSTED_CAS`]; empty from an
    /// agent that does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusts: Vec<CaId>,
    /// Policy items that the customer's local configuration refused; sent with the first batch
    /// after they change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Vec<Refusal>>,
    /// What keeps the agent from doing all that it should, complete; sent with the first batch
    /// after it changes, an empty list when all is well again. At most
    /// [`super::limits::MAX_TROUBLES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub troubles: Option<Vec<Trouble>>,
    /// Schemas that the collector may not know yet. An agent sends a schema until a frame that
    /// uses it was acknowledged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<Schema>,
    /// 1 to [`super::limits::MAX_FRAMES_PER_BATCH`] frames, oldest first.
    pub frames: Vec<Frame>,
}

/// A list of metric names, so that frames carry values alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// [`crate::metric::schema_id`] of `names`.
    pub id: SchemaId,
    /// The names, in the order of a frame's values.
    pub names: Vec<String>,
}

/// One heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// The boot it was made in; absent: the batch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootId>,
    /// The agent process that made it; absent: the batch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// 1, 2, 3, … within its instance. (host, instance, seq) is taken once; a repeat is
    /// acknowledged and changes nothing.
    pub seq: u64,
    /// The clocks when the frame was made.
    pub clocks: Clocks,
    /// The interval at which the agent beat then, milliseconds.
    pub interval_ms: u32,
    /// Which names the values belong to.
    pub schema: SchemaId,
    /// The values, rounded to hundredths; null where a reading failed.
    pub values: Vec<Option<f64>>,
    /// The state of every watched service, complete; absent: as in the frame before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
    /// What happened since the frame before, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// One watched service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// As in [`ServiceCheck::key`]. A failed systemd unit is reported whether or not it is watched.
    pub key: String,
    /// How it is.
    pub status: ServiceStatus,
    /// A short text for people, as in `connection refused` or `2 processes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The state of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceStatus {
    /// It runs, or answers.
    Running,
    /// It does not run, or refuses.
    Stopped,
    /// The service manager calls it failed.
    Failed,
    /// The service manager starts it again and again.
    RestartLoop,
    /// It has been starting or stopping for longer than it may.
    Stuck,
    /// It is starting or stopping; neither well nor a fault.
    Changing,
    /// An administrator has made it impossible to start (`systemctl mask`).
    Masked,
    /// The service manager does not know it.
    NotFound,
    /// The probe was inconclusive; also how a reader takes a state that it does not know.
    #[serde(other)]
    Unknown,
}

impl ServiceStatus {
    /// Whether it is a fault.
    pub const fn is_fault(self) -> bool {
        match self {
            Self::Stopped
            | Self::Failed
            | Self::RestartLoop
            | Self::Stuck
            | Self::Masked
            | Self::NotFound => true,
            Self::Running | Self::Changing | Self::Unknown => false,
        }
    }

    /// The state in words, as in `in a restart loop`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::RestartLoop => "in a restart loop",
            Self::Stuck => "stuck",
            Self::Changing => "starting or stopping",
            Self::Masked => "masked",
            Self::NotFound => "not found",
            Self::Unknown => "unknown",
        }
    }
}

/// Something that happened on the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// First event of an agent process.
    AgentStarted {
        /// Whether the agent process before this one said goodbye; absent if there was none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clean_stop: Option<bool>,
        /// What the operating system knows about the boot before this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_boot: Option<PreviousBoot>,
    },
    /// Last event of an agent process that was asked to stop.
    Goodbye {
        /// Why it stops.
        reason: GoodbyeReason,
    },
    /// Lines matched a log rule since the frame before.
    LogMatch {
        /// The log rule's name in the policy.
        rule: String,
        /// The file.
        path: String,
        /// How many lines matched.
        count: u64,
        /// Some of the lines, redacted, at most [`super::limits::MAX_LINES_PER_LOG_MATCH`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lines: Vec<String>,
    },
    /// Part of a log could not be read, so matches in it are unknown.
    LogGap {
        /// The file.
        path: String,
        reason: LogGapReason,
        /// How many bytes were not read, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    /// Frames were lost before they could be sent.
    SpoolLoss {
        /// How many, where that is known.
        frames: u64,
        reason: SpoolLossReason,
    },
    /// What on this machine could be watched. Nothing of it is watched until the policy says so.
    /// Sent when it is first known and when it has changed.
    Discovered {
        /// At most [`super::limits::MAX_PROPOSALS`].
        proposals: Vec<Proposal>,
        /// How many more there are.
        #[serde(default, skip_serializing_if = "is_zero")]
        left_out: u32,
    },
    /// What the machine is. With the first frame of an agent process, when it has changed, and
    /// once a day.
    HostFacts(HostFacts),
    /// The busiest processes, because the collector asked for them ([`Ack::want`]).
    Processes(Processes),
    /// A kind of event that this version does not know.
    #[serde(other)]
    Other,
}

/// Something that could be watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The item as a policy would have it.
    pub check: Item<ServiceCheck>,
    /// A short text for people, as in `listens, owned by sshd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// OS evidence about the boot before the running one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousBoot {
    /// Its boot id, where the agent kept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootId>,
    /// Wall clock of the last sign of life that it left, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_wall_ms: Option<i64>,
}

/// Why an agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoodbyeReason {
    /// The agent alone is stopped (SIGTERM, SIGINT).
    Stop,
    /// The machine is shutting down or rebooting.
    Shutdown,
    /// The agent is being replaced by another version.
    Upgrade,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// Why part of a log was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogGapReason {
    /// The file shrank below the position, so the rest of the old content is gone.
    Truncated,
    /// The rotated file vanished before it was read to its end.
    RotatedAway,
    /// The file could not be opened or read.
    Unreadable,
    /// More lines matched than the rate limit allows; counted, not shown.
    RateLimited,
    /// A line was longer than the limit; its rest was skipped.
    LineTooLong,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// Why frames were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpoolLossReason {
    /// The spool reached its size or age limit; the oldest frames went.
    Full,
    /// Records were damaged on disk.
    Damaged,
    /// The disk refused the write.
    WriteFailed,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// The answer to a batch: everything listed as accepted is committed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// How many frames are taken care of: committed now, or known already.
    pub accepted: u32,
    /// Frames that will never be taken; the agent must not send them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// The policy to run from now on, when it is not the version the batch named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Set when the collector does not know a schema that a frame uses: no frame of the batch
    /// was taken; send it again with `schemas`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_schemas: Vec<SchemaId>,
    /// What the agent shall send with its next heartbeat, once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub want: Vec<Want>,
    /// The CAs to trust from now on, PEM, when they are not those the batch named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// Set while the agent's certificate is of a CA that no longer signs: renew it at a random time
    /// within so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_within_ms: Option<u32>,
}

/// A frame that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its instance, if not the batch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Its sequence number.
    pub seq: u64,
    pub reason: RejectReason,
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// Its boot-time clock lies after the batch's own reading.
    FromTheFuture,
    /// It is older than [`super::limits::MAX_FRAME_AGE_MS`].
    TooOld,
    /// The number of values is not the schema's number of names.
    ValueCount,
    /// More values, services, events or text than the limits allow.
    OverLimit,
    /// `seq` is 0 or larger than 2^63 - 1.
    BadSequence,
    /// A service's key or a log rule's name has a control character, a line separator or a
    /// bidirectional override.
    BadText,
    /// The collector's database refuses a value in it.
    Unstorable,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

impl RejectReason {
    /// The reason as written on the wire, for logs and counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FromTheFuture => "from_the_future",
            Self::TooOld => "too_old",
            Self::ValueCount => "value_count",
            Self::OverLimit => "over_limit",
            Self::BadSequence => "bad_sequence",
            Self::BadText => "bad_text",
            Self::Unstorable => "unstorable",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_a_newer_peer_says_is_read_as_other_and_hides_nothing() {
        let events: Vec<Event> =
            read(r#"[{"type":"eclipse","of":["sun"]},{"type":"goodbye","reason":"boredom"}]"#);
        let goodbye = Event::Goodbye {
            reason: GoodbyeReason::Other,
        };
        assert_eq!(events, [Event::Other, goodbye]);
        assert_eq!(
            read::<ServiceStatus>("\"levitating\""),
            ServiceStatus::Unknown
        );
        assert_eq!(read::<RejectReason>("\"new\""), RejectReason::Other);
        assert_eq!(read::<LogGapReason>("\"new\""), LogGapReason::Other);
        assert_eq!(read::<SpoolLossReason>("\"new\""), SpoolLossReason::Other);
        let found: Event =
            read(r#"{"type":"discovered","proposals":[{"check":{"type":"mqtt","broker":"x"}}]}"#);
        assert!(matches!(found, Event::Discovered { left_out: 0, .. }));
    }
}
