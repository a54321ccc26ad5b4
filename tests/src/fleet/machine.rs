//! A simulated machine: about 60 metrics under the agent's own names, each with a plausible shape
//! (constants, slow walks, noisy rates), three services, and now and then a log match.

use std::ops::RangeInclusive;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use watchkeep_shared::{
    InstanceId,
    ids::random_uuid,
    metric::{round_to_hundredth, schema_id},
    wire::heartbeat::{Clocks, Event, Frame, Schema, Service, ServiceStatus},
};

/// The complete list of services goes out with every so many frames.
const SERVICES_EVERY: u64 = 30;
/// Mount points; a machine has two to four of them.
const MOUNTS: [&str; 4] = ["/", "/var", "/home", "/srv/data"];
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// One simulated machine with one agent process.
#[derive(Debug)]
pub struct Machine {
    random: SmallRng,
    gauges: Vec<Gauge>,
    schema: Schema,
    instance: InstanceId,
    next_seq: u64,
    /// Log matches in a thousand frames.
    log_matches_per_1000: u32,
}

/// How one metric moves.
#[derive(Clone, Debug)]
enum Shape {
    /// Never.
    Constant,
    /// A walk between bounds, at most `step` at a time.
    Walk {
        range: RangeInclusive<f64>,
        step: f64,
    },
    /// A rate around a mean, as disk and network traffic are: mostly small, sometimes large.
    Rate { mean: f64 },
    /// Nearly always zero (errors, drops).
    Rare,
    /// Seconds since boot.
    Uptime,
}

#[derive(Clone, Debug)]
struct Gauge {
    value: f64,
    shape: Shape,
}

/// A metric value to be forced, to break a rule at a known time.
#[derive(Clone, Debug, PartialEq)]
pub struct Forced {
    /// The metric.
    pub metric: String,
    /// Its value.
    pub value: f64,
}

impl Machine {
    /// The machine number `n` of a fleet. The same seed and number give the same machine.
    pub fn new(n: usize, seed: u64, log_matches_per_1000: u32) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ (n as u64).wrapping_mul(0x9E37_79B9));
        let mounts = &MOUNTS[..2 + n % 3];
        let (names, gauges): (Vec<_>, Vec<_>) = layout(mounts, &mut random).into_iter().unzip();
        Self {
            schema: Schema {
                id: schema_id(&names),
                names,
            },
            gauges,
            random,
            instance: InstanceId(random_uuid()),
            next_seq: 1,
            log_matches_per_1000,
        }
    }

    /// The names behind the values of [`Machine::beat`].
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The agent process.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The next frame, made when the machine's clocks read `clocks`.
    pub fn beat(&mut self, clocks: Clocks, interval_ms: u32, forced: Option<&Forced>) -> Frame {
        let seq = self.next_seq;
        self.next_seq += 1;
        for gauge in &mut self.gauges {
            gauge.advance(clocks, &mut self.random);
        }
        let mut values: Vec<_> = self
            .gauges
            .iter()
            .map(|gauge| Some(round_to_hundredth(gauge.value)))
            .collect();
        if let Some(forced) = forced
            && let Some(at) = self.schema.names.iter().position(|n| *n == forced.metric)
        {
            values[at] = Some(forced.value);
        }
        let services = (seq % SERVICES_EVERY == 1).then(services);
        Frame {
            boot: None,
            instance: None,
            seq,
            clocks,
            interval_ms,
            schema: self.schema.id,
            values,
            services,
            events: self.events(seq),
        }
    }

    fn events(&mut self, seq: u64) -> Vec<Event> {
        let mut events = Vec::new();
        if seq == 1 {
            events.push(Event::AgentStarted {
                clean_stop: None,
                previous_boot: None,
            });
        }
        if self.random.random_range(0..1_000) < self.log_matches_per_1000 {
            let request = self.random.random_range(1_000..9_999);
            events.push(Event::LogMatch {
                rule: "errors".to_owned(),
                path: "/var/log/app.log".to_owned(),
                count: 1,
                lines: vec![format!(
                    "error: request {request} failed: connection refused"
                )],
            });
        }
        events
    }
}

