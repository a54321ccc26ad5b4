//! End-to-end tests: the real programs on both databases, and the faults that they must survive.
//! They need the programs built (`cargo build --workspace --bins`) and a PostgreSQL server (see
//! `watchkeep_tests::harness::database`); tests/run.sh provides both.

mod architecture;
mod bad_input;
mod clocks;
mod clones;
mod crash;
mod flood;
#[expect(clippy::unwrap_used, reason = "a test that can't go on fails")]
#[path = "../../agent/tests/it/fuse.rs"]
mod fuse;
mod held_up;
mod hung;
mod log_flood;
mod network;
mod policy;
mod rotation;
mod story;
mod verdicts;

use watchkeep_tests::views;
