//! Time as a value. Instants are whole milliseconds since the Unix epoch, UTC; spans are whole
//! milliseconds. Intervals are half open: `[from, to)`.

use std::{
    fmt,
    ops::{Add, Sub},
};

use serde::{Deserialize, Serialize};

/// An instant: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted (POSIX).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

/// A span of time in milliseconds; may be negative where it is a difference.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct DurationMs(pub i64);

impl DurationMs {
    /// Whole seconds as a span.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * 1_000)
    }

    /// Whole minutes as a span.
    pub const fn from_mins(mins: i64) -> Self {
        Self(mins * 60_000)
    }

    /// Whole hours as a span.
    pub const fn from_hours(hours: i64) -> Self {
        Self(hours * 3_600_000)
    }

    /// The span for the standard library's timers; negative spans become zero.
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(if self.0 < 0 { 0 } else { self.0 as u64 })
    }
}

impl UnixMillis {
    /// The span from `earlier` to `self`, negative if `earlier` is later.
    pub const fn since(self, earlier: Self) -> DurationMs {
        DurationMs(self.0 - earlier.0)
    }
}

impl Add<DurationMs> for UnixMillis {
    type Output = Self;

    fn add(self, span: DurationMs) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Add for DurationMs {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub<DurationMs> for UnixMillis {
    type Output = Self;

    fn sub(self, span: DurationMs) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
