//! The enrolment token: one string that names the collector, proves the right to enrol, and pins
//! the collector's CA, so that the very first connection is authenticated both ways.
//!
//! Form: `wk1_` and the unpadded URL-safe base64 (RFC 4648, section 5) of a JSON object followed by
//! the first four bytes of its SHA-256, so that a token cut short by a paste is distinguished from a
//! wrong one.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

#[cfg(any(test, fuzzing))]
pub mod fuzz;

const PREFIX: &str = "wk1_";
const CHECKSUM_BYTES: usize = 4;

/// What an enrolment token holds. `Debug` leaves the secret out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentToken {
    /// Base URL of the collector's agent port, as in `https://collector.example:7443`.
    #[serde(rename = "u")]
    pub url: String,
    /// Which token this is; not secret.
    #[serde(rename = "i")]
    pub id: Uuid,
    /// 256 random bits, unpadded URL-safe base64. The collector keeps only their SHA-256.
    #[serde(rename = "s")]
    pub secret: String,
    /// SHA-256 of the CA's `SubjectPublicKeyInfo` (DER), 64 lowercase hexadecimal digits.
    #[serde(rename = "k")]
    pub ca_key_sha256: String,
}

/// Why a string is not an enrolment token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseTokenError {
    /// The prefix is missing.
    #[error(
        "an enrolment token starts with \"wk1_\": copy the whole line that `watchkeep-collector token create` printed"
    )]
    Prefix,
    /// Not base64, or the checksum does not match.
    #[error("the enrolment token is damaged or cut short: copy the whole line again")]
    Damaged,
    /// The content is not what this version understands.
    #[error(
        "the enrolment token has fields this agent does not understand: is the agent older than the collector?"
    )]
    Content,
}

impl fmt::Display for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest[..CHECKSUM_BYTES]);
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolmentToken")
            .field("url", &self.url)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl FromStr for EnrolmentToken {
    type Err = ParseTokenError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let encoded = s
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(ParseTokenError::Prefix)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| ParseTokenError::Damaged)?;
        let (json, checksum) = bytes
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(ParseTokenError::Damaged)?;
        if Sha256::digest(json)[..CHECKSUM_BYTES] != *checksum {
            return Err(ParseTokenError::Damaged);
        }
        serde_json::from_slice(json).map_err(|_| ParseTokenError::Content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> EnrolmentToken {
        EnrolmentToken {
            url: "https://collector.example:7443".to_owned(),
            id: Uuid::from_u128(7),
            secret: "c2VjcmV0".to_owned(),
            ca_key_sha256: "ab".repeat(32),
        }
    }

    #[test]
    fn round_trip() {
        assert_eq!(
            token().to_string().parse::<EnrolmentToken>().unwrap(),
            token()
        );
    }

    #[test]
    fn any_cut_or_changed_character_is_noticed() {
        let text = token().to_string();
        for end in PREFIX.len()..text.len() {
            let cut: String = text.chars().take(end).collect();
            assert_eq!(
                cut.parse::<EnrolmentToken>(),
                Err(ParseTokenError::Damaged),
                "{end}"
            );
        }
        let changed = text.replacen('A', "B", 1);
        assert_eq!(
            changed.parse::<EnrolmentToken>(),
            Err(ParseTokenError::Damaged)
        );
    }

    #[test]
    fn debug_leaves_the_secret_out() {
        assert!(!format!("{:?}", token()).contains("c2VjcmV0"));
    }
}
