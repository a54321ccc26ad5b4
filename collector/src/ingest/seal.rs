//! The sealer: whole hours of heartbeats, by arrival, become one compressed chunk per host and hour,
//! and their rows are deleted; chunks past their retention go too.
//!
//! Rows that arrived late belong to an hour that was sealed before and are merged into its chunk.
//! Crash-safe at every point: chunks are written before their rows are deleted, and merging the same
//! rows again changes nothing, because a time is kept once. Rows are deleted by their keys.
//!
//! A pass holds at most [`MAX_PASS_BYTES`] of rows: a fleet with more is read in several passes over
//! the same hour, by partitions of hosts, so that each chunk is written once. Decoding, merging and
//! compressing happen outside of any transaction, on a thread that may block.
//!
//! What is wrong with one host's rows costs that host alone: what can't be read is set aside, what
//! exceeds a chunk is thinned out, and both are counted, logged and recorded with the host.

mod pass;
mod work;

use std::collections::HashMap;

use watchkeep_core::{ids::ClientId, series::Names};
use watchkeep_shared::{DurationMs, HostId, UnixMillis, ids::SchemaId};

use self::{
    pass::{Job, Pass},
    work::{Input, Output, seal_all},
};
use crate::{
    app::App,
    history::LostRows,
    ids::RowIds,
    series::{HOUR_MS, blocking, seal_before},
    store::{
        StoreError, fleet, heartbeats,
        history::{self, ChunkKey},
        record::{self, NewEvent},
        set_aside,
    },
};

/// An hour is sealed this long after its end: the newest chart reads stay in the tail, and the
/// start of an hour is not when everything happens.
const SETTLE: DurationMs = DurationMs::from_mins(5);
/// Rows of one pass in memory, bytes.
const MAX_PASS_BYTES: usize = 64 * 1024 * 1024;
/// Chunks made and written together: other writers wait for the transaction.
const CHUNKS_AT_ONCE: usize = 64;
/// Rows of the chunks that are made together, bytes.
const BYTES_AT_ONCE: usize = 16 * 1024 * 1024;
/// Rows deleted in one transaction.
const DROP_ROWS: usize = 20_000;
/// Old chunks deleted in one transaction, and transactions in one sealing.
const EXPIRE_CHUNKS: i64 = 500;
const EXPIRE_ROUNDS: usize = 20;
/// Lists of names pruned in one sealing.
const PRUNE_LISTS: i64 = 200;
/// The kind of the event that records what a host's history lacks.
const LOST: &str = "history_lost";

/// What one sealing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Rows that are in chunks now.
    pub rows: usize,
    /// Chunks written.
    pub chunks: usize,
    /// Rows left out.
    pub lost: LostRows,
    /// Chunks deleted for their age.
    pub expired: u64,
}

/// Seals what is due.
pub async fn seal(app: &App, now: UnixMillis) -> Result<Sealed, StoreError> {
    seal_within(app, now, MAX_PASS_BYTES).await
}

/// The same with another bound on the rows of a pass in memory, for tests.
pub async fn seal_within(
    app: &App,
    now: UnixMillis,
    max_bytes: usize,
) -> Result<Sealed, StoreError> {
    let mut sealed = Sealed::default();
    let before = RowIds::first_at(seal_before(now, SETTLE));
    let is_due = |id: &i64| *id < before;
    let mut due = history::oldest_id(&app.store).await?.filter(is_due);
    if due.is_some() {
        let clients = fleet::hosts(&app.store).await?;
        let run = Run {
            app,
            max_bytes,
            clients: clients
                .into_iter()
                .map(|row| (HostId(row.id), ClientId(row.client_id)))
                .collect(),
        };
        while let Some(oldest) = due {
            let hour = RowIds::time_of(oldest).0.div_euclid(HOUR_MS) * HOUR_MS;
            let end = RowIds::first_at(UnixMillis(hour + HOUR_MS)).min(before);
            run.seal_arrivals(Job::new(oldest - 1, end), &mut sealed)
                .await?;
            due = history::oldest_id(&app.store).await?.filter(is_due);
        }
    }
    expire(app, now, &mut sealed).await?;
    app.history.refresh(&app.store).await?;
    Ok(sealed)
}

/// One sealing.
struct Run<'a> {
    app: &'a App,
    clients: HashMap<HostId, ClientId>,
    /// Rows of a pass in memory, bytes.
    max_bytes: usize,
}

impl Run<'_> {
    /// Seals the rows of an hour of arrivals.
    async fn seal_arrivals(&self, job: Job, sealed: &mut Sealed) -> Result<(), StoreError> {
        let app = self.app;
        let mut jobs = vec![job];
        while let Some(job) = jobs.pop() {
            let mut pass = Pass::new(job, self.max_bytes);
            pass.read(app).await?;
            jobs.extend(pass.more());
            let (inputs, ids) = pass.finish(&self.clients);
            let mut names = HashMap::new();
            for inputs in together(inputs) {
                find_names(app, &inputs, &mut names).await?;
                write(app, inputs, &mut names, sealed).await?;
            }
            sealed.rows += ids.len();
            for ids in ids.chunks(DROP_ROWS) {
                let mut tx = app.store.begin().await?;
                history::drop_rows(&mut tx, ids).await?;
                tx.commit().await?;
            }
        }
        Ok(())
    }
}

