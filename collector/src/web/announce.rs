//! What open pages are sent about a ticket that changed: read once for a change, however many pages are
//! open.

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;
use tokio::sync::Mutex;
use uuid::Uuid;
use watchkeep_core::ids::TicketId;
use watchkeep_shared::{DurationMs, UnixMillis};

use crate::{
    app::App,
    store::{StoreError, views},
};

/// A ticket younger than this is announced as new.
const NEW: DurationMs = DurationMs::from_secs(60);
/// Announcements that are kept; all pages ask for the newest ones within a second.
const KEPT: usize = 256;

/// A ticket as sent to pages.
#[derive(Debug)]
pub(super) struct Announcement {
    /// It was just opened, or opened again.
    pub(super) is_new: bool,
    /// When this episode began.
    pub(super) episode_at: i64,
    data: TicketData,
}

/// A ticket event's data.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TicketData {
    number: i64,
    title: String,
    /// Whose it is, and which host: names of hosts are not unique.
    client: String,
    site: Option<String>,
    host: Option<String>,
    priority: String,
    state: String,
    /// It was just opened, or opened again, and was not announced to this page.
    is_new: bool,
    /// It was open before.
    is_again: bool,
    /// Open tickets now.
    open: i64,
}

impl Announcement {
    /// What one page is sent.
    pub(super) fn data(&self, is_new: bool) -> TicketData {
        TicketData {
            is_new,
            ..self.data.clone()
        }
    }
}

/// What was read of a ticket, and after how many changes; `None` if there was none.
type Known = (u64, Option<Arc<Announcement>>);

/// Announcements that were read, with [`crate::live::Live::ticket_changes`] before that.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// Held while one is read, so that many pages cost one reading.
    known: Mutex<HashMap<Uuid, Known>>,
}

impl Announcements {
    /// A ticket as it is since a number of changes, or later; `None` if there is none.
    pub(super) async fn of(
        &self,
        app: &App,
        ticket: Uuid,
        changes: u64,
    ) -> Result<Option<Arc<Announcement>>, StoreError> {
        let mut known = self.known.lock().await;
        if let Some((read_at, announcement)) = known.get(&ticket)
            && *read_at >= changes
        {
            return Ok(announcement.clone());
        }
        // Before the reading: a change that comes in between is read with its own hint.
        let read_at = app.live.ticket_changes();
        let announcement = read(app, ticket).await?.map(Arc::new);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(ticket, (read_at, announcement.clone()));
        Ok(announcement)
    }
}

async fn read(app: &App, id: Uuid) -> Result<Option<Announcement>, StoreError> {
    let Some(ticket) = views::ticket_of(&app.store, TicketId(id)).await? else {
        return Ok(None);
    };
    let episode_at = ticket.episode_at;
    let is_young = app.clock.now().since(UnixMillis(episode_at)) < NEW;
    Ok(Some(Announcement {
        is_new: is_young && ticket.state == "new" && ticket.acknowledged_at.is_none(),
        episode_at,
        data: TicketData {
            number: ticket.number,
            title: ticket.title,
            client: ticket.client,
            site: ticket.site,
            host: ticket.host,
            priority: ticket.priority,
            state: ticket.state,
            is_new: false,
            is_again: episode_at != ticket.opened_at,
            open: views::open_tickets(&app.store).await?,
        },
    }))
}
