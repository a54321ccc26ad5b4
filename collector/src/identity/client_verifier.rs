//! Verifies agents' certificates at the handshake: signed by a CA that counts, and valid now or
//! expired less than [`RENEWABLE_FOR`] ago.
//!
//! A host that was off for months comes back with an expired certificate and renews it. An expired
//! certificate is good for nothing else: the port refuses every other request that comes with it, and
//! [`super::renew`] takes only the newest one of its host.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{ca, enroll::RENEWABLE_FOR};

/// Lets certificates pass that expired a short time ago.
#[derive(Debug)]
pub(super) struct RecentlyExpired(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for RecentlyExpired {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now);
        let Err(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) = verified
        else {
            return verified;
        };
        let Some(end) = end_of(end_entity) else {
            return verified;
        };
        let expired_for = Duration::from_secs(now.as_secs().saturating_sub(end.as_secs()));
        if expired_for >= Duration::from_millis(RENEWABLE_FOR.0.unsigned_abs()) {
            return verified;
        }
        // Everything but its end is verified as it was in its last second.
        self.0.verify_client_cert(end_entity, intermediates, end)
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The last second of a certificate's validity.
fn end_of(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let end_ms = ca::read_identity(certificate).ok()?.not_after.0;
    let end = Duration::from_millis(u64::try_from(end_ms).ok()?);
    Some(UnixTime::since_unix_epoch(end))
}
