//! What hosts are asked to watch: layers of the fleet file, and what people chose for single hosts.
//! Bodies are JSON that this module does not look into.

use uuid::Uuid;
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};

const GENERATION: &str = "SELECT value FROM counter WHERE name = 'policy'";
const BUMP: &str = "UPDATE counter SET value = value + 1 WHERE name = 'policy'";
const LAYERS: &str = "SELECT owner_id, level, body FROM policy_layer";
const PUT_LAYER: &str = "INSERT INTO policy_layer (owner_id, level, body, changed_at) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (owner_id) DO UPDATE SET \
    level = excluded.level, body = excluded.body, changed_at = excluded.changed_at";
const DELETE_LAYER: &str = "DELETE FROM policy_layer WHERE owner_id = $1";
const WATCHED: &str = "SELECT w.host_id, w.item, w.body, w.added_by, w.added_at \
    FROM host_watch w JOIN host h ON h.id = w.host_id \
    WHERE h.retired_at IS NULL ORDER BY w.host_id, w.added_at, w.item";
const WATCHED_ON: &str = "SELECT host_id, item, body, added_by, added_at FROM host_watch \
    WHERE host_id = $1 ORDER BY added_at, item";
const INSERT: &str = "INSERT INTO host_watch (host_id, item, body, added_by, added_at) \
    SELECT id, $2, $3, $4, $5 FROM host WHERE id = $1 AND retired_at IS NULL \
    ON CONFLICT (host_id, item) DO NOTHING";
const DELETE: &str = "DELETE FROM host_watch WHERE host_id = $1 AND item = $2";

statements! {
    GENERATION, BUMP, LAYERS, PUT_LAYER, DELETE_LAYER, WATCHED, WATCHED_ON, INSERT, DELETE
}

row! {
    /// What one owner's hosts are asked for.
    #[derive(Clone, Debug)]
    pub struct LayerRow {
        /// The client, the site or the contract.
        pub owner_id: Uuid,
        /// `client`, `site` or `contract`.
        pub level: String,
        /// JSON.
        pub body: String,
    }
}

row! {
    /// Something that a person chose to have watched on one host.
    #[derive(Clone, Debug)]
    pub struct WatchRow {
        pub host_id: Uuid,
        /// The key of the check.
        pub item: String,
        /// JSON.
        pub body: String,
        /// The person's name.
        pub added_by: String,
        pub added_at: i64,
    }
}

/// Something to have watched on one host from now on.
#[derive(Clone, Copy, Debug)]
pub struct NewWatch<'a> {
    pub host: HostId,
    /// The key of the check.
    pub item: &'a str,
    /// JSON.
    pub body: &'a str,
    /// The person's name.
    pub added_by: &'a str,
    /// Now.
    pub added_at: UnixMillis,
}

/// A number that differs after each change of what this module keeps.
pub async fn generation(store: &Store) -> Result<i64, StoreError> {
    let (value,): (i64,) = on_read!(store, c => sqlx::query_as(GENERATION).fetch_one(c).await)?;
    Ok(value)
}

/// Moves the generation on; part of each change.
pub async fn bump(tx: &mut Tx) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(BUMP).execute(c).await.map(drop))?;
    Ok(())
}

/// The layers of all owners.
pub async fn layers(store: &Store) -> Result<Vec<LayerRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(LAYERS).fetch_all(c).await)?)
}

/// Sets an owner's layer.
pub async fn put_layer(
    tx: &mut Tx,
    owner: Uuid,
    level: &str,
    body: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(PUT_LAYER)
        .bind(owner)
        .bind(level)
        .bind(body)
        .bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Removes an owner's layer.
pub async fn delete_layer(tx: &mut Tx, owner: Uuid) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(DELETE_LAYER).bind(owner).execute(c).await.map(drop))?;
    Ok(())
}

/// What was chosen for single hosts that are not retired, by host.
pub async fn watched(store: &Store) -> Result<Vec<WatchRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(WATCHED).fetch_all(c).await)?)
}

/// What was chosen for one host.
pub async fn watched_on(store: &Store, host: HostId) -> Result<Vec<WatchRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(WATCHED_ON).bind(host.uuid()).fetch_all(c).await)?)
}

/// Adds something to watch. `false` if it is there already, or the host is unknown or retired.
pub async fn insert_watch(tx: &mut Tx, new: &NewWatch<'_>) -> Result<bool, StoreError> {
    Ok(on_tx!(tx, c => sqlx::query(INSERT)
        .bind(new.host.uuid())
        .bind(new.item)
        .bind(new.body)
        .bind(new.added_by)
        .bind(new.added_at.0)
        .execute(c).await.map(|done| done.rows_affected() > 0))?)
}

/// Removes something from what is watched. `false` if it was not there.
pub async fn delete_watch(tx: &mut Tx, host: HostId, item: &str) -> Result<bool, StoreError> {
    Ok(on_tx!(tx, c => sqlx::query(DELETE)
        .bind(host.uuid())
        .bind(item)
        .execute(c).await.map(|done| done.rows_affected() > 0))?)
}
