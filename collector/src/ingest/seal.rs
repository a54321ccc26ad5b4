//! The sealer: whole hours of heartbeats, by arrival, become one compressed chunk per host and
//! hour, and their rows are dropped; chunks past their retention go too.
//!
//! Rows are read in arrival order. Rows that arrived late belong to an hour that was sealed before
//! and are merged into its chunk. Crash-safe at every point: chunks are written before their rows are
//! dropped, and merging the same rows again changes nothing, because a time is kept once. A large
//! fleet is sealed in several passes over the hour, by partition, so that memory stays bounded.

use std::collections::HashMap;

use watchkeep_core::{
    ids::ClientId,
    series::{self as codec, ChunkData, Row, row},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis, ids::SchemaId};

use crate::{
    app::App,
    ids::RowIds,
    series::{HOUR_MS, seal_before},
    store::{StoreError, fleet, history},
};

/// An hour is sealed this long after its end: the newest chart reads stay in the tail, and the
/// start of an hour is not when everything happens.
const SETTLE: DurationMs = DurationMs::from_mins(5);
/// Rows read at a time.
const PAGE_ROWS: i64 = 5_000;
/// Rows held in memory by one pass, about 100 bytes a value-heavy row after decoding.
const MAX_PASS_ROWS: usize = 400_000;
/// Chunks written in one transaction: other writers wait for it.
const CHUNKS_PER_COMMIT: usize = 200;
/// Rows dropped in one transaction.
const DROP_ROWS: usize = 20_000;

/// What one sealing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Rows that are in chunks now.
    pub rows: usize,
    /// Chunks written.
    pub chunks: usize,
    /// Chunks dropped for their age.
    pub expired: u64,
}

type Hours = HashMap<(HostId, i64), Vec<Row>>;

/// Seals what is due.
pub async fn seal(app: &App, now: UnixMillis) -> Result<Sealed, StoreError> {
    let mut sealed = Sealed::default();
    let before = RowIds::first_at(seal_before(now, SETTLE));
    let clients: HashMap<HostId, ClientId> = fleet::hosts(&app.store)
        .await?
        .into_iter()
        .map(|row| (HostId(row.id), ClientId(row.client_id)))
        .collect();
    let mut after = history::oldest_id(&app.store)
        .await?
        .map_or(before, |id| id - 1);
    while after < before {
        let (through, rows, hours) = read_pass(app, after, before).await?;
        if rows == 0 {
            break;
        }
        sealed.rows += rows;
        sealed.chunks += write(app, &clients, hours).await?;
        drop_rows(app, after, through).await?;
        after = through;
    }
    let oldest = now - DurationMs(i64::from(app.config.history.raw_days) * 24 * HOUR_MS);
    let mut tx = app.store.begin().await?;
    sealed.expired = history::drop_old_chunks(&mut tx, oldest).await?;
    tx.commit().await?;
    Ok(sealed)
}

/// Reads rows in arrival order, as many as memory allows. Returns the last row's identifier, how
/// many rows there were, and the rows by host and hour.
async fn read_pass(
    app: &App,
    mut after: i64,
    before: i64,
) -> Result<(i64, usize, Hours), StoreError> {
    let mut hours = Hours::new();
    let mut count = 0;
    while count < MAX_PASS_ROWS {
        let page = history::sealable(&app.store, after, before, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        count += page.len();
        for stored in page {
            let values = row::decode_hundredths(&stored.vals)
                .map_err(|error| StoreError::corrupt("heartbeat", "vals", stored.id, error))?;
            let hour = stored.at.div_euclid(HOUR_MS) * HOUR_MS;
            let schema = SchemaId(stored.schema_id as u64);
            let row = Row {
                at: UnixMillis(stored.at),
                schema,
                values,
            };
            hours
                .entry((HostId(stored.host_id), hour))
                .or_default()
                .push(row);
        }
    }
    Ok((after, count, hours))
}

async fn write(
    app: &App,
    clients: &HashMap<HostId, ClientId>,
    hours: Hours,
) -> Result<usize, StoreError> {
    let mut written = 0;
    let mut hours: Vec<_> = hours.into_iter().collect();
    while !hours.is_empty() {
        let rest = hours.len().saturating_sub(CHUNKS_PER_COMMIT);
        let mut tx = app.store.begin().await?;
        for ((host, hour), rows) in hours.split_off(rest) {
            // A host that is in no table any more has no history to keep.
            let Some(client) = clients.get(&host) else {
                continue;
            };
            let mut chunk = ChunkData::from_rows(rows);
            if let Some(body) = history::chunk(&mut tx, *client, host, hour).await? {
                let earlier = codec::decode(&body)
                    .map_err(|error| StoreError::corrupt("chunk", "body", hour, error))?;
                chunk = codec::merge(&earlier, &chunk);
            }
            let body = codec::encode(&chunk)
                .map_err(|error| StoreError::corrupt("chunk", "body", hour, error))?;
            history::put_chunk(&mut tx, *client, host, hour, &body).await?;
            written += 1;
        }
        tx.commit().await?;
    }
    Ok(written)
}

/// Drops sealed rows in pieces, so that the pipeline's writes come in between.
async fn drop_rows(app: &App, after: i64, through: i64) -> Result<(), StoreError> {
    let mut from = after;
    while from < through {
        let page = history::ids_after(&app.store, from, through, DROP_ROWS as i64).await?;
        let Some(to) = page else { break };
        let mut tx = app.store.begin().await?;
        history::drop_sealed(&mut tx, from, to).await?;
        tx.commit().await?;
        from = to;
    }
    Ok(())
}
