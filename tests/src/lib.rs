//! What the end-to-end tests and the load tests stand on: [`fleet`], simulated agents over real
//! TLS connections, [`harness`], which starts the real programs and looks at what they did, and
//! [`mod@bench`], the standard set of measurements.
//!
//! Nothing here is shipped. Both parts talk to the programs only as their users do: the command
//! line, the agent protocol, and read-only queries on the store. [`mod@seed`] alone writes to a store, while
//! nothing uses it: years of history can't be sent in minutes.

pub mod bench;
pub mod clock;
pub mod fleet;
pub mod flood;
pub mod harness;
pub mod held_up;
pub mod loopback;
pub mod seed;
pub mod store;
pub mod views;

/// A token that nobody cancels: for runs that end by themselves.
pub fn never() -> tokio_util::sync::CancellationToken {
    tokio_util::sync::CancellationToken::new()
}
