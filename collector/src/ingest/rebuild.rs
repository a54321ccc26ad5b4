//! Hosts' states from the store: what was written at their last durable change, plus the tail
//! since then.

use std::{collections::HashMap, sync::Arc};

use watchkeep_core::{
    alerts,
    ids::{ClientId, ContractId, SiteId},
    rules::RulePack,
    series,
};
use watchkeep_shared::{HostId, UnixMillis, ids::SchemaId};

use super::{
    hosts::{HostEntry, WrittenState},
    limits::HostLimits,
    rejections::Rejections,
    schemas::{HostSchemas, Schemas},
};
use crate::store::{
    Store, StoreError,
    fleet::{self, HostRow},
    heartbeats::{self, StateRow},
};

/// What a collector knows when it begins.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) hosts: HashMap<HostId, HostEntry>,
    pub(super) schemas: Schemas,
    /// The newest row.
    pub(super) max_id: i64,
    /// When the newest row arrived: proof that the collector was alive then.
    pub(super) last_arrival: Option<UnixMillis>,
    /// How many rows of the tail are in no written state.
    pub(super) tail_rows: usize,
}

/// Reads everything.
pub(super) async fn rebuild(store: &Store, rules: &RulePack) -> Result<Memory, StoreError> {
    let mut memory = Memory::default();
    for row in fleet::hosts(store).await? {
        if row.retired_at.is_none() {
            memory.hosts.insert(HostId(row.id), fresh(row));
        }
    }
    for row in heartbeats::states(store).await? {
        if let Some(entry) = memory.hosts.get_mut(&HostId(row.host_id)) {
            restore(entry, &row);
        }
    }
    restore_schemas(store, &mut memory, rules).await?;
    for entry in memory.hosts.values_mut() {
        find_last(store, entry).await?;
    }
    replay_tail(store, &mut memory).await?;
    newest_values(store, &mut memory.hosts).await?;
    if let Some((id, arrived)) = heartbeats::newest(store).await? {
        memory.max_id = id;
        memory.last_arrival = Some(arrived);
    }
    Ok(memory)
}

/// Reads which lists of names the hosts use.
async fn restore_schemas(
    store: &Store,
    memory: &mut Memory,
    rules: &RulePack,
) -> Result<(), StoreError> {
    let lists = heartbeats::schemas(store).await?;
    for (host, id, since) in heartbeats::host_schemas(store).await? {
        if let Some(entry) = memory.hosts.get_mut(&host)
            && let Some(names) = lists.get(&id)
        {
            let schema = memory.schemas.add(id, names, rules);
            entry.schemas.restore(id, schema, since);
        }
    }
    memory.schemas.note_stored(lists.into_keys());
    Ok(())
}

/// A host that enrolled after the start.
pub(super) async fn one_host(
    store: &Store,
    id: HostId,
    schemas: &mut Schemas,
    rules: &RulePack,
) -> Result<Option<HostEntry>, StoreError> {
    let row = fleet::host(store, id)
        .await?
        .filter(|row| row.retired_at.is_none());
    match row {
        Some(row) => entry_of(store, row, schemas, rules).await.map(Some),
        None => Ok(None),
    }
}

/// One host with its written state.
pub(super) async fn entry_of(
    store: &Store,
    row: HostRow,
    schemas: &mut Schemas,
    rules: &RulePack,
) -> Result<HostEntry, StoreError> {
    let mut entry = fresh(row);
    if let Some(row) = heartbeats::state_of(store, entry.id).await? {
        restore(&mut entry, &row);
        find_last(store, &mut entry).await?;
    }
    for (list, since, names) in heartbeats::schemas_of(store, entry.id).await? {
        let schema = schemas.add(list, &names, rules);
        entry.schemas.restore(list, schema, since);
    }
    Ok(entry)
}

