//! Enrolment tokens, enrolment and renewal.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use watchkeep_core::{
    evidence::{Evidence, EvidenceKind},
    host::MAX_VERSION_BYTES,
    ids::SiteId,
    text::{clean_line, is_safe},
};
use watchkeep_shared::{
    DurationMs, HostId,
    token::EnrolmentToken,
    wire::enroll::{EnrollRequest, Enrolled, Renewed},
};

use super::{CaError, Cas};
use crate::{
    app::App,
    store::{StoreError, Tx, descriptions, fleet, identity as rows, people, record},
};

/// Longest host name taken from an enrolment, bytes.
const MAX_HOSTNAME_BYTES: usize = 253;
/// Longest secret of a token, bytes.
const MAX_SECRET_BYTES: usize = 256;
/// Longest certificate request, bytes.
const MAX_CSR_BYTES: usize = 16 * 1024;
/// Most certificates of one host within [`ISSUE_WINDOW`], or within their validity if that is
/// shorter. An agent needs one in two thirds of its certificate's validity; answers may get lost.
const MAX_ISSUED: i64 = 24;
const ISSUE_WINDOW: DurationMs = DurationMs::from_hours(24);
/// Certificates that stay valid in addition to the one that a renewal came with: the new one, and the one
/// before it, in case the answer gets lost.
const KEPT_BESIDE: usize = 2;
/// Validity of the token for a new key.
const REKEY_VALID_FOR: DurationMs = DurationMs::from_hours(24);

/// Why an enrolment or renewal was refused.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Unknown, wrong, expired or used up; the caller does not learn which.
    #[error("the token is unknown, expired or used up: ask for a new one")]
    TokenRefused,
    /// A field is unusable.
    #[error("{0}")]
    BadRequest(String),
    /// The host was retired.
    #[error("the host was retired")]
    Retired,
    /// The certificate that the request came with was revoked.
    #[error("the certificate was revoked: ask your provider for a new enrolment token")]
    Revoked,
    /// The host got too many certificates lately.
    #[error("the host got {MAX_ISSUED} certificates lately: try again later")]
    TooMany,
    /// Two machines use the host's identity.
    #[error("the host is quarantined: two machines use its certificate")]
    Quarantined,
    /// The CA failed, or the request is no good.
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A token to be made for a site.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// Where its hosts are.
    pub site: SiteId,
    /// How many machines may enrol with it.
    pub uses: i64,
    /// How long it is valid.
    pub valid_for: DurationMs,
    /// Who makes it, for the audit log.
    pub by: &'a str,
}

/// Makes a token for a site.
pub async fn create_token(
    app: &App,
    cas: &Cas,
    new: &NewToken<'_>,
) -> Result<EnrolmentToken, StoreError> {
    let mut tx = app.store.begin().await?;
    let scope = TokenScope {
        site: new.site,
        host: None,
        uses: new.uses,
        valid_for: new.valid_for,
    };
    let token = new_token(app, cas.signs().key_sha256(), &mut tx, &scope).await?;
    let act = people::Act {
        by: new.by,
        action: "token_create",
        subject: &format!("site {}", new.site),
        detail: &format!("token {}, {} uses", token.id, new.uses),
    };
    app.audit(&mut tx, act).await?;
    tx.commit().await?;
    Ok(token)
}

