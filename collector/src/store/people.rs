//! People who sign in, their sessions, and the log of what they did.
//!
//! A session's token is never stored, only its SHA-256; a reader of the database can't sign in
//! with what is there. Expiry is decided by the caller, who has the time.

use sqlx::{query, query_as};
use uuid::Uuid;
use watchkeep_core::{ids::UserId, search::name_order};
use watchkeep_shared::UnixMillis;

use super::{
    Store, StoreError, Tx,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};

const INSERT_USER: &str = "INSERT INTO app_user (id, login, name, password_hash, role, must_change, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const USER_BY_LOGIN: &str = "SELECT id, login, name, password_hash, role, must_change, created_at, disabled_at \
    FROM app_user WHERE login = $1";
const ALL_USERS: &str = "SELECT id, login, name, password_hash, role, must_change, created_at, disabled_at \
    FROM app_user";
const SET_PASSWORD: &str = "UPDATE app_user SET password_hash = $2, must_change = $3 WHERE id = $1";
const DISABLE_USER: &str =
    "UPDATE app_user SET disabled_at = $2 WHERE id = $1 AND disabled_at IS NULL";
const INSERT_SESSION: &str = "INSERT INTO session \
    (token_sha256, user_id, csrf, address, user_agent, created_at, last_seen_at, expires_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const SESSION: &str = "SELECT s.token_sha256, s.csrf, s.address, s.user_agent, s.created_at, s.last_seen_at, \
    s.expires_at, u.id AS user_id, u.login, u.name, u.role, u.must_change \
    FROM session s JOIN app_user u ON u.id = s.user_id \
    WHERE s.token_sha256 = $1 AND u.disabled_at IS NULL";
const SESSIONS_OF: &str = "SELECT s.token_sha256, s.csrf, s.address, s.user_agent, s.created_at, s.last_seen_at, \
    s.expires_at, u.id AS user_id, u.login, u.name, u.role, u.must_change \
    FROM session s JOIN app_user u ON u.id = s.user_id \
    WHERE s.user_id = $1 AND s.expires_at > $2 AND s.last_seen_at > $3 ORDER BY s.last_seen_at DESC";
const TOUCH_SESSION: &str = "UPDATE session SET last_seen_at = $2 WHERE token_sha256 = $1";
const DELETE_SESSION: &str = "DELETE FROM session WHERE token_sha256 = $1 AND user_id = $2";
const DELETE_OTHER_SESSIONS: &str = "DELETE FROM session WHERE user_id = $1 AND token_sha256 <> $2";
const DELETE_EXPIRED: &str = "DELETE FROM session WHERE expires_at <= $1 OR last_seen_at <= $2";
const IS_KNOWN_DEVICE: &str = "SELECT COUNT(*) FROM known_device \
    WHERE token_sha256 = $1 AND user_id = $2 AND last_used_at > $3";
const PUT_DEVICE: &str = "INSERT INTO known_device (token_sha256, user_id, created_at, last_used_at) \
    VALUES ($1, $2, $3, $3) ON CONFLICT (token_sha256) DO UPDATE SET last_used_at = excluded.last_used_at";
/// All but the browsers that were used last.
const FORGET_DEVICES: &str = "DELETE FROM known_device WHERE user_id = $1 AND token_sha256 NOT IN \
    (SELECT token_sha256 FROM known_device WHERE user_id = $1 ORDER BY last_used_at DESC LIMIT $2)";
const INSERT_AUDIT: &str = "INSERT INTO audit_log (id, at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)";

const AUDIT_LOG: &str =
    "SELECT id, at, actor, action, subject, detail FROM audit_log ORDER BY id DESC LIMIT $1";

statements! {
    INSERT_USER, USER_BY_LOGIN, ALL_USERS, SET_PASSWORD, DISABLE_USER, INSERT_SESSION, SESSION,
    SESSIONS_OF, TOUCH_SESSION, DELETE_SESSION, DELETE_OTHER_SESSIONS, DELETE_EXPIRED,
    IS_KNOWN_DEVICE, PUT_DEVICE, FORGET_DEVICES, INSERT_AUDIT, AUDIT_LOG
}

row! {
    /// A line of the audit log as stored.
    #[derive(Clone, Debug)]
    pub struct AuditRow {
        pub id: i64,
        /// When, milliseconds.
        pub at: i64,
        pub actor: String,
        pub action: String,
        /// On what.
        pub subject: String,
        /// Anything else.
        pub detail: String,
    }
}

row! {
    /// A person who signs in.
    #[derive(Clone, Debug)]
    pub struct User {
        /// Identifier; see [`User::id`].
        pub id: Uuid,
        /// What the person types; unique, letter case does not matter.
        pub login: String,
        /// The person's name.
        pub name: String,
        /// PHC string, Argon2id.
        pub password_hash: String,
        /// `admin`, so far.
        pub role: String,
        /// The password was given by someone else and must be replaced.
        pub must_change: bool,
        /// When the account was made, milliseconds.
        pub created_at: i64,
        /// Since when sign-in is refused.
        pub disabled_at: Option<i64>,
    }
}

