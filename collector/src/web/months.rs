//! This month's figure of every contract, for their list. Each is a read of its hosts' record, so they
//! are computed beside the pages, one contract after the other, for all viewers together; a page shows
//! what is known.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use uuid::Uuid;
use watchkeep_core::{
    ids::ContractId,
    ledger::{Availability, UnknownRule},
};

use crate::{app::App, reports};

/// Figures are computed again after so long.
const RENEW_AFTER: Duration = Duration::from_mins(5);
/// So long a page waits for figures that were never computed.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A contract and its month, `2026-11`.
pub(super) type Wanted = (Uuid, String);

/// A contract's figures of one month.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) availability: Availability,
    pub(super) rule: UnknownRule,
}

#[derive(Debug)]
struct Known {
    month: String,
    figures: Figures,
    computed_at: Instant,
}

/// The figures that are known.
#[derive(Debug, Default)]
pub(super) struct Months {
    known: Mutex<HashMap<Uuid, Known>>,
    is_running: AtomicBool,
    finished: Notify,
}

impl Months {
    /// The figures of these contracts as far as they are known.
    pub(super) async fn of(
        self: &Arc<Self>,
        app: &App,
        wanted: &[Wanted],
    ) -> HashMap<Uuid, Figures> {
        let mut finished = std::pin::pin!(self.finished.notified());
        // Before the look: what ends in between is noticed.
        finished.as_mut().enable();
        let known = self.known(wanted);
        let old = self.old(wanted);
        if !old.is_empty() && !self.is_running.swap(true, Ordering::SeqCst) {
            let (months, app, wanted) = (Arc::clone(self), app.clone(), wanted.to_vec());
            app.process.clone().spawn(async move {
                months.compute(&app, &old, &wanted).await;
                months.is_running.store(false, Ordering::SeqCst);
                months.finished.notify_waiters();
            });
        }
        if known.len() == wanted.len() {
            return known;
        }
        // Late: the page shows what there is.
        drop(timeout(FIRST_WAIT, finished).await);
        self.known(wanted)
    }

    fn known(&self, wanted: &[Wanted]) -> HashMap<Uuid, Figures> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = wanted.iter().filter_map(|(id, month)| {
            let one = known.get(id).filter(|one| one.month == *month)?;
            Some((*id, one.figures.clone()))
        });
        found.collect()
    }

    /// What is to be computed.
    fn old(&self, wanted: &[Wanted]) -> Vec<Wanted> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |(id, month): &&Wanted| {
            known
                .get(id)
                .is_none_or(|one| one.month != *month || one.computed_at.elapsed() >= RENEW_AFTER)
        };
        wanted.iter().filter(is_old).cloned().collect()
    }

    async fn compute(&self, app: &App, old: &[Wanted], wanted: &[Wanted]) {
        for (id, month) in old {
            if app.process.stop.is_cancelled() {
                return;
            }
            let report = match reports::month_live(app, ContractId(*id), month).await {
                Ok(Some(report)) => report,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!("failed to compute the figures of contracts: {error}");
                    return;
                }
            };
            let one = Known {
                month: month.clone(),
                figures: Figures {
                    availability: report.availability,
                    rule: report.unknown_rule,
                },
                computed_at: Instant::now(),
            };
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(*id, one);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|id, _| wanted.iter().any(|(wanted, _)| wanted == id));
    }
}
