//! End-to-end tests: the real programs on both databases, and the faults that they must survive.
//! They need the programs built (`cargo build --workspace --bins`) and a PostgreSQL server (see
//! `watchkeep_tests::harness::database`); tests/run.sh provides both.

mod architecture;
mod bad_input;
mod clocks;
mod clones;
mod crash;
mod flood;
mod held_up;
mod log_flood;
mod network;
mod policy;
mod rotation;
mod story;
mod verdicts;

use watchkeep_tests::views;
