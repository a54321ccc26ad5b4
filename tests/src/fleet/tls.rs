//! TLS as an agent speaks it: 1.3 only, the collector trusted through the token's pin on first
//! contact and through the collector's CA afterwards.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};

/// Whether sessions are resumed. Off by default, so that every connection costs what a stranger's
/// does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Every handshake is a full one.
    Never,
    /// Each agent resumes its last session.
    LastSession,
}

/// The cryptography that everything here uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Settings for a first connection: no client certificate, and a server that proves that its CA
/// has the key whose SHA-256 is `ca_key_sha256` (64 hexadecimal digits).
pub fn first_contact(ca_key_sha256: &str) -> Result<Arc<ClientConfig>> {
    let provider = provider();
    let verifier = PinnedCa {
        ca_key_sha256: ca_key_sha256.to_owned(),
        provider: provider.clone(),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 with aws-lc-rs")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Who trusts whom on an enrolled agent's connections; one for all agents of a fleet.
#[derive(Clone, Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Trust {
    /// Trusts the certificates in `ca_pem`.
    pub fn new(ca_pem: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate.context("the CA's PEM")?)?;
        }
        let provider = provider();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .context("the CA's PEM holds no certificate")?;
        Ok(Self { provider, verifier })
    }

    /// Settings for connections without a client certificate.
    pub fn anonymous(&self) -> Result<Arc<ClientConfig>> {
        Ok(Arc::new(self.builder()?.with_no_client_auth()))
    }

    /// Settings for connections with a client certificate.
    pub fn client(
        &self,
        certificate_pem: &str,
        key_pem: &str,
        resume: Resume,
    ) -> Result<Arc<ClientConfig>> {
        let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("the client certificate's PEM")?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).context("the key's PEM")?;
        let mut config = self.builder()?.with_client_auth_cert(chain, key)?;
        config.resumption = match resume {
            Resume::Never => Resumption::disabled(),
            Resume::LastSession => Resumption::in_memory_sessions(1),
        };
        Ok(Arc::new(config))
    }

    fn builder(
        &self,
    ) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
        Ok(ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("TLS 1.3 with aws-lc-rs")?
            .with_webpki_verifier(self.verifier.clone()))
    }
}

/// Accepts a chain that holds a certificate with the pinned key, and a leaf signed by it for the
/// right name.
#[derive(Debug)]
struct PinnedCa {
    ca_key_sha256: String,
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
            return false;
        };
        let digest = Sha256::digest(parsed.subject_public_key_info().as_ref());
        hex(&digest).eq_ignore_ascii_case(&self.ca_key_sha256)
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| self.is_pinned(certificate))
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|_| CertificateError::UnknownIssuer)?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Bytes as lowercase hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
