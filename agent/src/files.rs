//! Small files written whole: a reader sees the old content or the new, never a mixture.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::platform;

/// Whether a write must have reached the disk when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut.
    Synced,
    /// It survives a crash of the process, and a power cut perhaps.
    Cached,
}

/// Makes `dir` and its parents, readable by the owner alone. An existing directory is left as it is.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    platform::make_private_dir(dir)
}

/// Writes `bytes` to `path` by way of a temporary file and a rename, mode 0600.
pub fn write_atomically(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let temporary = temporary_path(path);
    let written =
        write_new(&temporary, bytes, durability).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // On a full disk its bytes are needed for something better.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    if durability == Durability::Synced {
        sync_parent(path)?;
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let mut file = platform::private_file()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(bytes)?;
    match durability {
        Durability::Synced => file.sync_all(),
        Durability::Cached => Ok(()),
    }
}

/// Writes `value` as JSON, as [`write_atomically`] does.
pub fn write_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> io::Result<()> {
    write_atomically(path, &serde_json::to_vec_pretty(value)?, durability)
}

/// Reads JSON; `None` if there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a file of `/proc`. Such files say that they are empty, which makes the standard library
/// read them in many small pieces; this takes two system calls for most.
pub fn read_virtual(path: &str) -> io::Result<String> {
    const ROOM_BYTES: usize = 4 << 10;
    let mut file = File::open(path)?;
    let mut buffer = vec![0; ROOM_BYTES];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(filled * 2, 0);
        }
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    buffer.truncate(filled);
    // Names of processes and mount points may hold any bytes.
    Ok(String::from_utf8(buffer)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Makes a new or renamed entry of the parent directory survive a power cut.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => platform::sync_dir(parent),
        _ => Ok(()),
    }
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}
