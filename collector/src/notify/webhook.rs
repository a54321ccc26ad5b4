//! A signed webhook: `POST` of the message's JSON, with an HMAC-SHA-256 (RFC 2104) over the time and
//! the body, so that a receiver can verify its origin and detect replays.

use std::{path::Path, sync::Arc, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use jiff::fmt::rfc2822;
use reqwest::{Response, StatusCode, Url, header::RETRY_AFTER};
use rustls::crypto::aws_lc_rs;
use sha2::Sha256;
use tokio::net::TcpStream;
use watchkeep_core::delivery::Failure;
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    channel::{Channel, Fault, Outgoing, SendError, Sending, Trace, one_line, transient},
    endpoint::WEBHOOK,
    message::cut,
    trust,
};
use crate::{config::Webhook, identity::hex};

/// `t=SECONDS,v1=HEX`: HMAC-SHA-256 with the shared key over `SECONDS.BODY`.
pub const SIGNATURE_HEADER: &str = "watchkeep-signature";
/// Identifies the message: a receiver that sees one twice may drop it.
const ID_HEADER: &str = "watchkeep-message-id";
/// The attempt, from 1. From the second on the message may be a repeat.
const ATTEMPT_HEADER: &str = "watchkeep-attempt";

/// Deliveries at once.
const MAX_SENDS: usize = 8;
/// Shortest key, bytes.
const MIN_KEY_BYTES: usize = 16;
/// How much of an answer is read, bytes, and shown, characters.
const ANSWER_BYTES: usize = 2_048;
const ANSWER_CHARS: usize = 200;

/// A receiver.
pub(super) struct Receiver {
    http: reqwest::Client,
    settings: Webhook,
    timeout: Duration,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a secret of the receiver's.
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl Receiver {
    pub(super) fn new(webhook: &Webhook) -> Result<Self, String> {
        let timeout = Duration::from_millis(webhook.timeout_ms);
        Ok(Self {
            http: http_client(webhook.ca_file.as_deref(), timeout)
                .map_err(|error| format!("webhook: {error}"))?,
            settings: webhook.clone(),
            timeout,
        })
    }

    /// The address of a tier.
    fn url(&self, recipient: &str) -> Result<Url, SendError> {
        let gone = |detail: &str| SendError::failed(Failure::Final, "address", detail);
        let url = match (recipient, &self.settings.tier2_url) {
            ("tier1", _) => &self.settings.url,
            ("tier2", Some(url)) => url,
            _ => return Err(gone("the settings have no such recipient")),
        };
        Url::parse(url).map_err(|error| gone(&error.to_string()))
    }

    async fn send(&self, outgoing: &Outgoing<'_>, trace: &mut Trace) -> Result<(), SendError> {
        let url = self.url(outgoing.recipient)?;
        if outgoing.is_test {
            reach(&url, self.timeout, trace).await;
        }
        if !(outgoing.still_wanted)().await {
            return Err(SendError::Cancelled);
        }
        trace
            .step("request", self.timeout, self.post(url, outgoing))
            .await
    }

    async fn post(&self, url: Url, outgoing: &Outgoing<'_>) -> Result<((), String), Fault> {
        // Read each time: a new key counts without a restart.
        let key = key(&self.settings.secret_file).map_err(transient)?;
        let seconds = outgoing.now.0.div_euclid(1_000);
        let response = self
            .http
            .post(url)
            .header("content-type", "application/json")
            .header(ID_HEADER, outgoing.message.to_string())
            .header(ATTEMPT_HEADER, outgoing.attempt.to_string())
            .header(SIGNATURE_HEADER, sign(&key, seconds, outgoing.payload))
            .body(outgoing.payload.to_owned())
            .send()
            .await
            .map_err(|error| transient(causes(&error.without_url())))?;
        let status = response.status();
        let asked = retry_after(&response, outgoing.now);
        let answer = head(response).await;
        let said = if answer.is_empty() {
            format!("the receiver answered {status}")
        } else {
            format!("the receiver answered {status}: {answer}")
        };
        match failure(status, asked) {
            None => Ok(((), said)),
            Some(failure) => Err((failure, said)),
        }
    }
}

impl Channel for Receiver {
    fn name(&self) -> &'static str {
        WEBHOOK
    }

