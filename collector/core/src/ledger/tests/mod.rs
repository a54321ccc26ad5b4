//! Tests of the ledger as a whole: stories with a known answer, and properties that hold for any
//! evidence.

mod edges;
mod kit;
mod months;
mod properties;
mod reboots;
mod simulation;
mod stories;
mod truth;
