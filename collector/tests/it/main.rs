//! The store and what is built directly on it, on both databases: each story is written once and run
//! on SQLite and on PostgreSQL.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on has failed"
)]

mod corrupt;
mod delivery;
mod faults;
mod history;
mod isolation;
mod leases;
mod ledger;
mod limits;
mod order;
mod outbox;
mod pipeline;
mod plans;
mod prepared;
mod renewals;
mod retention;
mod rotation;
mod scenario;
mod schema;
mod support;
mod swallowed;
mod tickets;
mod upgrade;
mod web;
