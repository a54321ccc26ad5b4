//! Whom the channels trust: the system's certificate authorities and those of a file.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// Certificate authorities that a channel trusts: the system's, and those of its file.
pub(super) fn roots(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let system = rustls_native_certs::load_native_certs();
    let mut roots = system.certs;
    if let Some(path) = ca_file {
        roots.extend(certificates(path)?);
    }
    if roots.is_empty() {
        let why = system
            .errors
            .first()
            .map_or_else(String::new, |error| format!(" ({error})"));
        return Err(format!(
            "this system has no trusted certificate authorities{why}: install its \
             ca-certificates, or set ca_file"
        ));
    }
    Ok(roots)
}

/// The certificates of a PEM file, at least one, all of which can be trusted.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let pem = std::fs::read(path).map_err(|error| named(&error))?;
    let list: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| named(&error))?;
    if list.is_empty() {
        return Err(named(&"no certificate in it (expected PEM)"));
    }
    let mut store = RootCertStore::empty();
    for certificate in &list {
        store
            .add(certificate.clone())
            .map_err(|error| named(&error))?;
    }
    Ok(list)
}

/// TLS settings of a client that trusts these.
pub(super) fn client(roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, String> {
    let mut store = RootCertStore::empty();
    // Systems carry certificates that rustls does not read; the others count.
    store.add_parsable_certificates(roots.iter().cloned());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