/// Divides the work into pieces of bounded size.
fn together(inputs: Vec<Input>) -> Vec<Vec<Input>> {
    let mut pieces: Vec<Vec<Input>> = Vec::new();
    let mut bytes = 0;
    for input in inputs {
        let fits = pieces
            .last()
            .is_some_and(|last| last.len() < CHUNKS_AT_ONCE && bytes < BYTES_AT_ONCE);
        if !fits {
            pieces.push(Vec::new());
            bytes = 0;
        }
        bytes += input.rows.bytes();
        if let Some(last) = pieces.last_mut() {
            last.push(input);
        }
    }
    pieces
}

/// Reads the names of the lists that rows use.
async fn find_names(
    app: &App,
    inputs: &[Input],
    names: &mut HashMap<SchemaId, Names>,
) -> Result<(), StoreError> {
    let used = inputs.iter().flat_map(|input| input.rows.schemas());
    let unknown = used.filter(|id| !names.contains_key(id));
    add_names(app, unknown.collect(), names).await
}

async fn add_names(
    app: &App,
    mut ids: Vec<SchemaId>,
    names: &mut HashMap<SchemaId, Names>,
) -> Result<(), StoreError> {
    ids.sort_unstable();
    ids.dedup();
    names.extend(heartbeats::names_of(&app.store, &ids).await?);
    Ok(())
}

/// Makes and writes some chunks.
async fn write(
    app: &App,
    mut inputs: Vec<Input>,
    names: &mut HashMap<SchemaId, Names>,
    sealed: &mut Sealed,
) -> Result<(), StoreError> {
    let mut unnamed = Vec::new();
    for input in &mut inputs {
        input.earlier = history::chunk(&app.store, input.key).await?;
        if let Some(body) = &input.earlier {
            unnamed.extend(watchkeep_core::series::unnamed(body).unwrap_or_default());
        }
    }
    unnamed.retain(|id| !names.contains_key(id));
    add_names(app, unnamed, names).await?;
    let known = std::mem::take(names);
    let (outputs, known) = blocking(move || (seal_all(inputs, &known), known)).await;
    *names = known;
    let now = app.clock.now();
    let mut tx = app.store.begin().await?;
    let mut events = Vec::new();
    for output in &outputs {
        if let Some(body) = &output.body {
            history::put_chunk(&mut tx, output.key, body).await?;
            sealed.chunks += 1;
        }
        for aside in &output.asides {
            set_aside::put(&mut tx, app.ids.next(now), aside, now).await?;
        }
        events.extend(lost_event(app, output, now));
        sealed.lost.add(output.lost);
    }
    record::insert_events(&mut tx, &events).await?;
    tx.commit().await?;
    for output in &outputs {
        app.history.count_lost(output.lost);
    }
    Ok(())
}

/// The event that records what a chunk lacks.
fn lost_event(app: &App, output: &Output, now: UnixMillis) -> Option<NewEvent> {
    let LostRows {
        thinned,
        unnamed,
        unreadable,
    } = output.lost;
    if output.lost == LostRows::default() {
        return None;
    }
    let ChunkKey { host, hour, .. } = output.key;
    tracing::warn!(
        host.id = %host,
        hour,
        thinned,
        unnamed,
        unreadable,
        "part of the host's history was left out"
    );
    let detail = serde_json::json!({
        "type": LOST, "hour": hour,
        "thinned": thinned, "unnamed": unnamed, "unreadable": unreadable,
    });
    Some(NewEvent {
        id: app.ids.next(now),
        host,
        kind: LOST,
        detail: detail.to_string(),
        at: UnixMillis(hour),
        recorded_at: now,
    })
}

/// Deletes chunks past their retention, and lists of names that nothing uses any more.
async fn expire(app: &App, now: UnixMillis, sealed: &mut Sealed) -> Result<(), StoreError> {
    let oldest = now - DurationMs(i64::from(app.config.history.raw_days) * 24 * HOUR_MS);
    for _ in 0..EXPIRE_ROUNDS {
        let mut tx = app.store.begin().await?;
        let dropped = history::drop_old_chunks(&mut tx, oldest, EXPIRE_CHUNKS).await?;
        tx.commit().await?;
        sealed.expired += dropped;
        if dropped < EXPIRE_CHUNKS as u64 {
            break;
        }
    }
    let oldest_row = history::oldest_id(&app.store).await?;
    let unused_before = oldest_row.map_or(now, RowIds::time_of).min(now);
    let oldest_chunk = history::oldest_chunk(&app.store).await?;
    let oldest_chunk = oldest_chunk.unwrap_or(UnixMillis(i64::MAX));
    let lists =
        heartbeats::prunable_schemas(&app.store, unused_before, oldest_chunk, PRUNE_LISTS).await?;
    // One a transaction, so that the pipeline and this never wait for each other in a circle.
    for list in lists {
        let mut tx = app.store.begin().await?;
        heartbeats::prune_schema(&mut tx, list).await?;
        tx.commit().await?;
    }
    Ok(())
}
