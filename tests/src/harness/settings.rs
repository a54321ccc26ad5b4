//! What a test wants of its collector.

use watchkeep_shared::wire::{
    limits,
    policy::{LogCheck, ServiceCheck},
};

/// Rules with levels and times that a test can reach. `cpu.nice_pct` is what
/// [`super::burn::Burn`] makes and nothing else.
pub const QUICK_RULES: &str = r#"
[[rule]]
id = "cpu-busy"
name = "CPU busy"
severity = "warning"
priority = "P2"
kind = "threshold"
metric = "cpu.nice_pct"
raise = { above = 15 }
raise_for = "1s"
clear = { below = 5 }
clear_for = "1s"

[[rule]]
id = "memory-full"
name = "Memory full"
severity = "critical"
priority = "P1"
kind = "threshold"
metric = "mem.used_pct"
raise = { above = 98.5 }
clear = { below = 90 }

[[rule]]
id = "service-down"
name = "Service down"
severity = "critical"
priority = "P1"
kind = "service_state"

[[rule]]
id = "log-match"
name = "Log match"
severity = "warning"
priority = "P3"
kind = "log_count"
window = "10s"
clear_for = "10s"

[[rule]]
id = "host-silent"
name = "Host silent"
severity = "critical"
priority = "P1"
kind = "silent"

[[rule]]
id = "unexpected-reboot"
name = "Unexpected reboot"
severity = "warning"
priority = "P3"
kind = "unexpected_reboot"
clear_after = "10s"

[[rule]]
id = "cloned-identity"
name = "Duplicate agent identity"
severity = "critical"
priority = "P2"
kind = "cloned_identity"

[[rule]]
id = "clock-skew"
name = "Clock skew"
severity = "warning"
priority = "P4"
kind = "clock_skew"
above = "30s"
clear_below = "10s"
"#;

/// What a test wants of its collector.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between two heartbeats of an agent, milliseconds.
    pub interval_ms: u32,
    /// A host is silent after this, milliseconds.
    pub silence_after_ms: u32,
    /// Nobody is called silent this soon after the start, milliseconds.
    pub grace_ms: u32,
    /// Services that agents watch.
    pub services: Vec<ServiceCheck>,
    /// Logs that agents follow.
    pub logs: Vec<LogCheck>,
    /// The rule pack; the collector's own default where there is none.
    pub rules: Option<String>,
    /// Validity of agents' certificates, seconds.
    pub certificate_s: u32,
    /// Batches that may wait for a decision.
    pub queue_batches: u32,
    /// Over this time agents renew when the CA is replaced, seconds.
    pub renew_within_s: u32,
    /// Enrolments from one address, a second and at once.
    pub enrolments: (u32, u32),
}

impl Settings {
    /// The settings of a collector that is given none.
    pub fn product_defaults() -> Self {
        Self {
            interval_ms: limits::DEFAULT_INTERVAL_MS,
            silence_after_ms: 25_000,
            grace_ms: 60_000,
            rules: None,
            ..Self::default()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval_ms: 500,
            silence_after_ms: 3_000,
            grace_ms: 5_000,
            services: Vec::new(),
            logs: Vec::new(),
            rules: Some(QUICK_RULES.to_owned()),
            certificate_s: 24 * 3_600,
            queue_batches: 4_096,
            renew_within_s: 1,
            // A test's fleet comes from one address.
            enrolments: (10_000, 10_000),
        }
    }
}
