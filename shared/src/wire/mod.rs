//! The agent protocol, version 1. `docs/protocol.md` is its prose form; the two change together.
//!
//! Bodies are JSON, in heartbeats compressed with zstd (RFC 8878). Readers ignore fields they do
//! not know, so a newer side may add some; nothing is ever renamed or given another meaning within
//! a version.

pub mod codec;
pub mod enroll;
pub mod heartbeat;
pub mod host;
pub mod limits;
pub mod policy;
pub mod problem;

/// The protocol version this build speaks, sent as `v` in every request.
pub const PROTOCOL_VERSION: u16 = 1;

/// Paths on the agent port.
pub mod paths {
    /// `POST`, no client certificate: exchanges a token and a CSR for a certificate.
    pub const ENROLL: &str = "/agent/v1/enroll";
    /// `POST`, mutual TLS: exchanges a CSR for a fresh certificate.
    pub const RENEW: &str = "/agent/v1/renew";
    /// `POST`, mutual TLS: a batch of heartbeat frames.
    pub const HEARTBEATS: &str = "/agent/v1/heartbeats";
}

/// `Content-Type` of requests and successful answers.
pub const CONTENT_TYPE_JSON: &str = "application/json";
/// `Content-Type` of errors (RFC 9457).
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";
/// `Content-Encoding` of heartbeat bodies.
pub const CONTENT_ENCODING_ZSTD: &str = "zstd";
