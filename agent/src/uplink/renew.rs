//! Renewal of the agent's certificate over mutual TLS, at two thirds of its life or when the collector
//! asks for it.

use watchkeep_shared::wire::{enroll::Renewed, heartbeat::Clocks, paths};

use super::{
    Effects, InFlight, Moment, Request, Uplink,
    http::{self, ClientError, Failure},
    renewal::Lasting,
    trust::TrustError,
};
use crate::{
    enroll::KeyAndRequest,
    identity::{Identity, IdentityError},
    tls,
};

impl Uplink {
    /// Makes a new key, keeps it, and asks for a certificate for it. `None` if that failed.
    pub(super) fn start_renewal(&mut self, clocks: Clocks) -> Option<Request> {
        let prepared = KeyAndRequest::generate()
            .map_err(RenewError::Key)
            .and_then(|key| {
                // Before the collector signs anything: where this fails, so would keeping the answer.
                Identity::store_next_key(&self.state_dir, &key.key_pem)?;
                let body = serde_json::to_vec(&key.renewal())?;
                Ok((key, body))
            });
        let (key, body) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.renewal_failed(&error, clocks);
                return None;
            }
        };
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
                let validity_ms = self.identity.validity_ms();
                self.renewal.succeeded(validity_ms, now.clocks.wall_ms);
                tracing::info!("the certificate was renewed");
            }
            Err(error) => {
                self.renewal_failed(&error, now.clocks);
                // Heartbeats would fail in the same way; a renewal that is refused does not hold
                // them up.
                if let RenewError::Failure(failure @ Failure::Unreachable(_)) = &error {
                    self.wait_after(failure, now.instant);
                }
            }
        }
        Effects::default()
    }

    fn renewal_failed(&mut self, error: &RenewError, clocks: Clocks) {
        tracing::warn!("the certificate could not be renewed: {error}");
        let random = rand::random();
        self.renewal
            .failed(error.to_string(), error.lasting(), clocks.wall_ms, random);
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
        let client = http::client(&identity, self.presented.clone(), self.proxy.as_ref())?;
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
    #[error("a key could not be made: {0}")]
    Key(#[source] rcgen::Error),
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

impl RenewError {
    fn lasting(&self) -> Lasting {
        match self {
            Self::Failure(
                Failure::Unreachable(_)
                | Failure::Refused {
                    status: 429 | 503, ..
                },
            ) => Lasting::Passing,
            _ => Lasting::Lasting,
        }
    }
}
