//! What a run prints: one table for people, one JSON object for machines.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::stats::Quantiles;

/// A run's result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many agents there were.
    pub agents: usize,
    /// How long the run took, its draining included, seconds.
    pub seconds: f64,
    /// Heartbeats made.
    pub made: u64,
    /// Heartbeats sent, repeats included.
    pub sent: u64,
    /// Heartbeats acknowledged.
    pub acked: u64,
    /// Heartbeats refused for good, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Heartbeats that the agents' own limit took.
    pub lost: u64,
    /// Heartbeats not acknowledged when the run ended.
    pub owed: u64,
    /// Acknowledged heartbeats a second.
    pub heartbeats_per_s: f64,
    /// From sending a request to its answer.
    pub answer_latency: Quantiles,
    /// From making a heartbeat to its acknowledgement, waiting and repeats included.
    pub frame_latency: Quantiles,
    /// Errors by kind.
    pub errors: BTreeMap<String, u64>,
    /// TLS handshakes of the run, those before its start apart.
    pub handshakes: u64,
    /// The connections made before the start.
    pub connect: Connect,
    /// Bytes on the wire, beneath TLS.
    pub wire: Wire,
    /// The collector's process, if it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collector: Option<Collector>,
    /// The store, if it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
    /// Breaches and their tickets, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breach: Option<Breaches>,
    /// From the drop of a storm to the new connection, over all agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<Quantiles>,
}

/// The connections, and the frames of the past, before the start.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Connect {
    /// Handshakes.
    pub handshakes: u64,
    /// Frames of the past that were acknowledged.
    pub acked: u64,
    /// How long it took, seconds.
    pub seconds: f64,
}

/// Bytes beneath TLS, both ways; TCP and IP headers are not in it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Wire {
    /// For one acknowledged heartbeat, handshakes apart.
    pub sent_per_heartbeat: f64,
    /// For one acknowledged heartbeat, handshakes apart.
    pub received_per_heartbeat: f64,
    /// For one handshake of the run, both ways; 0 without any.
    pub per_handshake: f64,
}

/// The collector's use of the machine.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Collector {
    /// Processor time during the run, seconds.
    pub cpu_s: f64,
    /// The same for a million acknowledged heartbeats.
    pub cpu_s_per_million: f64,
    /// Memory before the agents connected, bytes.
    pub rss_before_bytes: u64,
    /// Memory with all agents connected and idle, bytes.
    pub rss_connected_bytes: u64,
    /// Memory at the end, bytes.
    pub rss_after_bytes: u64,
    /// Growth of memory by the connections, for one agent, bytes.
    pub rss_per_agent_bytes: f64,
}

/// The store's growth.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Store {
    /// Size at the end, bytes.
    pub bytes: u64,
    /// Growth for one acknowledged heartbeat, bytes.
    pub bytes_per_heartbeat: f64,
}

/// From making a breaching heartbeat to seeing its ticket in the store.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Breaches {
    /// Agents that broke the rule.
    pub made: usize,
    /// Agents whose ticket was seen.
    pub ticketed: usize,
    /// How long it took.
    pub latency: Quantiles,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "agents", format_args!("{}", self.agents))?;
        row(f, "run", format_args!("{:.1} s", self.seconds))?;
        row(f, "heartbeats made", format_args!("{}", self.made))?;
        row(f, "  sent, with repeats", format_args!("{}", self.sent))?;
        row(f, "  acknowledged", format_args!("{}", self.acked))?;
        row(f, "  owed at the end", format_args!("{}", self.owed))?;
        row(f, "  lost by the limit", format_args!("{}", self.lost))?;
        for (reason, count) in &self.rejected {
            row(f, "  refused", format_args!("{count} {reason}"))?;
        }
        row(
            f,
            "heartbeats/s",
            format_args!("{:.0}", self.heartbeats_per_s),
        )?;
        row(
            f,
            "request to answer",
            format_args!("{}", self.answer_latency),
        )?;
        row(
            f,
            "made to acknowledged",
            format_args!("{}", self.frame_latency),
        )?;
        self.connections(f)?;
        self.outside(f)?;
        for (kind, count) in &self.errors {
            row(f, "error", format_args!("{count} {kind}"))?;
        }
        Ok(())
    }
}

impl Report {
    fn connections(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Connect {
            handshakes,
            acked,
            seconds,
        } = self.connect;
        row(
            f,
            "before the start",
            format_args!("{handshakes} handshakes, {acked} heartbeats in {seconds:.1} s"),
        )?;
        row(f, "handshakes", format_args!("{}", self.handshakes))?;
        if let Some(reconnect) = self.reconnect {
            row(f, "drop to reconnected", format_args!("{reconnect}"))?;
        }
        let Wire {
            sent_per_heartbeat: up,
            received_per_heartbeat: down,
            per_handshake,
        } = self.wire;
        row(
            f,
            "bytes a heartbeat",
            format_args!("{up:.0} up, {down:.0} down, {:.0} together", up + down),
        )?;
        row(f, "bytes a handshake", format_args!("{per_handshake:.0}"))
    }

    fn outside(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = 1024.0 * 1024.0;
        if let Some(collector) = self.collector {
            let million = collector.cpu_s_per_million;
            row(
                f,
                "collector CPU",
                format_args!(
                    "{:.2} s, {million:.0} s a million heartbeats",
                    collector.cpu_s
                ),
            )?;
            row(
                f,
                "collector memory",
                format_args!(
                    "{:.1} MiB, connected {:.1}, at the end {:.1}; {:.1} kB an agent",
                    collector.rss_before_bytes as f64 / MIB,
                    collector.rss_connected_bytes as f64 / MIB,
                    collector.rss_after_bytes as f64 / MIB,
                    collector.rss_per_agent_bytes / 1_000.0,
                ),
            )?;
        }
        if let Some(store) = self.store {
            row(
                f,
                "store",
                format_args!(
                    "{:.1} MiB, {:.0} bytes a heartbeat",
                    store.bytes as f64 / MIB,
                    store.bytes_per_heartbeat
                ),
            )?;
        }
        if let Some(breach) = self.breach {
            let text = format_args!("{} of {} seen", breach.ticketed, breach.made);
            row(f, "tickets", text)?;
            row(f, "breach to ticket", format_args!("{}", breach.latency))?;
        }
        Ok(())
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50_ms,
            p90_ms,
            p99_ms,
            max_ms,
        } = self;
        write!(
            f,
            "p50 {p50_ms:.1} ms, p90 {p90_ms:.1}, p99 {p99_ms:.1}, max {max_ms:.1}"
        )
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "{name:<22} {value}")
}
