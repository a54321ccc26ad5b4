//! The words of the observed-state layer: states, their causes, and spans of them. Only names and
//! texts; what leads to which state is decided in `observe` and `verdict`.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{DurationMs, UnixMillis, wire::heartbeat::GoodbyeReason};

use crate::wording::duration;

/// What the evidence proves about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedState {
    /// Frames were received in time.
    UpLive,
    /// Frames came late, or the kernel's own record shows that it ran.
    UpProven,
    /// Another boot: down from the last sign of life of the old one to the start of the new kernel.
    /// [`Cause::BootChanged`] says whether it was clean.
    DownReboot,
    /// Same boot, same agent process, no frames, and the guest's monotonic clock stood still.
    HostFrozen,
    /// Same boot, new agent process: the machine ran, the agent did not.
    AgentStopped,
    /// Same boot, same agent process, the clock ran on, no frames.
    Stalled,
    /// The collector itself was not there to receive.
    CollectorDown,
    /// Overdue and no verdict yet; amended when the host sends heartbeats again.
    Silent,
    /// No proof either way.
    Unknown,
    /// Before the host's record begins.
    NotEnrolled,
    /// After the host's record ended.
    Retired,
}

impl ObservedState {
    /// Every state, in the order of reports.
    pub const ALL: [Self; 11] = [
        Self::UpLive,
        Self::UpProven,
        Self::DownReboot,
        Self::HostFrozen,
        Self::AgentStopped,
        Self::Stalled,
        Self::CollectorDown,
        Self::Silent,
        Self::Unknown,
        Self::NotEnrolled,
        Self::Retired,
    ];

    /// Its name as in JSON and CSV, for example `up_live`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UpLive => "up_live",
            Self::UpProven => "up_proven",
            Self::DownReboot => "down_reboot",
            Self::HostFrozen => "host_frozen",
            Self::AgentStopped => "agent_stopped",
            Self::Stalled => "stalled",
            Self::CollectorDown => "collector_down",
            Self::Silent => "silent",
            Self::Unknown => "unknown",
            Self::NotEnrolled => "not_enrolled",
            Self::Retired => "retired",
        }
    }

    /// Whether the state proves the host up.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::UpLive | Self::UpProven)
    }

    /// Whether the state proves the host down.
    pub const fn is_down(self) -> bool {
        matches!(self, Self::DownReboot | Self::HostFrozen)
    }
}

/// From when on a rebooted machine is known to be down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownSince {
    /// From its last frame.
    LastFrame,
    /// From the last sign of life that its operating system kept, later than the last frame.
    OsRecord,
}

/// Why a span has its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// Frames received in time.
    Frames,
    /// Frames received late, from the agent's spool.
    LateFrames,
    /// The last frame is so recent that the next is not yet due.
    NextNotDue,
    /// The kernel's own record shows that it ran: after its boot until the first frame, or after
    /// the last frame until the last sign of life of that boot.
    KernelRan,
    /// Another boot.
    BootChanged {
        /// The agent announced the shutdown.
        clean: bool,
        /// What the beginning of the outage rests on.
        since: DownSince,
    },
    /// The guest's monotonic clock stood still for so many milliseconds.
    ClockStoodStill {
        /// For how long, milliseconds.
        still_ms: i64,
    },
    /// The agent's process was there before and after, and its clock ran on.
    ClockRanOn,
    /// Another agent process on the same boot.
    AgentRestarted {
        /// What the old process said when it ended, if anything.
        goodbye: Option<GoodbyeReason>,
    },
    /// The collector was not running, not able to commit, or had only just started.
    CollectorGap,
    /// Nothing since the last frame.
    NoFrameSince {
        /// What the agent said when it ended, if anything.
        goodbye: Option<GoodbyeReason>,
    },
    /// Enrolled, and no frame yet.
    NoFrameYet,
    /// The operating system kept a sign of life of the previous boot, too long after the last frame
    /// to say what was in between.
    PreviousBootSeen,
    /// Another boot whose start is unknown.
    BootTimeUnknown,
    /// Another boot, and nothing proves how long the machine was off.
    RebootedSometime,
    /// There is no evidence.
    NoProof,
    /// The host's record had not begun.
    BeforeEnrolment,
    /// The host's record had ended.
    AfterRetirement,
}

impl Cause {
    /// One sentence for people.
    pub fn text(self) -> String {
        let text = match self {
            Self::Frames => "Heartbeats arrived in time.",
            Self::LateFrames => "Heartbeats arrived late from the agent's spool: the server ran.",
            Self::NextNotDue => "The last heartbeat is recent; the next is not due yet.",
            Self::KernelRan => "The operating system's own record shows that the server ran.",
            Self::BootChanged { clean, since } => return reboot_text(clean, since),
            Self::ClockStoodStill { still_ms } => {
                return format!(
                    "The server was frozen or suspended: its clock stood still for {}.",
                    duration(DurationMs(still_ms))
                );
            }
            Self::ClockRanOn => {
                "The agent sent nothing although its process and the server's clock ran on."
            }
            Self::AgentRestarted { goodbye } => match goodbye {
                Some(GoodbyeReason::Stop) => {
                    "The agent was stopped and started again; the server did not reboot."
                }
                Some(GoodbyeReason::Upgrade) => {
                    "The agent was upgraded; the server did not reboot."
                }
                Some(GoodbyeReason::Shutdown) => {
                    "The agent ended for a shutdown that did not happen; the server did not reboot."
                }
                Some(GoodbyeReason::Other) => {
                    "The agent said goodbye and was started again; the server did not reboot."
                }
                None => "The agent stopped unexpectedly; the server did not reboot.",
            },
            Self::CollectorGap => {
                "The collector was not receiving, so nothing is known about the server."
            }
            Self::NoFrameSince { goodbye } => match goodbye {
                Some(GoodbyeReason::Stop) => "The agent was stopped and has not come back.",
                Some(GoodbyeReason::Shutdown) => {
                    "The server announced a shutdown and has not come back."
                }
                Some(GoodbyeReason::Upgrade) => {
                    "The agent ended for an upgrade and has not come back."
                }
                Some(GoodbyeReason::Other) => "The agent said goodbye and has not come back.",
                None => "Heartbeats stopped; the cause is not known yet.",
            },
            Self::NoFrameYet => "Enrolled; no heartbeat received yet.",
            Self::PreviousBootSeen => {
                "The server was running at the end of this time, by its own record; heartbeats \
                 are missing."
            }
            Self::BootTimeUnknown => {
                "The server rebooted in this time; the time it came back is unknown."
            }
            Self::RebootedSometime => {
                "The server rebooted in this time; nothing proves how long it was down."
            }
            Self::NoProof => "No evidence tells whether the server ran.",
            Self::BeforeEnrolment => "The server was not enrolled yet.",
            Self::AfterRetirement => "The server was retired.",
        };
        text.to_owned()
    }
}

fn reboot_text(clean: bool, since: DownSince) -> String {
    let how = if clean {
        "The server was shut down or rebooted cleanly"
    } else {
        "The server rebooted without a clean shutdown (crash, reset or power loss)"
    };
    let since = match since {
        DownSince::LastFrame => "counted from its last heartbeat",
        DownSince::OsRecord => "counted from the last entry in its own logs",
    };
    format!("{how}; {since}.")
}

/// A stretch `[from, to)` in one state for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Its first instant.
    pub from: UnixMillis,
    /// The first instant after it.
    pub to: UnixMillis,
    /// What the evidence proves.
    pub state: ObservedState,
    /// Why.
    pub cause: Cause,
}
