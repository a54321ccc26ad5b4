//! What a run of the fleet does, within limits that keep it a test on one machine.

use std::{path::PathBuf, time::Duration};

use watchkeep_shared::wire::limits::{MAX_INTERVAL_MS, MIN_INTERVAL_MS};

use super::{machine::Forced, tls::Resume};

/// Most agents; two descriptors each stay below the usual hard limit of 20,000.
pub const MAX_AGENTS: usize = 10_000;
/// Longest run.
pub const MAX_DURATION: Duration = Duration::from_hours(1);
/// Shortest time between two heartbeats of one agent. Shorter than any policy may ask for, so that
/// few agents can make much load.
pub const MIN_PACE: Duration = Duration::from_millis(10);
/// Most frames of the past that each agent sends before the run.
pub const MAX_PREFILL_FRAMES: u32 = 2_000;

/// How often each agent beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Once in this time.
    Every(Duration),
    /// Again as soon as the heartbeat before is acknowledged.
    AsFastAsAcknowledged,
}

/// What happens to the fleet during the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// All agents from the start, spread evenly over the interval.
    Steady,
    /// Agents join one by one over the first half.
    Ramp,
    /// Half-way all connections are dropped and made again at once.
    Storm,
    /// Half-way every other agent falls silent and keeps its connection open.
    HalfDead,
}

/// Agents that break a rule at a known time.
#[derive(Clone, Debug, PartialEq)]
pub struct Breach {
    /// How many agents, the first ones of the fleet.
    pub agents: usize,
    /// What they report from then on.
    pub forced: Forced,
    /// When, after the start.
    pub after: Duration,
}

/// One run. [`Options::new`] gives a plain steady one.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often each agent beats.
    pub pace: Pace,
    /// How long the fleet beats.
    pub duration: Duration,
    /// What happens meanwhile.
    pub mode: Mode,
    /// Reconnects of a storm are spread over this time.
    pub jitter: Duration,
    /// Agents that break a rule.
    pub breach: Option<Breach>,
    /// Where to write a line for each acknowledged heartbeat.
    pub journal: Option<PathBuf>,
    /// Whether agents say goodbye at the end.
    pub goodbye: bool,
    /// How long, after the end, agents continue to send what they still owe.
    pub drain: Duration,
    /// Frames of the past that each agent sends as a backlog before the run.
    pub prefill_frames: u32,
    /// Log matches in a thousand frames.
    pub log_matches_per_1000: u32,
    /// Whether TLS sessions are resumed.
    pub resume: Resume,
    /// Longest wait between attempts to reach a collector that does not answer.
    pub backoff_max: Duration,
    /// Same seed, same machines.
    pub seed: u64,
}

/// A wish outside the limits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{option} is {given}: {allowed}")]
pub struct OutOfBounds {
    option: &'static str,
    given: String,
    allowed: String,
}

impl Options {
    /// A steady run of `duration` at `pace`, which is drained at its end.
    pub fn new(pace: Pace, duration: Duration) -> Self {
        Self {
            pace,
            duration,
            mode: Mode::Steady,
            jitter: Duration::ZERO,
            breach: None,
            journal: None,
            goodbye: false,
            drain: Duration::from_secs(30),
            prefill_frames: 0,
            log_matches_per_1000: 5,
            resume: Resume::Never,
            backoff_max: Duration::from_secs(2),
            seed: 1,
        }
    }

    /// Whether a run with `agents` agents is within the limits.
    pub fn check(&self, agents: usize) -> Result<(), OutOfBounds> {
        bounds(
            "--agents",
            agents,
            (1..=MAX_AGENTS).contains(&agents),
            || format!("1 to {MAX_AGENTS} agents are possible"),
        )?;
        let seconds = self.duration.as_secs();
        bounds(
            "--duration-s",
            seconds,
            self.duration <= MAX_DURATION,
            || format!("a run takes at most {} s", MAX_DURATION.as_secs()),
        )?;
        if let Pace::Every(interval) = self.pace {
            let longest = Duration::from_millis(MAX_INTERVAL_MS.into());
            let ok = (MIN_PACE..=longest).contains(&interval);
            bounds(
                "the interval of one agent",
                format!("{interval:?}"),
                ok,
                || {
                    format!(
                        "{MIN_PACE:?} to {longest:?} are possible; for more load take more agents or --rate max"
                    )
                },
            )?;
        }
        let prefill = self.prefill_frames;
        bounds("--prefill", prefill, prefill <= MAX_PREFILL_FRAMES, || {
            format!("at most {MAX_PREFILL_FRAMES} frames each")
        })?;
        let breaching = self.breach.as_ref().map_or(0, |breach| breach.agents);
        bounds("--breach", breaching, breaching <= agents, || {
            format!("there are {agents} agents")
        })
    }

    /// The interval that frames state, milliseconds: the pace, within what the protocol allows.
    pub fn stated_interval_ms(&self) -> u32 {
        let pace = match self.pace {
            Pace::Every(interval) => interval.as_millis() as u32,
            Pace::AsFastAsAcknowledged => 1_000,
        };
        pace.clamp(MIN_INTERVAL_MS, MAX_INTERVAL_MS)
    }
}

fn bounds(
    option: &'static str,
    given: impl std::fmt::Display,
    ok: bool,
    allowed: impl FnOnce() -> String,
) -> Result<(), OutOfBounds> {
    if ok {
        return Ok(());
    }
    Err(OutOfBounds {
        option,
        given: format!("{given}"),
        allowed: allowed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(interval_ms: u64) -> Options {
        let pace = Pace::Every(Duration::from_millis(interval_ms));
        Options::new(pace, Duration::from_secs(1))
    }

    #[test]
    fn runs_are_bounded() {
        assert_eq!(steady(1_000).check(10_000), Ok(()));
        assert!(steady(1_000).check(10_001).is_err());
        assert!(steady(1_000).check(0).is_err());
        assert!(steady(9).check(1).is_err());
        assert!(steady(600_001).check(1).is_err());
        let mut long = steady(1_000);
        long.duration = MAX_DURATION + Duration::from_secs(1);
        let message = long.check(1).unwrap_err().to_string();
        assert_eq!(message, "--duration-s is 3601: a run takes at most 3600 s");
    }

    #[test]
    fn no_more_agents_breach_than_there_are() {
        let mut options = steady(1_000);
        options.breach = Some(Breach {
            agents: 3,
            forced: Forced {
                metric: "cpu.busy_pct".to_owned(),
                value: 99.0,
            },
            after: Duration::ZERO,
        });
        assert!(options.check(2).is_err());
        assert_eq!(options.check(3), Ok(()));
    }

    #[test]
    fn stated_intervals_are_what_the_protocol_allows() {
        assert_eq!(steady(10).stated_interval_ms(), MIN_INTERVAL_MS);
        assert_eq!(steady(10_000).stated_interval_ms(), 10_000);
    }
}
