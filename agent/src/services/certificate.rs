//! How long certificates are still valid: those that a TLS server shows, and those in a PEM file.
//! Who signed them does not matter, and nothing is sent to the server but the handshake.

use std::{io, io::Read as _, sync::Arc, time::Duration};

use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::{Finding, probe::ProbeOutcome, tcp};
use crate::{clock, tls};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
const DAY_S: f64 = 86_400.0;

pub(super) async fn look_at_server(
    address: &str,
    server_name: Option<&str>,
    config: &Arc<ClientConfig>,
) -> ProbeOutcome {
    match timeout(HANDSHAKE_TIMEOUT, shown(address, server_name, config)).await {
        Ok(Ok(certificates)) => judge(&certificates),
        Ok(Err(error)) => finding(tcp::status_of(&error), tcp::text_of(&error)),
        Err(_) => finding(
            ServiceStatus::Stopped,
            format!("no answer within {} s", HANDSHAKE_TIMEOUT.as_secs()),
        ),
    }
}

async fn shown(
    address: &str,
    server_name: Option<&str>,
    config: &Arc<ClientConfig>,
) -> io::Result<Vec<CertificateDer<'static>>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = server_name.unwrap_or(host).trim_matches(['[', ']']);
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| io::Error::other("server_name is no name of a server"))?;
    let stream = tcp::connect(address).await?;
    let stream = TlsConnector::from(config.clone())
        .connect(name, stream)
        .await?;
    let (_, session) = stream.get_ref();
    // The leaf alone: what a server adds to it may be old without harm.
    let leaf = session.peer_certificates().unwrap_or_default().first();
    Ok(leaf
        .map(|leaf| leaf.clone().into_owned())
        .into_iter()
        .collect())
}

pub(super) fn look_at_file(path: &str) -> ProbeOutcome {
    let pem = match read(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return finding(ServiceStatus::NotFound, "there is no such file".to_owned());
        }
        Err(error) => return finding(ServiceStatus::Unknown, tcp::text_of(&error)),
    };
    match tls::certificates(&pem, "file") {
        Ok(certificates) => judge(&certificates),
        Err(_) => finding(
            ServiceStatus::Unknown,
            "there is no certificate in PEM form in it".to_owned(),
        ),
    }
}

fn read(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    file.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// By the certificate that expires first.
fn judge(certificates: &[CertificateDer<'_>]) -> ProbeOutcome {
    let now_s = clock::now().wall_ms as f64 / 1_000.0;
    let spans: Option<Vec<(i64, i64)>> = certificates.iter().map(tls::validity).collect();
    let (Some(from), Some(to)) = (
        spans.iter().flatten().map(|span| span.0).max(),
        spans.iter().flatten().map(|span| span.1).min(),
    ) else {
        let text = "its certificate can't be read".to_owned();
        return finding(ServiceStatus::Unknown, text);
    };
    let days = (to as f64 - now_s) / DAY_S;
    let (status, detail) = if days < 0.0 {
        let text = format!("expired {} days ago", (-days).ceil());
        (ServiceStatus::Failed, text)
    } else if from as f64 > now_s {
        (ServiceStatus::Failed, "not valid yet".to_owned())
    } else {
        let text = format!("valid for {} days", days.floor());
        (ServiceStatus::Running, text)
    };
    ProbeOutcome {
        value: Some(days),
        ..finding(status, detail)
    }
}

fn finding(status: ServiceStatus, detail: String) -> ProbeOutcome {
    Finding {
        status,
        detail: Some(detail),
    }
    .into()
}
