//! What a web server answers to a `GET`. Redirects are not followed, no cookie or password is sent.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use reqwest::{Client, redirect};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;
use watchkeep_shared::wire::{heartbeat::ServiceStatus, policy::ServiceCheck};

use super::{Finding, probe::ProbeOutcome};
use crate::tls;

/// How much of a body is read, bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
const DEFAULT_TIMEOUT_MS: u32 = 5_000;

/// What is asked for and what is well.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) url: String,
    pub(super) status: Vec<u16>,
    pub(super) contains: Option<String>,
    pub(super) timeout: Duration,
}

impl Check {
    /// From a policy's item; `None` if it is of another kind.
    pub(super) fn new(check: &ServiceCheck) -> Option<Self> {
        let ServiceCheck::Http {
            url,
            status,
            contains,
            timeout_ms,
        } = check
        else {
            return None;
        };
        let timeout_ms = timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        Some(Self {
            url: url.clone(),
            status: status.clone(),
            contains: contains.clone(),
            timeout: Duration::from_millis(u64::from(timeout_ms.clamp(100, 30_000))),
        })
    }

    fn expects(&self, status: u16) -> bool {
        if self.status.is_empty() {
            (200..400).contains(&status)
        } else {
            self.status.contains(&status)
        }
    }
}

/// A client for probes. `ca_file`: certificates to trust in place of the system's; without `verify`
/// none are looked at.
pub(super) fn client(ca_file: Option<&Path>, verify: bool) -> Result<Client, String> {
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = if verify {
        builder
            .with_root_certificates(roots(ca_file)?)
            .with_no_client_auth()
    } else {
        tls::trusting_config()
    };
    Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .pool_max_idle_per_host(0)
        // Without a name server, which would cost a thread; port 0 is the URL's.
        .resolve_to_addrs(
            "localhost",
            &[
                SocketAddr::from(([127, 0, 0, 1], 0)),
                SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)),
            ],
        )
        .user_agent(concat!("watchkeep-agent/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .build()
        .map_err(|error| tls::with_causes(&error))
}

fn roots(ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let pem = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let found = tls::certificates(&pem, "file of limits.probe_ca");
        roots.add_parsable_certificates(found.map_err(|error| error.to_string())?);
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(Arc::new(roots))
}

pub(super) async fn probe(check: &Check, client: &Client) -> ProbeOutcome {
    let start = Instant::now();
    match answer(check, client).await {
        Ok((status, body)) => {
            let value = Some(start.elapsed().as_secs_f64() * 1_000.0);
            let finding = judge(check, status, &body);
            ProbeOutcome { finding, value }
        }
        Err(error) => Finding {
            status: ServiceStatus::Stopped,
            detail: Some(reason(&error, check)),
        }
        .into(),
    }
}

async fn answer(check: &Check, client: &Client) -> Result<(u16, Vec<u8>), reqwest::Error> {
    let request = client.get(&check.url).timeout(check.timeout);
    let mut response = request.send().await?;
    let mut body = Vec::new();
    while check.contains.is_some()
        && body.len() < MAX_BODY_BYTES
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(MAX_BODY_BYTES);
    Ok((response.status().as_u16(), body))
}

fn judge(check: &Check, status: u16, body: &[u8]) -> Finding {
    let missing = check.contains.as_ref().filter(|text| {
        let text = text.as_bytes();
        !text.is_empty() && !body.windows(text.len()).any(|part| part == text)
    });
    let (well, detail) = if !check.expects(status) {
        (false, format!("answers {status}"))
    } else if missing.is_some() {
        (
            false,
            format!("answers {status}, without the expected text"),
        )
    } else {
        (true, format!("answers {status}"))
    };
    Finding {
        status: if well {
            ServiceStatus::Running
        } else {
            ServiceStatus::Failed
        },
        detail: Some(detail),
    }
}

fn reason(error: &reqwest::Error, check: &Check) -> String {
    if error.is_timeout() {
        return format!("no answer within {} ms", check.timeout.as_millis());
    }
    if let Some(tls) = tls::rustls_error(error) {
        return super::short(&tls.to_string());
    }
    // The last cause says what happened; those before repeat the URL.
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    super::short(&cause.to_string())
}
