//! The real agent program against a collector played by the test: over real TLS, with answers that
//! a real collector would rarely give.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod agent;
mod authority;
mod disk;
mod fake;
mod hostile;
mod machine;
mod reload;
mod stories;
