//! Server-sent events: hints for open pages, told at most once a second. A page that misses some
//! loses nothing, since each hint only says "fetch again"; a reader that is too slow is told to
//! fetch everything. The stream ends when its session does, and with the process.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::Query,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use uuid::Uuid;
use watchkeep_core::ids::TicketId;
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use super::{Web, context::Ctx, error::WebError, session};
use crate::{live::Hint, store::views};

/// Hints are collected for so long before they are told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// A stream says at least this often that it is alive, as an event, so that a page notices when the
/// collector hangs (`QUIET_AFTER` in `live.js`); the session is checked as often.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// A ticket younger than this is announced as new.
const NEW: DurationMs = DurationMs::from_secs(60);

#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    /// The host whose page is open.
    host: Option<HostId>,
}

/// What happened since the page was last told.
#[derive(Debug, Default)]
struct News {
    fleet: bool,
    host: bool,
    tickets: BTreeSet<Uuid>,
}

impl News {
    fn is_empty(&self) -> bool {
        !self.fleet && !self.host && self.tickets.is_empty()
    }

    fn note(&mut self, hint: Hint, page: Option<HostId>) {
        match hint {
            Hint::Values(host) | Hint::Host(host) => {
                self.fleet = true;
                self.host |= page == Some(host);
            }
            Hint::Ticket(ticket) => {
                self.tickets.insert(ticket);
            }
        }
    }

    const fn note_all(&mut self) {
        self.fleet = true;
        self.host = true;
    }
}

struct Feed {
    web: Web,
    hints: Receiver<Hint>,
    page: Option<HostId>,
    token_sha256: Vec<u8>,
    alive: tokio::time::Interval,
    /// Tickets that this page was told of as new, and since when, so that it is not told twice.
    announced: BTreeSet<(Uuid, i64)>,
    began: bool,
}

/// `GET /events`
pub(crate) async fn stream(ctx: Ctx, Query(wanted): Query<Wanted>) -> Result<Response, WebError> {
    let mut alive = interval(ALIVE_EVERY);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    alive.tick().await;
    let feed = Feed {
        hints: ctx.web.app.live.subscribe(),
        page: wanted.host,
        token_sha256: ctx.viewer.token_sha256.clone(),
        web: ctx.web,
        alive,
        announced: BTreeSet::new(),
        began: false,
    };
    let body = stream::unfold(feed, |mut feed| async move {
        let text = feed.next().await?;
        Some((Ok::<Bytes, Infallible>(Bytes::from(text)), feed))
    });
    let fixed = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((
        fixed,
        [("x-accel-buffering", "no")],
        Body::from_stream(body),
    )
        .into_response())
}

impl Feed {
    /// What to send next; `None` ends the stream.
    async fn next(&mut self) -> Option<String> {
        if !self.began {
            self.began = true;
            return Some("retry: 3000\n\n: welcome\n\n".to_owned());
        }
        let stop = self.web.app.process.stop.clone();
        loop {
            let mut news = News::default();
            tokio::select! {
                () = stop.cancelled() => return None,
                _ = self.alive.tick() => {
                    if !session::is_open(&self.web, &self.token_sha256).await.unwrap_or(false) {
                        return None;
                    }
                    return Some("event: alive\ndata: {}\n\n".to_owned());
                }
                hint = self.hints.recv() => note(&mut news, &hint, self.page)?,
            }
            let until = Instant::now() + TELL_EVERY;
            while let Ok(hint) = timeout_at(until, self.hints.recv()).await {
                note(&mut news, &hint, self.page)?;
            }
            if !news.is_empty() {
                return Some(self.tell(news).await);
            }
        }
    }

    async fn tell(&mut self, news: News) -> String {
        let mut text = String::new();
        if news.fleet {
            text.push_str("event: fleet\ndata: {}\n\n");
        }
        if news.host {
            text.push_str("event: host\ndata: {}\n\n");
        }
        for ticket in news.tickets {
            match self.ticket(ticket).await {
                Ok(Some(data)) => {
                    text.push_str("event: ticket\ndata: ");
                    text.push_str(&data);
                    text.push_str("\n\n");
                }
                Ok(None) => {}
                Err(error) => tracing::warn!("failed to tell a page of a ticket: {error}"),
            }
        }
        text
    }

    async fn ticket(&mut self, id: Uuid) -> Result<Option<String>, WebError> {
        let store = &self.web.app.store;
        let Some(number) = views::ticket_number(store, TicketId(id)).await? else {
            return Ok(None);
        };
        let Some(ticket) = views::ticket(store, &number.to_string()).await? else {
            return Ok(None);
        };
        let episode = ticket.episode_at;
        let young = self.web.app.clock.now().since(UnixMillis(episode)) < NEW;
        let waits = ticket.state == "new" && ticket.acknowledged_at.is_none();
        let is_new = young && waits && self.announced.insert((id, episode));
        let told = Told {
            number,
            title: ticket.title,
            client: ticket.client,
            site: ticket.site,
            host: ticket.host,
            priority: ticket.priority,
            state: ticket.state,
            is_new,
            is_again: episode != ticket.opened_at,
            open: views::open_tickets(store).await?,
        };
        Ok(serde_json::to_string(&told).ok())
    }
}

/// Takes a hint in; `None` if there will be no more.
fn note(news: &mut News, hint: &Result<Hint, RecvError>, page: Option<HostId>) -> Option<()> {
    match hint {
        Ok(hint) => news.note(*hint, page),
        Err(RecvError::Lagged(_)) => news.note_all(),
        Err(RecvError::Closed) => return None,
    }
    Some(())
}

/// A ticket event's data.
#[derive(Debug, Serialize)]
struct Told {
    number: i64,
    title: String,
    /// Whose it is, and which host: names of hosts are not unique.
    client: String,
    site: Option<String>,
    host: Option<String>,
    priority: String,
    state: String,
    /// It was just opened, or opened again, and this page has not been told.
    is_new: bool,
    /// It was open before.
    is_again: bool,
    /// Open tickets now.
    open: i64,
}
