//! The calls of Windows that the agent needs and no safe crate has: the Event Log, network and disk
//! counters, access lists. The only package of the workspace with unsafe code.
//!
//! It decides nothing: texts and numbers come out as Windows gives them, errors as its own. Each unsafe
//! block holds one call, with the reason why its pointers and lengths are right beside it.
//! Elsewhere than on Windows the package is empty.

#![cfg(windows)]

pub mod access;
pub mod counters;
pub mod event_log;

use std::io;

/// The text as Windows takes it: UTF-16 with a zero at the end. A text ends at a zero of its own.
fn wide(text: &str) -> Vec<u16> {
    let mut wide: Vec<u16> = text.encode_utf16().take_while(|unit| *unit != 0).collect();
    wide.push(0);
    wide
}

/// Why the last call of this thread failed. Some systems fail without a reason.
fn last_error() -> io::Error {
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(0) {
        return io::Error::other("Windows gave no reason");
    }
    error
}