/// Gives a host a new key: revokes its certificates, and makes a token with which one machine
/// enrols again as this host. `by` is named in the audit log. `None` if there is no such host, or it
/// was retired. An open connection is refused as soon as the running collector reads the list of
/// revoked certificates.
pub async fn rekey(
    app: &App,
    cas: &Cas,
    host: HostId,
    by: &str,
) -> Result<Option<EnrolmentToken>, StoreError> {
    let Some(row) = fleet::host(&app.store, host).await? else {
        return Ok(None);
    };
    let mut tx = app.store.begin().await?;
    if !fleet::is_active_host(&mut tx, host).await? {
        return Ok(None);
    }
    let now = app.clock.now();
    rows::revoke_host(&mut tx, host, now).await?;
    let act = people::Act {
        by,
        action: "host_rekey",
        subject: &format!("host {host}"),
        detail: &row.name,
    };
    app.audit(&mut tx, act).await?;
    let scope = TokenScope {
        site: SiteId(row.site_id),
        host: Some(host),
        uses: 1,
        valid_for: REKEY_VALID_FOR,
    };
    let token = new_token(app, cas.signs().key_sha256(), &mut tx, &scope).await?;
    tx.commit().await?;
    tracing::info!(host.id = %host, "certificates of {} revoked, a token for a new key made", row.name);
    Ok(Some(token))
}

/// What a token permits.
struct TokenScope {
    site: SiteId,
    host: Option<HostId>,
    uses: i64,
    valid_for: DurationMs,
}

async fn new_token(
    app: &App,
    ca_key_sha256: &str,
    tx: &mut Tx,
    scope: &TokenScope,
) -> Result<EnrolmentToken, StoreError> {
    let now = app.clock.now();
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let id = app.ids.uuid(now);
    let token = rows::NewToken {
        id,
        site: scope.site,
        host: scope.host,
        secret_sha256: Sha256::digest(secret.as_bytes()).to_vec(),
        uses: scope.uses,
        expires_at: now + scope.valid_for,
        created_at: now,
    };
    rows::insert_token(tx, &token).await?;
    Ok(EnrolmentToken {
        url: app.config.agents.public_url.clone(),
        id,
        secret,
        ca_key_sha256: ca_key_sha256.to_owned(),
    })
}

/// Takes a machine in: one use of the token, a host, its certificate and the begin of its record,
/// all in one transaction.
pub async fn enroll(
    app: &App,
    cas: &Cas,
    request: &EnrollRequest,
) -> Result<Enrolled, EnrollError> {
    let hostname = request.hostname.trim();
    check_request(request, hostname)?;
    let mut agent_version = request.agent_version.clone();
    clean_line(&mut agent_version, MAX_VERSION_BYTES);
    let now = app.clock.now();
    let secret = Sha256::digest(request.token_secret.as_bytes()).to_vec();
    let mut tx = app.store.begin().await?;
    let (site, known) = rows::use_token(&mut tx, request.token_id, &secret, now)
        .await?
        .ok_or(EnrollError::TokenRefused)?;
    let host = known.unwrap_or_else(|| HostId(app.ids.uuid(now)));
    let validity_ms = i64::from(app.config.agents.certificate_s) * 1_000;
    let issued = cas
        .signs()
        .sign_agent(&request.csr_pem, host, now, validity_ms)?;
    if known.is_some() {
        if !fleet::is_active_host(&mut tx, host).await? {
            return Err(EnrollError::Retired);
        }
        rows::revoke_host(&mut tx, host, now).await?;
        fleet::set_quarantine(&mut tx, host, None).await?;
        fleet::set_revoked(&mut tx, host, None).await?;
        descriptions::set_reported_name(&mut tx, host, hostname).await?;
    } else {
        let new = fleet::NewHost {
            id: host,
            site,
            name: hostname.to_owned(),
            agent_version,
            enrolled_at: now,
        };
        fleet::insert_host(&mut tx, &new).await?;
        let begun = Evidence {
            host: Some(host),
            kind: EvidenceKind::Enrolled,
            valid_from: now,
            valid_to: now,
            recorded_at: now,
        };
        record::insert_evidence(&mut tx, &[(app.ids.next(now), &begun)]).await?;
    }
    rows::insert_certificate(&mut tx, host, &issued).await?;
    tx.commit().await?;
    let how = if known.is_some() {
        "has a new key"
    } else {
        "enrolled"
    };
    tracing::info!(host.id = %host, host.name = hostname, "host {hostname} {how}");
    Ok(Enrolled {
        host,
        certificate_pem: issued.pem,
        ca_pem: cas.trust_pem(),
    })
}

