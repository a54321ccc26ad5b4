//! Identifiers that cross the wire.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Declares a UUID newtype. Exported for `watchkeep-core`, whose identifiers have the same shape.
#[macro_export]
macro_rules! uuid_newtype {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// The identifier as a bare UUID, for the store.
            pub const fn uuid(self) -> uuid::Uuid {
                self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }

        impl From<uuid::Uuid> for $name {
            fn from(id: uuid::Uuid) -> Self {
                Self(id)
            }
        }
    };
}

uuid_newtype! {
    /// One watched machine with one agent identity. Given by the collector at enrolment and
    /// carried in the agent's certificate, never in a heartbeat body.
    HostId
}

uuid_newtype! {
    /// One boot of the kernel: Linux `/proc/sys/kernel/random/boot_id` (`random(4)`).
    BootId
}

uuid_newtype! {
    /// One run of the agent process, drawn at random when it starts. Sequence numbers count
    /// within it.
    InstanceId
}

/// The text is not an identifier of 16 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("this identifier is 16 hexadecimal digits, as in \"00f1e2d3c4b5a697\"")]
pub struct ParseDigitsError;

/// Declares a newtype of the first 8 bytes of a hash, 16 lowercase hexadecimal digits on the wire.
macro_rules! digits_newtype {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigitsError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                parse_digits(s).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Digits).map(Self)
            }
        }
    };
}

digits_newtype! {
    /// Identifies a list of metric names: the first 8 bytes of the SHA-256 of the names joined by
    /// newlines, as 16 lowercase hexadecimal digits on the wire.
    SchemaId
}

digits_newtype! {
    /// Identifies a certificate authority: the first 8 bytes of the SHA-256 of its public key
    /// (`SubjectPublicKeyInfo`, DER), as 16 lowercase hexadecimal digits on the wire.
    CaId
}

impl CaId {
    /// Of the whole hash in hexadecimal digits; `None` if it is too short or something else.
    pub fn of_key_sha256(digits: &str) -> Option<Self> {
        digits.get(..16)?.parse().ok()
    }
}

fn parse_digits(s: &str) -> Result<u64, ParseDigitsError> {
    if s.len() != 16 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ParseDigitsError);
    }
    u64::from_str_radix(s, 16).map_err(|_| ParseDigitsError)
}

struct Digits;

impl serde::de::Visitor<'_> for Digits {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("16 hexadecimal digits")
    }

    fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<u64, E> {
        parse_digits(s).map_err(E::custom)
    }
}

/// A new random (version 4) UUID, for identifiers that carry no order.
pub fn random_uuid() -> Uuid {
    Uuid::new_v4()
}
