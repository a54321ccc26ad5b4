//! The TLS settings of both ports, replaced while the ports are served: when the CAs change, when the
//! server's own certificate grows old, and when the operator's certificate files change (an ACME
//! client renews them every few weeks). Open connections keep what they have; their requests are
//! checked against the CAs of the moment.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use sha2::{Digest as _, Sha256};
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{Authority, Cas, TlsError, tls};
use crate::clock::Clock;

/// The server's own certificate is replaced after this, far before its end.
const REPLACE_AFTER: DurationMs = DurationMs::from_hours(100 * 24);

/// What the settings are made from.
#[derive(Debug)]
pub struct PortNames {
    /// Names in the certificate of the agents' port.
    pub agents: Vec<String>,
    /// Names in the certificate of the web port.
    pub web: Vec<String>,
    /// A certificate chain and key of the operator's for the web port.
    pub web_files: Option<(PathBuf, PathBuf)>,
    /// The web port accepts TLS 1.2, too.
    pub web_tls12: bool,
}

/// TLS settings that can be replaced while a port is served.
pub type SharedTls = Arc<ArcSwap<ServerConfig>>;

/// The TLS settings of both ports.
#[derive(Debug)]
pub struct PortTls {
    authority: Arc<Authority>,
    names: PortNames,
    clock: Clock,
    made: Mutex<Made>,
    agents: SharedTls,
    web: SharedTls,
}

/// What the present settings were made from, and when.
#[derive(Debug)]
struct Made {
    cas: Arc<Cas>,
    at: UnixMillis,
    files_sha256: Option<Vec<u8>>,
}

impl PortTls {
    /// Makes the settings.
    pub fn new(
        authority: Arc<Authority>,
        names: PortNames,
        clock: Clock,
    ) -> Result<Self, TlsError> {
        let cas = authority.current();
        let files_sha256 = files_sha256(&names)?;
        let (agents, web) = make(&cas, &names, &clock)?;
        Ok(Self {
            authority,
            names,
            made: Mutex::new(Made {
                cas,
                at: clock.now(),
                files_sha256,
            }),
            clock,
            agents: Arc::new(ArcSwap::new(agents)),
            web: Arc::new(ArcSwap::new(web)),
        })
    }

    /// The settings of the agents' port.
    pub fn agents(&self) -> SharedTls {
        Arc::clone(&self.agents)
    }

    /// The settings of the web port.
    pub fn web(&self) -> SharedTls {
        Arc::clone(&self.web)
    }

    /// Reads the CAs and the operator's files again and makes new settings if they changed or the
    /// server's certificate grew old. After an error everything stays as it is: a certificate and
    /// a key that are being replaced one after the other fit together at the next call.
    pub fn refresh(&self) -> Result<(), TlsError> {
        let now = self.clock.now();
        let cas = self.authority.refresh()?;
        let files_sha256 = files_sha256(&self.names)?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let cas_changed = !Arc::ptr_eq(&made.cas, &cas);
        let files_changed = made.files_sha256 != files_sha256;
        if !cas_changed && !files_changed && now.since(made.at) < REPLACE_AFTER {
            return Ok(());
        }
        let (agents, web) = make(&cas, &self.names, &self.clock)?;
        // New settings have new ticket keys: no session is resumed past a CA that was dropped.
        self.agents.store(agents);
        self.web.store(web);
        if cas_changed {
            tracing::info!(
                phase = cas.rotation().phase(),
                "certificate authorities changed: {} signs now",
                cas.signs().id()
            );
        }
        if files_changed {
            tracing::info!("web.certificate changed: new connections get the new one");
        }
        *made = Made {
            cas,
            at: now,
            files_sha256,
        };
        Ok(())
    }
}

/// A digest of the operator's files, to notice that they changed.
fn files_sha256(names: &PortNames) -> Result<Option<Vec<u8>>, TlsError> {
    let Some((chain, key)) = &names.web_files else {
        return Ok(None);
    };
    let mut digest = Sha256::new();
    for path in [chain, key] {
        digest.update(tls::read(path)?.as_bytes());
    }
    Ok(Some(digest.finalize().to_vec()))
}

fn make(
    cas: &Cas,
    names: &PortNames,
    clock: &Clock,
) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), TlsError> {
    let files = names.web_files.as_ref();
    let files: Option<(&Path, &Path)> = files.map(|(chain, key)| (chain.as_path(), key.as_path()));
    let web = tls::WebTls {
        files,
        names: &names.web,
        tls12: names.web_tls12,
    };
    Ok((
        tls::agent_server(cas, &names.agents, clock)?,
        tls::web_server(cas, &web, clock.now())?,
    ))
}
