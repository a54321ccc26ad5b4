//! Delivers the outbox, one task a channel: claims what is due under a lease, sends several copies at
//! once, records each attempt. Pages go before notices, and a slow recipient takes one of the
//! channel's places, never all. A crash between sending and recording sends again: at least once,
//! never lost.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;
use watchkeep_core::delivery::{Failure, MessageKind, Next, Tried, after_failure};
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    Body,
    channel::{Channel, Channels, Outgoing, SendError, Trace},
    endpoint,
};
use crate::{
    app::App,
    live::Hint,
    store::{
        StoreError, delivery,
        outbox::{self, Attempt, Claim, Finished, Message},
    },
};

/// How long a claimed copy is the worker's: longer than any delivery takes.
const LEASE: DurationMs = DurationMs::from_mins(5);
/// How often the outbox is read when nothing is under way.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// Wait after the store failed, doubled up to the second.
const STORE_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long deliveries under way may take when the collector stops.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Makes the stored state fit the settings, before the workers start: leases of the last run end,
/// recipients that were removed from the settings are forgotten, and what was queued for them is
/// given up, which hands pages over to those who are configured.
pub async fn begin(app: &App) -> Result<(), StoreError> {
    let now = app.clock.now();
    let configured = endpoint::endpoints(&app.config);
    let is_known =
        |channel: &str, recipient: &str| configured.iter().any(|one| one.is(channel, recipient));
    outbox::release(&app.store).await?;
    let queued = delivery::queued_for(&app.store).await?;
    let known = delivery::recipients(&app.store).await?;
    let mut tx = app.store.begin().await?;
    for (channel, recipient) in queued {
        if !is_known(&channel, &recipient) {
            let why = "the recipient is no longer in the configuration";
            let count = delivery::give_up(&mut tx, &channel, &recipient, why, now).await?;
            tracing::warn!("{count} messages to {recipient} by {channel} given up: {why}");
        }
    }
    for one in known {
        if !is_known(&one.channel, &one.address) {
            if one.reported_at.is_some() {
                let why = format!("{} is no longer in the configuration", one.address);
                super::watch::recovered(app, &mut tx, &one, &why).await?;
            }
            delivery::remove_recipient(&mut tx, &one.channel, &one.address).await?;
        }
    }
    tx.commit().await?;
    super::health::refresh(app).await
}

/// Starts the workers: one a channel, and the one that watches over delivery.
pub fn start(app: &App, channels: &Channels) {
    for channel in channels.iter() {
        let name = match channel.name() {
            endpoint::MAIL => "outbox mail",
            endpoint::WEBHOOK => "outbox webhook",
            _ => "outbox",
        };
        let work = run(app.clone(), Arc::clone(channel));
        app.process.spawn_essential(name, work);
    }
    let work = super::watch::run(app.clone());
    app.process.spawn_essential("delivery watch", work);
}

