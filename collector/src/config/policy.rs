//! A policy as people write it, in the settings and in the fleet file: the same items as on the
//! wire, but a key that does not exist is refused here, while an agent must ignore it.

use serde::{Deserialize, Deserializer};
use watchkeep_core::policy::Layer;
use watchkeep_shared::wire::policy::{
    EventLogFilter, JournalFilter, LogCheck, LogRule, ServiceCheck,
};

/// A `[policy]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySection {
    interval_ms: Option<u32>,
    #[serde(deserialize_with = "services")]
    services: Vec<ServiceCheck>,
    #[serde(deserialize_with = "logs")]
    logs: Vec<LogCheck>,
    without: Vec<String>,
}

impl PolicySection {
    /// As a layer, unchecked (see [`Layer::problems`]).
    pub fn into_layer(self) -> Layer {
        Layer {
            interval_ms: self.interval_ms,
            services: self.services,
            logs: self.logs,
            without: self.without,
        }
    }
}

#[derive(Deserialize)]
#[serde(
    remote = "ServiceCheck",
    tag = "type",
    rename_all = "snake_case",
    deny_unknown_fields
)]
enum StrictService {
    Process {
        name: String,
        #[serde(default)]
        min: Option<u32>,
        #[serde(default)]
        max: Option<u32>,
    },
    Tcp {
        address: String,
    },
    Systemd {
        unit: String,
    },
    #[serde(rename = "winsvc")]
    WindowsService {
        name: String,
    },
    Http {
        url: String,
        #[serde(default)]
        status: Vec<u16>,
        #[serde(default)]
        contains: Option<String>,
        #[serde(default)]
        timeout_ms: Option<u32>,
    },
    Tls {
        address: String,
        #[serde(default)]
        server_name: Option<String>,
    },
    Certificate {
        path: String,
    },
}

#[derive(Deserialize)]
#[serde(remote = "LogCheck", deny_unknown_fields)]
struct StrictLog {
    path: String,
    #[serde(deserialize_with = "rules")]
    rules: Vec<LogRule>,
    #[serde(default)]
    record_start: Option<String>,
    #[serde(default, deserialize_with = "journal")]
    journal: Option<JournalFilter>,
    #[serde(default, deserialize_with = "event_log")]
    event_log: Option<EventLogFilter>,
}

#[derive(Deserialize)]
#[serde(remote = "LogRule", deny_unknown_fields)]
struct StrictRule {
    name: String,
    pattern: String,
    #[serde(default)]
    lines_per_minute: Option<u32>,
}

#[derive(Deserialize)]
#[serde(remote = "JournalFilter", deny_unknown_fields)]
struct StrictJournal {
    #[serde(default)]
    units: Vec<String>,
    #[serde(default)]
    identifiers: Vec<String>,
    #[serde(default)]
    max_priority: Option<u8>,
}

#[derive(Deserialize)]
#[serde(remote = "EventLogFilter", deny_unknown_fields)]
struct StrictEventLog {
    #[serde(default)]
    providers: Vec<String>,
    #[serde(default)]
    event_ids: Vec<u32>,
    #[serde(default)]
    max_level: Option<u8>,
}

/// An element of a list that is read in its strict form.
macro_rules! list {
    ($read:ident, $item:ty, $strict:literal) => {
        fn $read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<$item>, D::Error> {
            #[derive(Deserialize)]
            struct One(#[serde(with = $strict)] $item);
            let all = Vec::<One>::deserialize(from)?;
            Ok(all.into_iter().map(|one| one.0).collect())
        }
    };
}

list!(services, ServiceCheck, "StrictService");
list!(logs, LogCheck, "StrictLog");
list!(rules, LogRule, "StrictRule");

fn journal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<JournalFilter>, D::Error> {
    StrictJournal::deserialize(from).map(Some)
}

fn event_log<'de, D: Deserializer<'de>>(from: D) -> Result<Option<EventLogFilter>, D::Error> {
    StrictEventLog::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        policy: PolicySection,
    }

    fn read(text: &str) -> Result<Layer, String> {
        let file: Result<File, _> = watchkeep_shared::settings::load("f.toml", text, []);
        file.map(|file| file.policy.into_layer())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_field_is_read_as_on_the_wire() {
        let text = r#"
            [policy]
            interval_ms = 2000
            services = [
                { type = "process", name = "a", min = 1, max = 2 },
                { type = "tcp", address = "127.0.0.1:1" },
                { type = "systemd", unit = "a.service" },
                { type = "winsvc", name = "Spooler" },
                { type = "http", url = "http://127.0.0.1/", status = [200], contains = "x", timeout_ms = 500 },
                { type = "tls", address = "127.0.0.1:1", server_name = "a" },
                { type = "certificate", path = "/a" },
            ]
            logs = [
                { path = "/a", rules = [{ name = "a", pattern = "b", lines_per_minute = 5 }], record_start = "c" },
                { path = "journal", rules = [{ name = "b", pattern = "b" }], journal = { units = ["a"], identifiers = ["b"], max_priority = 3 } },
                { path = "journal", rules = [{ name = "c", pattern = "b" }], journal = {} },
                { path = "eventlog:System", rules = [{ name = "d", pattern = "b" }], event_log = { providers = ["a"], event_ids = [7], max_level = 2 } },
            ]
            without = ["process:b"]
        "#;
        let layer = read(text).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let on_the_wire: Layer = table["policy"].clone().try_into().unwrap();
        assert_eq!(layer, on_the_wire);
        assert_eq!(layer.services.len(), 7);
        assert_eq!(layer.problems(), Vec::<String>::new());
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused_with_its_place_and_the_nearest() {
        for (text, place, near) in [
            (
                "services = [{ type = \"systemd\", unti = \"a.service\" }]",
                "services",
                "unit",
            ),
            (
                "services = [{ type = \"process\", name = \"a\", minn = 2 }]",
                "services",
                "min",
            ),
            (
                "logs = [{ path = \"/a\", rules = [{ name = \"a\", patern = \"b\" }] }]",
                "rules",
                "pattern",
            ),
            (
                "logs = [{ path = \"/a\", rules = [], record_strat = \"b\" }]",
                "logs",
                "record_start",
            ),
            (
                "logs = [{ path = \"/a\", rules = [], journal = { unit = [] } }]",
                "journal",
                "units",
            ),
            (
                "logs = [{ path = \"eventlog:System\", rules = [], event_log = { provider = [] } }]",
                "event_log",
                "providers",
            ),
            ("intervall_ms = 5", "intervall_ms", "interval_ms"),
        ] {
            let error = read(&format!("[policy]\n{text}\n")).unwrap_err();
            assert!(error.contains("line 2"), "{error}");
            assert!(error.contains(place), "{error}");
            let suggestion = format!("did you mean `{near}`?");
            assert!(error.contains(&suggestion), "{error}");
        }
    }
}
