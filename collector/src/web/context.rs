//! What a page's handler knows of its request: who asks, which block of the page, what time it is.

use askama::Template;
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
    response::{Html, IntoResponse, Redirect, Response},
};
use watchkeep_core::tickets::Actor;
use watchkeep_shared::UnixMillis;

use super::{
    Web,
    error::WebError,
    health::{self, Banner},
    parts::Time,
    session::{Theme, Viewer},
};
use crate::store::{StoreError, Tx, people::Act, views};

/// This program's version, for the foot of pages.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A request of someone who is signed in.
#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) web: Web,
    pub(crate) viewer: Viewer,
    pub(crate) now: UnixMillis,
    theme: Theme,
    /// The `id` of the element that the script wants to replace.
    block: Option<String>,
}

/// What every whole page shows around its content.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) theme: Theme,
    pub(crate) section: &'static str,
    pub(crate) name: String,
    pub(crate) csrf: String,
    pub(crate) open_tickets: i64,
    /// Messages do not reach people.
    pub(crate) banner: Option<Banner>,
    pub(crate) now: i64,
}

impl Ctx {
    /// The frame of a page; `section` is the navigation's entry.
    pub(crate) async fn layout(&self, section: &'static str) -> Result<Layout, WebError> {
        // A block has no navigation around it.
        let open_tickets = if self.block.is_some() {
            0
        } else {
            views::open_tickets(&self.web.app.store).await?
        };
        Ok(Layout {
            theme: self.theme,
            section,
            name: self.viewer.name.clone(),
            csrf: self.viewer.csrf.clone(),
            open_tickets,
            banner: health::banner(&self.web.app),
            now: self.now.0,
        })
    }

    /// The block of the page that alone is wanted, if one is.
    pub(crate) fn block(&self) -> Option<&str> {
        self.block.as_deref()
    }

    /// Whether only this block of the page is wanted.
    pub(crate) fn wants_block(&self, id: &str) -> bool {
        self.block() == Some(id)
    }

    /// Where a browser without script goes to if its form left parameters empty: to the address
    /// without them.
    pub(crate) fn shorter_address(&self, query: Option<&str>, address: &str) -> Option<Response> {
        let mut pairs = query.unwrap_or_default().split('&');
        let has_empty = pairs.any(|pair| pair.ends_with('='));
        let is_page = self.block.is_none();
        (has_empty && is_page).then(|| Redirect::to(address).into_response())
    }

    pub(crate) fn time(&self, ms: i64) -> Time {
        Time::new(UnixMillis(ms), self.now)
    }

    /// The viewer as the actor of a ticket's event.
    pub(crate) fn actor(&self) -> Actor {
        Actor::User {
            id: self.viewer.user,
            name: self.viewer.name.clone(),
        }
    }

    /// Writes a line into the audit log, in the transaction of the act.
    pub(crate) async fn audit(
        &self,
        tx: &mut Tx,
        action: &str,
        subject: &str,
        detail: &str,
    ) -> Result<(), StoreError> {
        let act = Act {
            by: &self.viewer.login,
            action,
            subject,
            detail,
        };
        self.web.app.audit(tx, act).await
    }
}

impl FromRequestParts<Web> for Ctx {
    type Rejection = WebError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, WebError> {
        let viewer = parts
            .extensions
            .get::<Viewer>()
            .cloned()
            .ok_or(WebError::SignInFirst)?;
        Ok(Self {
            web: web.clone(),
            viewer,
            now: web.app.clock.now(),
            theme: Theme::of(&parts.headers),
            block: block(&parts.headers),
        })
    }
}

/// htmx says `TAG#ID` of what it will replace.
fn block(headers: &HeaderMap) -> Option<String> {
    headers.get("hx-request")?;
    let target = headers.get("hx-target")?.to_str().ok()?;
    target.split_once('#').map(|(_, id)| id.to_owned())
}

/// A template as the answer.
pub(crate) fn html(page: &impl Template) -> Result<Response, WebError> {
    Ok(Html(page.render()?).into_response())
}