impl Gauge {
    fn advance(&mut self, clocks: Clocks, random: &mut SmallRng) {
        match &self.shape {
            Shape::Constant => {}
            Shape::Walk { range, step } => {
                let next = self.value + random.random_range(-step..=*step);
                self.value = next.clamp(*range.start(), *range.end());
            }
            Shape::Rate { mean } => {
                // The cube of a uniform number: a median of an eighth of the peak.
                let uniform: f64 = random.random_range(0.0..1.0);
                self.value = mean * 4.0 * uniform.powi(3);
            }
            Shape::Rare => {
                self.value = if random.random_bool(0.002) { 0.1 } else { 0.0 };
            }
            Shape::Uptime => self.value = clocks.boot_ms as f64 / 1_000.0,
        }
    }
}

fn services() -> Vec<Service> {
    let running = |key: &str, detail: &str| Service {
        key: key.to_owned(),
        status: ServiceStatus::Running,
        detail: Some(detail.to_owned()),
    };
    vec![
        running("process:sshd", "2 processes"),
        running("process:postgres", "9 processes"),
        running("tcp:127.0.0.1:5432", "connected"),
    ]
}

/// Names and first values, in the order in which the agent sends them.
fn layout(mounts: &[&str], random: &mut SmallRng) -> Vec<(String, Gauge)> {
    let mut list = Vec::new();
    let busy = random.random_range(2.0..25.0);
    processor(&mut list, busy);
    memory(&mut list, random.random_range(0.3..0.8));
    for mount in mounts {
        disk(&mut list, mount, random.random_range(0.1..0.75));
    }
    traffic(&mut list);
    constant(&mut list, "system.uptime_s", 0.0);
    if let Some((_, gauge)) = list.last_mut() {
        gauge.shape = Shape::Uptime;
    }
    walk(&mut list, "system.processes", 210.0, 150.0..=300.0, 3.0);
    walk(
        &mut list,
        "system.fds_used",
        2_400.0,
        2_000.0..=4_000.0,
        40.0,
    );
    walk(&mut list, "agent.rss_bytes", 9.5e6, 9.0e6..=1.0e7, 4_096.0);
    rate(&mut list, "agent.cpu_pct", 0.02);
    constant(&mut list, "agent.spool_frames", 0.0);
    list
}

type Layout = Vec<(String, Gauge)>;

fn processor(list: &mut Layout, busy: f64) {
    walk(list, "cpu.busy_pct", busy, 0.0..=60.0, 2.5);
    walk(list, "cpu.user_pct", busy * 0.7, 0.0..=60.0, 2.0);
    walk(list, "cpu.system_pct", busy * 0.3, 0.0..=30.0, 1.0);
    constant(list, "cpu.nice_pct", 0.0);
    rate(list, "cpu.iowait_pct", 0.4);
    rate(list, "cpu.irq_pct", 0.1);
    constant(list, "cpu.steal_pct", 0.0);
    constant(list, "cpu.count", 4.0);
    walk(list, "load.1m", busy / 25.0, 0.0..=4.0, 0.1);
    walk(list, "load.5m", busy / 25.0, 0.0..=4.0, 0.03);
    walk(list, "load.15m", busy / 25.0, 0.0..=4.0, 0.01);
    walk(list, "load.5m_per_cpu", busy / 100.0, 0.0..=1.0, 0.01);
    rate(list, "psi.cpu_some_pct", 0.3);
    constant(list, "psi.memory_some_pct", 0.0);
    constant(list, "psi.memory_full_pct", 0.0);
    rate(list, "psi.io_some_pct", 0.2);
    rate(list, "psi.io_full_pct", 0.1);
}

fn memory(list: &mut Layout, used: f64) {
    let total = 8.0 * GIB;
    constant(list, "mem.total_bytes", total);
    pages(list, "mem.used_bytes", total * used);
    pages(list, "mem.available_bytes", total * (1.0 - used));
    walk(list, "mem.used_pct", used * 100.0, 5.0..=85.0, 0.3);
    pages(list, "mem.cached_bytes", total * 0.2);
    pages(list, "mem.buffers_bytes", total * 0.02);
    constant(list, "swap.total_bytes", 2.0 * GIB);
    constant(list, "swap.used_bytes", 0.0);
    constant(list, "swap.used_pct", 0.0);
}

