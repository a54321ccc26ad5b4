//! Starts the real programs.
