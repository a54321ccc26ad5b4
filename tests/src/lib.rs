//! What the end-to-end tests and the load tests stand on: [`fleet`], simulated agents over real
//! TLS connections, and [`harness`], which starts the real programs and looks at what they did.
//!
//! Nothing here is shipped. Both parts talk to the programs only as their users do: the command
//! line, the agent protocol, and read-only queries on the store.

pub mod clock;
pub mod fleet;
pub mod harness;
pub mod loopback;
pub mod store;