fn disk(list: &mut Layout, mount: &str, used: f64) {
    let total = 40.0 * GIB;
    constant(list, &format!("disk.total_bytes:{mount}"), total);
    pages(list, &format!("disk.used_bytes:{mount}"), total * used);
    walk(
        list,
        &format!("disk.used_pct:{mount}"),
        used * 100.0,
        1.0..=80.0,
        0.01,
    );
    walk(
        list,
        &format!("disk.inodes_used_pct:{mount}"),
        used * 30.0,
        0.5..=50.0,
        0.01,
    );
    constant(list, &format!("disk.readonly:{mount}"), 0.0);
}

fn traffic(list: &mut Layout) {
    rate(list, "diskio.read_bytes_per_s:sda", 40_000.0);
    rate(list, "diskio.write_bytes_per_s:sda", 220_000.0);
    rate(list, "diskio.reads_per_s:sda", 3.0);
    rate(list, "diskio.writes_per_s:sda", 18.0);
    rate(list, "diskio.busy_pct:sda", 1.5);
    rate(list, "net.rx_bytes_per_s:eth0", 90_000.0);
    rate(list, "net.tx_bytes_per_s:eth0", 60_000.0);
    rate(list, "net.rx_packets_per_s:eth0", 120.0);
    rate(list, "net.tx_packets_per_s:eth0", 100.0);
    for metric in ["rx_errors", "tx_errors", "rx_drops", "tx_drops"] {
        push(list, &format!("net.{metric}_per_s:eth0"), 0.0, Shape::Rare);
    }
}

fn push(list: &mut Layout, name: &str, value: f64, shape: Shape) {
    list.push((name.to_owned(), Gauge { value, shape }));
}

fn constant(list: &mut Layout, name: &str, value: f64) {
    push(list, name, value, Shape::Constant);
}

fn rate(list: &mut Layout, name: &str, mean: f64) {
    push(list, name, mean, Shape::Rate { mean });
}

fn walk(list: &mut Layout, name: &str, value: f64, range: RangeInclusive<f64>, step: f64) {
    push(list, name, value, Shape::Walk { range, step });
}

/// A number of bytes that moves by some pages at a time.
fn pages(list: &mut Layout, name: &str, value: f64) {
    walk(list, name, value.round(), value * 0.8..=value * 1.2, 2.0e6);
}

#[cfg(test)]
mod tests {
    use watchkeep_shared::{metric::is_valid_name, wire::codec::Encoder};

    use super::*;

    #[test]
    fn machines_have_about_sixty_metrics_under_valid_and_distinct_names() {
        for n in 0..3 {
            let machine = Machine::new(n, 1, 0);
            let names = &machine.schema().names;
            assert!((55..=70).contains(&names.len()), "{}", names.len());
            assert!(names.iter().all(|name| is_valid_name(name)));
            let distinct: std::collections::BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len());
        }
    }

    #[test]
    fn frames_count_up_and_carry_a_value_for_each_name() {
        let mut machine = Machine::new(1, 1, 5);
        for seq in 1..=100 {
            let frame = machine.beat(Clocks::default(), 10_000, None);
            assert_eq!(frame.seq, seq);
            assert_eq!(frame.values.len(), machine.schema().names.len());
            assert_eq!(frame.services.is_some(), seq % SERVICES_EVERY == 1);
        }
    }

    #[test]
    fn a_forced_value_is_the_one_that_is_sent() {
        let mut machine = Machine::new(1, 1, 0);
        let forced = Forced {
            metric: "cpu.busy_pct".to_owned(),
            value: 99.5,
        };
        let frame = machine.beat(Clocks::default(), 10_000, Some(&forced));
        assert_eq!(frame.values[0], Some(99.5));
        let frame = machine.beat(Clocks::default(), 10_000, None);
        assert!(frame.values[0] < Some(61.0));
    }

    #[test]
    fn a_frame_compresses_like_a_real_one() {
        let mut machine = Machine::new(1, 1, 0);
        let mut encoder = Encoder::new().unwrap();
        machine.beat(Clocks::default(), 10_000, None);
        let frame = machine.beat(Clocks::default(), 10_000, None);
        let bytes = encoder.encode(&frame).unwrap().len();
        assert!((250..700).contains(&bytes), "{bytes}");
    }
}
