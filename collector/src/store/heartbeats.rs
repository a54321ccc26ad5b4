//! The tail: heartbeats as they arrived, and each host's written state.

use std::{collections::HashMap, sync::Arc};

use uuid::Uuid;
use watchkeep_core::series::Names;
use watchkeep_shared::{HostId, UnixMillis, ids::SchemaId};

use super::{
    Store, StoreError, Tx,
    dialect::{in_sql, insert_many, pieces},
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};

const INSERT: &str = "INSERT INTO heartbeat (id, prev_id, host_id, boot, instance, seq, at, \
    recorded_at, mono_ms, boot_ms, interval_ms, late, schema_id, vals, part)";
const PUT_SCHEMA: &str = "INSERT INTO metric_schema (id, names, created_at) VALUES ($1, $2, $3) \
    ON CONFLICT (id) DO UPDATE SET unused_at = NULL";
const USE_SCHEMA: &str = "INSERT INTO host_schema (host_id, schema_id, since) \
    VALUES ($1, $2, $3) ON CONFLICT (host_id, schema_id) DO NOTHING";
const DROP_SCHEMA: &str = "DELETE FROM host_schema WHERE host_id = $1 AND schema_id = $2";
/// The table of uses decides: what is in memory may be held a little longer.
const SET_UNUSED: &str = "UPDATE metric_schema SET unused_at = $2 WHERE id = $1 \
    AND NOT EXISTS (SELECT 1 FROM host_schema WHERE schema_id = $1)";
const SCHEMAS: &str = "SELECT id, names FROM metric_schema WHERE unused_at IS NULL";
const HOST_SCHEMAS: &str = "SELECT host_id, schema_id, since FROM host_schema";
const SCHEMAS_OF: &str = "SELECT u.schema_id, u.since, m.names FROM host_schema u \
    JOIN metric_schema m ON m.id = u.schema_id WHERE u.host_id = $1";
const NAMES_OF: &str = "SELECT id, names FROM metric_schema WHERE id IN (";
/// Lists that no host uses since `$1`; chunks before `$2`, which do not hold names, are gone.
const PRUNABLE: &str = "SELECT id FROM metric_schema \
    WHERE unused_at IS NOT NULL AND unused_at < $1 AND chunks_through < $2 ORDER BY unused_at LIMIT $3";
const PRUNE: &str = "DELETE FROM metric_schema WHERE id = $1 AND unused_at IS NOT NULL";
const PUT_STATE: &str = "INSERT INTO host_state \
    (host_id, part, arrival_id, last_id, state, updated_at) VALUES ($1, $2, $3, $4, $5, $6) \
    ON CONFLICT (host_id) DO UPDATE SET part = excluded.part, arrival_id = excluded.arrival_id, \
    last_id = excluded.last_id, state = excluded.state, updated_at = excluded.updated_at";
const STATES: &str = "SELECT host_id, arrival_id, last_id, state FROM host_state";
const STATE_OF: &str =
    "SELECT host_id, arrival_id, last_id, state FROM host_state WHERE host_id = $1";
/// The tail after a point, in pages by primary key.
const TAIL: &str = "SELECT id, host_id, boot, instance, seq, at, recorded_at, mono_ms, boot_ms, \
    interval_ms, late FROM heartbeat WHERE id > $1 ORDER BY id LIMIT $2";
// Leaves out what the hosts' written states hold already, before it costs anything: after a
// backlog that is nearly all there is.
const UNSEEN: &str = "SELECT h.id, h.host_id, h.boot, h.instance, h.seq, h.at, h.recorded_at, \
    h.mono_ms, h.boot_ms, h.interval_ms, h.late FROM heartbeat h \
    LEFT JOIN host_state s ON s.host_id = h.host_id \
    WHERE h.id > $1 AND h.id > COALESCE(s.arrival_id, 0) ORDER BY h.id LIMIT $2";
const NEWEST: &str = "SELECT id, recorded_at FROM heartbeat ORDER BY id DESC LIMIT 1";
const VALUES_OF: &str = "SELECT id, at, schema_id, vals FROM heartbeat WHERE id IN (";