    fn max_sends(&self) -> usize {
        MAX_SENDS
    }

    fn deliver<'a>(
        &'a self,
        outgoing: &'a Outgoing<'_>,
        trace: &'a mut Trace,
    ) -> Sending<'a, Result<(), SendError>> {
        Box::pin(self.send(outgoing, trace))
    }
}

/// What an answer means. Only "gone" is final at once: 401, 403 and 404 are also what a new key, a
/// proxy or a deployment of the receiver answer for a while.
fn failure(status: StatusCode, asked: Option<DurationMs>) -> Option<Failure> {
    match status.as_u16() {
        200..=299 => None,
        410 => Some(Failure::Final),
        408 | 425 | 429 | 500..=599 => Some(Failure::Transient { retry_after: asked }),
        _ => Some(Failure::LooksPermanent),
    }
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds or a date.
fn retry_after(response: &Response, now: UnixMillis) -> Option<DurationMs> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(DurationMs::from_secs(i64::from(seconds)));
    }
    let at = rfc2822::parse(text).ok()?.timestamp().as_millisecond();
    Some(UnixMillis(at).since(now))
}

/// The beginning of an answer as one line.
async fn head(mut response: Response) -> String {
    let mut bytes = Vec::new();
    // What can't be read is left out: the status has been received.
    while bytes.len() < ANSWER_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(ANSWER_BYTES);
    cut(&one_line(&String::from_utf8_lossy(&bytes)), ANSWER_CHARS)
}

/// Whether the receiver's name resolves and its port answers, for a test. Behind a proxy neither has
/// to; the request decides.
async fn reach(url: &Url, limit: Duration, trace: &mut Trace) {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return;
    };
    let host = host.trim_matches(['[', ']']);
    let resolve = async {
        let found = tokio::net::lookup_host((host, port)).await;
        let list: Vec<_> = found
            .map_err(|error| transient(format_args!("{host}: {error}")))?
            .collect();
        let text: Vec<String> = list.iter().map(ToString::to_string).collect();
        Ok((list, text.join(", ")))
    };
    let Ok(addresses) = trace.step("resolve", limit, resolve).await else {
        return;
    };
    let connect = async {
        let stream = TcpStream::connect(addresses.as_slice())
            .await
            .map_err(transient)?;
        let peer = stream
            .peer_addr()
            .map_or_else(|_| String::new(), |peer| peer.to_string());
        Ok(((), peer))
    };
    drop(trace.step("connect", limit, connect).await);
}

/// An error with its causes, each once.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

/// The key in a file, without white space behind it.
pub(super) fn key(file: &Path) -> Result<Vec<u8>, String> {
    let named = |detail: &dyn std::fmt::Display| format!("{}: {detail}", file.display());
    let bytes = std::fs::read(file).map_err(|error| named(&error))?;
    let key = bytes.trim_ascii_end();
    if key.len() < MIN_KEY_BYTES {
        return Err(named(&format_args!("at least {MIN_KEY_BYTES} bytes")));
    }
    Ok(key.to_vec())
}

/// The HTTP client: time-outs, no redirects, the system's authorities and those of a file, the
/// chosen provider.
fn http_client(ca_file: Option<&Path>, timeout: Duration) -> Result<reqwest::Client, String> {
    // Installed once for the process; a second time changes nothing.
    drop(
        Arc::new(aws_lc_rs::default_provider())
            .as_ref()
            .clone()
            .install_default(),
    );
    let mut builder = reqwest::Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("watchkeep-collector/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = ca_file {
        let own = trust::certificates(file)?
            .iter()
            .map(|certificate| reqwest::Certificate::from_der(certificate))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("{}: {error}", file.display()))?;
        builder = builder.tls_certs_merge(own);
    }
    builder.build().map_err(|error| causes(&error))
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

    #[test]
    fn only_gone_is_final() {
        let of = |status: u16| failure(StatusCode::from_u16(status).unwrap(), None);
        let transient = Some(Failure::Transient { retry_after: None });
        for status in [200, 202, 204] {
            assert_eq!(of(status), None);
        }
        assert_eq!(of(410), Some(Failure::Final));
        for status in [302, 400, 401, 403, 404, 405, 413, 422] {
            assert_eq!(of(status), Some(Failure::LooksPermanent), "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(of(status), transient, "{status}");
        }
    }
}
