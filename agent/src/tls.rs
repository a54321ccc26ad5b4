//! TLS: rustls with the aws-lc-rs provider, TLS 1.3 only. Two client configurations: one for the
//! first connection, which trusts the key that the enrolment token pins, and one for all others,
//! which trusts the stored CA and presents the agent's certificate.

use std::{
    error::Error as StdError,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer as _;

/// How many TLS sessions are kept for resumption; an agent talks to one server.
const KEPT_SESSIONS: usize = 4;

/// Why stored or received key material can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// Not a PEM certificate.
    #[error("the {what} is not a certificate in PEM form")]
    Certificate {
        /// Which one.
        what: &'static str,
    },
    /// Not a PEM private key.
    #[error("the private key is not in PEM form")]
    Key,
    /// Not the key of the certificate, or refused by rustls.
    #[error("the certificate and the private key do not belong together: {0}")]
    Pair(#[source] Error),
    /// The CA can't be trusted.
    #[error("the CA certificate can't be used: {0}")]
    Ca(#[source] Error),
    /// rustls refused the combination.
    #[error("TLS can't be set up: {0}")]
    Setup(#[source] Error),
}

/// The cryptography in use, chosen here and nowhere else.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// SHA-256 of a certificate's `SubjectPublicKeyInfo`, 64 lowercase hexadecimal digits; `None` if
/// it is not an X.509 certificate.
pub fn public_key_sha256(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    Some(hex(&Sha256::digest(parsed.public_key().raw)))
}

/// A certificate's validity, seconds since the Unix epoch: not before, not after.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some((
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    ))
}

/// Reads every certificate of a PEM text; an error if there is none.
pub fn certificates(
    pem: &str,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| MaterialError::Certificate { what })?;
    if found.is_empty() {
        return Err(MaterialError::Certificate { what });
    }
    Ok(found)
}

/// The client identity that goes with a certificate and its key; checks that they belong together.
pub fn certified_key(cert_pem: &str, key_pem: &str) -> Result<CertifiedKey, MaterialError> {
    let chain = certificates(cert_pem, "agent's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| MaterialError::Key)?;
    let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(MaterialError::Pair)?;
    certified.keys_match().map_err(MaterialError::Pair)?;
    Ok(certified)
}

/// The identity that a handshake presents; swapped on renewal without touching the configuration.
#[derive(Debug)]
pub struct ClientIdentity(ArcSwap<CertifiedKey>);

impl ClientIdentity {
    /// Starts with `key`.
    pub fn new(key: CertifiedKey) -> Self {
        Self(ArcSwap::from_pointee(key))
    }

    /// Handshakes from now on present `key`.
    pub fn swap(&self, key: CertifiedKey) {
        self.0.store(Arc::new(key));
    }
}

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The configuration for everything after enrolment: trusts `ca_pem`, presents `identity`.
pub fn mutual_config(
    ca_pem: &str,
    identity: Arc<ClientIdentity>,
) -> Result<ClientConfig, MaterialError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(ca_pem, "CA certificate")? {
        roots.add(ca).map_err(MaterialError::Ca)?;
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(MaterialError::Setup)?
        .with_root_certificates(roots)
        .with_client_cert_resolver(identity);
    config.resumption = Resumption::in_memory_sessions(KEPT_SESSIONS);
    Ok(config)
}

/// The configuration for enrolment: trusts whatever chains to the key with this SHA-256. The flag
/// is set when a server was refused because its chain holds no such key.
pub fn pinned_config(
    ca_key_sha256: &str,
) -> Result<(ClientConfig, Arc<AtomicBool>), MaterialError> {
    let provider = provider();
    let mismatch = Arc::new(AtomicBool::new(false));
    let verifier = PinnedCa {
        ca_key_sha256: ca_key_sha256.to_ascii_lowercase(),
        provider: provider.clone(),
        mismatch: mismatch.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(MaterialError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok((config, mismatch))
}

/// A configuration that takes any certificate and offers none: for looking at a certificate, and for
/// endpoints whose certificate the customer said not to verify. Nothing secret may be sent with it.
pub fn trusting_config() -> ClientConfig {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate { provider }))
        .with_no_client_auth();
    // A resumed session shows no certificate.
    config.resumption = Resumption::disabled();
    config
}

/// Finds the rustls error inside an HTTP client's error.
pub fn rustls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        // An io::Error's `source` skips what it wraps.
        if let Some(wrapped) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            && let Some(found) = rustls_error(wrapped)
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error and its causes in one line, each said once.
pub fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

struct PinnedCa {
    ca_key_sha256: String,
    provider: Arc<CryptoProvider>,
    mismatch: Arc<AtomicBool>,
}

impl fmt::Debug for PinnedCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedCa")
            .field("ca_key_sha256", &self.ca_key_sha256)
            .finish_non_exhaustive()
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
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates
            .iter()
            .chain(std::iter::once(end_entity))
            .find(|c| public_key_sha256(c).as_deref() == Some(self.ca_key_sha256.as_str()));
        let Some(ca) = pinned else {
            self.mismatch.store(true, Ordering::Relaxed);
            return Err(CertificateError::ApplicationVerificationFailure.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
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

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
