//! The fleet as pages and the API show it: who the hosts are (from the store, read again only when
//! that changed), how each is (from memory), and how many tickets are open for each.
//!
//! All viewers share one snapshot. It is put together again only when something changed, and then
//! only the hosts that changed are read again; filters and sorting work on its compact rows.

mod directory;
mod select;
mod snapshot;

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tokio::{sync::Mutex, time::Instant};
use watchkeep_shared::HostId;

pub use directory::{Directory, Host, Site};
pub use select::{Column, Cursor, Filter, Sort, skipped, sort};
pub use snapshot::{Figures, Row, Snapshot, Totals};

use crate::{
    app::App,
    store::{StoreError, fleet as rows, views},
};

/// Open tickets are counted again after so long even if this process changed none: others write to
/// the same store.
const TICKETS_EVERY: Duration = Duration::from_secs(10);

/// The shared snapshot and what it was made of.
#[derive(Debug, Default)]
pub struct Fleet {
    current: ArcSwapOption<Snapshot>,
    /// Held while the snapshot is brought up to date, so that many viewers cost one reading.
    sources: Mutex<Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    directory: Option<Arc<Directory>>,
    tickets: Option<OpenTickets>,
    /// [`crate::live::Live::changes`] of the current snapshot.
    changes: u64,
}

#[derive(Debug)]
struct OpenTickets {
    by_host: Arc<HashMap<HostId, u32>>,
    /// [`crate::live::Live::ticket_changes`] when they were counted.
    changes: u64,
    counted_at: Instant,
}

impl Fleet {
    /// The fleet now.
    pub async fn snapshot(&self, app: &App) -> Result<Arc<Snapshot>, StoreError> {
        let mut sources = self.sources.lock().await;
        let generation = rows::generation(&app.store).await?;
        let mut is_new = false;
        let directory = match &sources.directory {
            Some(known) if known.generation() == generation => Arc::clone(known),
            _ => {
                is_new = true;
                let read = Arc::new(Directory::read(&app.store, generation).await?);
                sources.directory = Some(Arc::clone(&read));
                read
            }
        };
        let ticket_changes = app.live.ticket_changes();
        let tickets = match &sources.tickets {
            Some(known)
                if known.changes == ticket_changes
                    && known.counted_at.elapsed() < TICKETS_EVERY =>
            {
                Arc::clone(&known.by_host)
            }
            _ => {
                let by_host = Arc::new(open_tickets(app).await?);
                is_new = true;
                sources.tickets = Some(OpenTickets {
                    by_host: Arc::clone(&by_host),
                    changes: ticket_changes,
                    counted_at: Instant::now(),
                });
                by_host
            }
        };
        // Before the states: a change that comes in between is seen with the next snapshot.
        let changes = app.live.changes();
        let before = self.current.load_full();
        if let Some(before) = &before
            && !is_new
            && sources.changes == changes
        {
            return Ok(Arc::clone(before));
        }
        let live = app.live.hosts().into_iter().collect();
        let snapshot = Snapshot::new(directory, live, &tickets, before.as_deref());
        let snapshot = Arc::new(snapshot);
        sources.changes = changes;
        self.current.store(Some(Arc::clone(&snapshot)));
        Ok(snapshot)
    }
}

async fn open_tickets(app: &App) -> Result<HashMap<HostId, u32>, StoreError> {
    let counts = views::open_tickets_by_host(&app.store).await?;
    Ok(counts
        .into_iter()
        .map(|(host, count)| (host, u32::try_from(count).unwrap_or(u32::MAX)))
        .collect())
}
