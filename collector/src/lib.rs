//! Watchkeep's collector. See ARCHITECTURE.md for the map; `app` for what the parts share.

pub mod app;
pub mod boot;
pub mod cli;
pub mod clock;
pub mod config;
pub mod fleet;
pub mod health;
pub mod hosts;
pub mod identity;
pub mod ids;
pub mod ingest;
mod limit;
mod links;
pub mod live;
pub mod notify;
pub mod own;
pub mod paging;
pub mod policies;
pub mod process;
mod repeat;
pub mod reports;
pub mod retention;
pub mod series;
pub mod server;
pub mod store;
pub mod tickets;
pub mod web;