statements! {
    PUT_SCHEMA, USE_SCHEMA, DROP_SCHEMA, SET_UNUSED, SCHEMAS, HOST_SCHEMAS, SCHEMAS_OF, PRUNABLE,
    PRUNE, PUT_STATE, STATES, STATE_OF, TAIL, UNSEEN, NEWEST;
    rows INSERT 15;
    lists NAMES_OF, VALUES_OF
}

/// Rows of the tail read at a time at start.
const TAIL_PAGE_ROWS: i64 = 20_000;

/// A heartbeat about to be stored.
#[derive(Debug)]
pub struct NewHeartbeat {
    pub id: i64,
    /// The host's row before it, 0 if it is the first.
    pub prev_id: i64,
    /// Whose it is.
    pub host: HostId,
    /// Its boot, process, number and times.
    pub mark: watchkeep_core::evidence::FrameMark,
    /// The interval it named.
    pub interval_ms: u32,
    /// Received late.
    pub late: bool,
    /// Names of its values.
    pub schema: SchemaId,
    /// Its values, encoded by `watchkeep_core::series::row`.
    pub values: Vec<u8>,
}

row! {
    /// A heartbeat of the tail without its values.
    #[derive(Clone, Copy, Debug)]
    pub struct TailRow {
        pub id: i64,
        /// Whose it is.
        pub host_id: Uuid,
        pub boot: Uuid,
        /// Its agent process.
        pub instance: Uuid,
        /// Its sequence number.
        pub seq: i64,
        /// When it was made.
        pub at: i64,
        /// When it arrived.
        pub recorded_at: i64,
        /// Monotonic clock.
        pub mono_ms: i64,
        /// Boot-time clock.
        pub boot_ms: i64,
        pub interval_ms: i32,
        /// Received late.
        pub late: bool,
    }
}

row! {
    /// A host's written state.
    #[derive(Clone, Debug)]
    pub struct StateRow {
        /// Whose it is.
        pub host_id: Uuid,
        /// Heartbeats up to here are in it.
        pub arrival_id: i64,
        /// The host's newest heartbeat then.
        pub last_id: i64,
        /// JSON.
        pub state: String,
    }
}

row! {
    /// One heartbeat's values.
    #[derive(Clone, Debug)]
    pub struct ValuesRow {
        pub id: i64,
        /// When it was made.
        pub at: i64,
        /// Names of its values.
        pub schema_id: i64,
        /// Encoded values.
        pub vals: Vec<u8>,
    }
}

/// A state about to be written.
#[derive(Debug)]
pub struct NewState {
    /// Whose it is.
    pub host: HostId,
    /// Heartbeats up to here are in it.
    pub arrival_id: i64,
    /// The host's newest heartbeat.
    pub last_id: i64,
    /// JSON.
    pub state: String,
}

/// Appends heartbeats.
pub async fn insert(tx: &mut Tx, rows: &[NewHeartbeat]) -> Result<(), StoreError> {
    insert_many!(tx, INSERT, 15, rows, |query, row| query
        .bind(row.id)
        .bind(row.prev_id)
        .bind(row.host.uuid())
        .bind(row.mark.boot.uuid())
        .bind(row.mark.instance.uuid())
        .bind(row.mark.seq as i64)
        .bind(row.mark.at.0)
        .bind(row.mark.arrived_at.0)
        .bind(row.mark.mono_ms)
        .bind(row.mark.boot_ms)
        .bind(row.interval_ms as i32)
        .bind(row.late)
        .bind(row.schema.0 as i64)
        .bind(row.values.as_slice())
        .bind(super::fleet::partition_of(row.host)));
    Ok(())
}

/// Changes to the lists of metric names that hosts use, in the order in which they are written.
#[derive(Debug, Default)]
pub struct SchemaWrites {
    /// Lists that no host used before.
    pub lists: Vec<(SchemaId, Names)>,
    /// Lists that a host uses from now on.
    pub used: Vec<(HostId, SchemaId)>,
    /// Lists that a host uses no longer.
    pub dropped: Vec<(HostId, SchemaId)>,
    /// Lists that no host used at the start.
    pub unused: Vec<SchemaId>,
}

impl SchemaWrites {
    /// Whether there is nothing to write.
    pub const fn is_empty(&self) -> bool {
        self.lists.is_empty()
            && self.used.is_empty()
            && self.dropped.is_empty()
            && self.unused.is_empty()
    }

