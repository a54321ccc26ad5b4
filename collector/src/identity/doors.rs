//! The TLS settings of both ports, made anew whenever the CAs change. Connections that are open keep
//! what they have; their requests are checked against the CAs of the moment.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{Authority, Cas, TlsError, tls};
use crate::clock::Clock;

/// The server's certificate is made anew after this, far before its end.
const ANEW_AFTER: DurationMs = DurationMs::from_hours(100 * 24);

/// What a port needs to know.
#[derive(Debug)]
pub struct DoorNames {
    /// Names in the certificate of the agents' port.
    pub agents: Vec<String>,
    /// Names in the certificate of the web port.
    pub web: Vec<String>,
    /// A certificate chain and key of the operator's for the web port.
    pub web_files: Option<(PathBuf, PathBuf)>,
}

/// TLS settings that can be replaced while a port is served.
pub type Swappable = Arc<ArcSwap<ServerConfig>>;

/// The TLS settings of both ports.
#[derive(Debug)]
pub struct Doors {
    authority: Arc<Authority>,
    names: DoorNames,
    clock: Clock,
    /// For which CAs the settings were made, and when.
    made: Mutex<(Arc<Cas>, UnixMillis)>,
    agents: Swappable,
    web: Swappable,
}

impl Doors {
    /// Makes the settings.
    pub fn new(
        authority: Arc<Authority>,
        names: DoorNames,
        clock: Clock,
    ) -> Result<Self, TlsError> {
        let cas = authority.current();
        let (agents, web) = make(&cas, &names, &clock)?;
        Ok(Self {
            authority,
            names,
            made: Mutex::new((cas, clock.now())),
            clock,
            agents: Arc::new(ArcSwap::new(agents)),
            web: Arc::new(ArcSwap::new(web)),
        })
    }

    /// The settings of the agents' port.
    pub fn agents(&self) -> Swappable {
        Arc::clone(&self.agents)
    }

    /// The settings of the web port.
    pub fn web(&self) -> Swappable {
        Arc::clone(&self.web)
    }

    /// Reads the CAs again and makes new settings if they changed or the server's certificate grew
    /// old. After an error everything stays as it is.
    pub fn follow(&self) -> Result<(), TlsError> {
        let now = self.clock.now();
        let cas = self.authority.refresh()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = !Arc::ptr_eq(&made.0, &cas);
        if !changed && now.since(made.1) < ANEW_AFTER {
            return Ok(());
        }
        let (agents, web) = make(&cas, &self.names, &self.clock)?;
        // New settings have new ticket keys: no session is resumed past a CA that was dropped.
        self.agents.store(agents);
        self.web.store(web);
        if changed {
            tracing::info!(
                phase = cas.rotation().phase(),
                "certificate authorities changed: {} signs now",
                cas.signs().id()
            );
        }
        *made = (cas, now);
        Ok(())
    }
}

fn make(
    cas: &Cas,
    names: &DoorNames,
    clock: &Clock,
) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), TlsError> {
    let files = names.web_files.as_ref();
    let files = files.map(|(chain, key)| (chain.as_path(), key.as_path()));
    Ok((
        tls::agent_server(cas, &names.agents, clock)?,
        tls::web_server(cas, files, &names.web, clock.now())?,
    ))
}