/// Delivers one channel's part of the outbox until the process stops. Each delivery is a task of its
/// own: one that waits for the store must not wait for this loop, which waits for the store as well.
async fn run(app: App, channel: Arc<dyn Channel>) -> Result<(), String> {
    let stop = app.process.stop.clone();
    let places = Arc::new(Semaphore::new(channel.max_sends()));
    let is_free = Arc::new(Notify::new());
    let mut pause = POLL_EVERY;
    while !stop.is_cancelled() {
        match claim(&app, channel.as_ref(), places.available_permits()).await {
            Ok(claimed) => {
                pause = POLL_EVERY;
                for one in claimed {
                    // One was free for each; only this loop takes them.
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        break;
                    };
                    let (app, channel) = (app.clone(), Arc::clone(&channel));
                    let is_free = Arc::clone(&is_free);
                    app.process.clone().spawn(async move {
                        tokio::select! {
                            () = deliver(&app, channel.as_ref(), one) => {}
                            // What is cut off is sent after the next start.
                            () = patience(&app) => {}
                        }
                        drop(place);
                        is_free.notify_one();
                    });
                }
            }
            Err(error) => {
                pause = (pause * 2).clamp(STORE_RETRY.0, STORE_RETRY.1);
                let name = channel.name();
                tracing::error!("failed to read the outbox of {name}, retrying: {error}");
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = is_free.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(())
}

/// Ends some time after the process was asked to stop.
async fn patience(app: &App) {
    app.process.stop.cancelled().await;
    tokio::time::sleep(STOP_PATIENCE).await;
}

/// Delivers what is due on all channels, once. Returns how many copies were tried.
pub async fn tick(app: &App, channels: &Channels) -> Result<usize, StoreError> {
    let mut count = 0;
    for channel in channels.iter() {
        count += tick_channel(app, channel.as_ref()).await?;
    }
    Ok(count)
}

/// Delivers what is due on one channel, once: as many copies as it sends at once. Returns how many
/// were tried.
pub async fn tick_channel(app: &App, channel: &dyn Channel) -> Result<usize, StoreError> {
    let claimed = claim(app, channel, channel.max_sends()).await?;
    let count = claimed.len();
    let sends = claimed.into_iter().map(|one| deliver(app, channel, one));
    futures_util::future::join_all(sends).await;
    Ok(count)
}

/// A claimed copy and the token that it was claimed with.
#[derive(Debug)]
struct Claimed {
    message: Message,
    token: Uuid,
}

async fn claim(app: &App, channel: &dyn Channel, free: usize) -> Result<Vec<Claimed>, StoreError> {
    let token = Uuid::new_v4();
    let claim = Claim {
        channel: channel.name(),
        token,
        lease: LEASE,
        limit: free,
    };
    let rows = outbox::claim(&app.store, claim, app.clock.now()).await?;
    let claimed = rows.into_iter().map(|message| Claimed { message, token });
    Ok(claimed.collect())
}

/// Sends one copy and records the attempt. A store that fails is logged: the lease then ends by
/// itself.
async fn deliver(app: &App, channel: &dyn Channel, claimed: Claimed) {
    let Claimed { message, token } = claimed;
    let result = match attempt(app, channel, &message, token).await {
        Err(SendError::Cancelled) => return,
        other => other,
    };
    let now = app.clock.now();
    let attempt = outcome(&message, result, now);
    log(&message, &attempt);
    app.delivery.count_attempt(&message, &attempt);
    let finished = Finished {
        row: app.ids.next(now),
        token,
        at: now,
        attempt,
    };
    record(app, &message, &finished).await;
    if let Some(ticket) = message.ticket_id {
        app.live.hint(Hint::Ticket(ticket));
    }
}

async fn attempt(
    app: &App,
    channel: &dyn Channel,
    message: &Message,
    token: Uuid,
) -> Result<(), SendError> {
    let broken = |detail: String| SendError::failed(Failure::Final, "read", &detail);
    let body: Body =
        serde_json::from_str(&message.payload).map_err(|error| broken(error.to_string()))?;
    let kind: MessageKind = message
        .kind
        .parse()
        .map_err(|error: watchkeep_core::rules::ParseWordError| broken(error.to_string()))?;
    let still_wanted = || -> super::Sending<'_, bool> {
        Box::pin(async {
            let wanted = outbox::still_wanted(&app.store, message.id, token).await;
            // If the store does not say, the message goes: rather one too many than one too few.
            wanted.unwrap_or_else(|error| {
                tracing::warn!("failed to ask whether a message is cancelled: {error}");
                true
            })
        })
    };
    // An acknowledgement may have come since the claim.
    if !still_wanted().await {
        return Err(SendError::Cancelled);
    }
    let outgoing = Outgoing {
        message: message.message_id,
        attempt: u32::try_from(message.attempts).unwrap_or(0) + 1,
        recipient: &message.recipient,
        kind,
        payload: &message.payload,
        body: &body,
        now: app.clock.now(),
        still_wanted: &still_wanted,
        is_test: false,
    };
    channel.deliver(&outgoing, &mut Trace::default()).await
}

/// What an attempt's end means for the copy.
fn outcome(message: &Message, result: Result<(), SendError>, now: UnixMillis) -> Attempt {
    let Err(error) = result else {
        return Attempt::Sent;
    };
    let SendError::Failed { failure, .. } = &error else {
        return Attempt::Sent;
    };
    let tried = Tried {
        // A kind that can't be read has failed for good already.
        kind: message.kind.parse().unwrap_or(MessageKind::Page),
        failures: u32::try_from(message.attempts).unwrap_or(0),
        first_failed_at: message.first_failed_at.map(UnixMillis),
    };
    match after_failure(&tried, *failure, now) {
        Next::RetryAt(at) => Attempt::Retry(at, error.to_string()),
        Next::Dead => Attempt::Dead(error.to_string()),
    }
}

fn log(message: &Message, attempt: &Attempt) {
    let (number, channel) = (message.attempts + 1, &message.channel);
    match attempt {
        Attempt::Sent => {}
        Attempt::Retry(_, error) => tracing::warn!(
            outbox.id = message.id,
            attempt = number,
            "failed to send a {} by {channel}, retrying: {error}",
            message.kind
        ),
        Attempt::Dead(error) => tracing::error!(
            outbox.id = message.id,
            attempt = number,
            "gave up a {} by {channel}: {error}",
            message.kind
        ),
    }
}

/// Records an attempt. While the store fails it is tried again for as long as the lease lasts: an
/// outcome that is lost sends the message a second time.
async fn record(app: &App, message: &Message, finished: &Finished) {
    let until = finished.at + LEASE;
    let mut pause = STORE_RETRY.0;
    loop {
        let Err(error) = outbox::finish(&app.store, message, finished).await else {
            return;
        };
        tracing::error!(
            outbox.id = message.id,
            "failed to record a delivery: {error}"
        );
        if app.process.stop.is_cancelled() || app.clock.now() >= until {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(STORE_RETRY.1);
    }
}
