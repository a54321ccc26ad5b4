//! The agent's identity on disk: which host it is, where its collector is, and its key material.
//!
//! A renewal writes the new key and certificate beside the old ones and then renames both; a crash
//! between any two steps leaves a pair that belongs together, and [`Identity::load`] finds it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use watchkeep_shared::HostId;

use crate::{
    files::{self, Durability},
    tls::{self, MaterialError},
};

const IDENTITY: &str = "identity.json";
const CA: &str = "ca.pem";
const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";
const NEXT_CA: &str = "ca.next.pem";
const NEXT_CERT: &str = "cert.next.pem";
const NEXT_KEY: &str = "key.next.pem";

/// Why an identity can't be loaded or stored.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Never enrolled.
    #[error(
        "this machine is not enrolled: {dir} holds no identity; run `watchkeep-agent enroll TOKEN`"
    )]
    Missing {
        /// The state directory.
        dir: PathBuf,
    },
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files' content can't be used.
    #[error("the identity in {dir} can't be used: {source}; enroll again with `--force`")]
    Material {
        /// The state directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: MaterialError,
    },
}

/// What an agent needs to speak to its collector. `Debug` leaves the key out.
#[derive(Clone)]
pub struct Identity {
    /// Which host this is.
    pub host: HostId,
    /// Base URL of the collector's agent port, without a slash at the end.
    pub url: String,
    /// The CAs that are trusted, PEM; two while the collector replaces its own.
    pub ca_pem: String,
    /// The agent's certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("host", &self.host)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    host: HostId,
    url: String,
}

impl Identity {
    /// Whether `state_dir` holds an identity.
    pub fn exists(state_dir: &Path) -> bool {
        state_dir.join(IDENTITY).exists()
    }

    /// Writes a first identity. The file that makes it count is written last.
    pub fn store(&self, state_dir: &Path) -> Result<(), IdentityError> {
        let file = |source| IdentityError::File {
            path: state_dir.to_owned(),
            source,
        };
        files::make_private_dir(state_dir).map_err(file)?;
        for leftover in [NEXT_CA, NEXT_CERT, NEXT_KEY] {
            remove(&state_dir.join(leftover))?;
        }
        write(state_dir, KEY, self.key_pem.as_bytes())?;
        write(state_dir, CERT, self.cert_pem.as_bytes())?;
        write(state_dir, CA, self.ca_pem.as_bytes())?;
        let stored = IdentityFile {
            host: self.host,
            url: self.url.clone(),
        };
        files::write_json(&state_dir.join(IDENTITY), &stored, Durability::Synced).map_err(file)
    }

    /// Replaces key, certificate and CA after a renewal.
    pub fn store_renewed(&self, state_dir: &Path) -> Result<(), IdentityError> {
        write(state_dir, NEXT_KEY, self.key_pem.as_bytes())?;
        write(state_dir, NEXT_CA, self.ca_pem.as_bytes())?;
        // From here on `load` prefers the new pair.
        write(state_dir, NEXT_CERT, self.cert_pem.as_bytes())?;
        promote(state_dir)
    }

    /// Replaces the CAs that are trusted, in one step.
    pub fn store_ca(&self, state_dir: &Path) -> Result<(), IdentityError> {
        write(state_dir, CA, self.ca_pem.as_bytes())
    }

    /// Reads the identity, and completes a renewal that a crash cut short.
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(IDENTITY);
        let stored: IdentityFile = files::read_json(&path)
            .map_err(|source| IdentityError::File { path, source })?
            .ok_or_else(|| IdentityError::Missing {
                dir: state_dir.to_owned(),
            })?;
        if let Some(cert) = read_if_there(&state_dir.join(NEXT_CERT))? {
            let key = match read_if_there(&state_dir.join(NEXT_KEY))? {
                Some(key) => key,
                None => read(state_dir, KEY)?,
            };
            if tls::certified_key(&cert, &key).is_ok() {
                promote(state_dir)?;
            }
        }
        let identity = Self {
            host: stored.host,
            url: stored.url,
            ca_pem: read(state_dir, CA)?,
            cert_pem: read(state_dir, CERT)?,
            key_pem: read(state_dir, KEY)?,
        };
        tls::certified_key(&identity.cert_pem, &identity.key_pem)
            .and_then(|_| tls::certificates(&identity.ca_pem, "CA certificate"))
            .map_err(|source| IdentityError::Material {
                dir: state_dir.to_owned(),
                source,
            })?;
        Ok(identity)
    }

    /// The certificate's validity, milliseconds since the Unix epoch: not before, not after.
    pub fn validity_ms(&self) -> Option<(i64, i64)> {
        let chain = tls::certificates(&self.cert_pem, "agent's certificate").ok()?;
        let leaf: &CertificateDer<'_> = chain.first()?;
        let (from, to) = tls::validity(leaf)?;
        Some((from * 1_000, to * 1_000))
    }
}

/// Moves the renewed files into place; may be repeated.
fn promote(state_dir: &Path) -> Result<(), IdentityError> {
    // The certificate goes last: its presence says that there is something left to do.
    for (from, to) in [(NEXT_CA, CA), (NEXT_KEY, KEY), (NEXT_CERT, CERT)] {
        let (from, to) = (state_dir.join(from), state_dir.join(to));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(IdentityError::File { path: to, source }),
        }
    }
    files::sync_parent(&state_dir.join(CERT)).map_err(|source| IdentityError::File {
        path: state_dir.to_owned(),
        source,
    })
}

fn write(state_dir: &Path, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
    let path = state_dir.join(name);
    files::write_atomically(&path, bytes, Durability::Synced)
        .map_err(|source| IdentityError::File { path, source })
}

fn read(state_dir: &Path, name: &str) -> Result<String, IdentityError> {
    let path = state_dir.join(name);
    fs::read_to_string(&path).map_err(|source| IdentityError::File { path, source })
}

fn read_if_there(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

fn remove(path: &Path) -> Result<(), IdentityError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(IdentityError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
