//! Metric history: the tail walked backwards per host, and sealed chunks.

use uuid::Uuid;
use watchkeep_core::ids::ClientId;
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    dialect::{in_sql, pieces},
    heartbeats::ValuesRow,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};
use crate::ids::RowIds;

/// Walks a host's rows backwards from one of them. Identifiers grow with the time of arrival, and no row
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
    WHERE client_id = $1 AND host_id = $2 AND hour >= $3 AND hour < $4 ORDER BY hour LIMIT $5";
const CHUNK: &str = "SELECT body FROM chunk WHERE client_id = $1 AND host_id = $2 AND hour = $3";
const PUT_CHUNK: &str = "INSERT INTO chunk (client_id, host_id, hour, body) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (client_id, host_id, hour) \
    DO UPDATE SET body = excluded.body";
const SEALABLE: &str = "SELECT id, host_id, at, schema_id, vals FROM heartbeat \
    WHERE id > $1 AND id < $2 AND part >= $3 AND part < $4 ORDER BY id LIMIT $5";
const DROP_ROWS: &str = "DELETE FROM heartbeat WHERE id IN (";
const OLD_CHUNKS: &str =
    "SELECT client_id, host_id, hour FROM chunk WHERE hour < $1 ORDER BY hour LIMIT $2";
const DROP_CHUNK: &str = "DELETE FROM chunk WHERE client_id = $1 AND host_id = $2 AND hour = $3";
const OLDEST: &str = "SELECT MIN(id) FROM heartbeat";
const OLDEST_CHUNK: &str = "SELECT MIN(hour) FROM chunk";

statements! {
    WALK, CHUNKS, CHUNK, PUT_CHUNK, SEALABLE, OLD_CHUNKS, DROP_CHUNK, OLDEST, OLDEST_CHUNK;
    lists DROP_ROWS
}

/// Longest walk: an hour and more at the shortest interval.
const MAX_WALK_ROWS: i64 = 20_000;

row! {
    /// A heartbeat's values on their way into a chunk.
    #[derive(Clone, Debug)]
    pub struct SealableRow {
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

/// Chunks of one host, of the hours that begin in `[from, to)`.
#[derive(Clone, Copy, Debug)]
pub struct Hours {
    /// Whose host it is.
    pub client: ClientId,
    pub host: HostId,
    /// From this hour.
    pub from: UnixMillis,
    /// Before this instant.
    pub to: UnixMillis,
}

/// A host's chunks with the start of their hours, oldest first.
pub async fn chunks(
    store: &Store,
    hours: Hours,
    limit: i64,
) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(CHUNKS)
        .bind(hours.client.uuid()).bind(hours.host.uuid()).bind(hours.from.0).bind(hours.to.0)
        .bind(limit).fetch_all(c).await)?)
}

/// Names a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkKey {
    /// Whose host it is.
    pub client: ClientId,
    pub host: HostId,
    /// Start of the hour, milliseconds since the Unix epoch.
    pub hour: i64,
}

/// One chunk.
pub async fn chunk(store: &Store, key: ChunkKey) -> Result<Option<Vec<u8>>, StoreError> {
    let row: Option<(Vec<u8>,)> = on_read!(store, c => sqlx::query_as(CHUNK)
        .bind(key.client.uuid()).bind(key.host.uuid()).bind(key.hour).fetch_optional(c).await)?;
    Ok(row.map(|(body,)| body))
}

/// Writes one chunk in place of the one before.
pub async fn put_chunk(tx: &mut Tx, key: ChunkKey, body: &[u8]) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(PUT_CHUNK)
        .bind(key.client.uuid()).bind(key.host.uuid()).bind(key.hour).bind(body)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Rows of the tail in arrival order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailRange {
    /// After this row.
    pub after: i64,
    /// Before this row.
    pub before: i64,
    /// Of hosts in these partitions.
    pub parts: std::ops::Range<i32>,
}

/// The first rows of a range.
pub async fn sealable(
    store: &Store,
    range: &TailRange,
    limit: i64,
) -> Result<Vec<SealableRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(SEALABLE)
        .bind(range.after).bind(range.before).bind(range.parts.start).bind(range.parts.end)
        .bind(limit)
        .fetch_all(c).await)?)
}

/// Deletes rows of the tail.
pub async fn drop_rows(tx: &mut Tx, ids: &[i64]) -> Result<(), StoreError> {
    for piece in pieces(ids) {
        let sql = in_sql(DROP_ROWS, piece.len(), tx.placeholder());
        on_tx!(tx, c => {
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for id in piece {
                query = query.bind(id);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// Drops some chunks of hours before `hour`. Returns how many.
pub async fn drop_old_chunks(tx: &mut Tx, hour: UnixMillis, limit: i64) -> Result<u64, StoreError> {
    let old: Vec<(Uuid, Uuid, i64)> = on_tx!(tx, c => sqlx::query_as(OLD_CHUNKS)
        .bind(hour.0).bind(limit).fetch_all(c).await)?;
    // One by one: PostgreSQL, which does not know how few they are, might join them with all.
    for (client, host, hour) in &old {
        on_tx!(tx, c => sqlx::query(DROP_CHUNK).bind(client).bind(host).bind(hour)
            .execute(c).await.map(drop))?;
    }
    Ok(old.len() as u64)
}

/// The oldest hour of any chunk.
pub async fn oldest_chunk(store: &Store) -> Result<Option<UnixMillis>, StoreError> {
    let (hour,): (Option<i64>,) =
        on_read!(store, c => sqlx::query_as(OLDEST_CHUNK).fetch_one(c).await)?;
    Ok(hour.map(UnixMillis))
}

/// The oldest row of the tail.
pub async fn oldest_id(store: &Store) -> Result<Option<i64>, StoreError> {
    let (id,): (Option<i64>,) = on_read!(store, c => sqlx::query_as(OLDEST).fetch_one(c).await)?;
    Ok(id)
}
