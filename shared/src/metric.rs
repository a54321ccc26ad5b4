//! Metric names. A name is a family, and for families that exist once per thing an instance
//! after a colon: `cpu.busy_pct`, `disk.used_pct:/var`, `net.rx_bytes_per_s:eth0`.
//! Units are the last part of the family: `_pct` (0 to 100), `_bytes`, `_bytes_per_s`,
//! `_per_s`, `_ms`, `_s`, `_celsius`; a family without one is a plain number.

use sha2::{Digest, Sha256};

use crate::ids::SchemaId;

/// Splits a metric name into its family and its instance, if it has one.
///
/// ```
/// assert_eq!(watchkeep_shared::metric::split("disk.used_pct:/var"), ("disk.used_pct", Some("/var")));
/// assert_eq!(watchkeep_shared::metric::split("load.1m"), ("load.1m", None));
/// ```
pub fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once(':') {
        Some((family, instance)) => (family, Some(instance)),
        None => (name, None),
    }
}

/// The identifier of a list of metric names (see [`SchemaId`]).
pub fn schema_id<S: AsRef<str>>(names: &[S]) -> SchemaId {
    let mut hash = Sha256::new();
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            hash.update(b"\n");
        }
        hash.update(name.as_ref().as_bytes());
    }
    let digest = hash.finalize();
    let mut first = [0_u8; 8];
    first.copy_from_slice(&digest[..8]);
    SchemaId(u64::from_be_bytes(first))
}

/// Whether a name may be sent: 1 to [`crate::wire::limits::MAX_METRIC_NAME_BYTES`] bytes, no
/// control characters.
pub fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= crate::wire::limits::MAX_METRIC_NAME_BYTES
        && !name.chars().any(char::is_control)
}

/// Rounds a value to hundredths, the resolution that is sent and stored.
pub fn round_to_hundredth(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
