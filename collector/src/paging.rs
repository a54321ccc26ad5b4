//! The table of priorities that applies to a ticket: the settings', with what its contract changes.

use std::{collections::HashMap, sync::Arc};

use watchkeep_core::{
    ids::ContractId,
    tickets::{Paging, PagingSettings},
};

use crate::{
    app::App,
    store::{StoreError, Tx, fleet},
};

/// The tables of one transaction, each contract's read once.
#[derive(Debug)]
pub struct PagingTables {
    base: Arc<Paging>,
    by_contract: HashMap<ContractId, Arc<Paging>>,
}

impl PagingTables {
    /// None of a contract read yet.
    pub fn new(app: &App) -> Self {
        Self {
            base: Arc::clone(&app.config.paging),
            by_contract: HashMap::new(),
        }
    }

    /// The table of a contract; without one, the settings'. A stored table that can't be read is
    /// logged and ignored: a ticket must never fail to page for it.
    pub async fn of(
        &mut self,
        tx: &mut Tx,
        contract: Option<ContractId>,
    ) -> Result<Arc<Paging>, StoreError> {
        let Some(id) = contract else {
            return Ok(Arc::clone(&self.base));
        };
        if let Some(known) = self.by_contract.get(&id) {
            return Ok(Arc::clone(known));
        }
        let table = match fleet::contract_paging(tx, id).await? {
            Some(row) => Arc::new(table(&self.base, id, &row)),
            None => Arc::clone(&self.base),
        };
        self.by_contract.insert(id, Arc::clone(&table));
        Ok(table)
    }
}

fn table(base: &Paging, id: ContractId, row: &fleet::ContractPaging) -> Paging {
    let settings = row.paging.as_deref().map(serde_json::from_str);
    let settings: PagingSettings = settings.transpose().map_or_else(
        |error| {
            tracing::warn!(contract.id = %id, "corrupt contract.paging, using the settings: {error}");
            PagingSettings::default()
        },
        Option::unwrap_or_default,
    );
    base.with(&settings, &row.zone).unwrap_or_else(|error| {
        tracing::warn!(contract.id = %id, "corrupt contract.zone, using the settings: {error}");
        base.clone()
    })
}
