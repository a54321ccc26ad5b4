//! The list of acknowledged heartbeats, one `host instance seq` a line, to be compared with the
//! store: every line must be there, once.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, Result};
use watchkeep_shared::{HostId, InstanceId};

/// One acknowledged heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acknowledged {
    /// Whose.
    pub host: HostId,
    /// Of which agent process.
    pub instance: InstanceId,
    /// Which one.
    pub seq: u64,
}

/// Writes the list.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

impl Journal {
    /// Starts a new list.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("can't write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(BufWriter::new(file)),
        })
    }

    /// Adds a line.
    pub fn add(&self, line: Acknowledged) -> Result<()> {
        let Acknowledged {
            host,
            instance,
            seq,
        } = line;
        let mut file = self.file.lock().expect("no holder panics");
        writeln!(file, "{host} {instance} {seq}")
            .with_context(|| format!("can't write {}", self.path.display()))
    }

    /// Writes what is buffered.
    pub fn flush(&self) -> Result<()> {
        let mut file = self.file.lock().expect("no holder panics");
        file.flush()
            .with_context(|| format!("can't write {}", self.path.display()))
    }

    /// Reads a list.
    pub fn read(path: &Path) -> Result<HashSet<Acknowledged>> {
        let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
        BufReader::new(file)
            .lines()
            .map(|line| parse(&line?))
            .collect()
    }
}

fn parse(line: &str) -> Result<Acknowledged> {
    let mut parts = line.split(' ');
    let mut next = || parts.next().context("a journal line has three parts");
    Ok(Acknowledged {
        host: next()?.parse()?,
        instance: next()?.parse()?,
        seq: next()?.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use watchkeep_shared::ids::random_uuid;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::create(&path).unwrap();
        let line = Acknowledged {
            host: random_uuid().into(),
            instance: random_uuid().into(),
            seq: 42,
        };
        journal.add(line).unwrap();
        journal.flush().unwrap();
        assert_eq!(Journal::read(&path).unwrap(), HashSet::from([line]));
    }

    #[test]
    fn a_cut_line_is_an_error() {
        assert!(parse("6f0d3f2e-0000-4000-8000-000000000000 7").is_err());
    }
}
