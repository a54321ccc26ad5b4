//! What the parts of a running collector share. Cheap to clone; handlers take the pieces they use.

use std::sync::Arc;

use crate::{
    clock::Clock,
    config::Config,
    history::HistoryMetrics,
    ids::RowIds,
    live::Live,
    notify::Delivery,
    policies::Policies,
    process::Process,
    store::{
        Store, StoreError, Tx,
        people::{self, Act},
    },
};

/// The running collector.
#[derive(Clone, Debug)]
pub struct App {
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// What is true now.
    pub live: Arc<Live>,
    /// What each host's agent is asked to do.
    pub policies: Arc<Policies>,
    /// State of message delivery.
    pub delivery: Arc<Delivery>,
    /// Figures of sealing.
    pub history: Arc<HistoryMetrics>,
    /// Identifiers of rows.
    pub ids: Arc<RowIds>,
    /// The settings.
    pub config: Arc<Config>,
    /// Tasks and shutdown.
    pub process: Process,
}

impl App {
    /// Writes a line of the audit log, in the transaction of what was done.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn audit(&self, tx: &mut Tx, act: Act<'_>) -> Result<(), StoreError> {
        let at = self.clock.now();
        let line = people::Audit {
            id: self.ids.next(at),
            at,
            actor: act.by,
            action: act.action,
            subject: act.subject,
            detail: act.detail,
        };
        people::audit(tx, &line).await
    }
}
