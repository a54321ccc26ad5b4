//! The handlers in process.
