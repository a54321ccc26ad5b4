//! Notification: what a ticket's step becomes on each channel, and the worker that delivers the
//! outbox at least once.

mod mail;
mod message;
mod webhook;
mod worker;

pub use message::{Body, messages};
pub use webhook::{SIGNATURE_HEADER, sign};
pub use worker::{Channels, NotifyError, tick};
