//! Metric history for charts: sealed chunks and the unsealed tail read as one. Each chunk is unpacked
//! once for all metrics of a request, on a thread that may block, a few chunks at a time; what is
//! read is summed up at once, so a request's memory does not grow with its range. A chunk that can't
//! be read is left out and logged: the chart has a gap there.

use std::collections::HashMap;

use watchkeep_core::{
    ids::ClientId,
    series::{self as codec, Bucket, Downsampler, Names, Point, row},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis, ids::SchemaId};

use crate::{
    app::App,
    store::{StoreError, fleet, heartbeats, history},
};

/// Length of a chunk.
pub const HOUR_MS: i64 = 3_600_000;
/// Chunks read at a time.
const CHUNKS_AT_ONCE: i64 = 24;
/// Most points of one metric that [`read`] returns: more than an hour at the shortest interval.
const MAX_POINTS: usize = 40_000;

/// One metric over time: strictly increasing instants; `None` where the reading failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Full metric name.
    pub name: String,
    /// Points, oldest first.
    pub points: Vec<(UnixMillis, Option<f64>)>,
}

/// One metric over time, summed up.
#[derive(Clone, Debug, PartialEq)]
pub struct Thinned {
    /// Full metric name.
    pub name: String,
    /// Its buckets, oldest first.
    pub buckets: Vec<Bucket>,
}

/// Which metrics of a host are read, of `[from, to)`.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Full names of metrics. One that the host never had gives an empty series.
    pub names: &'a [String],
    /// From this instant.
    pub from: UnixMillis,
    /// Until this instant.
    pub to: UnixMillis,
}

/// Reads metrics as they were sent, in the order of the names; the newest [`MAX_POINTS`] of each.
pub async fn read(
    app: &App,
    host: HostId,
    request: Request<'_>,
) -> Result<Vec<Series>, StoreError> {
    let empty = request.names.iter().map(|_| Raw::default()).collect();
    let found = Reader::new(app, host, request, empty).run().await?;
    let named = request.names.iter().zip(found);
    Ok(named
        .map(|(name, raw)| Series {
            name: name.clone(),
            points: raw.finish(),
        })
        .collect())
}

/// Reads metrics for a chart of so many buckets, in the order of the names.
pub async fn thinned(
    app: &App,
    host: HostId,
    request: Request<'_>,
    buckets: usize,
) -> Result<Vec<Thinned>, StoreError> {
    let empty = Downsampler::new(request.from, request.to, buckets);
    let empty = request.names.iter().map(|_| empty.clone()).collect();
    let found = Reader::new(app, host, request, empty).run().await?;
    let named = request.names.iter().zip(found);
    Ok(named
        .map(|(name, sampler)| Thinned {
            name: name.clone(),
            buckets: sampler.finish(),
        })
        .collect())
}

/// Takes in the points of one metric.
trait Sink: Send + 'static {
    fn push(&mut self, at: UnixMillis, value: Option<f64>);
}

#[derive(Debug, Default)]
struct Raw(Vec<(UnixMillis, Option<f64>)>);

impl Raw {
    fn finish(mut self) -> Vec<(UnixMillis, Option<f64>)> {
        self.0.sort_by_key(|(at, _)| *at);
        self.0.dedup_by_key(|(at, _)| *at);
        self.0.split_off(self.0.len().saturating_sub(MAX_POINTS))
    }
}

impl Sink for Raw {
    fn push(&mut self, at: UnixMillis, value: Option<f64>) {
        if self.0.len() == 2 * MAX_POINTS {
            self.0 = std::mem::take(self).finish();
        }
        self.0.push((at, value));
    }
}

impl Sink for Downsampler {
    fn push(&mut self, at: UnixMillis, value: Option<f64>) {
        if let Some(value) = value {
            Self::push(self, Point { at, value });
        }
    }
}

/// Reads one request.
struct Reader<'a, S> {
    app: &'a App,
    host: HostId,
    request: Request<'a>,
    sinks: Vec<S>,
    /// Names of lists that are needed: those of the tail, and of chunks without names.
    names: HashMap<SchemaId, Option<Names>>,
}

impl<'a, S: Sink> Reader<'a, S> {
    fn new(app: &'a App, host: HostId, request: Request<'a>, sinks: Vec<S>) -> Self {
        Self {
            app,
            host,
            request,
            sinks,
            names: HashMap::new(),
        }
    }

    async fn run(mut self) -> Result<Vec<S>, StoreError> {
        let Some(row) = fleet::host(&self.app.store, self.host).await? else {
            return Ok(self.sinks);
        };
        self.chunks(ClientId(row.client_id)).await?;
        self.tail().await?;
        Ok(self.sinks)
    }

