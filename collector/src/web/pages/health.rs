//! How the collector itself fares: the delivery of messages (each recipient, what waits, what was given
//! up, test messages), and parts of hosts' history that it can't read.

use std::time::Duration;

use askama::Template;
use axum::{
    Form,
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;
use tokio::sync::oneshot;
use watchkeep_shared::{HostId, UnixMillis};

use crate::{
    notify::{
        Channels, RecipientHealth, Selection, TestResult,
        endpoint::{self, name_of},
        send_tests,
    },
    store::{
        delivery,
        set_aside::{self, Part},
    },
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
        parts::{Pill, Time, pill},
    },
};

/// Messages shown that were given up.
const DEAD_ROWS: usize = 50;
/// Damaged parts of history shown.
const DAMAGED_ROWS: usize = 50;
/// How long the answer waits for a test; a longer one continues without it.
const TEST_WAIT: Duration = Duration::from_secs(20);

#[derive(Template)]
#[template(path = "pages/health.html")]
struct HealthPage {
    layout: Layout,
    recipients: Vec<RecipientRow>,
    channels: Vec<&'static str>,
    has_tier2: bool,
    queues: Vec<QueueRow>,
    dead: Vec<DeadRow>,
    tests: Vec<TestRow>,
    is_testing: bool,
    /// How much of hosts' history is set aside; empty if nothing is.
    set_aside: String,
    damaged: Vec<DamagedRow>,
    /// How long it is kept, days.
    set_aside_days: u32,
}

/// A part of a host's history that can't be read.
struct DamagedRow {
    host: HostId,
    name: String,
    what: &'static str,
    hour: Time,
    reason: String,
    at: Time,
}

struct RecipientRow {
    channel: &'static str,
    name: String,
    tier: u8,
    state: Pill,
    since: Option<Time>,
    last_sent: Option<Time>,
    error: String,
}

struct QueueRow {
    channel: String,
    kind: &'static str,
    pending: i64,
    oldest: Time,
}

struct DeadRow {
    id: i64,
    kind: &'static str,
    to: String,
    ticket: Option<(i64, String)>,
    at: Time,
    attempts: i32,
    error: String,
}

struct TestRow {
    to: String,
    tier: u8,
    at: Time,
    state: Pill,
    steps: Vec<StepRow>,
}

struct StepRow {
    name: &'static str,
    is_ok: bool,
    detail: String,
    took: String,
}

/// `GET /health`
pub(crate) async fn page(ctx: Ctx) -> Result<Response, WebError> {
    let app = &ctx.web.app;
    let health = app.delivery.health();
    let dead = delivery::dead(&app.store, DEAD_ROWS).await?;
    html(&HealthPage {
        layout: ctx.layout("health").await?,
        recipients: health
            .recipients
            .iter()
            .map(|one| recipient(&ctx, one))
            .collect(),
        channels: health.channels(),
        has_tier2: endpoint::has_tier2(&app.config),
        queues: health
            .queues
            .iter()
            .map(|queue| QueueRow {
                channel: queue.channel.clone(),
                kind: kind(&queue.kind),
                pending: queue.pending,
                oldest: ctx.time(queue.oldest_at),
            })
            .collect(),
        dead: dead.iter().map(|one| dead_row(&ctx, one)).collect(),
        tests: app
            .delivery
            .tests()
            .iter()
            .map(|one| test_row(&ctx, one))
            .collect(),
        is_testing: app.delivery.is_testing(),
        set_aside: counted(&set_aside::counts(&app.store).await?),
        damaged: damaged(&ctx).await?,
        set_aside_days: app.config.history.set_aside_days,
    })
}

#[derive(Deserialize)]
pub(crate) struct TestForm {
    channel: String,
}

/// `POST /health/test`: sends a test message to each recipient of a channel.
pub(crate) async fn test(ctx: Ctx, Form(form): Form<TestForm>) -> Result<Response, WebError> {
    let app = ctx.web.app.clone();
    let channels = Channels::new(&app.config).map_err(|e| WebError::Conflict(e.to_string()))?;
    if !channels.iter().any(|one| one.name() == form.channel) {
        return Err(WebError::Bad("channel: mail or webhook".to_owned()));
    }
    let Some(testing) = app.delivery.begin_test() else {
        return Err(WebError::Conflict(
            "a test is running: wait for its result".to_owned(),
        ));
    };
    let mut tx = app.store.begin().await?;
    ctx.audit(&mut tx, "channel_tested", &form.channel, "")
        .await?;
    tx.commit().await?;
    let (done, wait) = oneshot::channel::<()>();
    let here = app.clone();
    app.process.spawn(async move {
        let selection = Selection {
            channel: Some(&form.channel),
            tier: None,
        };
        let now = here.clock.now();
        let results = send_tests(&here.config, &channels, selection, now).await;
        here.delivery.keep_tests(results);
        drop(testing);
        // The request may have ended: the page shows the results then.
        done.send(()).ok();
    });
    drop(tokio::time::timeout(TEST_WAIT, wait).await);
    Ok(Redirect::to("/health#tests").into_response())
}

