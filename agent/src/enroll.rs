//! Enrolment and renewal: a token and a certificate request go up, a certificate comes down.
//! The private key never leaves this machine.

use std::{sync::atomic::Ordering, time::Duration};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use reqwest::{Client, Proxy, StatusCode, redirect};
use watchkeep_shared::{
    token::EnrolmentToken,
    wire::{
        self,
        enroll::{EnrollRequest, Enrolled, RenewRequest},
        paths,
        problem::{Problem, ProblemType},
    },
};

use crate::{
    identity::Identity,
    tls::{self, MaterialError},
    uplink::http::{BodyError, read_bounded},
};

/// How long the collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why enrolment failed; each text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The token's URL can't be used.
    #[error("the token names the collector \"{url}\", which is not an https URL: make a new token")]
    Url {
        /// The URL.
        url: String,
    },
    /// The configured proxy can't be used.
    #[error("uplink.proxy can't be used: {0}; it is http://HOST:PORT")]
    Proxy(#[source] reqwest::Error),
    /// The server does not hold the pinned CA.
    #[error(
        "the server at {url} is not the collector that made this token (its CA key is another): check for an intercepting proxy, or make a new token if the collector was set up anew or replaced its certificate authority"
    )]
    WrongCa {
        /// The URL.
        url: String,
    },
    /// No answer.
    #[error("can't reach the collector at {url}: {cause}; check name, port and firewall")]
    Unreachable {
        /// The URL.
        url: String,
        /// Why.
        cause: String,
    },
    /// The token was refused.
    #[error("the collector refused the token: {detail}")]
    TokenRefused {
        /// Its words, which say what to do.
        detail: String,
    },
    /// The collector can't take it now.
    #[error("the collector is busy ({detail}); try again in a minute")]
    Busy {
        /// Its words.
        detail: String,
    },
    /// Any other refusal.
    #[error("the collector answered {status}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        detail: String,
    },
    /// The answer makes no sense.
    #[error("the answer from {url} is not an enrolment answer ({why}); is this the agent port?")]
    BadAnswer {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key or request could not be made.
    #[error("can't make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error(transparent)]
    Material(#[from] MaterialError),
}

/// A fresh P-256 key and a certificate request for it.
pub struct KeyAndRequest {
    /// The private key, PEM (PKCS #8).
    pub key_pem: String,
    /// The request, PEM (PKCS #10). Names in it mean nothing; the collector writes its own.
    pub csr_pem: String,
}

impl std::fmt::Debug for KeyAndRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyAndRequest").finish_non_exhaustive()
    }
}

impl KeyAndRequest {
    /// Draws a key.
    pub fn generate() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let csr = CertificateParams::new(Vec::new())?.serialize_request(&key)?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            csr_pem: csr.pem()?,
        })
    }

    /// The body of a renewal.
    pub fn renewal(&self) -> RenewRequest {
        RenewRequest {
            v: wire::PROTOCOL_VERSION,
            csr_pem: self.csr_pem.clone(),
        }
    }
}

/// Exchanges a token for an identity, by way of `proxy` if there is one. Stores nothing: see
/// [`Identity::store`].
pub async fn enroll(
    token: &EnrolmentToken,
    hostname: &str,
    proxy: Option<&str>,
) -> Result<Identity, EnrollError> {
    let url = token.url.trim_end_matches('/').to_owned();
    if !url.starts_with("https://") {
        return Err(EnrollError::Url { url });
    }
    let (config, mismatch) = tls::pinned_config(&token.ca_key_sha256)?;
    let unreachable = |error: &reqwest::Error| EnrollError::Unreachable {
        url: url.clone(),
        cause: tls::with_causes(error),
    };
    let mut builder = Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT);
    if let Some(proxy) = proxy {
        builder = builder.proxy(Proxy::all(proxy).map_err(EnrollError::Proxy)?);
    }
    let client = builder.build().map_err(|error| unreachable(&error))?;
    let key = KeyAndRequest::generate()?;
    let request = EnrollRequest {
        v: wire::PROTOCOL_VERSION,
        token_id: token.id,
        token_secret: token.secret.clone(),
        csr_pem: key.csr_pem.clone(),
        hostname: hostname.to_owned(),
        agent_version: crate::VERSION.to_owned(),
    };
    let sent = client
        .post(format!("{url}{}", paths::ENROLL))
        .json(&request)
        .send()
        .await;
    let response = sent.map_err(|error| {
        if mismatch.load(Ordering::Relaxed) {
            EnrollError::WrongCa { url: url.clone() }
        } else {
            unreachable(&error)
        }
    })?;
    let status = response.status();
    let body = read_bounded(response).await.map_err(|error| match error {
        BodyError::Transport(error) => unreachable(&error),
        BodyError::TooLarge => bad_answer(&url, "it is too large"),
    })?;
    if status != StatusCode::OK {
        return Err(refusal(status, &body));
    }
    let answer: Enrolled =
        serde_json::from_slice(&body).map_err(|error| bad_answer(&url, &error.to_string()))?;
    accept(url, token, key, answer)
}

/// Checks that the answer fits the key that was made and the CA that the token pins.
fn accept(
    url: String,
    token: &EnrolmentToken,
    key: KeyAndRequest,
    answer: Enrolled,
) -> Result<Identity, EnrollError> {
    tls::certified_key(&answer.certificate_pem, &key.key_pem)
        .map_err(|error| bad_answer(&url, &error.to_string()))?;
    let pinned = tls::certificates(&answer.ca_pem, "CA certificate")?
        .iter()
        .filter_map(tls::public_key_sha256)
        .any(|hash| hash.eq_ignore_ascii_case(&token.ca_key_sha256));
    if !pinned {
        return Err(bad_answer(&url, "its CA is not the one in the token"));
    }
    Ok(Identity {
        host: answer.host,
        url,
        ca_pem: answer.ca_pem,
        cert_pem: answer.certificate_pem,
        key_pem: key.key_pem,
    })
}

fn bad_answer(url: &str, why: &str) -> EnrollError {
    EnrollError::BadAnswer {
        url: url.to_owned(),
        why: why.to_owned(),
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> EnrollError {
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let kind = problem.as_ref().and_then(Problem::known_type);
    let detail = problem.map_or_else(
        || "no reason given".to_owned(),
        |problem| {
            if problem.detail.is_empty() {
                problem.title
            } else {
                problem.detail
            }
        },
    );
    match kind {
        Some(ProblemType::TokenRefused) => EnrollError::TokenRefused { detail },
        Some(ProblemType::Busy | ProblemType::TooManyRequests) => EnrollError::Busy { detail },
        _ => EnrollError::Refused {
            status: status.as_u16(),
            detail,
        },
    }
}
