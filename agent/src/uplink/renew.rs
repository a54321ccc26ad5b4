//! Renewal of the agent's certificate over mutual TLS, at two thirds of its life or when the collector
//! asks for it.

use watchkeep_shared::wire::{enroll::Renewed, heartbeat::Clocks, paths};

use super::{
    Effects, InFlight, Moment, Request, Uplink,
    http::{self, ClientError, Failure},
    trust::TrustError,
};
use crate::{
    enroll::KeyAndRequest,
    identity::{Identity, IdentityError},
    tls,
};

impl Uplink {
    /// Two thirds of the certificate's life.
    pub(super) fn plan_renewal(&mut self) {
        self.renew_at_wall_ms = self
            .identity
            .validity_ms()
            .map(|(from, to)| from + (to - from) / 3 * 2);
    }

    pub(super) fn start_renewal(&mut self, clocks: Clocks) -> Option<Request> {
        // Whatever comes of it, the next attempt is a minute away.
        self.renew_at_wall_ms = Some(clocks.wall_ms + 60_000);
        let key = KeyAndRequest::generate()
            .inspect_err(|error| tracing::error!(%error, "a key could not be made"))
            .ok()?;
        let body = serde_json::to_vec(&key.renewal()).ok()?;
        let url = format!("{}{}", self.identity.url, paths::RENEW);
        self.in_flight = Some(InFlight::Renewal(Box::new(key)));
        let limit = http::LONGEST_REQUEST;
        Some(Box::pin(http::post(
            self.client.clone(),
            url,
            body,
            false,
            limit,
        )))
    }

    pub(super) fn renewal_answered(
        &mut self,
        key: KeyAndRequest,
        answer: Result<Vec<u8>, Failure>,
        now: Moment,
    ) -> Effects {
        let renewed = answer
            .map_err(RenewError::Failure)
            .and_then(|body| self.adopt(key, &body));
        match renewed {
            Ok(()) => {
                self.renewal_asked = false;
                self.plan_renewal();
                // A certificate shorter than a minute must not make a busy loop.
                let soonest = now.clocks.wall_ms + 1_000;
                self.renew_at_wall_ms = self.renew_at_wall_ms.map(|at| at.max(soonest));
                tracing::info!("the certificate was renewed");
            }
            Err(RenewError::Failure(failure)) => {
                tracing::warn!("the certificate could not be renewed: {failure}");
                self.wait_after(&failure, now.instant);
            }
            Err(error) => {
                tracing::warn!("the certificate could not be renewed: {error}");
                self.last_error = Some(format!("the certificate could not be renewed: {error}"));
            }
        }
        Effects::default()
    }

    fn adopt(&mut self, key: KeyAndRequest, body: &[u8]) -> Result<(), RenewError> {
        let answer: Renewed = serde_json::from_slice(body)?;
        let certified = tls::certified_key(&answer.certificate_pem, &key.key_pem)
            .map_err(ClientError::Material)?;
        let trusts = self.check_authorities(&answer.ca_pem)?;
        let identity = Identity {
            ca_pem: answer.ca_pem,
            cert_pem: answer.certificate_pem,
            key_pem: key.key_pem,
            ..self.identity.clone()
        };
        let client = http::client(&identity, self.presented.clone(), self.proxy.as_deref())?;
        identity.store_renewed(&self.state_dir)?;
        self.presented.swap(certified);
        self.client = client;
        self.identity = identity;
        self.trusts = trusts;
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error("{0}")]
    Failure(Failure),
    #[error("the answer is not a renewal: {0}")]
    Form(#[from] serde_json::Error),
    #[error("its authorities can't be trusted: {0}")]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Store(#[from] IdentityError),
}