#[derive(Deserialize)]
pub(crate) struct SendAgainForm {
    /// The message's row.
    id: i64,
}

/// `POST /health/send-again`: queues a message again that was given up.
pub(crate) async fn send_again(
    ctx: Ctx,
    Form(form): Form<SendAgainForm>,
) -> Result<Response, WebError> {
    let app = &ctx.web.app;
    let mut tx = app.store.begin().await?;
    if !delivery::send_again(&mut tx, form.id, ctx.now).await? {
        return Err(WebError::Conflict(
            "this message is not sent again: it was delivered, or its ticket was acknowledged or \
             resolved"
                .to_owned(),
        ));
    }
    let subject = format!("message {}", form.id);
    ctx.audit(&mut tx, "message_sent_again", &subject, "")
        .await?;
    tx.commit().await?;
    Ok(Redirect::to("/health").into_response())
}

fn recipient(ctx: &Ctx, one: &RecipientHealth) -> RecipientRow {
    let since = one.failing_since();
    let state = match (&one.seen, since) {
        (_, Some(_)) => pill("crit", "crit", "Failing"),
        (Some(_), None) => pill("ok", "check", "Delivering"),
        (None, None) => pill("idle", "info", "Not used yet"),
    };
    let seen = one.seen.as_ref();
    let last_sent = seen.and_then(|seen| seen.last_sent_at);
    let error = seen.and_then(|seen| seen.last_error.clone());
    RecipientRow {
        channel: one.endpoint.channel,
        name: one.endpoint.name(),
        tier: one.endpoint.tier,
        state,
        since: since.map(|UnixMillis(at)| ctx.time(at)),
        last_sent: last_sent.map(|at| ctx.time(at)),
        error: error.unwrap_or_default(),
    }
}

fn dead_row(ctx: &Ctx, one: &delivery::DeadMessage) -> DeadRow {
    let title = one.title.clone().unwrap_or_default();
    DeadRow {
        id: one.id,
        kind: kind(&one.kind),
        to: format!(
            "{} to {}",
            one.channel,
            name_of(&one.channel, &one.recipient)
        ),
        ticket: one.number.map(|number| (number, title)),
        at: ctx.time(one.done_at.unwrap_or(one.created_at)),
        attempts: one.attempts,
        error: one.last_error.clone().unwrap_or_default(),
    }
}

/// What is set aside, as in `3 heartbeats, 1 hour`.
fn counted(counts: &[set_aside::Count]) -> String {
    let parts = Part::ALL.into_iter().filter_map(|part| {
        let count = counts.iter().find(|one| one.kind == part.as_str())?.count;
        let what = match part {
            Part::Row => "heartbeat",
            Part::Chunk => "hour",
        };
        let s = if count == 1 { "" } else { "s" };
        Some(format!("{count} {what}{s}"))
    });
    parts.collect::<Vec<_>>().join(", ")
}

async fn damaged(ctx: &Ctx) -> Result<Vec<DamagedRow>, WebError> {
    let newest = set_aside::newest(&ctx.web.app.store, DAMAGED_ROWS).await?;
    let rows = newest.into_iter().map(|one| DamagedRow {
        host: HostId(one.host_id),
        name: one.host.unwrap_or_else(|| HostId(one.host_id).to_string()),
        what: if one.kind == Part::Chunk.as_str() {
            "The whole hour"
        } else {
            "One heartbeat"
        },
        hour: ctx.time(one.hour),
        reason: one.reason,
        at: ctx.time(one.at),
    });
    Ok(rows.collect())
}

fn test_row(ctx: &Ctx, one: &TestResult) -> TestRow {
    let steps = one.steps.iter().map(|step| StepRow {
        name: step.name,
        is_ok: step.is_ok,
        detail: step.detail.clone(),
        took: format!("{} ms", step.took_ms),
    });
    TestRow {
        to: format!("{} to {}", one.endpoint.channel, one.endpoint.name()),
        tier: one.endpoint.tier,
        at: ctx.time(one.at.0),
        state: match &one.error {
            None => pill("ok", "check", "Delivered"),
            Some(_) => pill("crit", "crit", "Failed"),
        },
        steps: steps.collect(),
    }
}

/// The kind of a message for people.
fn kind(word: &str) -> &'static str {
    if word == "page" {
        "Urgent message"
    } else {
        "Notice"
    }
}
