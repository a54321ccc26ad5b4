//! Enrolment tokens and certificates.

use uuid::Uuid;
use watchkeep_core::ids::SiteId;
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    statements::statements,
    tx::{on_read, on_tx},
};
use crate::identity::Issued;

const INSERT_TOKEN: &str = "INSERT INTO enrolment_token \
    (id, site_id, secret_sha256, uses_left, expires_at, created_at, host_id) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
/// Takes one use, if the token is good for one: a single statement, so that two machines can't
/// share the last use.
const USE_TOKEN: &str = "UPDATE enrolment_token SET uses_left = uses_left - 1 \
    WHERE id = $1 AND secret_sha256 = $2 AND expires_at > $3 AND uses_left > 0 RETURNING site_id, host_id";
const INSERT_CERTIFICATE: &str = "INSERT INTO certificate \
    (serial, host_id, not_before, not_after) VALUES ($1, $2, $3, $4)";
const REVOKE_HOST: &str =
    "UPDATE certificate SET revoked_at = $2 WHERE host_id = $1 AND revoked_at IS NULL";
const REVOKE: &str =
    "UPDATE certificate SET revoked_at = $2 WHERE serial = $1 AND revoked_at IS NULL";
const IS_REVOKED: &str =
    "SELECT COUNT(*) FROM certificate WHERE serial = $1 AND revoked_at IS NOT NULL";
/// The newest first; `$1` is a host.
const GOOD: &str = "SELECT serial FROM certificate \
    WHERE host_id = $1 AND revoked_at IS NULL AND not_after > $2 ORDER BY not_before DESC, serial";
const ISSUED_SINCE: &str =
    "SELECT COUNT(*) FROM certificate WHERE host_id = $1 AND not_before > $2";
const REVOKED: &str =
    "SELECT serial FROM certificate WHERE revoked_at IS NOT NULL AND not_after > $1";
/// The begin of each host's newest certificate that is still good.
const NEWEST: &str = "SELECT host_id, MAX(not_before) FROM certificate \
    WHERE revoked_at IS NULL AND not_after > $1 GROUP BY host_id";
const OPEN_TOKENS_BEFORE: &str = "SELECT COUNT(*) FROM enrolment_token \
    WHERE uses_left > 0 AND expires_at > $1 AND created_at < $2";

statements! {
    INSERT_TOKEN, USE_TOKEN, INSERT_CERTIFICATE, REVOKE_HOST, REVOKE, IS_REVOKED, GOOD,
    ISSUED_SINCE, REVOKED, NEWEST, OPEN_TOKENS_BEFORE
}

/// A token about to be stored.
#[derive(Debug)]
pub struct NewToken {
    pub id: Uuid,
    /// The site of its hosts.
    pub site: SiteId,
    /// The one host that it gives a new key, if it is not for new ones.
    pub host: Option<HostId>,
    pub secret_sha256: Vec<u8>,
    /// How many machines it takes in.
    pub uses: i64,
    /// Until when.
    pub expires_at: UnixMillis,
    /// Since when.
    pub created_at: UnixMillis,
}

/// Stores a token.
pub async fn insert_token(tx: &mut Tx, token: &NewToken) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(INSERT_TOKEN)
        .bind(token.id)
        .bind(token.site.uuid())
        .bind(&token.secret_sha256)
        .bind(token.uses)
        .bind(token.expires_at.0)
        .bind(token.created_at.0)
        .bind(token.host.map(HostId::uuid))
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Takes one use of a token; `None` if it is not good for one. Gives the site, and the host if the
/// token is for one alone.
pub async fn use_token(
    tx: &mut Tx,
    id: Uuid,
    secret_sha256: &[u8],
    now: UnixMillis,
) -> Result<Option<(SiteId, Option<HostId>)>, StoreError> {
    let scope: Option<(Uuid, Option<Uuid>)> = on_tx!(tx, c => sqlx::query_as(USE_TOKEN)
        .bind(id)
        .bind(secret_sha256)
        .bind(now.0)
        .fetch_optional(c).await)?;
    Ok(scope.map(|(site, host)| (SiteId(site), host.map(HostId))))
}

/// Stores a certificate that was given out.
pub async fn insert_certificate(
    tx: &mut Tx,
    host: HostId,
    issued: &Issued,
) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(INSERT_CERTIFICATE)
        .bind(&issued.serial)
        .bind(host.uuid())
        .bind(issued.not_before.0)
        .bind(issued.not_after.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Revokes every certificate of a host and records that on the host. Returns how many.
pub async fn revoke_host(tx: &mut Tx, host: HostId, now: UnixMillis) -> Result<u64, StoreError> {
    super::fleet::set_revoked(tx, host, Some(now)).await?;
    Ok(on_tx!(tx, c => sqlx::query(REVOKE_HOST)
        .bind(host.uuid())
        .bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?)
}

/// Revokes one certificate.
pub async fn revoke(tx: &mut Tx, serial: &str, now: UnixMillis) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(REVOKE).bind(serial).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Whether a certificate was revoked, as a transaction sees it.
pub async fn is_revoked(tx: &mut Tx, serial: &str) -> Result<bool, StoreError> {
    let (count,): (i64,) =
        on_tx!(tx, c => sqlx::query_as(IS_REVOKED).bind(serial).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Serial numbers of a host's certificates that are neither expired nor revoked, the newest first.
pub async fn good(tx: &mut Tx, host: HostId, now: UnixMillis) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String,)> = on_tx!(tx, c => sqlx::query_as(GOOD)
        .bind(host.uuid())
        .bind(now.0)
        .fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(serial,)| serial).collect())
}

/// How many certificates of a host are valid from a later instant than this.
pub async fn issued_since(
    tx: &mut Tx,
    host: HostId,
    not_before: UnixMillis,
) -> Result<i64, StoreError> {
    let (count,): (i64,) = on_tx!(tx, c => sqlx::query_as(ISSUED_SINCE)
        .bind(host.uuid())
        .bind(not_before.0)
        .fetch_one(c).await)?;
    Ok(count)
}

/// Serial numbers of revoked certificates that have not expired.
pub async fn revoked(store: &Store, now: UnixMillis) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String,)> =
        on_read!(store, c => sqlx::query_as(REVOKED).bind(now.0).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(serial,)| serial).collect())
}

/// The begin of each host's newest certificate that neither expired nor was revoked; hosts without one
/// are left out.
pub async fn newest(
    store: &Store,
    now: UnixMillis,
) -> Result<Vec<(HostId, UnixMillis)>, StoreError> {
    let rows: Vec<(Uuid, i64)> =
        on_read!(store, c => sqlx::query_as(NEWEST).bind(now.0).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .map(|(host, not_before)| (HostId(host), UnixMillis(not_before)))
        .collect())
}

/// How many tokens made before an instant are still good.
pub async fn open_tokens_before(
    store: &Store,
    now: UnixMillis,
    made_before: UnixMillis,
) -> Result<i64, StoreError> {
    let (count,): (i64,) = on_read!(store, c => sqlx::query_as(OPEN_TOKENS_BEFORE)
        .bind(now.0)
        .bind(made_before.0)
        .fetch_one(c).await)?;
    Ok(count)
}
