//! Errors on the agent port: problem details (RFC 9457), with a type from a closed list.

use serde::{Deserialize, Serialize};

/// What went wrong, as a closed list; on the wire `urn:watchkeep:problem:` and the kebab-case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemType {
    /// The body is not JSON, or a field is missing or of the wrong type. 400.
    BadBody,
    /// The body could not be decompressed. 400.
    BadEncoding,
    /// A limit of the protocol was exceeded. 400.
    OverLimit,
    /// The protocol version is not spoken here. 400.
    UnsupportedVersion,
    /// The body is larger than allowed, before or after decompression. 413.
    BodyTooLarge,
    /// The request has no client certificate. 401.
    CertificateRequired,
    /// The certificate was revoked, or its host was retired. 403. Final.
    CertificateRevoked,
    /// Two machines use the host's certificate; it is accepted again with a new key. 403. Final.
    HostQuarantined,
    /// The token is unknown, its secret is wrong, it expired or is used up. 403. Final.
    TokenRefused,
    /// The CSR can't be read or its signature is wrong. 400.
    BadCsr,
    /// The collector can't take more now; come back after `Retry-After`. 503.
    Busy,
    /// More requests than allowed; come back after `Retry-After`. 429.
    TooManyRequests,
    /// No such path or method. 404.
    NotFound,
    /// The collector failed; try again. 500.
    Internal,
}

impl ProblemType {
    /// All types, for documentation and tests.
    pub const ALL: [Self; 14] = [
        Self::BadBody,
        Self::BadEncoding,
        Self::OverLimit,
        Self::UnsupportedVersion,
        Self::BodyTooLarge,
        Self::CertificateRequired,
        Self::CertificateRevoked,
        Self::HostQuarantined,
        Self::TokenRefused,
        Self::BadCsr,
        Self::Busy,
        Self::TooManyRequests,
        Self::NotFound,
        Self::Internal,
    ];

    /// The `type` member: a URN.
    pub const fn urn(self) -> &'static str {
        match self {
            Self::BadBody => "urn:watchkeep:problem:bad-body",
            Self::BadEncoding => "urn:watchkeep:problem:bad-encoding",
            Self::OverLimit => "urn:watchkeep:problem:over-limit",
            Self::UnsupportedVersion => "urn:watchkeep:problem:unsupported-version",
            Self::BodyTooLarge => "urn:watchkeep:problem:body-too-large",
            Self::CertificateRequired => "urn:watchkeep:problem:certificate-required",
            Self::CertificateRevoked => "urn:watchkeep:problem:certificate-revoked",
            Self::HostQuarantined => "urn:watchkeep:problem:host-quarantined",
            Self::TokenRefused => "urn:watchkeep:problem:token-refused",
            Self::BadCsr => "urn:watchkeep:problem:bad-csr",
            Self::Busy => "urn:watchkeep:problem:busy",
            Self::TooManyRequests => "urn:watchkeep:problem:too-many-requests",
            Self::NotFound => "urn:watchkeep:problem:not-found",
            Self::Internal => "urn:watchkeep:problem:internal",
        }
    }

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadBody
            | Self::BadEncoding
            | Self::OverLimit
            | Self::UnsupportedVersion
            | Self::BadCsr => 400,
            Self::CertificateRequired => 401,
            Self::CertificateRevoked | Self::HostQuarantined | Self::TokenRefused => 403,
            Self::NotFound => 404,
            Self::BodyTooLarge => 413,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::Busy => 503,
        }
    }

    /// The `title` member: the same for every occurrence.
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadBody => "The body can't be read",
            Self::BadEncoding => "The body can't be decompressed",
            Self::OverLimit => "A limit of the protocol is exceeded",
            Self::UnsupportedVersion => "This protocol version is not supported",
            Self::BodyTooLarge => "The body is too large",
            Self::CertificateRequired => "A client certificate is required",
            Self::CertificateRevoked => "The certificate is revoked",
            Self::HostQuarantined => "The host is quarantined",
            Self::TokenRefused => "The enrolment token is refused",
            Self::BadCsr => "The certificate request can't be used",
            Self::Busy => "The collector is busy",
            Self::TooManyRequests => "Too many requests",
            Self::NotFound => "Not found",
            Self::Internal => "The collector failed",
        }
    }
}

/// A problem details object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URN from [`ProblemType`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every occurrence of the type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time and what would be right.
    #[serde(default)]
    pub detail: String,
}

impl Problem {
    /// A problem of a type with its detail.
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            kind: kind.urn().to_owned(),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
        }
    }

    /// The type, if it is one that this build knows.
    pub fn known_type(&self) -> Option<ProblemType> {
        ProblemType::ALL
            .into_iter()
            .find(|kind| kind.urn() == self.kind)
    }
}
