//! What a channel is: it delivers one copy of a message to one recipient, step by step, and says
//! which step failed and whether that may pass.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::Instant;
use watchkeep_core::delivery::{Failure, MessageKind};
use watchkeep_shared::UnixMillis;

use super::{Body, mail::Mailer, message::cut, problems, webhook::Receiver};
use crate::config::{Config, ConfigError};

/// Longest error kept of an attempt, characters.
const MAX_ERROR_CHARS: usize = 500;

/// A future of a channel's.
pub type Sending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to people.
pub trait Channel: fmt::Debug + Send + Sync {
    /// Its name in the outbox.
    fn name(&self) -> &'static str;

    /// Deliveries at once.
    fn max_sends(&self) -> usize;

    /// Delivers one copy. Notes each step in `trace`.
    fn deliver<'a>(
        &'a self,
        outgoing: &'a Outgoing<'_>,
        trace: &'a mut Trace,
    ) -> Sending<'a, Result<(), SendError>>;
}

/// Asks whether a copy still is to be sent.
pub type StillWanted<'a> = dyn Fn() -> Sending<'a, bool> + Send + Sync + 'a;

/// One copy of a message on its way.
pub struct Outgoing<'a> {
    /// The row of the message's first copy: the same for all copies, in all attempts.
    pub message: i64,
    /// This attempt, 1 the first.
    pub attempt: u32,
    /// As in the outbox.
    pub recipient: &'a str,
    /// Whether it wakes people.
    pub kind: MessageKind,
    /// The body as stored.
    pub payload: &'a str,
    /// The body as parsed.
    pub body: &'a Body,
    /// The time of this attempt.
    pub now: UnixMillis,
    /// Asked again just before the message is handed over.
    pub still_wanted: &'a StillWanted<'a>,
    /// Steps are tried and noted that a delivery does not need: names, connections.
    pub is_test: bool,
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("message", &self.message)
            .field("attempt", &self.attempt)
            .field("recipient", &self.recipient)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Why a copy was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A step failed.
    #[error("{step}: {detail}")]
    Failed {
        /// Whether it may pass.
        failure: Failure,
        /// Which step.
        step: &'static str,
        /// The peer's words, or what went wrong.
        detail: String,
    },
    /// It was cancelled while it was being sent.
    #[error("cancelled before it was handed over")]
    Cancelled,
}

impl SendError {
    /// A failure of a step; the text is bounded and made one line.
    pub fn failed(failure: Failure, step: &'static str, detail: &str) -> Self {
        Self::Failed {
            failure,
            step,
            detail: one_line(detail),
        }
    }
}

/// Text of a peer, bounded, on one line.
pub(super) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    cut(&words.join(" "), MAX_ERROR_CHARS)
}

/// One step of a delivery, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name, as in `connect`.
    pub name: &'static str,
    /// Whether it succeeded.
    pub is_ok: bool,
    /// The peer's words, or what was found.
    pub detail: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

/// The steps of a delivery so far.
#[derive(Debug, Default)]
pub struct Trace {
    steps: Vec<Step>,
}

/// How a step failed, before it has a name.
pub(super) type Fault = (Failure, String);

/// A failure that may pass.
pub(super) fn transient(detail: impl fmt::Display) -> Fault {
    let failure = Failure::Transient { retry_after: None };
    (failure, detail.to_string())
}

impl Trace {
    /// All steps, in order.
    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    /// Runs a step with a time limit and notes how it ended. The step gives a value and what to note.
    pub(super) async fn step<T>(
        &mut self,
        name: &'static str,
        limit: Duration,
        step: impl Future<Output = Result<(T, String), Fault>> + Send,
    ) -> Result<T, SendError> {
        let begun = Instant::now();
        let result = match tokio::time::timeout(limit, step).await {
            Ok(result) => result,
            Err(_) => Err(transient(format!(
                "no answer within {} ms",
                limit.as_millis()
            ))),
        };
        let took_ms = begun.elapsed().as_millis() as u64;
        let mut note = |is_ok, detail: &str| {
            self.steps.push(Step {
                name,
                is_ok,
                detail: one_line(detail),
                took_ms,
            });
        };
        match result {
            Ok((value, detail)) => {
                note(true, &detail);
                Ok(value)
            }
            Err((failure, detail)) => {
                note(false, &detail);
                Err(SendError::failed(failure, name, &detail))
            }
        }
    }
}

/// The configured channels.
#[derive(Clone, Debug, Default)]
pub struct Channels {
    list: Vec<Arc<dyn Channel>>,
}

impl Channels {
    /// Sets up what the settings name. All problems are reported at once.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut list: Vec<Arc<dyn Channel>> = Vec::new();
        let mut faults = problems(config);
        if let Some(mail) = config.mail.as_ref().filter(|_| faults.is_empty()) {
            match Mailer::new(config, mail) {
                Ok(mailer) => list.push(Arc::new(mailer)),
                Err(error) => faults.push(error),
            }
        }
        if let Some(webhook) = config.webhook.as_ref().filter(|_| faults.is_empty()) {
            match Receiver::new(webhook) {
                Ok(receiver) => list.push(Arc::new(receiver)),
                Err(error) => faults.push(error),
            }
        }
        if faults.is_empty() {
            Ok(Self { list })
        } else {
            Err(ConfigError::Values {
                origin: "the configuration".to_owned(),
                problems: faults,
            })
        }
    }

    /// Channels made elsewhere, as tests do.
    pub fn of(list: Vec<Arc<dyn Channel>>) -> Self {
        Self { list }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Channel>> {
        self.list.iter()
    }
}