impl User {
    /// The identifier, typed.
    pub fn id(&self) -> UserId {
        UserId(self.id)
    }
}

row! {
    /// An open session with its user.
    #[derive(Clone, Debug)]
    pub struct Session {
        pub token_sha256: Vec<u8>,
        /// What forms of this session must carry.
        pub csrf: String,
        /// Where the sign-in came from.
        pub address: String,
        /// The browser that signed in, as it called itself.
        pub user_agent: String,
        /// When the session began, milliseconds.
        pub created_at: i64,
        /// When it was last used, to about a minute.
        pub last_seen_at: i64,
        /// When it ends however much it is used.
        pub expires_at: i64,
        pub user_id: Uuid,
        /// The user's login.
        pub login: String,
        /// The user's name.
        pub name: String,
        /// The user's role.
        pub role: String,
        /// The user must set a new password before anything else.
        pub must_change: bool,
    }
}

/// A user to create.
#[derive(Clone, Debug)]
pub struct NewUser<'a> {
    pub id: UserId,
    /// Unique login.
    pub login: &'a str,
    /// The person's name.
    pub name: &'a str,
    /// PHC string.
    pub password_hash: &'a str,
    /// `admin`, so far.
    pub role: &'a str,
    /// The password must be replaced at the first sign-in.
    pub must_change: bool,
    /// Now.
    pub created_at: UnixMillis,
}

/// A session to open.
#[derive(Clone, Debug)]
pub struct NewSession<'a> {
    pub token_sha256: &'a [u8],
    /// Who signed in.
    pub user: UserId,
    /// What forms of this session must carry.
    pub csrf: &'a str,
    /// Where the sign-in came from.
    pub address: &'a str,
    /// The browser, as it calls itself.
    pub user_agent: &'a str,
    /// Now.
    pub created_at: UnixMillis,
    /// When it ends however much it is used.
    pub expires_at: UnixMillis,
}

/// One line of the audit log.
#[derive(Clone, Debug)]
pub struct Audit<'a> {
    /// Row identifier (see [`crate::ids::RowIds`]).
    pub id: i64,
    pub at: UnixMillis,
    /// Who: a login, or `system`.
    pub actor: &'a str,
    /// What, as in `sign_in`.
    pub action: &'a str,
    /// On what, as in `ticket 1042`.
    pub subject: &'a str,
    /// Anything else worth keeping; never a secret.
    pub detail: &'a str,
}

/// Something that someone did, for the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// Who: a login, or a program.
    pub by: &'a str,
    /// What, as in `host_retire`.
    pub action: &'a str,
    /// On what, as in `host 0199…`.
    pub subject: &'a str,
    /// Anything else worth keeping; never a secret.
    pub detail: &'a str,
}

/// Creates a user. `false` if the login is taken: logins that differ by letter case are one.
pub async fn create_user(tx: &mut Tx, user: &NewUser<'_>) -> Result<bool, StoreError> {
    let known: Vec<User> = on_tx!(tx, c => query_as(ALL_USERS).fetch_all(c).await)?;
    let login = user.login.to_lowercase();
    if known.iter().any(|one| one.login.to_lowercase() == login) {
        return Ok(false);
    }
    on_tx!(tx, c => {
        query(INSERT_USER)
            .bind(user.id.uuid())
            .bind(user.login)
            .bind(user.name)
            .bind(user.password_hash)
            .bind(user.role)
            .bind(user.must_change)
            .bind(user.created_at.0)
            .execute(c)
            .await.map(drop)
    })?;
    Ok(true)
}

/// The user with a login in any letter case, disabled or not. Databases disagree on the case of
/// letters beyond ASCII, so it is compared here. Of two logins of an earlier version that differ by
/// letter case, each is found by its exact form alone.
pub async fn user_by_login(store: &Store, login: &str) -> Result<Option<User>, StoreError> {
    let exact: Option<User> =
        on_read!(store, c => query_as(USER_BY_LOGIN).bind(login).fetch_optional(c).await)?;
    if exact.is_some() {
        return Ok(exact);
    }
    let folded = login.to_lowercase();
    let known = users(store).await?.into_iter();
    let mut found = known.filter(|one| one.login.to_lowercase() == folded);
    let first = found.next();
    Ok(first.filter(|_| found.next().is_none()))
}

/// All users, by login.
pub async fn users(store: &Store) -> Result<Vec<User>, StoreError> {
    let mut rows: Vec<User> = on_read!(store, c => query_as(ALL_USERS).fetch_all(c).await)?;
    rows.sort_by_cached_key(|row| name_order(&row.login));
    Ok(rows)
}

/// Sets a password hash.
pub async fn set_password(
    tx: &mut Tx,
    user: UserId,
    password_hash: &str,
    must_change: bool,
) -> Result<(), StoreError> {
    on_tx!(tx, c => {
        query(SET_PASSWORD).bind(user.uuid()).bind(password_hash).bind(must_change).execute(c).await.map(drop)
    })?;
    Ok(())
}

