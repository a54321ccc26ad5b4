//! What an agent reports about its machine besides measurements: what it is, and what is busy on it.

use core::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use super::limits;

/// What the machine is. Each part is left out where it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The operating system's name for people, as in `Debian GNU/Linux 12 (bookworm)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// The kernel's release, as in `6.1.0-9-amd64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The processor's architecture, as in `x86_64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// How many processors the agent may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory of the machine, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Under which hypervisor it runs, as in `kvm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    /// In which kind of container the agent runs, as in `docker`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Addresses of the machine's network interfaces, without those that say nothing to others:
    /// loopback, link-local, and of interfaces to containers. At most [`limits::MAX_ADDRESSES`]; on
    /// reading, what is no address is left out, and what is too many.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "addresses"
    )]
    pub addresses: Vec<IpAddr>,
    /// What the agent can't see from where it runs, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
}

fn addresses<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let read = texts.iter().filter_map(|text| text.parse().ok());
    Ok(read.take(limits::MAX_ADDRESSES).collect())
}

/// The busiest processes of a machine at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Processes {
    /// By processor time, the busiest first; at most [`super::limits::MAX_PROCESSES_LISTED`].
    pub by_cpu: Vec<Process>,
    /// By resident memory, the largest first; at most as many.
    pub by_memory: Vec<Process>,
    /// The customer's configuration does not let them be sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

/// One process. Its arguments are never sent: they may hold secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name as the kernel has it, on Linux at most 15 bytes.
    pub name: String,
    /// Processor time, percent of one processor, over the last heartbeat interval.
    pub cpu_pct: f64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
}

/// What a collector asks an agent for in an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// The busiest processes, with the next heartbeat.
    Processes,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_far_as_they_are_some() {
        let text = r#"{"addresses":["192.0.2.7","fe80::1%eth0","\u0000","2001:db8::7"]}"#;
        let facts: HostFacts = serde_json::from_str(text).unwrap();
        let expected: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        assert_eq!(facts.addresses, expected);
        let written = serde_json::to_string(&facts).unwrap();
        assert_eq!(written, r#"{"addresses":["192.0.2.7","2001:db8::7"]}"#);
        let many = vec!["192.0.2.7"; 1_000];
        let text = serde_json::json!({ "addresses": many }).to_string();
        let facts: HostFacts = serde_json::from_str(&text).unwrap();
        assert_eq!(facts.addresses.len(), limits::MAX_ADDRESSES);
    }
}
