//! Policy: what the MSP asks an agent to watch. It is sent in acknowledgements.

use serde::{Deserialize, Serialize};

/// What an agent watches and how often. The customer's local configuration may refuse items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Changes whenever the content does; never 0.
    pub version: u64,
    /// Time between heartbeats, milliseconds, within
    /// [`super::limits::MIN_INTERVAL_MS`]`..=`[`super::limits::MAX_INTERVAL_MS`].
    pub interval_ms: u32,
    /// Services to watch.
    #[serde(default)]
    pub services: Vec<Item<ServiceCheck>>,
    /// Logs to follow.
    #[serde(default)]
    pub logs: Vec<LogCheck>,
}

/// Something of a kind that a newer peer may know and this version does not. It is kept as it came,
/// so that it can be named, and so that a program that was upgraded finds it in what was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Item<T> {
    /// Of a kind that this version knows.
    Known(T),
    /// Of another kind, or one whose fields make no sense here.
    Unknown(serde_json::Value),
}

impl<T> From<T> for Item<T> {
    fn from(known: T) -> Self {
        Self::Known(known)
    }
}

impl<T> Item<T> {
    /// The item, if its kind is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Unknown(_) => None,
        }
    }
}

/// One service to watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServiceCheck {
    /// Processes whose name (`/proc/PID/comm`, at most 15 bytes) or executable's file name is
    /// `name`.
    Process {
        name: String,
        /// Fewer than so many are a fault; absent: 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<u32>,
        /// More than so many are a fault; absent: any number is well.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u32>,
    },
    /// A TCP port on this host that accepts connections.
    Tcp {
        /// `HOST:PORT`, as in `127.0.0.1:5432`.
        address: String,
    },
    /// A unit of systemd.
    Systemd {
        /// Its full name, as in `nginx.service` or `backup.timer`.
        unit: String,
    },
    #[serde(rename = "winsvc")]
    WindowsService {
        /// Its short name, as in `Spooler`; not the one that is displayed.
        name: String,
    },
    /// What a web server answers to a `GET`. Redirects are not followed: they could lead to a
    /// place that the customer has not allowed.
    Http {
        /// `http://` or `https://`, host, perhaps port, path.
        url: String,
        /// Status codes that are well; empty: 200 to 399.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        status: Vec<u16>,
        /// A text that the first 64 KiB of the body must contain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contains: Option<String>,
        /// How long the whole answer may take, milliseconds, 100 to 30000; absent: 5000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u32>,
    },
    /// How long the certificate that a TLS server shows is still valid. Nothing but the handshake is
    /// done, and who signed the certificate does not matter.
    Tls {
        /// `HOST:PORT`, as in `127.0.0.1:443`.
        address: String,
        /// The name that is asked for (SNI, RFC 6066); absent: the host of `address`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server_name: Option<String>,
    },
    /// How long the certificates in a PEM file are still valid; the one that expires first counts.
    Certificate {
        /// Absolute path.
        path: String,
    },
}

impl ServiceCheck {
    /// The key under which its state is reported (see [`super::heartbeat::Service::key`]).
    pub fn key(&self) -> String {
        match self {
            Self::Process { name, .. } => format!("process:{name}"),
            Self::Tcp { address } => format!("tcp:{address}"),
            Self::Systemd { unit } => format!("systemd:{unit}"),
            Self::WindowsService { name } => format!("winsvc:{name}"),
            Self::Http { url, .. } => format!("http:{url}"),
            Self::Tls { address, .. } => format!("tls:{address}"),
            Self::Certificate { path } => format!("certificate:{path}"),
        }
    }

    /// A process of this name, any number of them.
    pub fn process(name: impl Into<String>) -> Self {
        Self::Process {
            name: name.into(),
            min: None,
            max: None,
        }
    }
}

/// Files to follow and what to look for in them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogCheck {
    /// A path or glob, as in `/var/log/nginx/*.log`.
    pub path: String,
    /// What to look for.
    pub rules: Vec<LogRule>,
    /// For records of several lines (stack traces): a pattern that the first line of each record
    /// matches. Rules are then matched against whole records. Absent: each line is a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_start: Option<String>,
    /// Entries of the systemd journal instead of files; `path` is `journal` then, which an agent
    /// that does not know this field refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalFilter>,
    /// Records of a channel of the Windows Event Log instead of files; `path` is `eventlog:CHANNEL`
    /// then, as in `eventlog:System`, which an agent that does not know this field refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log: Option<EventLogFilter>,
}

/// Which records of a channel of the Windows Event Log are read: those that match all of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventLogFilter {
    /// Of one of these providers, as in `Service Control Manager`; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
    /// With one of these identifiers, as in `7034`; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_ids: Vec<u32>,
    /// At least as urgent as this: 1 (critical), 2 (error), 3 (warning), 4 (information) or 5
    /// (verbose); absent: any. A record without a level counts as information, one of a refused
    /// attempt (audit failure) as a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_level: Option<u8>,
}

/// Which entries of the systemd journal are read: those that match all of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JournalFilter {
    /// Of one of these units, as in `nginx.service`; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<String>,
    /// With one of these syslog identifiers, as in `kernel`; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identifiers: Vec<String>,
    /// At least as urgent as this: 0 (emergency) to 7 (debug), as in `syslog(3)`; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_priority: Option<u8>,
}

/// A pattern to look for in log lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogRule {
    /// Unique within the policy; names the check in alerts.
    pub name: String,
    /// A regular expression (syntax of the Rust `regex` crate), matched against each line.
    pub pattern: String,
    /// How many matching lines are shown in a minute; all are counted. Absent: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines_per_minute: Option<u32>,
}

/// A policy item that the customer's configuration refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The item: a service's key ([`ServiceCheck::key`]), `log:PATH` or `interval`.
    pub item: String,
    /// Why, for people.
    pub reason: String,
}

/// Something that keeps an agent from doing all that it should, for the people at the MSP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What is concerned, one word: `spool`, `config`, `certificate`, … More may come.
    pub item: String,
    /// What is wrong and what follows from it.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_a_newer_collector_does_not_hide_the_rest_and_is_kept() {
        let text = r#"{"version":1,"interval_ms":10000,"services":[
            {"type":"mqtt","broker":"127.0.0.1","qos":2},
            {"type":"process","name":"nginx"},
            {"type":"process"}]}"#;
        let policy: Policy = serde_json::from_str(text).unwrap();
        assert_eq!(policy.services[0].known(), None);
        assert_eq!(
            policy.services[1],
            Item::Known(ServiceCheck::process("nginx"))
        );
        assert_eq!(policy.services[2].known(), None);
        let written = serde_json::to_value(&policy).unwrap();
        let read: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(written["services"], read["services"]);
    }
}
