//! Reports: reads the record of a contract's hosts and hands it to the ledger.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use watchkeep_core::{
    evidence::{Evidence, EvidenceKind},
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
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What hosts prove up to now, beyond what is in the record: their growing chains.
pub type OpenChains = HashMap<HostId, Evidence>;

/// The growing chain of one host.
pub type OpenChain<'a> = &'a (dyn Fn(HostId) -> Option<Evidence> + Sync);

/// The report of a running collector: growing chains come from memory.
pub async fn month_live(
    app: &App,
    contract: ContractId,
    month: &str,
) -> Result<Option<MonthReport>, ReportError> {
    let open = |host| live_chain(app, host);
    self::month(&app.store, &open, contract, month, app.clock.now()).await
}

/// The report of a contract and month; `None` if there is no such contract.
pub async fn month(
    store: &Store,
    open: OpenChain<'_>,
    contract: ContractId,
    month: &str,
    now: UnixMillis,
) -> Result<Option<MonthReport>, ReportError> {
    let Some(row) = fleet::contract(store, contract).await? else {
        return Ok(None);
    };
    let window = month_window(month, &row.zone)?;
    let mut covered = fleet::hosts_of_contract(store, contract).await?;
    covered.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    let mut evidence =
        record::evidence_of_contract(store, contract, window.from, window.to).await?;
    let hosts: Vec<HostRecord> = covered
        .into_iter()
        .map(|row| {
            let host = HostId(row.id);
            let mut evidence = evidence.remove(&host).unwrap_or_default();
            evidence.extend(open(host));
            HostRecord {
                host,
                name: row.name,
                evidence,
            }
        })
        .collect();
    let collector = collector_record(store, &hosts, window).await?;
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
    let mut evidence = record::evidence_of(&app.store, host, window.from, window.to).await?;
    evidence.extend(live_chain(app, host));
    let record = HostRecord {
        host,
        name: String::new(),
        evidence,
    };
    let record = [record];
    let collector = collector_record(&app.store, &record, window).await?;
    let [record] = record;
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
        match from_json::<Written>(&row.state) {
            Ok(written) => {
                states.insert(HostId(row.host_id), (row.arrival_id, written.host));
            }
            // The running collector begins with a fresh state, too.
            Err(error) => {
                let error = StoreError::corrupt("host_state", "state", row.host_id, error);
                tracing::error!("a host's open chain is left out: {error}");
            }
        }
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

fn live_chain(app: &App, host: HostId) -> Option<Evidence> {
    app.live.host(host)?.open_chain.clone()
}

/// The collector's own record, as far as the hosts' reaches on both sides of a window.
async fn collector_record(
    store: &Store,
    hosts: &[HostRecord],
    window: Interval,
) -> Result<Vec<Evidence>, StoreError> {
    let rows = || {
        let all = hosts.iter().flat_map(|host| &host.evidence);
        all.filter(|row| !matches!(row.kind, EvidenceKind::Enrolled | EvidenceKind::Retired))
    };
    let from = rows().map(|row| row.valid_from).min();
    let to = rows().map(|row| row.valid_to).max();
    let from = from.map_or(window.from, |from| from.min(window.from));
    let to = to.map_or(window.to, |to| to.max(window.to));
    record::evidence_of_collector(store, from, to).await
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
