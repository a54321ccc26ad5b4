//! Reports: reads the record of a contract's hosts and hands it to the ledger.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use watchkeep_core::{
    evidence::Evidence,
    host::HostState,
    ids::ContractId,
    ledger::{
        self, Contract, HostRecord, Interval, MonthError, MonthReport, ReportInput, ServiceHours,
        Span, Terms, month_window,
    },
};
use watchkeep_shared::{HostId, UnixMillis};

use crate::{
    app::App,
    store::{
        Store, StoreError,
        fleet::{self, ContractRow},
        heartbeats, record,
    },
};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Month or zone can't be used.
    #[error(transparent)]
    Month(#[from] MonthError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a host proves up to now, beyond what is in the record: its growing chain.
pub type OpenChains = HashMap<HostId, Evidence>;

/// The report of a running collector: growing chains come from memory.
pub async fn month_live(
    app: &App,
    contract: ContractId,
    month: &str,
) -> Result<Option<MonthReport>, ReportError> {
    let open = live_chains(app);
    self::month(&app.store, &open, contract, month, app.clock.now()).await
}

/// The report of a contract and month; `None` if there is no such contract.
pub async fn month(
    store: &Store,
    open: &OpenChains,
    contract: ContractId,
    month: &str,
    now: UnixMillis,
) -> Result<Option<MonthReport>, ReportError> {
    let rows = fleet::contracts(store).await?;
    let Some(row) = rows.into_iter().find(|row| row.id == contract.uuid()) else {
        return Ok(None);
    };
    let window = month_window(month, &row.zone)?;
    let mut hosts = Vec::new();
    let mut covered: Vec<_> = fleet::hosts(store)
        .await?
        .into_iter()
        .filter(|host| host.contract_id == Some(row.id))
        .collect();
    covered.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    for host in covered {
        hosts.push(host_record(store, open, HostId(host.id), host.name, window).await?);
    }
    let collector = record::evidence_of_collector(store, window.from, window.to).await?;
    let contract = contract_of(row)?;
    let input = ReportInput {
        contract: &contract,
        month,
        hosts: &hosts,
        collector: &collector,
        cutoff: now,
    };
    Ok(Some(ledger::report(&input, now)?))
}

/// The observed states of one host in a window, up to now.
pub async fn observed(app: &App, host: HostId, window: Interval) -> Result<Vec<Span>, StoreError> {
    let now = app.clock.now();
    let open = live_chains(app);
    let record = host_record(&app.store, &open, host, String::new(), window).await?;
    let collector = record::evidence_of_collector(&app.store, window.from, window.to).await?;
    Ok(ledger::observe(&record, &collector, window, now, now))
}

/// Growing chains as the store knows them, for a program that is not the running collector: written
/// states and the tail since then.
pub async fn stored_chains(store: &Store) -> Result<OpenChains, StoreError> {
    #[derive(serde::Deserialize)]
    struct Written {
        host: HostState,
    }
    let mut states: HashMap<HostId, (i64, HostState)> = HashMap::new();
    for row in heartbeats::states(store).await? {
        let written: Written = from_json(&row.state)
            .map_err(|error| StoreError::corrupt("host_state", "state", row.host_id, error))?;
        states.insert(HostId(row.host_id), (row.arrival_id, written.host));
    }
    let live = states
        .values()
        .filter(|(_, state)| !state.overdue)
        .map(|(id, _)| *id);
    let mut after = live.min();
    while let Some(from) = after {
        let page = heartbeats::tail_after(store, from).await?;
        after = page.last().map(|row| row.id);
        for row in page {
            if let Some((written, state)) = states.get_mut(&HostId(row.host_id))
                && row.id > *written
            {
                state.replay(row.stored_frame());
            }
        }
    }
    let open = states
        .into_iter()
        .filter_map(|(id, (_, state))| Some((id, state.open_evidence(id)?)));
    Ok(open.collect())
}

fn live_chains(app: &App) -> OpenChains {
    let hosts = app.live.hosts().into_iter();
    hosts
        .filter_map(|(id, now)| Some((id, now.open_chain.clone()?)))
        .collect()
}

async fn host_record(
    store: &Store,
    open: &OpenChains,
    host: HostId,
    name: String,
    window: Interval,
) -> Result<HostRecord, StoreError> {
    let mut evidence = record::evidence_of(store, host, window.from, window.to).await?;
    evidence.extend(open.get(&host).cloned());
    Ok(HostRecord {
        host,
        name,
        evidence,
    })
}

fn contract_of(row: ContractRow) -> Result<Contract, StoreError> {
    let unknown_rule = from_json(&format!("\"{}\"", row.unknown_rule))
        .map_err(|error| StoreError::corrupt("contract", "unknown_rule", row.id, error))?;
    Ok(Contract {
        name: row.name,
        client: row.client_name,
        zone: row.zone,
        terms: Terms {
            service_hours: ServiceHours::Always,
            unknown_rule,
            excluded: Vec::new(),
        },
    })
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}
