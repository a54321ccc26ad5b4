//! One request to the collector and what came of it. Knows HTTP and TLS; decides nothing.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Proxy, Response, StatusCode, header, redirect};
use watchkeep_shared::wire::{
    CONTENT_ENCODING_ZSTD, CONTENT_TYPE_JSON,
    problem::{Problem, ProblemType},
};

use crate::{
    identity::Identity,
    tls::{self, ClientIdentity, MaterialError},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first byte out to the last byte in, at most. The collector ends a body after as long.
pub const LONGEST_REQUEST: Duration = Duration::from_secs(20);
/// The same for a small body: where an answer is lost without a word, a host of the default interval
/// is heard again before it is called silent (25 s after it was heard).
const SMALL_REQUEST: Duration = Duration::from_secs(8);
/// What a slow line carries in a second (32 kbit/s).
const SLOW_LINE_BYTES: usize = 4_096;
/// After so many failures in a row a collector or a line may need longer: giving up early would only
/// make more connections.
const EARLY_FAILURES: u32 = 3;
/// Longer than any heartbeat interval worth keeping a connection for.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// Largest answer that is read; a policy is the largest thing that comes down.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or it broke.
    #[error("can't reach the collector: {0}")]
    Unreachable(String),
    /// The server is not the collector that this agent trusts.
    #[error("the server's certificate is not trusted: {0}")]
    WrongServer(String),
    /// The server refused this agent's certificate during the handshake.
    #[error("the collector refused this agent's certificate: {0}; enrol again with `--force`")]
    CertificateRefused(String),
    /// The collector said no.
    #[error("the collector answered {status}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The type, if it is a known one.
        kind: Option<ProblemType>,
        /// Its words.
        detail: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The answer makes no sense.
    #[error("the answer is not the collector's: {0}")]
    BadAnswer(String),
}

impl Failure {
    /// Whether sending the same batch again can't help.
    pub fn is_indigestible(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                kind: Some(
                    ProblemType::BadBody
                        | ProblemType::BadEncoding
                        | ProblemType::OverLimit
                        | ProblemType::BodyTooLarge
                ),
                ..
            }
        )
    }
}

/// Why an answer's body could not be read.
#[derive(Debug)]
pub enum BodyError {
    /// The connection broke.
    Transport(reqwest::Error),
    /// More than an answer may have.
    TooLarge,
}

/// A client with mutual TLS. It is made again after a renewal, which retires kept connections and
/// sessions that carry the old certificate.
pub fn client(
    identity: &Identity,
    presented: Arc<ClientIdentity>,
    proxy: Option<&str>,
) -> Result<Client, ClientError> {
    let config = tls::mutual_config(&identity.ca_pem, presented)?;
    let mut builder = Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(LONGEST_REQUEST)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(1)
        .tcp_nodelay(true)
        .http1_only();
    if let Some(proxy) = proxy {
        builder = builder.proxy(Proxy::all(proxy)?);
    }
    Ok(builder.build()?)
}

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// The proxy's URL, or the client itself.
    #[error("the HTTP client can't be set up (uplink.proxy?): {0}")]
    Http(#[from] reqwest::Error),
}

/// How long a request may take whose body has so many bytes, after so many failures in a row.
pub fn limit(body_bytes: usize, failures: u32) -> Duration {
    if failures >= EARLY_FAILURES {
        return LONGEST_REQUEST;
    }
    let sending = Duration::from_secs((body_bytes / SLOW_LINE_BYTES) as u64);
    (SMALL_REQUEST + sending).min(LONGEST_REQUEST)
}

/// Sends a body and gives the body of a 200 answer, which takes no longer than `limit`.
pub async fn post(
    client: Client,
    url: String,
    body: Vec<u8>,
    compressed: bool,
    limit: Duration,
) -> Result<Vec<u8>, Failure> {
    let mut request = client
        .post(url)
        .timeout(limit)
        .header(header::CONTENT_TYPE, CONTENT_TYPE_JSON)
        .body(body);
    if compressed {
        request = request.header(header::CONTENT_ENCODING, CONTENT_ENCODING_ZSTD);
    }
    let response = request.send().await.map_err(|error| transport(&error))?;
    let status = response.status();
    let retry_after = retry_after(&response);
    let body = read_bounded(response).await.map_err(|error| match error {
        BodyError::Transport(error) => transport(&error),
        BodyError::TooLarge => Failure::BadAnswer(format!(
            "more than {MAX_ANSWER_BYTES} bytes, status {status}"
        )),
    })?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    if status.is_success() || status.is_redirection() || status.is_informational() {
        return Err(Failure::BadAnswer(format!("status {status}")));
    }
    let problem: Option<Problem> = serde_json::from_slice(&body).ok();
    Err(Failure::Refused {
        status: status.as_u16(),
        kind: problem.as_ref().and_then(Problem::known_type),
        detail: problem.map_or_else(
            || "no reason given".to_owned(),
            |problem| {
                if problem.detail.is_empty() {
                    problem.title
                } else {
                    problem.detail
                }
            },
        ),
        retry_after,
    })
}

/// Reads a body of at most 1 MiB.
pub async fn read_bounded(mut response: Response) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Transport)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

fn transport(error: &reqwest::Error) -> Failure {
    match tls::rustls_error(error) {
        Some(cause @ rustls::Error::AlertReceived(_)) => {
            Failure::CertificateRefused(cause.to_string())
        }
        Some(
            cause @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented),
        ) => Failure::WrongServer(format!("{cause}; {}", wrong_server_advice(cause))),
        _ => Failure::Unreachable(tls::with_causes(error)),
    }
}

fn wrong_server_advice(cause: &rustls::Error) -> &'static str {
    match cause {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            "either something intercepts the connection, or the provider has replaced its certificate authority while this machine was away: then ask for a token for a new key and run `watchkeep-agent enroll --force TOKEN`"
        }
        _ => "check for an intercepting proxy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_request_is_given_up_early_and_a_large_one_has_time() {
        let secs = |bytes, failures| limit(bytes, failures).as_secs();
        assert_eq!([secs(800, 0), secs(800, 2), secs(800, 3)], [8, 8, 20]);
        assert_eq!([secs(20_000, 0), secs(1 << 20, 0)], [12, 20]);
    }
}
