//! The task that looks at one endpoint or file again and again.

use std::{net::IpAddr, time::Duration};

use reqwest::Client;
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;

use super::{Finding, Found, ProbeResult, certificate, http, tcp, tls_server::TlsServer};
use crate::{blocking::Blocking, platform};

/// How long reading a file may take.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is looked at.
pub(super) enum Target {
    /// Accepts connections.
    Tcp(String),
    /// Answers well.
    Http(http::Check, Client),
    /// Shows a certificate that is valid.
    Tls(TlsServer),
    /// Certificates in a file, which may be on a mount that hangs.
    Certificate(String, Blocking),
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
    /// The address that this machine must have for the probe to be allowed.
    pub(super) own: Option<IpAddr>,
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
            Self::Tls(_) | Self::Certificate(..) => Some("tls.days_left"),
        }
    }

    async fn probe(&self) -> ProbeOutcome {
        match self {
            Self::Tcp(address) => tcp::probe(address).await.into(),
            Self::Http(check, client) => http::probe(check, client).await,
            Self::Tls(server) => server.look().await,
            Self::Certificate(path, blocking) => {
                let name = format!("certificate {path}");
                let path = path.clone();
                let look = move || certificate::look_at_file(&path);
                let seen = blocking.run(name, FILE_TIMEOUT, look).await;
                seen.unwrap_or_else(|missed| super::unknown(missed.to_string()).into())
            }
        }
    }
}

impl Probe {
    /// Probes, if the target is here.
    async fn look(&self) -> ProbeOutcome {
        match self.own {
            Some(address) if !platform::is_own_address(address) => {
                super::unknown("not an address of this machine now".to_owned()).into()
            }
            _ => self.target.probe().await,
        }
    }

    /// Looks at its interval until it is stopped; every result goes to the loop.
    pub(super) async fn run(self) {
        let mut ticks = time::interval(self.every);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let probing = async {
            loop {
                ticks.tick().await;
                let seen = self.look().await;
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