fn check_request(request: &EnrollRequest, hostname: &str) -> Result<(), EnrollError> {
    let refused = |text: String| Err(EnrollError::BadRequest(text));
    if hostname.is_empty() || hostname.len() > MAX_HOSTNAME_BYTES || !is_safe(hostname) {
        return refused(format!(
            "hostname: 1 to {MAX_HOSTNAME_BYTES} bytes without control characters, line separators and bidirectional overrides"
        ));
    }
    if request.token_secret.len() > MAX_SECRET_BYTES {
        return refused(format!("token_secret: at most {MAX_SECRET_BYTES} bytes"));
    }
    check_csr(&request.csr_pem)
}

fn check_csr(csr_pem: &str) -> Result<(), EnrollError> {
    if csr_pem.len() > MAX_CSR_BYTES {
        let text = format!("csr_pem: at most {MAX_CSR_BYTES} bytes");
        return Err(EnrollError::BadRequest(text));
    }
    Ok(())
}

/// A request for a fresh certificate.
#[derive(Clone, Copy, Debug)]
pub struct Renewal<'a> {
    /// The host that the request's certificate names.
    pub host: HostId,
    /// The serial number of that certificate.
    pub serial: &'a str,
    /// The certificate request, PEM.
    pub csr_pem: &'a str,
}

/// Issues a fresh certificate for a host, and revokes those of its older ones that it can't need.
pub async fn renew(app: &App, cas: &Cas, renewal: Renewal<'_>) -> Result<Renewed, EnrollError> {
    let Renewal {
        host,
        serial,
        csr_pem,
    } = renewal;
    check_csr(csr_pem)?;
    let now = app.clock.now();
    let validity_ms = i64::from(app.config.agents.certificate_s) * 1_000;
    let issued = cas.signs().sign_agent(csr_pem, host, now, validity_ms)?;
    let mut tx = app.store.begin().await?;
    if !fleet::is_active_host(&mut tx, host).await? {
        return Err(EnrollError::Retired);
    }
    if fleet::is_quarantined(&mut tx, host).await? {
        return Err(EnrollError::Quarantined);
    }
    // The list of revoked certificates that the port asks is up to a second old; this is not.
    if rows::is_revoked(&mut tx, serial).await? {
        return Err(EnrollError::Revoked);
    }
    let window = ISSUE_WINDOW.min(DurationMs(validity_ms));
    if rows::issued_since(&mut tx, host, issued.not_before - window).await? >= MAX_ISSUED {
        return Err(EnrollError::TooMany);
    }
    rows::insert_certificate(&mut tx, host, &issued).await?;
    for old in superseded(
        rows::good(&mut tx, host, now).await?,
        serial,
        &issued.serial,
    ) {
        rows::revoke(&mut tx, &old, now).await?;
    }
    tx.commit().await?;
    tracing::info!(host.id = %host, "certificate renewed");
    Ok(Renewed {
        certificate_pem: issued.pem,
        ca_pem: cas.trust_pem(),
    })
}

/// Which of a host's good certificates (the newest first) end with a renewal: all but the one that
/// it came with and the two newest others, one of which is the new one.
fn superseded(good: Vec<String>, presented: &str, new: &str) -> Vec<String> {
    let others = good
        .into_iter()
        .filter(|serial| serial != presented && serial != new);
    others.skip(KEPT_BESIDE - 1).collect()
}

#[cfg(test)]
mod tests {
    use super::superseded;

    #[test]
    fn a_renewal_never_ends_the_certificate_that_it_came_with() {
        let good = || ["e", "d", "c", "b", "a"].map(str::to_owned).to_vec();
        assert_eq!(superseded(good(), "d", "e"), ["b", "a"]);
        // The answers to three renewals got lost: the agent still comes with its first certificate.
        assert_eq!(superseded(good(), "a", "e"), ["c", "b"]);
        assert_eq!(superseded(vec!["a".to_owned()], "z", "a"), [""; 0]);
    }
}
