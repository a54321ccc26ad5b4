//! Enrolled identities: made over the real endpoint with an enrolment token, kept in a state file
//! for the next run.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rand::RngExt;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinSet};
use watchkeep_shared::{
    BootId, HostId,
    ids::random_uuid,
    token::EnrolmentToken,
    wire::{
        PROTOCOL_VERSION,
        enroll::{EnrollRequest, Enrolled},
        paths,
    },
};

use super::{
    connection::{Answer, BodyEncoding, Connection},
    tls,
};
use crate::loopback::Target;

/// Enrolments in flight at once.
const MAX_ENROLMENTS_IN_FLIGHT: usize = 16;
/// Attempts for one agent before the fleet gives up.
const MAX_ENROLMENT_ATTEMPTS: u32 = 20;
/// Wait before another attempt where the collector names none.
const ENROLMENT_RETRY: Duration = Duration::from_millis(500);
/// A simulated machine has been up for less than this when its fleet starts, milliseconds.
const MAX_UPTIME_MS: i64 = 30 * 24 * 3_600_000;

/// One agent's identity and the machine it lives on.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The host, as the collector named it.
    pub host: HostId,
    /// The client certificate, PEM.
    pub certificate_pem: String,
    /// Its key, PEM.
    pub key_pem: String,
    /// The simulated machine's boot.
    pub boot: BootId,
    /// The simulated machine's boot-time clock minus this machine's, milliseconds.
    pub boot_offset_ms: i64,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// The identities of a fleet and whom they trust. As JSON it is the state file; it holds keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identities {
    /// Base URL of the collector's agent port.
    pub url: String,
    /// The CA that agents trust, PEM.
    pub ca_pem: String,
    /// The agents.
    pub agents: Vec<Identity>,
}

impl Identities {
    /// No agents yet, for the collector that the token names.
    pub fn none(token: &EnrolmentToken) -> Self {
        Self {
            url: token.url.clone(),
            ca_pem: String::new(),
            agents: Vec::new(),
        }
    }

    /// Reads a state file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a fleet's state file", path.display()))
    }

    /// Writes a state file that only its owner can read.
    pub fn save(&self, path: &Path) -> Result<()> {
        use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};

        let text = serde_json::to_vec(self)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(path)
            .and_then(|mut file| file.write_all(&text))
            .with_context(|| format!("can't write {}", path.display()))
    }

    /// Enrols `count` agents with a token.
    pub async fn enrol(token: &EnrolmentToken, count: usize) -> Result<Self> {
        let mut identities = Self::none(token);
        identities.enrol_more(token, count).await?;
        Ok(identities)
    }

    /// Enrols agents until there are `count`; does nothing if there are as many.
    pub async fn enrol_more(&mut self, token: &EnrolmentToken, count: usize) -> Result<()> {
        let target = Arc::new(Target::parse(&token.url)?);
        let tls = tls::first_contact(&token.ca_key_sha256)?;
        let permits = Arc::new(Semaphore::new(MAX_ENROLMENTS_IN_FLIGHT));
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for n in self.agents.len()..count {
            let (token, target, tls) = (token.clone(), target.clone(), tls.clone());
            let (permits, done) = (permits.clone(), done.clone());
            tasks.spawn(async move {
                let _permit = permits.acquire().await?;
                let enrolled = enrol_one(&token, &target, tls, n).await?;
                done.lock().expect("no holder panics").push(enrolled);
                anyhow::Ok(())
            });
        }
        while let Some(result) = tasks.join_next().await {
            result??;
        }
        for (ca_pem, identity) in done.lock().expect("no holder panics").drain(..) {
            self.ca_pem = ca_pem;
            self.agents.push(identity);
        }
        Ok(())
    }
}

/// Enrols one agent; also returns the CA's PEM.
async fn enrol_one(
    token: &EnrolmentToken,
    target: &Target,
    tls: Arc<ClientConfig>,
    n: usize,
) -> Result<(String, Identity)> {
    let (key_pem, csr_pem) = key_and_request()?;
    let request = EnrollRequest {
        v: PROTOCOL_VERSION,
        token_id: token.id,
        token_secret: token.secret.clone(),
        csr_pem,
        hostname: format!("sim-{n:05}"),
        agent_version: super::agent_version(),
    };
    let body = serde_json::to_vec(&request)?;
    for _ in 0..MAX_ENROLMENT_ATTEMPTS {
        let answer = post_enrolment(target, tls.clone(), body.clone()).await?;
        match answer.status.as_u16() {
            200 | 201 => {
                let enrolled: Enrolled = answer.json().context("the answer to an enrolment")?;
                let identity = Identity {
                    host: enrolled.host,
                    certificate_pem: enrolled.certificate_pem,
                    key_pem,
                    boot: BootId(random_uuid()),
                    boot_offset_ms: rand::rng().random_range(0..MAX_UPTIME_MS),
                };
                return Ok((enrolled.ca_pem, identity));
            }
            429 | 503 => {
                tokio::time::sleep(answer.retry_after.unwrap_or(ENROLMENT_RETRY)).await;
            }
            status => bail!(
                "the collector refused enrolment {n}: {status} {}",
                answer.problem().map(|p| p.detail).unwrap_or_default()
            ),
        }
    }
    bail!("the collector was busy {MAX_ENROLMENT_ATTEMPTS} times for enrolment {n}")
}

/// Posts an enrolment request on a connection of its own.
pub async fn post_enrolment(
    target: &Target,
    tls: Arc<ClientConfig>,
    body: Vec<u8>,
) -> Result<Answer> {
    let mut connection = Connection::open(target, tls).await?;
    let answer = connection
        .post(paths::ENROLL, BodyEncoding::Identity, body)
        .await?;
    Ok(answer)
}

/// A fresh P-256 key and a certificate request for it, both PEM.
pub fn key_and_request() -> Result<(String, String)> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let request = rcgen::CertificateParams::default().serialize_request(&key)?;
    Ok((key.serialize_pem(), request.pem()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_is_private_and_reads_back() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.json");
        let (key_pem, csr_pem) = key_and_request().unwrap();
        assert!(csr_pem.contains("CERTIFICATE REQUEST"));
        let identities = Identities {
            url: "https://127.0.0.1:7443".to_owned(),
            ca_pem: "ca".to_owned(),
            agents: vec![Identity {
                host: HostId(random_uuid()),
                certificate_pem: "cert".to_owned(),
                key_pem,
                boot: BootId(random_uuid()),
                boot_offset_ms: 7,
            }],
        };
        identities.save(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = Identities::load(&path).unwrap();
        assert_eq!(read.agents[0].host, identities.agents[0].host);
        assert_eq!(read.agents[0].key_pem, identities.agents[0].key_pem);
    }
}
