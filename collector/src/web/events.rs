//! Server-sent events: hints for open pages, sent at most once a second. A page that misses some
//! loses nothing, since each hint only says "fetch again"; a reader that is too slow is sent to
//! fetch everything. The stream ends when its session does, and with the process.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    time::Duration,
};

use axum::{
    extract::Query,
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures_util::stream;
use serde::Deserialize;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use uuid::Uuid;
use watchkeep_shared::HostId;

use super::{Web, announce::Announcement, context::Ctx, error::WebError, session};
use crate::live::{Hint, Live};

/// Hints are collected for this long before they are sent.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// A stream says at least this often that it is alive, as an event, so that a page notices when the
/// collector hangs (`QUIET_AFTER` in `live.js`); the session is checked as often.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How soon a browser connects again.
const RETRY: Duration = Duration::from_secs(3);

#[derive(Debug, Deserialize)]
pub(crate) struct Params {
    /// The host whose page is open.
    host: Option<HostId>,
}

/// What happened since the last event was sent to the page.
#[derive(Debug, Default)]
struct News {
    fleet: bool,
    host: bool,
    /// With [`Live::ticket_changes`] when the last hint came.
    tickets: BTreeMap<Uuid, u64>,
}

impl News {
    fn note(&mut self, hint: Hint, page: Option<HostId>, live: &Live) {
        match hint {
            Hint::Values(host) | Hint::Host(host) => {
                self.fleet = true;
                self.host |= page == Some(host);
            }
            Hint::Ticket(ticket) => {
                self.tickets.insert(ticket, live.ticket_changes());
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
    /// Tickets that were announced to this page as new, and since when, so that none is announced twice.
    announced: BTreeSet<(Uuid, i64)>,
    /// To be sent before anything else happens.
    ready: VecDeque<Event>,
}

/// `GET /events`
pub(crate) async fn stream(ctx: Ctx, Query(params): Query<Params>) -> Result<Response, WebError> {
    let mut alive = interval(ALIVE_EVERY);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    alive.tick().await;
    let feed = Feed {
        hints: ctx.web.app.live.subscribe(),
        page: params.host,
        token_sha256: ctx.viewer.token_sha256.clone(),
        web: ctx.web,
        alive,
        announced: BTreeSet::new(),
        // Its headers go out with the first event.
        ready: [Event::default().retry(RETRY).comment("welcome")].into(),
    };
    let events = stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok::<Event, Infallible>(event), feed))
    });
    // Keeps proxies from holding events back.
    Ok(([("x-accel-buffering", "no")], Sse::new(events)).into_response())
}

impl Feed {
    /// What to send next; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        let stop = self.web.app.process.stop.clone();
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let mut news = News::default();
            tokio::select! {
                () = stop.cancelled() => return None,
                _ = self.alive.tick() => {
                    if !session::is_open(&self.web, &self.token_sha256).await.unwrap_or(false) {
                        return None;
                    }
                    return Some(plain("alive"));
                }
                hint = self.hints.recv() => self.note(&mut news, &hint)?,
            }
            let until = Instant::now() + TELL_EVERY;
            while let Ok(hint) = timeout_at(until, self.hints.recv()).await {
                self.note(&mut news, &hint)?;
            }
            self.tell(news).await;
        }
    }

    /// Takes a hint in; `None` if there will be no more.
    fn note(&self, news: &mut News, hint: &Result<Hint, RecvError>) -> Option<()> {
        match hint {
            Ok(hint) => news.note(*hint, self.page, &self.web.app.live),
            Err(RecvError::Lagged(_)) => news.note_all(),
            Err(RecvError::Closed) => return None,
        }
        Some(())
    }

    async fn tell(&mut self, news: News) {
        if news.fleet {
            self.ready.push_back(plain("fleet"));
        }
        if news.host {
            self.ready.push_back(plain("host"));
        }
        for (ticket, changes) in news.tickets {
            let announcement = self
                .web
                .announcements
                .of(&self.web.app, ticket, changes)
                .await;
            let event = match announcement {
                Ok(Some(announcement)) => self.ticket_event(ticket, &announcement),
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!("failed to send a ticket's change to an open page: {error}");
                    continue;
                }
            };
            self.ready.extend(event);
        }
    }

    fn ticket_event(&mut self, id: Uuid, announcement: &Announcement) -> Option<Event> {
        let is_new = announcement.is_new && self.announced.insert((id, announcement.episode_at));
        let event = Event::default().event("ticket");
        event.json_data(announcement.data(is_new)).ok()
    }
}

fn plain(name: &str) -> Event {
    Event::default().event(name).data("{}")
}
