//! Metric history: the tail walked backwards per host, and sealed chunks.

use uuid::Uuid;
use watchkeep_core::ids::ClientId;
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    heartbeats::ValuesRow,
    row::row,
    tx::{on_read, on_tx},
};
use crate::ids::RowIds;

/// Walks a host's rows backwards from one of them. Identifiers tell the time of arrival, and no row
/// is made after it arrives, so the walk ends at the first row that arrived before the window, or
/// where the tail was sealed.
const WALK: &str = "WITH RECURSIVE walk (id, prev_id, at, schema_id, vals, left_rows) AS ( \
      SELECT id, prev_id, at, schema_id, vals, CAST($4 AS BIGINT) FROM heartbeat WHERE id = $1 \
      UNION ALL \
      SELECT h.id, h.prev_id, h.at, h.schema_id, h.vals, walk.left_rows - 1 \
      FROM walk JOIN heartbeat h ON h.id = walk.prev_id \
      WHERE walk.left_rows > 0 AND walk.prev_id >= $3 \
    ) SELECT id, at, schema_id, vals FROM walk WHERE at >= $2";
const CHUNKS: &str = "SELECT hour, body FROM chunk \
    WHERE client_id = $1 AND host_id = $2 AND hour >= $3 AND hour < $4 ORDER BY hour";
const CHUNK: &str = "SELECT body FROM chunk WHERE client_id = $1 AND host_id = $2 AND hour = $3";
const PUT_CHUNK: &str = "INSERT INTO chunk (client_id, host_id, hour, body) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (client_id, host_id, hour) \
    DO UPDATE SET body = excluded.body";
const SEALABLE: &str = "SELECT id, host_id, at, schema_id, vals FROM heartbeat \
    WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3";
const DROP_SEALED: &str = "DELETE FROM heartbeat WHERE id > $1 AND id <= $2";
const DROP_OLD_CHUNKS: &str = "DELETE FROM chunk WHERE hour < $1";
/// The last of the next so many rows.
const IDS_AFTER: &str = "SELECT MAX(id) FROM (SELECT id FROM heartbeat \
    WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3) AS page";
const OLDEST: &str = "SELECT MIN(id) FROM heartbeat";

/// Longest walk: a day at one heartbeat a second.
const MAX_WALK_ROWS: i64 = 86_400;

row! {
    /// A heartbeat's values on their way into a chunk.
    #[derive(Clone, Debug)]
    pub struct SealableRow {
        /// Its row.
        pub id: i64,
        /// Whose it is.
        pub host_id: Uuid,
        /// When it was made.
        pub at: i64,
        /// Names of its values.
        pub schema_id: i64,
        /// Encoded values.
        pub vals: Vec<u8>,
    }
}

/// A host's unsealed values since `from`, newest arrival first, walking backwards from its newest
/// row.
pub async fn walk(
    store: &Store,
    newest: i64,
    from: UnixMillis,
) -> Result<Vec<ValuesRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(WALK)
        .bind(newest).bind(from.0).bind(RowIds::first_at(from)).bind(MAX_WALK_ROWS)
        .fetch_all(c).await)?)
}

/// A host's chunks of the hours that begin in `[from, to)`.
pub async fn chunks(
    store: &Store,
    client: ClientId,
    host: HostId,
    from: UnixMillis,
    to: UnixMillis,
) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(CHUNKS)
        .bind(client.uuid()).bind(host.uuid()).bind(from.0).bind(to.0)
        .fetch_all(c).await)?)
}

/// One chunk, as a transaction sees it.
pub async fn chunk(
    tx: &mut Tx,
    client: ClientId,
    host: HostId,
    hour: i64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row: Option<(Vec<u8>,)> = on_tx!(tx, c => sqlx::query_as(CHUNK)
        .bind(client.uuid()).bind(host.uuid()).bind(hour).fetch_optional(c).await)?;
    Ok(row.map(|(body,)| body))
}

/// Writes one chunk in place of the one before.
pub async fn put_chunk(
    tx: &mut Tx,
    client: ClientId,
    host: HostId,
    hour: i64,
    body: &[u8],
) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(PUT_CHUNK)
        .bind(client.uuid()).bind(host.uuid()).bind(hour).bind(body)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Rows after `after` and before `before` (identifiers), in order.
pub async fn sealable(
    store: &Store,
    after: i64,
    before: i64,
    limit: i64,
) -> Result<Vec<SealableRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(SEALABLE)
        .bind(after).bind(before).bind(limit)
        .fetch_all(c).await)?)
}

/// Drops rows that are in chunks now, after `after` through `through`.
pub async fn drop_sealed(tx: &mut Tx, after: i64, through: i64) -> Result<u64, StoreError> {
    Ok(
        on_tx!(tx, c => sqlx::query(DROP_SEALED).bind(after).bind(through)
        .execute(c).await.map(|done| done.rows_affected()))?,
    )
}

/// Drops chunks of hours before `hour`.
pub async fn drop_old_chunks(tx: &mut Tx, hour: UnixMillis) -> Result<u64, StoreError> {
    Ok(on_tx!(tx, c => sqlx::query(DROP_OLD_CHUNKS).bind(hour.0)
        .execute(c).await.map(|done| done.rows_affected()))?)
}

/// The identifier of the last of the next `limit` rows after `after` through `through`.
pub async fn ids_after(
    store: &Store,
    after: i64,
    through: i64,
    limit: i64,
) -> Result<Option<i64>, StoreError> {
    let (id,): (Option<i64>,) = on_read!(store, c => sqlx::query_as(IDS_AFTER)
        .bind(after).bind(through).bind(limit).fetch_one(c).await)?;
    Ok(id)
}

/// The oldest row of the tail.
pub async fn oldest_id(store: &Store) -> Result<Option<i64>, StoreError> {
    let (id,): (Option<i64>,) = on_read!(store, c => sqlx::query_as(OLDEST).fetch_one(c).await)?;
    Ok(id)
}
