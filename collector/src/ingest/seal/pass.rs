//! Reading rows of the tail: some partitions of hosts, within a bound on memory.

use std::collections::{BTreeMap, HashMap};

use watchkeep_core::{ids::ClientId, series::MAX_ROWS_PER_CHUNK};
use watchkeep_shared::{HostId, ids::SchemaId};

use super::work::Input;
use crate::{
    app::App,
    series::HOUR_MS,
    store::{
        StoreError,
        fleet::{PARTITIONS, partition_of},
        history::{self, ChunkKey, SealableRow, TailRange},
    },
};

/// Rows read at a time.
const PAGE_ROWS: i64 = 5_000;
/// Memory of a row without its values, bytes.
const ROW_BYTES: usize = 64;
/// Rows of one host and hour in memory; of more, each second is left out.
const MAX_ROWS: usize = 2 * MAX_ROWS_PER_CHUNK;
/// Their values, bytes.
const MAX_ROW_BYTES: usize = 32 * 1024 * 1024;

/// Rows to seal.
#[derive(Debug)]
pub(super) struct Job(TailRange);

impl Job {
    /// All rows after one and before another.
    pub(super) const fn new(after: i64, before: i64) -> Self {
        Self(TailRange {
            after,
            before,
            parts: 0..PARTITIONS,
        })
    }
}

/// A row as it is stored.
#[derive(Debug)]
pub(super) struct RawRow {
    pub(super) at: i64,
    pub(super) schema: SchemaId,
    pub(super) values: Vec<u8>,
}

/// The rows of one host and hour.
#[derive(Debug, Default)]
pub(super) struct HostHour {
    pub(super) rows: Vec<RawRow>,
    /// Rows left out because there were too many.
    pub(super) thinned: usize,
    bytes: usize,
    /// Keys of all of them.
    ids: Vec<i64>,
}

impl HostHour {
    fn push(&mut self, row: SealableRow) {
        self.ids.push(row.id);
        self.bytes += ROW_BYTES + row.vals.len();
        self.rows.push(RawRow {
            at: row.at,
            schema: SchemaId(row.schema_id as u64),
            values: row.vals,
        });
        if self.rows.len() > MAX_ROWS || self.bytes > MAX_ROW_BYTES {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let before = self.rows.len();
        self.rows.sort_by_key(|row| row.at);
        let mut at = 0;
        self.rows.retain(|_| {
            at += 1;
            at % 2 == 1
        });
        self.thinned += before - self.rows.len();
        let rows = self.rows.iter();
        self.bytes = rows.map(|row| ROW_BYTES + row.values.len()).sum();
    }

    /// Memory, bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The lists of names that the rows use.
    pub(super) fn schemas(&self) -> impl Iterator<Item = SchemaId> {
        self.rows.iter().map(|row| row.schema)
    }
}

/// The rows of one pass.
#[derive(Debug)]
pub(super) struct Pass {
    job: Job,
    hours: BTreeMap<(HostId, i64), HostHour>,
    bytes: usize,
    max_bytes: usize,
    more: Vec<Job>,
}

impl Pass {
    pub(super) const fn new(job: Job, max_bytes: usize) -> Self {
        Self {
            job,
            max_bytes,
            hours: BTreeMap::new(),
            bytes: 0,
            more: Vec::new(),
        }
    }

    /// Reads rows in arrival order until all are read or memory is full.
    pub(super) async fn read(&mut self, app: &App) -> Result<(), StoreError> {
        let mut range = self.job.0.clone();
        loop {
            let page = history::sealable(&app.store, &range, PAGE_ROWS).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            range.after = last.id;
            for row in page {
                self.push(row);
            }
            while self.bytes > self.max_bytes {
                if range.parts.len() <= 1 {
                    self.more.push(Job(range));
                    return Ok(());
                }
                self.halve_partitions(&mut range);
            }
        }
    }

    fn push(&mut self, row: SealableRow) {
        let hour = row.at.div_euclid(HOUR_MS) * HOUR_MS;
        let hour = self.hours.entry((HostId(row.host_id), hour)).or_default();
        let before = hour.bytes;
        hour.push(row);
        self.bytes = self.bytes + hour.bytes - before;
    }

    /// Leaves the upper half of the partitions to a pass of its own.
    fn halve_partitions(&mut self, range: &mut TailRange) {
        let middle = i32::midpoint(range.parts.start, range.parts.end);
        self.more.push(Job(TailRange {
            after: self.job.0.after,
            before: range.before,
            parts: middle..range.parts.end,
        }));
        range.parts.end = middle;
        self.hours
            .retain(|(host, _), _| range.parts.contains(&partition_of(*host)));
        self.bytes = self.hours.values().map(HostHour::bytes).sum();
    }

    /// What is left to further passes.
    pub(super) fn more(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.more)
    }

    /// The rows by chunk, and the keys of all rows in order. A host that is in no table any more has
    /// no history to keep: its rows are only deleted.
    pub(super) fn finish(self, clients: &HashMap<HostId, ClientId>) -> (Vec<Input>, Vec<i64>) {
        let mut ids = Vec::new();
        let mut inputs = Vec::with_capacity(self.hours.len());
        for ((host, hour), mut rows) in self.hours {
            ids.append(&mut rows.ids);
            if let Some(client) = clients.get(&host) {
                let key = ChunkKey {
                    client: *client,
                    host,
                    hour,
                };
                inputs.push(Input {
                    key,
                    rows,
                    earlier: None,
                });
            }
        }
        ids.sort_unstable();
        (inputs, ids)
    }
}
