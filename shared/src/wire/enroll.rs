//! Enrolment and renewal of an agent's certificate.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::HostId;

/// The body of `POST /agent/v1/enroll`. `Debug` is left out on purpose: it holds a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct EnrollRequest {
    /// Protocol version, [`super::PROTOCOL_VERSION`].
    pub v: u16,
    /// From the token.
    pub token_id: Uuid,
    /// From the token.
    pub token_secret: String,
    /// A PKCS #10 request (RFC 2986) in PEM. Names and extensions in it are ignored.
    pub csr_pem: String,
    /// The machine's host name, shown to people.
    pub hostname: String,
    /// Version of the agent program.
    pub agent_version: String,
}

impl std::fmt::Debug for EnrollRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollRequest")
            .field("token_id", &self.token_id)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// The answer to an enrolment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enrolled {
    /// The host's identity from now on.
    pub host: HostId,
    pub certificate_pem: String,
    /// The CA that agents trust, PEM; may hold two while the CA is being rotated.
    pub ca_pem: String,
}

/// The body of `POST /agent/v1/renew`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewRequest {
    /// Protocol version, [`super::PROTOCOL_VERSION`].
    pub v: u16,
    /// A PKCS #10 request in PEM, for a fresh key.
    pub csr_pem: String,
}

/// The answer to a renewal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Renewed {
    pub certificate_pem: String,
    /// The CA that agents trust, PEM.
    pub ca_pem: String,
}
