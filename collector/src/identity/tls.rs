//! TLS settings of both ports: version 1.3 (the web port may accept 1.2, too), one provider, chosen
//! here.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use watchkeep_shared::UnixMillis;

use super::{CaError, Cas};
use crate::clock::Clock;

/// Resumption tickets given to a client at each handshake.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA failed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// rustls refuses the settings.
    #[error("TLS can't be set up: {0}")]
    Rustls(#[from] rustls::Error),
    /// A certificate or key file can't be read.
    #[error("failed to read the certificate or key {path}: {detail}")]
    File {
        /// The file, or what was made in memory.
        path: String,
        detail: String,
    },
    /// The client verifier refuses the CA.
    #[error("agents' certificates can't be verified: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The collector's clock for the validity of agents' certificates: they were issued by it, so a step
/// of the system's clock makes none of them expired or not yet valid.
#[derive(Debug)]
struct ByClock(Clock);

impl TimeProvider for ByClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since_epoch = Duration::from_millis(u64::try_from(self.0.now().0).ok()?);
        Some(UnixTime::since_unix_epoch(since_epoch))
    }
}

/// The agents' port: a certificate of a CA on both sides. A client without one may connect, to
/// enrol; everything else asks for it.
pub fn agent_server(
    cas: &Cas,
    names: &[String],
    clock: &Clock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the CA", &cas.trust_pem())? {
        roots.add(certificate)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let (chain, key) = cas.server_certificate(names, clock.now())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates("the server", &chain)?,
            private_key("the server", &key)?,
        )?;
    config.time_provider = Arc::new(ByClock(clock.clone()));
    finish(&mut config)?;
    Ok(Arc::new(config))
}

/// What the web port's settings are made from.
#[derive(Clone, Copy, Debug)]
pub struct WebTls<'a> {
    /// A certificate chain and key of the operator's; without them the CA signs one.
    pub files: Option<(&'a Path, &'a Path)>,
    /// Names in the certificate that the CA signs.
    pub names: &'a [String],
    /// TLS 1.2 is accepted, too.
    pub tls12: bool,
}

/// The web port, with a certificate of the operator's or of the CA's.
pub fn web_server(
    cas: &Cas,
    web: &WebTls<'_>,
    now: UnixMillis,
) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = match web.files {
        None => cas.server_certificate(web.names, now)?,
        Some((chain, key)) => (read(chain)?, read(key)?),
    };
    let versions: &[_] = if web.tls12 {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    } else {
        &[&rustls::version::TLS13]
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(
            certificates("web.certificate", &chain)?,
            private_key("web.key", &key)?,
        )?;
    finish(&mut config)?;
    Ok(Arc::new(config))
}

/// Checks a certificate chain and its key as [`web_server`] reads them: both can be read and belong
/// together.
pub fn check_certificate(chain: &Path, key: &Path) -> Result<(), TlsError> {
    let chain_pem = read(chain)?;
    let key_pem = read(key)?;
    let certificates = certificates(&chain.display().to_string(), &chain_pem)?;
    let key = private_key(&key.display().to_string(), &key_pem)?;
    let both = CertifiedKey::from_der(certificates, key, &aws_lc_rs::default_provider())?;
    Ok(both.keys_match()?)
}

fn finish(config: &mut ServerConfig) -> Result<(), TlsError> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Stateless tickets: a fleet that reconnects at once costs less, and the server keeps nothing.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    Ok(())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(path: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |detail: String| TlsError::File {
        path: path.to_owned(),
        detail,
    };
    let list: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if list.is_empty() {
        return Err(bad("no certificate in it".to_owned()));
    }
    Ok(list)
}

fn private_key(path: &str, pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| TlsError::File {
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

/// A PEM file.
pub(super) fn read(path: &Path) -> Result<String, TlsError> {
    std::fs::read_to_string(path).map_err(|error| TlsError::File {
        path: path.display().to_string(),
        detail: error.to_string(),
    })
}
