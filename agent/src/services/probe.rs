//! The task that looks at one endpoint or file again and again.

use std::{sync::Arc, time::Duration};

use reqwest::Client;
use rustls::ClientConfig;
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;

use super::{Finding, Found, ProbeResult, certificate, http, tcp};

/// What is looked at.
pub(super) enum Target {
    /// Accepts connections.
    Tcp(String),
    /// Answers well.
    Http(http::Check, Client),
    /// Shows a certificate that is valid.
    Tls {
        address: String,
        server_name: Option<String>,
        config: Arc<ClientConfig>,
    },
    /// Certificates in a file.
    Certificate(String),
}

/// What one look found.
#[derive(Clone, Debug)]
pub(super) struct ProbeOutcome {
    pub(super) finding: Finding,
    /// The value that goes along as a metric.
    pub(super) value: Option<f64>,
}

impl From<Finding> for ProbeOutcome {
    fn from(finding: Finding) -> Self {
        Self {
            finding,
            value: None,
        }
    }
}

pub(super) struct Probe {
    pub(super) key: String,
    pub(super) target: Target,
    pub(super) every: Duration,
    pub(super) generation: u64,
    pub(super) results: mpsc::Sender<ProbeResult>,
    pub(super) stop: CancellationToken,
}

impl Target {
    /// The family of the metric that a look gives, if it gives one.
    pub(super) const fn metric(&self) -> Option<&'static str> {
        match self {
            Self::Tcp(_) => None,
            Self::Http(..) => Some("http.latency_ms"),
            Self::Tls { .. } | Self::Certificate(_) => Some("tls.days_left"),
        }
    }

    async fn probe(&self) -> ProbeOutcome {
        match self {
            Self::Tcp(address) => tcp::probe(address).await.into(),
            Self::Http(check, client) => http::probe(check, client).await,
            Self::Tls {
                address,
                server_name,
                config,
            } => certificate::look_at_server(address, server_name.as_deref(), config).await,
            Self::Certificate(path) => certificate::look_at_file(path),
        }
    }
}

impl Probe {
    /// Looks at its interval until it is stopped; every result goes to the loop.
    pub(super) async fn run(self) {
        let mut ticks = time::interval(self.every);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let probing = async {
            loop {
                ticks.tick().await;
                let seen = self.target.probe().await;
                let result = ProbeResult {
                    generation: self.generation,
                    found: Found::One {
                        key: self.key.clone(),
                        seen,
                    },
                };
                if self.results.send(result).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = probing => {}
        }
    }
}
