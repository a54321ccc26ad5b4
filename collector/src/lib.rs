//! Watchkeep.
