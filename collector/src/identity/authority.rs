//! The CAs of a data directory and what each is for now. The phases and what follows from them are in
//! [`watchkeep_core::authority`]; here are their files.
//!
//! `rotation.json` says which phase it is and names the files of each CA; it is replaced in one step,
//! after everything that it names is on disk. Without it there is one CA, `ca.pem`. A running
//! collector reads it again each second and before it signs anything ([`Authority::refresh`]).

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use watchkeep_core::authority::{HostTrust, Rotation};
use watchkeep_shared::{CaId, UnixMillis, wire::heartbeat::Ack};

use super::{
    Ca, CaError, PeerIdentity,
    ca::{self, FIRST, write},
};

const ROTATION: &str = "rotation.json";

/// The CAs, at one moment.
#[derive(Debug)]
pub struct Cas {
    rotation: Rotation<Arc<Ca>>,
    ids: Rotation<CaId>,
    since: UnixMillis,
    signing_since: UnixMillis,
    /// The file as it was read; empty if there was none.
    written: String,
}

/// `rotation.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    rotation: Rotation<String>,
    /// When the phase began.
    since_ms: UnixMillis,
    /// When the CA that signs began to.
    signing_since_ms: UnixMillis,
}

impl Cas {
    /// Reads the CAs of a directory.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        Self::from_text(dir, read_rotation(dir)?)
    }

    /// Makes the first CA, unless there is one, and reads them all.
    pub fn init(dir: &Path, now: UnixMillis) -> Result<Self, CaError> {
        if !dir.join(ROTATION).exists() {
            Ca::init(dir, now)?;
        }
        Self::open(dir)
    }

    fn from_text(dir: &Path, text: String) -> Result<Self, CaError> {
        let written = if text.is_empty() {
            Written {
                rotation: Rotation::Steady {
                    ca: FIRST.to_owned(),
                },
                since_ms: UnixMillis(0),
                signing_since_ms: UnixMillis(0),
            }
        } else {
            serde_json::from_str(&text)
                .map_err(|error| CaError::Parse(format!("{ROTATION} can't be read: {error}")))?
        };
        let rotation = written
            .rotation
            .try_map(|stem| Ca::open(dir, stem).map(Arc::new))?;
        Ok(Self {
            ids: rotation.try_map(|ca| Ok::<_, CaError>(ca.id()))?,
            rotation,
            since: written.since_ms,
            signing_since: written.signing_since_ms,
            written: text,
        })
    }

    /// Puts another phase in force, and removes the keys that it does not need any more.
    pub(super) fn put(
        dir: &Path,
        before: &Self,
        after: &Rotation<Arc<Ca>>,
        now: UnixMillis,
    ) -> Result<Self, CaError> {
        let same_signer = before.signs().id() == after.signs().id();
        let written = Written {
            rotation: after.try_map(|ca| Ok::<_, CaError>(ca.stem().to_owned()))?,
            since_ms: now,
            signing_since_ms: if same_signer {
                before.signing_since
            } else {
                now
            },
        };
        let text = serde_json::to_string_pretty(&written)
            .map_err(|error| CaError::Parse(error.to_string()))?;
        write(&dir.join(ROTATION), &text, 0o644)?;
        let kept = after.kept();
        for gone in before.rotation.kept() {
            if kept.iter().all(|ca| ca.id() != gone.id()) {
                remove(&dir.join(ca::key_file(gone.stem())))?;
                remove(&dir.join(ca::certificate_file(gone.stem())))?;
            }
        }
        Self::from_text(dir, text)
    }

    /// The phase, with the CAs.
    pub fn rotation(&self) -> &Rotation<Arc<Ca>> {
        &self.rotation
    }

    /// The phase, with the CAs' identifiers.
    pub fn ids(&self) -> &Rotation<CaId> {
        &self.ids
    }

    /// When the phase began; 0 before the first rotation.
    pub fn since(&self) -> UnixMillis {
        self.since
    }

    /// When the CA that signs began to; 0 for the first.
    pub fn signing_since(&self) -> UnixMillis {
        self.signing_since
    }

    /// The CA that signs agents' certificates and that new tokens name.
    pub fn signs(&self) -> &Arc<Ca> {
        self.rotation.signs()
    }

    /// What agents must trust, PEM.
    pub fn trust_pem(&self) -> String {
        self.rotation.trusted().iter().map(|ca| ca.pem()).collect()
    }

    /// The CA that signed a certificate, if it is one that counts now.
    pub fn issuer_of(&self, identity: &PeerIdentity) -> Option<CaId> {
        let trusted = self.rotation.trusted();
        let issuer = trusted.into_iter().find(|ca| ca.is_issuer_of(identity))?;
        Some(issuer.id())
    }

    /// A server certificate for `names`: its chain and key, PEM. The chain leads to every CA that is
    /// trusted now, and holds each of them, for agents that look for the one that a token names.
    pub fn server_certificate(
        &self,
        names: &[String],
        now: UnixMillis,
    ) -> Result<(String, String), CaError> {
        let serves = self.rotation.serves();
        let (mut chain, key) = serves.sign_server(names, now)?;
        chain.push_str(serves.pem());
        for other in self.rotation.trusted() {
            if other.id() != serves.id() {
                chain.push_str(&other.vouch_for(serves, now)?);
                chain.push_str(other.pem());
            }
        }
        Ok((chain, key))
    }

    /// Adds to an acknowledgement what a host must know: whom to trust, and that it needs another
    /// certificate.
    pub fn tell(&self, host: &HostTrust, renew_within_ms: u32, ack: &mut Ack) {
        if self.ids.must_learn(&host.trusts) {
            ack.ca_pem = Some(self.trust_pem());
        }
        if host.holds.is_some_and(|held| self.ids.must_renew(held)) {
            ack.renew_within_ms = Some(renew_within_ms);
        }
    }
}

/// The CAs of a running collector, which follow what the command line does to their files.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    cas: ArcSwap<Cas>,
}

impl Authority {
    /// Follows the CAs in `dir`, which are `cas` now.
    pub fn new(dir: PathBuf, cas: Cas) -> Self {
        Self {
            dir,
            cas: ArcSwap::from_pointee(cas),
        }
    }

    /// The CAs as they were last read.
    pub fn current(&self) -> Arc<Cas> {
        self.cas.load_full()
    }

    /// The CAs as they are on disk now. An error leaves those in force that were read before.
    pub fn refresh(&self) -> Result<Arc<Cas>, CaError> {
        let text = read_rotation(&self.dir)?;
        let current = self.current();
        if text == current.written {
            return Ok(current);
        }
        let cas = Arc::new(Cas::from_text(&self.dir, text)?);
        self.cas.store(Arc::clone(&cas));
        Ok(cas)
    }
}

fn read_rotation(dir: &Path) -> Result<String, CaError> {
    let path = dir.join(ROTATION);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(CaError::File {
            path: path.display().to_string(),
            source,
        }),
    }
}

fn remove(path: &Path) -> Result<(), CaError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(CaError::File {
            path: path.display().to_string(),
            source,
        }),
        _ => Ok(()),
    }
}
