//! Scenarios: what happens to hosts, the collector and people, written down as a sequence on a
//! manual clock, played against the real pipeline and the real store, with channels that record.
//! What people would have noticed comes back as a log with times, kept as a snapshot:
//!
//! ```text
//! 00:00:25 ticket #1 P1 opened: web1: Host silent
//! 00:00:25 page mail tier 1: #1 opened
//! ```
//!
//! - [`world`]: the clock, the pipeline, the workers.
//! - [`operations`]: the verbs that scenarios use.
//! - [`machine`]: a simulated server with its agent; [`network`]: its line, if that is a bad one.
//! - [`log`]: reads the log from the store.
//! - [`invariants`]: what must hold after each step of any scenario.
//! - [`stories`]: written scenarios.
//! - `snapshots/`: the logs as they must be; `before/`: what some of them were when their fault was found.
//! - [`limits`]: a host at its limit of tickets.
//! - [`counts`]: all pages count alike, whatever happened.
//! - [`hostile`], [`beside`]: a host that could hurt others, and what they notice of it.
//! - [`day`]: a day of bad lines, stalls, clock steps, failing commits and restarts.
//! - [`storm`]: the whole fleet at once.
//! - [`random`]: drawn ones, shrunk when they break an invariant; each sequence that ever did is
//!   kept there as a plain test.

mod beside;
mod channels;
mod counts;
mod day;
mod delivery;
mod hostile;
mod invariants;
mod limits;
mod log;
mod machine;
mod network;
mod operations;
mod probe;
mod random;
mod stories;
mod storm;
mod world;

pub(crate) use probe::Probe;
pub(crate) use world::World;

/// Settings under which scenarios run: two channels, so that pages have somewhere to go.
pub(crate) const SETTINGS: &str = r#"
[mail]
host = "127.0.0.1"
port = 9
tls = "none"
from = "Watchkeep <watchkeep@example.org>"
to = ["on-call@example.org"]
"#;

/// Makes two tests of one scenario, one a database, that compare with the same snapshot. Settings of
/// their own come before the names, as in `SETTINGS; name, name`.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        crate::scenario::scenarios!(crate::scenario::SETTINGS; $($name),+);
    };
    ($settings:expr; $($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test]
            fn $name() {
                let kind = crate::support::Kind::Sqlite;
                crate::scenario::play(kind, $settings, stringify!($name), super::$name);
            })+
        }
        mod postgres {
            $(#[test]
            fn $name() {
                let kind = crate::support::Kind::Postgres;
                crate::scenario::play(kind, $settings, stringify!($name), super::$name);
            })+
        }
    };
}
pub(crate) use scenarios;

use std::io::Write as _;

use crate::support::{Kind, run_with};

/// Prints what was measured, for `tests/scenarios.sh`.
pub(crate) fn print_figures(text: &str) {
    let line = format!("{text}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Plays a scenario and compares its log with the snapshot of its name.
pub(crate) fn play<F: Future<Output = World>>(
    kind: Kind,
    settings: &str,
    name: &str,
    scenario: impl FnOnce(World) -> F,
) {
    run_with(kind, settings, async |bench| {
        let world = scenario(World::start(bench).await).await;
        let log = world.finish().await;
        insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, log);
        });
    });
}