    async fn chunks(&mut self, client: ClientId) -> Result<(), StoreError> {
        let Request { from, to, .. } = self.request;
        let mut next = UnixMillis(from.0.div_euclid(HOUR_MS) * HOUR_MS);
        loop {
            let hours = history::Hours {
                client,
                host: self.host,
                from: next,
                to,
            };
            let chunks = history::chunks(&self.app.store, hours, CHUNKS_AT_ONCE).await?;
            let Some((last, _)) = chunks.last() else {
                return Ok(());
            };
            next = UnixMillis(last + 1);
            let (chunks, unnamed) = blocking(move || {
                let unnamed: Vec<SchemaId> = chunks
                    .iter()
                    .filter_map(|(_, body)| codec::unnamed(body).ok())
                    .flatten()
                    .collect();
                (chunks, unnamed)
            })
            .await;
            self.find_names(unnamed).await?;
            self.in_background(move |work| {
                for (hour, body) in chunks {
                    work.chunk(hour, &body);
                }
            })
            .await;
        }
    }

    async fn tail(&mut self) -> Result<(), StoreError> {
        let newest = newest_row(self.app, self.host).await?;
        let mut rows = history::walk(&self.app.store, newest, self.request.from).await?;
        rows.sort_by_key(|row| row.at);
        let lists = rows.iter().map(|row| SchemaId(row.schema_id as u64));
        self.find_names(lists.collect()).await?;
        self.in_background(move |work| {
            for row in rows {
                work.row(&row);
            }
        })
        .await;
        Ok(())
    }

    async fn find_names(&mut self, mut ids: Vec<SchemaId>) -> Result<(), StoreError> {
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| !self.names.contains_key(id));
        let mut found = heartbeats::names_of(&self.app.store, &ids).await?;
        let found = ids.into_iter().map(|id| (id, found.remove(&id)));
        self.names.extend(found);
        Ok(())
    }

    /// Runs work on a thread that may block.
    async fn in_background(&mut self, run: impl FnOnce(&mut BlockingRead<S>) + Send + 'static) {
        let mut work = BlockingRead {
            host: self.host,
            wanted: self.request.names.to_vec(),
            window: self.request.from..self.request.to,
            sinks: std::mem::take(&mut self.sinks),
            names: std::mem::take(&mut self.names),
        };
        let work = blocking(move || {
            run(&mut work);
            work
        })
        .await;
        self.sinks = work.sinks;
        self.names = work.names;
    }
}

/// What a thread that may block needs.
struct BlockingRead<S> {
    host: HostId,
    wanted: Vec<String>,
    window: std::ops::Range<UnixMillis>,
    sinks: Vec<S>,
    names: HashMap<SchemaId, Option<Names>>,
}

impl<S: Sink> BlockingRead<S> {
    fn chunk(&mut self, hour: i64, body: &[u8]) {
        let wanted: Vec<&str> = self.wanted.iter().map(String::as_str).collect();
        let known = |schema| self.names.get(&schema).cloned().flatten();
        let found = match codec::read(body, &wanted, &known) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(host.id = %self.host, hour, "failed to read a chunk: {error}");
                return;
            }
        };
        for (points, sink) in found.into_iter().zip(&mut self.sinks) {
            let points = points.into_iter();
            for point in points.filter(|point| self.window.contains(&point.at)) {
                sink.push(point.at, Some(point.value));
            }
        }
    }

    fn row(&mut self, row: &heartbeats::ValuesRow) {
        let at = UnixMillis(row.at);
        let Some(Some(names)) = self.names.get(&SchemaId(row.schema_id as u64)) else {
            return;
        };
        if !self.window.contains(&at) {
            return;
        }
        let values = match row::decode(&row.vals) {
            Ok(values) => values,
            Err(error) => {
                tracing::error!(host.id = %self.host, row.id, "failed to read a row: {error}");
                return;
            }
        };
        for (name, sink) in self.wanted.iter().zip(&mut self.sinks) {
            if let Some(column) = names.iter().position(|known| **known == **name) {
                sink.push(at, values.get(column).copied().flatten());
            }
        }
    }
}

/// Runs work that uses the processor for a while.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The host's newest row: from memory where this process decides for it, else as last written.
async fn newest_row(app: &App, host: HostId) -> Result<i64, StoreError> {
    if let Some(last_id) = app.live.host(host).map(|now| now.last_id) {
        return Ok(last_id);
    }
    Ok(heartbeats::state_of(&app.store, host)
        .await?
        .map_or(0, |row| row.last_id))
}

/// The hour before which everything that arrived is sealed, given `now`: the running hour stays.
pub const fn seal_before(now: UnixMillis, settle: DurationMs) -> UnixMillis {
    UnixMillis((now.0 - settle.0).div_euclid(HOUR_MS) * HOUR_MS)
}