/// Reads what the states do not hold, from the oldest state on. An overdue host has no rows after its
/// state, so it does not hold the start back.
async fn replay_tail(store: &Store, memory: &mut Memory) -> Result<(), StoreError> {
    let live = memory
        .hosts
        .values()
        .filter(|entry| entry.last_id > 0 && !entry.state.overdue);
    let Some(mut after) = live.map(|entry| entry.written_id).min() else {
        return Ok(());
    };
    loop {
        let page = heartbeats::unseen_after(store, after).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.id;
        memory.tail_rows += page.len();
        for row in page {
            let Some(entry) = memory.hosts.get_mut(&HostId(row.host_id)) else {
                continue;
            };
            let frame = row.stored_frame();
            entry.state.replay(frame);
            if !frame.late {
                alerts::note_observed(&mut entry.alerts, frame.mark.at);
            }
            entry.last_id = row.id;
        }
    }
}

/// The values that each host sent last.
async fn newest_values(
    store: &Store,
    hosts: &mut HashMap<HostId, HostEntry>,
) -> Result<(), StoreError> {
    let mut by_row: HashMap<i64, &mut HostEntry> = hosts
        .values_mut()
        .filter(|entry| entry.last_id > 0)
        .map(|entry| (entry.last_id, entry))
        .collect();
    let ids: Vec<i64> = by_row.keys().copied().collect();
    for row in heartbeats::values_of(store, &ids).await? {
        let Some(entry) = by_row.get_mut(&row.id) else {
            continue;
        };
        match series::row::decode(&row.vals) {
            Ok(values) => entry.values = values,
            Err(error) => {
                let error = StoreError::corrupt("heartbeat", "vals", row.id, error);
                tracing::error!(host.id = %entry.id, "newest values can't be read: {error}");
                continue;
            }
        }
        entry.schema = Some(SchemaId(row.schema_id as u64));
        entry.values_at = UnixMillis(row.at);
    }
    Ok(())
}

fn fresh(row: HostRow) -> HostEntry {
    HostEntry {
        id: HostId(row.id),
        name: row.name,
        client: ClientId(row.client_id),
        site: SiteId(row.site_id),
        contract: row.contract_id.map(ContractId),
        policy: Arc::default(),
        rejudge: true,
        state: watchkeep_core::host::HostState::default(),
        alerts: alerts::HostAlerts::default(),
        last_id: 0,
        written_id: 0,
        schemas: HostSchemas::default(),
        limits: HostLimits::default(),
        schema: None,
        values: Vec::new(),
        values_at: UnixMillis(0),
        rejected: Rejections::default(),
        agent_version: (row.agent_version, UnixMillis(0)),
        is_state_lost: false,
        heard_at: None,
        revoked_at: row.revoked_at.map(UnixMillis),
        silent_at: None,
        wake_at: None,
    }
}

/// Takes the written state. One that can't be read is replaced by a fresh one, so that it harms no
/// other host.
fn restore(entry: &mut HostEntry, row: &StateRow) {
    match serde_json::from_str::<WrittenState>(&row.state) {
        Ok(written) => {
            entry.state = written.host;
            entry.alerts = written.alerts;
        }
        Err(error) => {
            let error = StoreError::corrupt("host_state", "state", row.host_id, error);
            tracing::error!(
                host.id = %entry.id,
                "the state of {} can't be read, beginning with a fresh one: {error}",
                entry.name
            );
            entry.is_state_lost = true;
        }
    }
    entry.silent_at = entry.alerts.silence_raised_at();
    entry.last_id = row.last_id;
    entry.written_id = row.arrival_id;
}

/// The newest heartbeat of a host whose state was lost, if it is still in the tail: without it
/// nobody would notice that the host is silent.
async fn find_last(store: &Store, entry: &mut HostEntry) -> Result<(), StoreError> {
    if !entry.is_state_lost || entry.last_id == 0 {
        return Ok(());
    }
    let rows = heartbeats::tail_after(store, entry.last_id - 1).await?;
    if let Some(row) = rows.first().filter(|row| row.id == entry.last_id) {
        entry.state.replay(row.stored_frame());
    }
    Ok(())
}
