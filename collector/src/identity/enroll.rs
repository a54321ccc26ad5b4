//! Enrolment tokens, enrolment and renewal.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use watchkeep_core::{
    evidence::{Evidence, EvidenceKind},
    ids::SiteId,
};
use watchkeep_shared::{
    DurationMs, HostId,
    token::EnrolmentToken,
    wire::enroll::{EnrollRequest, Enrolled, Renewed},
};

use super::{Ca, CaError};
use crate::{
    app::App,
    store::{StoreError, fleet, identity as rows, record},
};

/// Longest host name taken from an enrolment, bytes.
const MAX_HOSTNAME_BYTES: usize = 253;

/// Why an enrolment or renewal was refused.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Unknown, wrong, expired or used up; which of these is not told to the caller.
    #[error("the token is unknown, expired or used up: ask for a new one")]
    TokenRefused,
    /// A field is unusable.
    #[error("{0}")]
    BadRequest(String),
    /// The host was retired.
    #[error("the host was retired")]
    Retired,
    /// The CA failed, or the request is no good.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a token for a site.
pub async fn create_token(
    app: &App,
    ca: &Ca,
    site: SiteId,
    uses: i64,
    valid_for: DurationMs,
) -> Result<EnrolmentToken, StoreError> {
    let now = app.clock.now();
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let id = Uuid::now_v7();
    let mut tx = app.store.begin().await?;
    let token = rows::NewToken {
        id,
        site,
        secret_sha256: Sha256::digest(secret.as_bytes()).to_vec(),
        uses,
        expires_at: now + valid_for,
        created_at: now,
    };
    rows::insert_token(&mut tx, &token).await?;
    tx.commit().await?;
    Ok(EnrolmentToken {
        url: app.config.agents.public_url.clone(),
        id,
        secret,
        ca_key_sha256: ca.key_sha256().to_owned(),
    })
}

/// Takes a machine in: one use of the token, a host, its certificate and the begin of its record,
/// all in one transaction.
pub async fn enroll(app: &App, ca: &Ca, request: &EnrollRequest) -> Result<Enrolled, EnrollError> {
    let hostname = request.hostname.trim();
    if hostname.is_empty()
        || hostname.len() > MAX_HOSTNAME_BYTES
        || hostname.chars().any(char::is_control)
    {
        return Err(EnrollError::BadRequest(format!(
            "hostname: 1 to {MAX_HOSTNAME_BYTES} bytes without control characters"
        )));
    }
    let now = app.clock.now();
    let host = HostId(Uuid::now_v7());
    let validity_ms = i64::from(app.config.agents.certificate_s) * 1_000;
    let issued = ca.sign_agent(&request.csr_pem, host, now, validity_ms)?;
    let secret = Sha256::digest(request.token_secret.as_bytes()).to_vec();
    let mut tx = app.store.begin().await?;
    let site = rows::use_token(&mut tx, request.token_id, &secret, now)
        .await?
        .ok_or(EnrollError::TokenRefused)?;
    let new = fleet::NewHost {
        id: host,
        site,
        name: hostname.to_owned(),
        agent_version: request.agent_version.clone(),
        enrolled_at: now,
    };
    fleet::insert_host(&mut tx, &new).await?;
    rows::insert_certificate(&mut tx, host, &issued).await?;
    let begun = Evidence {
        host: Some(host),
        kind: EvidenceKind::Enrolled,
        valid_from: now,
        valid_to: now,
        recorded_at: now,
    };
    record::insert_evidence(&mut tx, &[(app.ids.next(now), &begun)]).await?;
    tx.commit().await?;
    tracing::info!(host.id = %host, host.name = hostname, "host {hostname} enrolled");
    Ok(Enrolled {
        host,
        certificate_pem: issued.pem,
        ca_pem: ca.pem().to_owned(),
    })
}

/// Gives a host a fresh certificate.
pub async fn renew(
    app: &App,
    ca: &Ca,
    host: HostId,
    csr_pem: &str,
) -> Result<Renewed, EnrollError> {
    let now = app.clock.now();
    let validity_ms = i64::from(app.config.agents.certificate_s) * 1_000;
    let issued = ca.sign_agent(csr_pem, host, now, validity_ms)?;
    let mut tx = app.store.begin().await?;
    if !fleet::is_active_host(&mut tx, host).await? {
        return Err(EnrollError::Retired);
    }
    rows::insert_certificate(&mut tx, host, &issued).await?;
    tx.commit().await?;
    tracing::info!(host.id = %host, "certificate renewed");
    Ok(Renewed {
        certificate_pem: issued.pem,
        ca_pem: ca.pem().to_owned(),
    })
}
