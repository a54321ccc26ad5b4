//! The certificate that a TLS server shows. Who signed it does not matter, and nothing is sent to
//! the server but the handshake, after what the protocol needs to begin one ([`starttls`]).
//!
//! The certificate counts even if the handshake fails after it was shown, as it does where the
//! server asks for one of the client. A server with which the library can agree on nothing is asked
//! in the old way ([`old_tls`]).

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use watchkeep_shared::wire::{heartbeat::ServiceStatus, policy::StartTls};

use super::{
    certificate::{finding, judge},
    old_tls,
    probe::ProbeOutcome,
    starttls, tcp,
};
use crate::tls;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A server whose certificate is looked at.
#[derive(Clone, Debug)]
pub(super) struct TlsServer {
    pub(super) address: String,
    /// The name that is asked for; `None`: the host of the address.
    pub(super) name: Option<String>,
    /// How TLS begins; `None`: as is usual for the port.
    pub(super) starttls: Option<StartTls>,
}

/// Why no handshake was completed.
enum Failure {
    /// There was none: the server was not reached, or it offers no TLS.
    Before(io::Error),
    /// It failed.
    Within(io::Error),
    Timeout,
}

impl TlsServer {
    /// Connects and judges the certificate that is shown.
    pub(super) async fn look(&self) -> ProbeOutcome {
        let recorder = Arc::new(Recorder::new(tls::provider()));
        let done = timeout(HANDSHAKE_TIMEOUT, self.shake_hands(&recorder)).await;
        let failure = done.unwrap_or(Err(Failure::Timeout)).err();
        match (recorder.leaf(), failure) {
            (Some(leaf), None) => judge(&[leaf]),
            (Some(leaf), Some(failure)) => {
                let note = format!("the handshake failed after that: {}", failure.text());
                noted(judge(&[leaf]), &note)
            }
            (None, Some(Failure::Within(error))) => self.ask_in_the_old_way(&error).await,
            (None, Some(failure)) => failure.outcome(),
            (None, None) => judge(&[]),
        }
    }

    async fn shake_hands(&self, recorder: &Arc<Recorder>) -> Result<(), Failure> {
        let name = ServerName::try_from(self.name().to_owned())
            .map_err(|_| Failure::Before(io::Error::other("server_name is no name of a server")))?;
        let stream = self.connect().await.map_err(Failure::Before)?;
        let connector = TlsConnector::from(Arc::new(config(recorder.clone())));
        let shaken = connector.connect(name, stream).await;
        shaken.map(drop).map_err(Failure::Within)
    }

    /// To where a handshake can begin.
    async fn connect(&self) -> io::Result<TcpStream> {
        let mut stream = tcp::connect(&self.address).await?;
        let port = self.address.rsplit_once(':').map(|(_, port)| port.parse());
        let usual = || match port {
            Some(Ok(port)) => starttls::of_port(port),
            _ => StartTls::None,
        };
        let protocol = self.starttls.unwrap_or_else(usual);
        starttls::begin(&mut stream, protocol).await?;
        Ok(stream)
    }

    async fn ask_in_the_old_way(&self, refused: &io::Error) -> ProbeOutcome {
        let name = self.name();
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        let asked = async {
            let mut stream = self.connect().await?;
            let name = (!is_address).then_some(name);
            old_tls::ask(&mut stream, name, rand::random()).await
        };
        let Ok(Ok(shown)) = timeout(HANDSHAKE_TIMEOUT, asked).await else {
            return finding(tcp::status_of(refused), tcp::text_of(refused));
        };
        let judged = judge(&[shown.leaf]);
        if shown.is_old {
            let note = format!("it speaks {} at most, which is out of use", shown.version);
            let mut judged = noted(judged, &note);
            if judged.finding.status == ServiceStatus::Running {
                judged.finding.status = ServiceStatus::Unknown;
            }
            return judged;
        }
        let note = format!("{} with ciphers that are out of use", shown.version);
        noted(judged, &note)
    }

    fn name(&self) -> &str {
        let host = self.address.rsplit_once(':');
        let host = host.map_or(self.address.as_str(), |(host, _)| host);
        self.name
            .as_deref()
            .unwrap_or(host)
            .trim_matches(['[', ']'])
    }
}

impl Failure {
    fn text(&self) -> String {
        match self {
            Self::Before(error) | Self::Within(error) => tcp::text_of(error),
            Self::Timeout => format!("no answer within {} s", HANDSHAKE_TIMEOUT.as_secs()),
        }
    }

    fn outcome(&self) -> ProbeOutcome {
        let status = match self {
            Self::Before(error) | Self::Within(error) => tcp::status_of(error),
            Self::Timeout => ServiceStatus::Stopped,
        };
        finding(status, self.text())
    }
}

/// With a note for people, where the certificate is well: what is wrong with it comes first.
fn noted(mut outcome: ProbeOutcome, note: &str) -> ProbeOutcome {
    if outcome.finding.status == ServiceStatus::Running {
        let detail = outcome.finding.detail.take().unwrap_or_default();
        outcome.finding.detail = Some(super::short(&format!("{detail}; {note}")));
    }
    outcome
}

/// Takes any certificate, offers none, and resumes nothing: a resumed session shows no certificate.
fn config(recorder: Arc<Recorder>) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(recorder.provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(recorder)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

/// Keeps the certificate that a server shows.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    leaf: Mutex<Option<CertificateDer<'static>>>,
}

impl Recorder {
    fn new(provider: Arc<CryptoProvider>) -> Self {
        let leaf = Mutex::new(None);
        Self { provider, leaf }
    }

    fn leaf(&self) -> Option<CertificateDer<'static>> {
        let leaf = self.leaf.lock().unwrap_or_else(PoisonError::into_inner);
        leaf.clone()
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut leaf = self.leaf.lock().unwrap_or_else(PoisonError::into_inner);
        *leaf = Some(end_entity.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
