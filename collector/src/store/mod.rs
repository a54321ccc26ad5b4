//! The store: the only module that speaks SQL. One enum of two pools, each query written once and
//! run on either; it makes no decisions and offers atomic primitives.
//!
//! Writes on SQLite go through one connection, so a writer waits its turn instead of failing;
//! readers have their own small pool. A connection on which anything failed is closed, never used
//! again ([`tx`]); outages are logged here, once each ([`outage`]). A value that the types can't express is
//! [`StoreError::Corrupt`], with its table, column and row.

mod connect;
pub mod delivery;
pub mod descriptions;
mod dialect;
mod error;
pub mod faults;
pub mod fleet;
pub mod heartbeats;
pub mod history;
pub mod identity;
pub mod incidents;
pub mod leases;
mod outage;
pub mod outbox;
pub mod people;
pub mod policy;
mod postgres;
pub mod record;
pub mod retention;
mod row;
mod schema;
pub mod set_aside;
pub mod statements;
pub mod tickets;
mod tx;
pub mod views;

pub use connect::{IfMissing, Store, StoreUrl, StoreUrlError};
pub use error::{FailureKind, StoreError};
pub use outage::StoreOutage;
pub use schema::{BeforeMigration, SCHEMA_VERSION, Upgraded};
pub use tx::Tx;
