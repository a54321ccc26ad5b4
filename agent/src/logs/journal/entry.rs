//! One entry as `journalctl --output=json` prints it (`systemd.journal-fields(7)`).

use serde::Deserialize;
use serde_json::Value;
use watchkeep_shared::wire::policy::JournalFilter;

use crate::logs::journal::PATH;

/// What of an entry is used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) cursor: String,
    pub(super) message: Vec<u8>,
    pub(super) unit: Option<String>,
    pub(super) identifier: Option<String>,
    /// 0 (emergency) to 7 (debug), as in `syslog(3)`.
    pub(super) priority: Option<u8>,
    /// When it was written, microseconds since the Unix epoch.
    pub(super) wall_us: i64,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    wall_us: Value,
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "PRIORITY", default)]
    priority: Value,
    #[serde(rename = "_SYSTEMD_UNIT", default)]
    unit: Value,
    /// What the service manager says about a unit.
    #[serde(rename = "UNIT", default)]
    about: Value,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    identifier: Value,
}

impl Entry {
    /// Reads one line of output.
    pub(super) fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: Fields = serde_json::from_slice(line)?;
        Ok(Self {
            cursor: fields.cursor,
            message: bytes(&fields.message),
            unit: text(&fields.about).or_else(|| text(&fields.unit)),
            identifier: text(&fields.identifier),
            priority: text(&fields.priority).and_then(|priority| priority.parse().ok()),
            wall_us: text(&fields.wall_us)
                .and_then(|at| at.parse().ok())
                .unwrap_or(0),
        })
    }

    /// Whether it is one of those that a check asks for.
    pub(super) fn passes(&self, filter: &JournalFilter) -> bool {
        let among = |asked: &[String], own: Option<&String>| {
            asked.is_empty() || own.is_some_and(|own| asked.contains(own))
        };
        among(&filter.units, self.unit.as_ref())
            && among(&filter.identifiers, self.identifier.as_ref())
            && filter
                .max_priority
                .is_none_or(|most| self.priority.is_some_and(|own| own <= most))
    }

    /// What is reported in place of a file's path.
    pub(super) fn shown_path(&self) -> String {
        match self.unit.as_ref().or(self.identifier.as_ref()) {
            Some(name) => format!("{PATH}:{name}"),
            None => PATH.to_owned(),
        }
    }
}

/// A field: text, a list of bytes if it is not UTF-8, or a list of those if it is there repeatedly,
/// of which the first counts.
fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(list) => match list.first() {
            Some(Value::Number(_)) => list
                .iter()
                .filter_map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
                .collect(),
            Some(first) => bytes(first),
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn text(value: &Value) -> Option<String> {
    let bytes = bytes(value);
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}