/// Refuses sign-in from now on; open sessions end with the next request.
pub async fn disable_user(tx: &mut Tx, user: UserId, now: UnixMillis) -> Result<(), StoreError> {
    on_tx!(tx, c => {
        query(DISABLE_USER).bind(user.uuid()).bind(now.0).execute(c).await.map(drop)
    })?;
    Ok(())
}

/// Opens a session.
pub async fn create_session(tx: &mut Tx, session: &NewSession<'_>) -> Result<(), StoreError> {
    on_tx!(tx, c => {
        query(INSERT_SESSION)
            .bind(session.token_sha256)
            .bind(session.user.uuid())
            .bind(session.csrf)
            .bind(session.address)
            .bind(session.user_agent)
            .bind(session.created_at.0)
            .bind(session.created_at.0)
            .bind(session.expires_at.0)
            .execute(c)
            .await.map(drop)
    })?;
    Ok(())
}

/// The session of a token, expired or not, unless its user is disabled.
pub async fn session(store: &Store, token_sha256: &[u8]) -> Result<Option<Session>, StoreError> {
    Ok(on_read!(store, c => query_as(SESSION).bind(token_sha256).fetch_optional(c).await)?)
}

/// A user's sessions that end after `now` and were used after `used_after`, newest use first.
pub async fn sessions_of(
    store: &Store,
    user: UserId,
    now: UnixMillis,
    used_after: UnixMillis,
) -> Result<Vec<Session>, StoreError> {
    Ok(on_read!(store, c => {
        query_as(SESSIONS_OF).bind(user.uuid()).bind(now.0).bind(used_after.0).fetch_all(c).await
    })?)
}

/// Notes that a session was used.
pub async fn touch_session(
    tx: &mut Tx,
    token_sha256: &[u8],
    now: UnixMillis,
) -> Result<(), StoreError> {
    on_tx!(tx, c => {
        query(TOUCH_SESSION).bind(token_sha256).bind(now.0).execute(c).await.map(drop)
    })?;
    Ok(())
}

/// Ends one session of a user; one that is gone already is no error.
pub async fn delete_session(
    tx: &mut Tx,
    user: UserId,
    token_sha256: &[u8],
) -> Result<(), StoreError> {
    on_tx!(tx, c => {
        query(DELETE_SESSION).bind(token_sha256).bind(user.uuid()).execute(c).await.map(drop)
    })?;
    Ok(())
}

/// Ends all sessions of a user but one; pass an empty hash to end all.
pub async fn delete_other_sessions(
    tx: &mut Tx,
    user: UserId,
    keep: &[u8],
) -> Result<(), StoreError> {
    on_tx!(tx, c => {
        query(DELETE_OTHER_SESSIONS).bind(user.uuid()).bind(keep).execute(c).await.map(drop)
    })?;
    Ok(())
}

/// Removes sessions that ended by `now`, or were not used after `used_after`.
pub async fn delete_expired_sessions(
    tx: &mut Tx,
    now: UnixMillis,
    used_after: UnixMillis,
) -> Result<(), StoreError> {
    on_tx!(tx, c => {
        query(DELETE_EXPIRED).bind(now.0).bind(used_after.0).execute(c).await.map(drop)
    })?;
    Ok(())
}

/// Adds a line to the audit log.
pub async fn audit(tx: &mut Tx, line: &Audit<'_>) -> Result<(), StoreError> {
    on_tx!(tx, c => {
        query(INSERT_AUDIT)
            .bind(line.id)
            .bind(line.at.0)
            .bind(line.actor)
            .bind(line.action)
            .bind(line.subject)
            .bind(line.detail)
            .execute(c)
            .await.map(drop)
    })?;
    Ok(())
}

/// The newest lines of the audit log.
pub async fn audit_log(store: &Store, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
    Ok(on_read!(store, c => query_as(AUDIT_LOG).bind(limit as i64).fetch_all(c).await)?)
}

/// Most browsers remembered of one person.
const MAX_DEVICES: i64 = 20;

/// Whether a person has signed in from a browser since then.
pub async fn is_known_device(
    store: &Store,
    user: UserId,
    token_sha256: &[u8],
    since: UnixMillis,
) -> Result<bool, StoreError> {
    let (count,): (i64,) = on_read!(store, c => query_as(IS_KNOWN_DEVICE)
        .bind(token_sha256).bind(user.uuid()).bind(since.0).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Remembers the browser in which a person signed in.
pub async fn put_device(
    tx: &mut Tx,
    user: UserId,
    token_sha256: &[u8],
    now: UnixMillis,
) -> Result<(), StoreError> {
    on_tx!(tx, c => query(PUT_DEVICE)
        .bind(token_sha256).bind(user.uuid()).bind(now.0).execute(c).await.map(drop))?;
    on_tx!(tx, c => query(FORGET_DEVICES)
        .bind(user.uuid()).bind(MAX_DEVICES).execute(c).await.map(drop))?;
    Ok(())
}
