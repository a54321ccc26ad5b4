//! Following the collector when it replaces its certificate authority: whom to trust comes with
//! acknowledgements, and so does the wish for another certificate.
//!
//! A new list of CAs is taken only if it has a CA in common with the one in force, so that no single
//! answer can hand the agent to strangers or cut it off; and only once it is on disk, because the
//! collector counts on what the agent says it trusts.

use watchkeep_shared::{
    CaId,
    wire::{heartbeat::Ack, limits::MAX_TRUSTED_CAS},
};

use super::{
    Uplink,
    http::{self, ClientError},
};
use crate::{
    identity::{Identity, IdentityError},
    tls::{self, MaterialError},
};

/// Why a list of CAs is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrustError {
    #[error("{0} certificates where 1 to {MAX_TRUSTED_CAS} are allowed")]
    Count(usize),
    #[error("none of its authorities is trusted now")]
    Strangers,
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Store(#[from] IdentityError),
}

/// The CAs in a PEM text.
pub(super) fn authorities(ca_pem: &str) -> Result<Vec<CaId>, MaterialError> {
    let certificates = tls::certificates(ca_pem, "CA certificate")?;
    let mut all: Vec<CaId> = certificates
        .iter()
        .filter_map(|certificate| CaId::of_key_sha256(&tls::public_key_sha256(certificate)?))
        .collect();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

impl Uplink {
    /// Does what an acknowledgement says about the collector's CA.
    pub(super) fn apply_ca_update(&mut self, ack: &Ack, wall_ms: i64) {
        if let Some(ca_pem) = &ack.ca_pem {
            match self.trust(ca_pem) {
                Ok(()) => {
                    self.trust_error = None;
                    tracing::info!(
                        authorities = ?self.trusts,
                        "the collector's certificate authorities changed"
                    );
                }
                Err(error) => {
                    let text = error.to_string();
                    // The same list comes with every acknowledgement until it is taken.
                    if self.trust_error.as_deref() != Some(&text) {
                        tracing::warn!("the collector's new authorities are not taken: {text}");
                    }
                    self.trust_error = Some(text);
                }
            }
        }
        if let Some(within_ms) = ack.renew_within_ms
            && !self.renewal_asked
        {
            self.renewal_asked = true;
            let at = wall_ms + i64::from(rand::random_range(0..=within_ms));
            self.renew_at_wall_ms = Some(self.renew_at_wall_ms.map_or(at, |own| own.min(at)));
            tracing::info!(
                in_ms = at - wall_ms,
                "the collector asks for the certificate to be renewed"
            );
        }
    }

    /// Checks a list of CAs against the one in force.
    pub(super) fn check_authorities(&self, ca_pem: &str) -> Result<Vec<CaId>, TrustError> {
        let all = authorities(ca_pem)?;
        if all.is_empty() || all.len() > MAX_TRUSTED_CAS {
            return Err(TrustError::Count(all.len()));
        }
        if !all.iter().any(|ca| self.trusts.contains(ca)) {
            return Err(TrustError::Strangers);
        }
        Ok(all)
    }

    fn trust(&mut self, ca_pem: &str) -> Result<(), TrustError> {
        let trusts = self.check_authorities(ca_pem)?;
        let identity = Identity {
            ca_pem: ca_pem.to_owned(),
            ..self.identity.clone()
        };
        let client = http::client(&identity, self.presented.clone(), self.proxy.as_deref())?;
        identity.store_ca(&self.state_dir)?;
        self.client = client;
        self.identity = identity;
        self.trusts = trusts;
        Ok(())
    }
}