    /// A host uses a list from now on; `names` if no other one did.
    pub fn use_list(&mut self, host: HostId, id: SchemaId, names: Option<Names>) {
        self.unused.retain(|unused| *unused != id);
        self.lists.extend(names.map(|names| (id, names)));
        self.dropped.retain(|dropped| *dropped != (host, id));
        self.used.push((host, id));
    }

    /// A host uses a list no longer.
    pub fn drop_list(&mut self, host: HostId, id: SchemaId) {
        self.used.retain(|used| *used != (host, id));
        self.dropped.push((host, id));
    }
}

/// Writes changes to the lists of metric names.
pub async fn write_schemas(
    tx: &mut Tx,
    writes: &SchemaWrites,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for (id, names) in &writes.lists {
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let names = serde_json::to_string(&names)
            .map_err(|error| StoreError::corrupt("metric_schema", "names", id, error))?;
        on_tx!(tx, c => sqlx::query(PUT_SCHEMA).bind(id.0 as i64).bind(&names).bind(now.0)
            .execute(c).await.map(drop))?;
    }
    for (host, id) in &writes.used {
        on_tx!(tx, c => sqlx::query(USE_SCHEMA).bind(host.uuid()).bind(id.0 as i64).bind(now.0)
            .execute(c).await.map(drop))?;
    }
    for (host, id) in &writes.dropped {
        on_tx!(tx, c => sqlx::query(DROP_SCHEMA).bind(host.uuid()).bind(id.0 as i64)
            .execute(c).await.map(drop))?;
    }
    let dropped = writes.dropped.iter().map(|(_, id)| id);
    for id in writes.unused.iter().chain(dropped) {
        on_tx!(tx, c => sqlx::query(SET_UNUSED).bind(id.0 as i64).bind(now.0)
            .execute(c).await.map(drop))?;
    }
    Ok(())
}

/// The lists that some host uses.
pub async fn schemas(store: &Store) -> Result<HashMap<SchemaId, Vec<String>>, StoreError> {
    let rows: Vec<(i64, String)> =
        on_read!(store, c => sqlx::query_as(SCHEMAS).fetch_all(c).await)?;
    Ok(rows.into_iter().filter_map(names_of_row).collect())
}

/// Which host uses which list since when.
pub async fn host_schemas(
    store: &Store,
) -> Result<Vec<(HostId, SchemaId, UnixMillis)>, StoreError> {
    let rows: Vec<(Uuid, i64, i64)> =
        on_read!(store, c => sqlx::query_as(HOST_SCHEMAS).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .map(|(host, id, since)| (HostId(host), SchemaId(id as u64), UnixMillis(since)))
        .collect())
}

/// The lists that one host uses, and since when.
pub async fn schemas_of(
    store: &Store,
    host: HostId,
) -> Result<Vec<(SchemaId, UnixMillis, Vec<String>)>, StoreError> {
    let rows: Vec<(i64, i64, String)> = on_read!(store, c => sqlx::query_as(SCHEMAS_OF)
        .bind(host.uuid()).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .filter_map(|(id, since, names)| {
            let (id, names) = names_of_row((id, names))?;
            Some((id, UnixMillis(since), names))
        })
        .collect())
}

/// The names of these lists; those that are not there are left out.
pub async fn names_of(
    store: &Store,
    ids: &[SchemaId],
) -> Result<HashMap<SchemaId, Names>, StoreError> {
    let mut found = HashMap::with_capacity(ids.len());
    for piece in pieces(ids) {
        let sql = in_sql(NAMES_OF, piece.len(), store.placeholder());
        let rows: Vec<(i64, String)> = on_read!(store, c => {
            let mut query = sqlx::query_as(sqlx::AssertSqlSafe(sql));
            for id in piece {
                query = query.bind(id.0 as i64);
            }
            query.fetch_all(c).await
        })?;
        found.extend(rows.into_iter().filter_map(|row| {
            let (id, names) = names_of_row(row)?;
            let names: Names = names.into_iter().map(Arc::from).collect();
            Some((id, names))
        }));
    }
    Ok(found)
}

