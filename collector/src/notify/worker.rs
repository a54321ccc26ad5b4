//! Delivers the outbox: claims what is due under a lease, sends, records each attempt. A crash
//! between sending and recording sends again: at least once, never lost.

use std::{sync::Arc, time::Duration};

use rustls::crypto::aws_lc_rs;
use uuid::Uuid;
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{Body, mail::Mailer, webhook::Receiver};
use crate::{
    app::App,
    config::Config,
    live::Hint,
    store::{
        StoreError,
        outbox::{self, Attempt, Message},
    },
};

/// How long one delivery may take.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a claimed message is ours.
const LEASE: DurationMs = DurationMs::from_mins(5);
/// First retry; doubled each time.
const FIRST_RETRY: DurationMs = DurationMs::from_secs(2);
/// Longest time between retries.
const LAST_RETRY: DurationMs = DurationMs::from_mins(10);
/// After this many attempts a message is given up: about four hours.
const MAX_ATTEMPTS: i32 = 30;

/// Why a message was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// A channel's settings can't be used.
    #[error("{channel} can't be set up: {detail}")]
    Setup {
        /// Which one.
        channel: &'static str,
        /// Why.
        detail: String,
    },
    /// It may work later.
    #[error("{0}")]
    Again(String),
    /// It will never work.
    #[error("{0}")]
    Final(String),
}

/// The configured channels.
#[derive(Debug, Default)]
pub struct Channels {
    mail: Option<Mailer>,
    webhook: Option<Receiver>,
}

impl Channels {
    /// Sets up what the settings name.
    pub fn new(config: &Config) -> Result<Self, NotifyError> {
        Ok(Self {
            mail: config.mail.as_ref().map(Mailer::new).transpose()?,
            webhook: config.webhook.as_ref().map(Receiver::new).transpose()?,
        })
    }

    async fn send(&self, message: &Message, now: UnixMillis) -> Result<(), NotifyError> {
        let missing = || NotifyError::Again(format!("no {} is configured", message.channel));
        match message.channel.as_str() {
            "mail" => {
                let body: Body = serde_json::from_str(&message.payload)
                    .map_err(|error| NotifyError::Final(error.to_string()))?;
                self.mail
                    .as_ref()
                    .ok_or_else(missing)?
                    .send(&body, &message.kind)
                    .await
            }
            "webhook" => {
                let receiver = self.webhook.as_ref().ok_or_else(missing)?;
                receiver.send(message.id, &message.payload, now).await
            }
            other => Err(NotifyError::Final(format!("there is no channel {other}"))),
        }
    }
}

/// Delivers what is due. Returns how many messages were tried.
pub async fn tick(app: &App, channels: &Channels) -> Result<usize, StoreError> {
    let token = Uuid::new_v4();
    let claimed = outbox::claim(&app.store, token, app.clock.now(), LEASE).await?;
    for message in &claimed {
        // An acknowledgement may have come since the claim.
        if !outbox::still_wanted(&app.store, message.id, token).await? {
            continue;
        }
        let result = channels.send(message, app.clock.now()).await;
        let now = app.clock.now();
        let told = result
            .as_ref()
            .map_err(ToString::to_string)
            .err()
            .unwrap_or_default();
        let attempt = match &result {
            Ok(()) => Attempt::Sent,
            Err(NotifyError::Again(_)) if message.attempts + 1 < MAX_ATTEMPTS => {
                Attempt::Retry(now + retry_after(message.attempts), &told)
            }
            Err(_) => Attempt::Dead(&told),
        };
        if result.is_err() {
            tracing::warn!(
                outbox.id = message.id,
                attempt = message.attempts + 1,
                "failed to send by {}: {told}",
                message.channel
            );
        }
        let row = app.ids.next(now);
        outbox::finish(&app.store, message, token, attempt, (row, now)).await?;
        if let Some(ticket) = message.ticket_id {
            app.live.hint(Hint::Ticket(ticket));
        }
    }
    Ok(claimed.len())
}

/// Time to the next attempt after so many: doubles, up to a bound.
fn retry_after(attempts: i32) -> DurationMs {
    let factor = 1_i64 << attempts.clamp(0, 20);
    DurationMs((FIRST_RETRY.0 * factor).min(LAST_RETRY.0))
}

/// The one HTTP client: time-outs, no redirects, the system's roots, the chosen provider.
pub(super) fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    // Installed once for the process; a second time changes nothing.
    drop(
        Arc::new(aws_lc_rs::default_provider())
            .as_ref()
            .clone()
            .install_default(),
    );
    reqwest::Client::builder()
        .timeout(SEND_TIMEOUT)
        .connect_timeout(SEND_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("watchkeep-collector/", env!("CARGO_PKG_VERSION")))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_double_up_to_the_bound() {
        let waits: Vec<i64> = (0..12).map(|n| retry_after(n).0 / 1_000).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]);
    }
}
