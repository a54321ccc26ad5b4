//! The pipeline: drain what arrived, decide what follows (pure), commit everything in one
//! transaction, acknowledge. A crash at any point loses nothing and doubles nothing: agents send
//! again what was not acknowledged, and a repeat is recognised by its sequence number.
//!
//! - [`http`]: the agents' port; reads and checks a request and puts it into the queue.
//! - [`schemas`]: the lists of metric names that hosts use; [`limits`]: what a host may add to the
//!   record; [`bucket`]: how both are counted.
//! - [`decide`]: what follows from one batch for one host.
//! - [`pipeline`]: the loop that owns all hosts' states.
//! - [`commit`]: one transaction for a whole round.
//! - [`rebuild`]: states from the store at start, or after a commit of unknown outcome.
//! - [`deadlines`]: silence without a scan of all hosts.
//! - [`pulse`]: whether the process itself ran; [`knocks`]: hosts that were answered "busy".
//! - [`rejections`]: why heartbeats of a host were rejected.
//! - [`room`]: the memory of batches in the queue.
//! - [`incidents`]: hosts that are silent together.
//! - [`seal`]: hours of heartbeats become chunks.

mod bucket;
mod commit;
mod deadlines;
mod decide;
mod hosts;
pub mod http;
mod incidents;
mod knocks;
mod limits;
pub mod metrics;
mod pipeline;
mod pulse;
mod rebuild;
mod rejections;
mod room;
mod schemas;
pub mod seal;

use tokio::sync::{mpsc, oneshot};
use watchkeep_core::authority::HostTrust;
use watchkeep_shared::{
    HostId, UnixMillis,
    wire::heartbeat::{Ack, Batch},
};

pub use knocks::Knocks;
pub use pipeline::{Pipeline, PipelineError};
pub use room::{Place, Room};

/// A batch in the queue.
#[derive(Debug)]
pub struct Arrival {
    /// Whose it is, by its certificate.
    pub host: HostId,
    /// When its last byte came.
    pub at: UnixMillis,
    /// The address that sent it.
    pub from: String,
    /// The CA of the certificate that it came with, when that was given out, and whom it trusts.
    pub trust: HostTrust,
    /// What it says.
    pub batch: Batch,
    /// Its place in the queue's memory; none in tests.
    pub place: Option<Place>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Ack, NotTaken>>,
}

/// Why a batch was not taken although it was well formed; the agent keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The store could not commit: try again.
    Busy,
    /// The host is unknown or retired.
    UnknownHost,
    /// Two machines use the host's identity.
    Quarantined,
}

/// The way into the queue.
pub type Inbox = mpsc::Sender<Arrival>;