/// A list that can't be read counts as none: its host is asked for it again.
fn names_of_row((id, names): (i64, String)) -> Option<(SchemaId, Vec<String>)> {
    let names = serde_json::from_str(&names)
        .inspect_err(|error| tracing::error!("corrupt metric_schema.names of row {id}: {error}"))
        .ok()?;
    Some((SchemaId(id as u64), names))
}

/// Lists to prune: unused since before `unused_before`, and in no chunk that lacks names, all of which
/// are of hours before `oldest_chunk`.
pub async fn prunable_schemas(
    store: &Store,
    unused_before: UnixMillis,
    oldest_chunk: UnixMillis,
    limit: i64,
) -> Result<Vec<SchemaId>, StoreError> {
    let rows: Vec<(i64,)> = on_read!(store, c => sqlx::query_as(PRUNABLE)
        .bind(unused_before.0).bind(oldest_chunk.0).bind(limit).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id,)| SchemaId(id as u64)).collect())
}

/// Prunes a list unless a host uses it again.
pub async fn prune_schema(tx: &mut Tx, id: SchemaId) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(PRUNE).bind(id.0 as i64).execute(c).await.map(drop))?;
    Ok(())
}

/// Writes the states of hosts.
pub async fn put_states(
    tx: &mut Tx,
    states: &[NewState],
    now: UnixMillis,
) -> Result<(), StoreError> {
    for state in states {
        on_tx!(tx, c => sqlx::query(PUT_STATE)
            .bind(state.host.uuid())
            .bind(super::fleet::partition_of(state.host))
            .bind(state.arrival_id)
            .bind(state.last_id)
            .bind(&state.state)
            .bind(now.0)
            .execute(c).await.map(drop))?;
    }
    Ok(())
}

/// All written states.
pub async fn states(store: &Store) -> Result<Vec<StateRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(STATES).fetch_all(c).await)?)
}

/// One host's written state.
pub async fn state_of(store: &Store, host: HostId) -> Result<Option<StateRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(STATE_OF).bind(host.uuid()).fetch_optional(c).await)?)
}

/// A page of the tail after a row, in arrival order. Empty at the end.
pub async fn tail_after(store: &Store, id: i64) -> Result<Vec<TailRow>, StoreError> {
    Ok(
        on_read!(store, c => sqlx::query_as(TAIL).bind(id).bind(TAIL_PAGE_ROWS)
        .fetch_all(c).await)?,
    )
}

/// The same of those rows that came after their host's state was written.
pub async fn unseen_after(store: &Store, id: i64) -> Result<Vec<TailRow>, StoreError> {
    Ok(
        on_read!(store, c => sqlx::query_as(UNSEEN).bind(id).bind(TAIL_PAGE_ROWS)
        .fetch_all(c).await)?,
    )
}

/// The newest row and when it arrived.
pub async fn newest(store: &Store) -> Result<Option<(i64, UnixMillis)>, StoreError> {
    let row: Option<(i64, i64)> =
        on_read!(store, c => sqlx::query_as(NEWEST).fetch_optional(c).await)?;
    Ok(row.map(|(id, at)| (id, UnixMillis(at))))
}

/// The values of these heartbeats, in any order; those that are not there are left out.
pub async fn values_of(store: &Store, ids: &[i64]) -> Result<Vec<ValuesRow>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    for piece in pieces(ids) {
        let sql = in_sql(VALUES_OF, piece.len(), store.placeholder());
        let rows: Vec<ValuesRow> = on_read!(store, c => {
            let mut query = sqlx::query_as(sqlx::AssertSqlSafe(sql));
            for id in piece {
                query = query.bind(id);
            }
            query.fetch_all(c).await
        })?;
        found.extend(rows);
    }
    Ok(found)
}

impl TailRow {
    /// As the decisions know it.
    pub fn stored_frame(&self) -> watchkeep_core::host::StoredFrame {
        watchkeep_core::host::StoredFrame {
            mark: watchkeep_core::evidence::FrameMark {
                boot: self.boot.into(),
                instance: self.instance.into(),
                seq: self.seq as u64,
                at: UnixMillis(self.at),
                arrived_at: UnixMillis(self.recorded_at),
                mono_ms: self.mono_ms,
                boot_ms: self.boot_ms,
            },
            late: self.late,
            interval_ms: self.interval_ms as u32,
        }
    }
}
