//! What pages and probes report about the delivery of messages. Answered from figures in memory that a
//! worker refreshes, so that it costs no query.

use serde::Serialize;

use super::parts::Time;
use crate::{
    app::App,
    notify::{Problem, endpoint::name_of},
};

/// A line above every page while messages do not reach people.
#[derive(Clone, Debug)]
pub(crate) struct Banner {
    /// What is wrong, for people.
    pub(crate) text: String,
    /// Since when; `None` if since the collector was set up.
    pub(crate) since: Option<Time>,
    /// The page that says more.
    pub(crate) href: &'static str,
}

/// The banner of every page; `None` while messages are delivered.
pub(crate) fn banner(app: &App) -> Option<Banner> {
    let now = app.clock.now();
    let problems = app.delivery.health().problems(now);
    let first = problems.first()?;
    let (text, since) = match first {
        Problem::NoChannel => (
            "No notification channel is configured: nobody is alerted. Add [mail] or [webhook] to \
             the collector's configuration."
                .to_owned(),
            None,
        ),
        Problem::Failing {
            channel, recipient, ..
        } => {
            let others = match problems.len() - 1 {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let to = name_of(channel, recipient);
            let text = format!("Messages by {channel} to {to}{others} are not delivered.");
            (text, first.since())
        }
        Problem::Stuck { channel, .. } => (
            format!("Messages by {channel} are waiting and not being sent."),
            first.since(),
        ),
    };
    Some(Banner {
        text,
        since: since.map(|at| Time::new(at, now)),
        href: "/health",
    })
}

/// One channel in the body of `/readyz`. Recipients are not named: monitoring stores what it reads.
#[derive(Debug, Serialize)]
pub(super) struct ChannelReadiness {
    channel: &'static str,
    /// `ok`, `failing`, or `unused` if nothing was sent yet.
    state: &'static str,
    pending: i64,
    oldest_s: Option<i64>,
    failing_recipients: usize,
}

/// All channels. One that fails does not make the collector unready: heartbeats are still taken.
pub(super) fn readiness(app: &App) -> Vec<ChannelReadiness> {
    let (now, health) = (app.clock.now(), app.delivery.health());
    let of = |channel| {
        let all = health.recipients.iter();
        all.filter(move |one| one.endpoint.channel == channel)
    };
    health
        .channels()
        .into_iter()
        .map(|channel| {
            let failing = of(channel).filter(|one| one.failing_since().is_some());
            let failing_recipients = failing.count();
            let state = match failing_recipients {
                0 if of(channel).all(|one| one.seen.is_none()) => "unused",
                0 => "ok",
                _ => "failing",
            };
            ChannelReadiness {
                channel,
                state,
                pending: health.pending(channel),
                oldest_s: health.oldest(channel).map(|at| now.since(at).0 / 1_000),
                failing_recipients,
            }
        })
        .collect()
}
