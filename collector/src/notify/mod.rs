//! Notification: what a ticket's step becomes on each channel, and the delivery of the outbox at
//! least once.
//!
//! - `endpoint`: who receives what, by channel and tier.
//! - `message`, `text`: what a message says, and how people read it.
//! - `channel`: what a channel is; `mail` and `webhook` are the two there are.
//! - `worker`: one task a channel delivers its part of the outbox; a slow channel delays no other.
//! - `watch`: pages that reach nobody are handed over and reported; the state of delivery, in figures.
//! - `test`: a test message, with each step of its delivery.

mod channel;
pub mod endpoint;
mod health;
mod mail;
mod message;
mod test;
mod text;
mod trust;
mod watch;
mod webhook;
mod worker;

use crate::config::{Config, MailTls};

pub use channel::{Channel, Channels, Outgoing, SendError, Sending, Step, StillWanted, Trace};
pub use health::{Delivery, Health, Problem, RecipientHealth};
pub use message::{Body, queue};
pub use test::{Selection, TestResult, send_tests};
pub use watch::watch;
pub use webhook::{SIGNATURE_HEADER, sign};
pub use worker::{begin, start, tick, tick_channel};

/// What can't be used of the files that the channels' settings name, one line each, with their key.
pub fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |key: &str, result: Result<(), String>| {
        problems.extend(result.err().map(|error| format!("{key}: {error}")));
    };
    if let Some(mail) = &config.mail {
        if let Some(file) = &mail.password_file {
            note("mail.password_file", mail::password(file).map(drop));
        }
        match &mail.ca_file {
            Some(file) => note("mail.ca_file", trust::certificates(file).map(drop)),
            None if mail.tls != MailTls::None => note("mail.tls", trust::roots(None).map(drop)),
            None => {}
        }
    }
    if let Some(webhook) = &config.webhook {
        note(
            "webhook.secret_file",
            webhook::key(&webhook.secret_file).map(drop),
        );
        if let Some(file) = &webhook.ca_file {
            note("webhook.ca_file", trust::certificates(file).map(drop));
        }
    }
    problems
}
