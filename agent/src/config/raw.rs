//! The configuration as it is written, and the text of errors about its form.

use std::path::PathBuf;

use serde::Deserialize;
use watchkeep_shared::{settings, wire::limits::MIN_INTERVAL_MS};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) state_dir: PathBuf,
    pub(super) limits: RawLimits,
    pub(super) spool: RawSpool,
    pub(super) redaction: RawRedaction,
    pub(super) uplink: RawUplink,
    pub(super) log: RawLog,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub(super) log_paths: Vec<String>,
    pub(super) min_interval_ms: u32,
    pub(super) processes: Option<Vec<String>>,
    pub(super) journal_units: Option<Vec<String>>,
    pub(super) units: Option<Vec<String>>,
    pub(super) windows_services: Option<Vec<String>>,
    pub(super) event_logs: Vec<String>,
    pub(super) failed_units: bool,
    pub(super) busiest_processes: bool,
    pub(super) tcp: Vec<String>,
    pub(super) discovery: bool,
    pub(super) probe_ca: Option<PathBuf>,
    pub(super) insecure_probes: Vec<String>,
    pub(super) certificate_paths: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSpool {
    pub(super) max_bytes: u64,
    pub(super) max_age_hours: u32,
    pub(super) memory_frames: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRedaction {
    pub(super) extra: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawUplink {
    pub(super) proxy: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) level: String,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from(crate::platform::STATE_DIR),
            limits: RawLimits::default(),
            spool: RawSpool::default(),
            redaction: RawRedaction::default(),
            uplink: RawUplink::default(),
            log: RawLog::default(),
        }
    }
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            log_paths: vec!["/var/log/**".to_owned()],
            min_interval_ms: MIN_INTERVAL_MS,
            processes: None,
            journal_units: None,
            units: None,
            windows_services: None,
            event_logs: vec!["Application".to_owned(), "System".to_owned()],
            failed_units: true,
            busiest_processes: true,
            tcp: Vec::new(),
            discovery: true,
            probe_ca: None,
            insecure_probes: Vec::new(),
            certificate_paths: [
                "/etc/ssl/**",
                "/etc/letsencrypt/**",
                "/etc/pki/**",
                "/etc/nginx/**",
                "/etc/apache2/**",
                "/etc/httpd/**",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }
}

impl Default for RawSpool {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_age_hours: 168,
            memory_frames: 1_000,
        }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
        }
    }
}

impl RawConfig {
    /// Parses TOML; the error is `NAME:LINE: KEY: what is wrong`, with a suggestion for a
    /// misspelt key.
    pub(super) fn parse(text: &str, name: &str) -> Result<Self, String> {
        let position = |error: &toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            text.get(..at).unwrap_or(text).matches('\n').count() + 1
        };
        let deserializer = toml::Deserializer::parse(text)
            .map_err(|error| format!("{name}:{}: {}", position(&error), error.message()))?;
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let inner = error.inner();
            let hint = suggestion(inner.message()).unwrap_or_default();
            format!(
                "{name}:{}: {}: {}{hint}",
                position(inner),
                error.path(),
                inner.message()
            )
        })
    }
}

/// For serde's "unknown field `a`, expected one of `b`, `c`": the nearest of the expected ones.
fn suggestion(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") {
        return None;
    }
    let unknown = quoted.next()?;
    let (distance, nearest) = quoted
        .map(|known| (settings::edits(unknown, known), known))
        .min()?;
    (distance <= 3).then(|| format!("; did you mean \"{nearest}\"?"))
}
