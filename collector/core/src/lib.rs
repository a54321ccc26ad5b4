//! Watchkeep's decisions. Everything here is a pure function of values and a given `now`: no I/O,
//! no clock, no async, no store. The collector's shell reads what is needed, calls these functions,
//! and carries out the effects that they return.
//!
//! Modules, each using only those before it: [`ids`], [`duration`], [`timeline`] (the collector's clock), [`text`]
//! (text from agents), [`authority`] (replacing the CA), [`policy`]
//! (what a host is asked for), [`evidence`], [`host`] (frames to evidence), [`series`] (the history
//! codec), [`rules`], [`wording`] (the texts about checks), [`alerts`], [`tickets`], [`incidents`]
//! (storms), [`delivery`] (messages to people), [`ledger`]. [`search`] uses none of them.

pub mod alerts;
pub mod authority;
pub mod delivery;
pub mod duration;
pub mod evidence;
#[cfg(test)]
#[path = "../../../tests/fuzz/check.rs"]
mod fuzz_check;
pub mod host;
pub mod ids;
pub mod incidents;
pub mod ledger;
pub mod policy;
pub mod rules;
pub mod search;
pub mod series;
pub mod text;
pub mod tickets;
pub mod timeline;
pub mod wording;
