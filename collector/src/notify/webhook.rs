//! A signed webhook: `POST` of the message's JSON, with an HMAC-SHA-256 (RFC 2104) over the time and
//! the body, so that a receiver can tell that it came from here and is not replayed.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use watchkeep_shared::UnixMillis;

use super::worker::NotifyError;
use crate::{config::Webhook, identity::hex};

/// `t=SECONDS,v1=HEX`: HMAC-SHA-256 with the shared key over `SECONDS.BODY`.
pub const SIGNATURE_HEADER: &str = "watchkeep-signature";
/// Identifies the message: a receiver that sees one twice may drop it.
const ID_HEADER: &str = "watchkeep-message-id";

/// A receiver.
pub(super) struct Receiver {
    http: reqwest::Client,
    url: String,
    key: Vec<u8>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    pub(super) fn new(webhook: &Webhook) -> Result<Self, NotifyError> {
        let setup = |detail: String| NotifyError::Setup {
            channel: "webhook",
            detail,
        };
        let key = std::fs::read(&webhook.secret_file)
            .map_err(|error| setup(format!("{}: {error}", webhook.secret_file.display())))?;
        let key: Vec<u8> = key.trim_ascii_end().to_vec();
        if key.len() < 16 {
            return Err(setup("webhook.secret_file: at least 16 bytes".to_owned()));
        }
        let http = super::worker::http_client().map_err(|error| setup(error.to_string()))?;
        Ok(Self {
            http,
            url: webhook.url.clone(),
            key,
        })
    }

    pub(super) async fn send(
        &self,
        id: i64,
        payload: &str,
        now: UnixMillis,
    ) -> Result<(), NotifyError> {
        let seconds = now.0.div_euclid(1_000);
        let response = self
            .http
            .post(&self.url)
            .header("content-type", "application/json")
            .header(ID_HEADER, id.to_string())
            .header(SIGNATURE_HEADER, sign(&self.key, seconds, payload))
            .body(payload.to_owned())
            .send()
            .await
            .map_err(|error| NotifyError::Again(error.without_url().to_string()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let detail = format!("the receiver answered {status}");
        // A receiver that says "gone" or "not this" will say so again; all else may pass.
        if matches!(status.as_u16(), 400 | 401 | 403 | 404 | 405 | 410 | 422) {
            Err(NotifyError::Final(detail))
        } else {
            Err(NotifyError::Again(detail))
        }
    }
}

/// The value of [`SIGNATURE_HEADER`].
pub fn sign(key: &[u8], seconds: i64, body: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        // HMAC takes keys of any length.
        return String::new();
    };
    mac.update(format!("{seconds}.{body}").as_bytes());
    format!("t={seconds},v1={}", hex(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected value comes from another implementation, by the command below.
    #[test]
    fn signature_is_hmac_sha256_of_time_dot_body() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let signature = sign(b"0123456789abcdef", 1_700_000_000, "{\"a\":1}");
        assert_eq!(
            signature,
            "t=1700000000,v1=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23"
        );
    }
}
