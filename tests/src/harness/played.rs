//! Clocks that a test sets for one program, by libfaketime (package `libfaketime`). The machine's own
//! clocks are never touched.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Where Debian and its relatives have it, in a directory by the kind of machine.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// Which of a program's clocks are played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Played {
    /// The wall clock: someone sets it.
    Wall,
    /// All of them: the machine itself stands still. The monotonic ones then count from 1970.
    All,
}

/// How far a program's clocks are from the machine's.
#[derive(Debug)]
pub struct PlayedClock {
    file: PathBuf,
    library: PathBuf,
    played: Played,
}

impl PlayedClock {
    /// Clocks that are right, until [`PlayedClock::set`]. `dir` takes a file.
    pub fn new(dir: &Path, played: Played) -> Result<Self> {
        let clock = Self {
            file: dir.join("clock-offset"),
            library: library()?,
            played,
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// From now on the clocks are `offset_ms` ahead of the machine's, or behind.
    pub fn set(&self, offset_ms: i64) -> Result<()> {
        // The program reads it at any time, and must never see half of it.
        let new = self.file.with_extension("new");
        let (sign, size) = (if offset_ms < 0 { '-' } else { '+' }, offset_ms.abs());
        std::fs::write(
            &new,
            format!("{sign}{}.{:03}\n", size / 1_000, size % 1_000),
        )?;
        std::fs::rename(&new, &self.file)?;
        Ok(())
    }

    /// What the program must find in its environment.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut variables: Vec<(&'static str, OsString)> = vec![
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            // Times of files are the machine's.
            ("NO_FAKE_STAT", "1".into()),
        ];
        if self.played == Played::Wall {
            variables.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()));
        }
        variables
    }
}

fn library() -> Result<PathBuf> {
    let mut directories: Vec<PathBuf> = ["/usr/lib", "/usr/lib64"].map(PathBuf::from).into();
    for entry in std::fs::read_dir("/usr/lib")? {
        directories.push(entry?.path());
    }
    directories
        .into_iter()
        .map(|dir| dir.join(LIBRARY))
        .find(|path| path.is_file())
        .context("libfaketime is missing: install the package libfaketime, or use tests/run.sh")
}
