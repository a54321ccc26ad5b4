//! What the running agent says about itself, kept in a small file that `watchkeep-agent status`
//! reads, and that the next agent process takes as evidence of when this one was last alive.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use watchkeep_shared::{BootId, CaId, HostId, InstanceId, wire::policy::Refusal};

use crate::{
    files::{self, Durability},
    platform,
};

const FILE: &str = "status.json";

/// The state of the way to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// No answer yet since the start.
    Connecting,
    /// The last batch was acknowledged.
    Connected,
    /// No connection, or no answer in time.
    Unreachable,
    /// The collector asked to come back later.
    Busy,
    /// The host's certificate was revoked or the host retired.
    Revoked,
    /// Two machines use this host's identity.
    Quarantined,
    /// The collector refused for another reason.
    Refused,
    /// What answers is not the collector that this agent trusts.
    WrongServer,
    /// The agent was asked to stop.
    Stopped,
}

impl Connection {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Unreachable => "unreachable",
            Self::Busy => "asked to wait",
            Self::Revoked => "revoked",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
            Self::WrongServer => "wrong server",
            Self::Stopped => "stopped",
        }
    }
}

/// A snapshot of the running agent. Times are the agent's wall clock, milliseconds since the Unix
/// epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent program.
    pub agent_version: String,
    /// Who it is.
    pub host: HostId,
    /// Where its collector is.
    pub collector: String,
    /// The boot that it runs in.
    pub boot: BootId,
    /// The process.
    pub instance: InstanceId,
    /// Its process id.
    pub pid: u32,
    /// When this was written.
    pub written_wall_ms: i64,
    /// Whether it stopped after saying goodbye.
    pub clean_stop: bool,
    /// The state of the way to the collector.
    pub connection: Connection,
    /// When frames were last acknowledged.
    pub last_ack_wall_ms: Option<i64>,
    /// What went wrong last; absent while all is well.
    pub last_error: Option<String>,
    /// Number of the last frame.
    pub seq: u64,
    /// Unacknowledged frames.
    pub spool_frames: usize,
    /// Their size on disk, bytes.
    pub spool_bytes: u64,
    /// Why the spool's disk refused the last write.
    pub spool_error: Option<String>,
    /// Why the changed configuration was not taken; absent while the one on disk is in force.
    #[serde(default)]
    pub config_error: Option<String>,
    /// Version of the policy in force; 0 before there is one.
    pub policy_version: u64,
    /// Heartbeat interval, milliseconds.
    pub interval_ms: u32,
    /// Items of the policy that the local configuration refuses.
    pub refused: Vec<Refusal>,
    /// When the certificate ends.
    pub certificate_expires_wall_ms: Option<i64>,
    /// The collector's certificate authorities that are trusted.
    #[serde(default)]
    pub trusts: Vec<CaId>,
    /// Heartbeats that the collector will never take, with its reason; the last few.
    #[serde(default)]
    pub given_up: Vec<String>,
}

/// Where the file is.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

impl Status {
    /// Reads the file; `None` if no agent ever ran here.
    pub fn read(state_dir: &Path) -> std::io::Result<Option<Self>> {
        files::read_json(&path(state_dir))
    }

    /// Whether the process that wrote this still runs.
    pub fn is_running(&self) -> bool {
        !self.clean_stop
            && platform::name_of_process(self.pid)
                .is_some_and(|name| name.trim_end_matches(".exe") == env!("CARGO_PKG_NAME"))
    }

    /// Writes the file; a failure is logged at debug level, as the spool warns about the same disk.
    pub fn write(&self, state_dir: &Path) {
        if let Err(error) = files::write_json(&path(state_dir), self, Durability::Cached) {
            tracing::debug!(%error, "the status file could not be written");
        }
    }
}
