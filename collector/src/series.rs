//! Metric history for charts: sealed chunks and the unsealed tail read as one.

use std::collections::HashMap;

use watchkeep_core::{
    ids::ClientId,
    series::{self as codec, row},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis, ids::SchemaId};

use crate::{
    app::App,
    store::{Store, StoreError, fleet, heartbeats, history},
};

/// Length of a chunk.
pub const HOUR_MS: i64 = 3_600_000;

/// One metric over time: strictly increasing instants; `None` where the reading failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Full metric name.
    pub name: String,
    /// Points, oldest first.
    pub points: Vec<(UnixMillis, Option<f64>)>,
}

/// Reads metrics of a host in `[from, to)`, one series a name, in the names' order. A metric that
/// the host never had gives an empty series.
pub async fn read(
    app: &App,
    host: HostId,
    names: &[String],
    from: UnixMillis,
    to: UnixMillis,
) -> Result<Vec<Series>, StoreError> {
    let Some(row) = fleet::host(&app.store, host).await? else {
        return Ok(names.iter().map(|name| empty(name)).collect());
    };
    let schemas = Schemas::load(&app.store).await?;
    let mut out: Vec<Series> = names.iter().map(|name| empty(name)).collect();
    let first_hour = UnixMillis(from.0.div_euclid(HOUR_MS) * HOUR_MS);
    let client = ClientId(row.client_id);
    for (hour, body) in history::chunks(&app.store, client, host, first_hour, to).await? {
        for series in &mut out {
            let column = |schema: SchemaId| schemas.column(schema, &series.name);
            let points = codec::series(&body, column)
                .map_err(|error| StoreError::corrupt("chunk", "body", hour, error))?;
            series.points.extend(
                points
                    .into_iter()
                    .map(|point| (point.at, Some(point.value))),
            );
        }
    }
    let newest = newest_row(app, host).await?;
    for tail in history::walk(&app.store, newest, from).await? {
        let values = row::decode(&tail.vals)
            .map_err(|error| StoreError::corrupt("heartbeat", "vals", tail.id, error))?;
        for series in &mut out {
            if let Some(column) = schemas.column(SchemaId(tail.schema_id as u64), &series.name) {
                let value = values.get(column).copied().flatten();
                series.points.push((UnixMillis(tail.at), value));
            }
        }
    }
    for series in &mut out {
        series.points.retain(|(at, _)| (from..to).contains(at));
        series.points.sort_by_key(|(at, _)| *at);
        series.points.dedup_by_key(|(at, _)| *at);
    }
    Ok(out)
}

/// The host's newest row: from memory where this process decides for it, else as last written.
async fn newest_row(app: &App, host: HostId) -> Result<i64, StoreError> {
    if let Some(last_id) = app.live.hosts().get(&host).map(|now| now.last_id) {
        return Ok(last_id);
    }
    Ok(heartbeats::state_of(&app.store, host)
        .await?
        .map_or(0, |row| row.last_id))
}

/// Where each schema has a name.
struct Schemas(HashMap<SchemaId, Vec<String>>);

impl Schemas {
    async fn load(store: &Store) -> Result<Self, StoreError> {
        Ok(Self(
            heartbeats::schemas(store).await?.into_iter().collect(),
        ))
    }

    fn column(&self, schema: SchemaId, name: &str) -> Option<usize> {
        self.0.get(&schema)?.iter().position(|known| known == name)
    }
}

fn empty(name: &str) -> Series {
    Series {
        name: name.to_owned(),
        points: Vec::new(),
    }
}

/// The hour before which everything that arrived is sealed, given `now`: the running hour stays.
pub const fn seal_before(now: UnixMillis, settle: DurationMs) -> UnixMillis {
    UnixMillis((now.0 - settle.0).div_euclid(HOUR_MS) * HOUR_MS)
}
