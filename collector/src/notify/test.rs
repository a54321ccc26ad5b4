//! A test message to the recipients of a channel, with each step of its delivery. It takes the same
//! way as a page, but for the outbox.

use futures_util::{StreamExt as _, stream};
use watchkeep_core::delivery::MessageKind;
use watchkeep_shared::UnixMillis;

use super::{
    Body,
    channel::{Channels, Outgoing, SendError, Step, Trace},
    endpoint::{self, Endpoint},
};
use crate::config::Config;

/// What became of a test message to one recipient.
#[derive(Clone, Debug)]
pub struct TestResult {
    /// The recipient.
    pub endpoint: Endpoint,
    pub at: UnixMillis,
    /// Each step, in order; the last one is the one that failed, if one did.
    pub steps: Vec<Step>,
    /// Why it was not delivered.
    pub error: Option<SendError>,
}

/// Which recipients get a test message; `None` for all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection<'a> {
    /// Those of this channel.
    pub channel: Option<&'a str>,
    /// Those of this tier.
    pub tier: Option<u8>,
}

/// Tests at once: as many sessions as mail servers allow.
const AT_ONCE: usize = 3;

/// Sends a test message to each selected recipient. Results come in the order of the recipients.
pub async fn send_tests(
    config: &Config,
    channels: &Channels,
    selection: Selection<'_>,
    now: UnixMillis,
) -> Vec<TestResult> {
    let is_selected = |one: &Endpoint| {
        selection.channel.is_none_or(|name| name == one.channel)
            && selection.tier.is_none_or(|tier| tier == one.tier)
    };
    let selected = endpoint::endpoints(config).into_iter().filter(is_selected);
    let tests = selected.map(|one| test_endpoint(config, channels, one, now));
    stream::iter(tests).buffered(AT_ONCE).collect().await
}

async fn test_endpoint(
    config: &Config,
    channels: &Channels,
    endpoint: Endpoint,
    now: UnixMillis,
) -> TestResult {
    let body = body(config, &endpoint, now);
    // A type made of texts and numbers always has a JSON form.
    let payload = serde_json::to_string(&body).unwrap_or_default();
    let still_wanted = || -> super::Sending<'_, bool> { Box::pin(std::future::ready(true)) };
    let outgoing = Outgoing {
        message: now.0,
        attempt: 1,
        recipient: &endpoint.recipient,
        kind: MessageKind::Page,
        payload: &payload,
        body: &body,
        now,
        still_wanted: &still_wanted,
        is_test: true,
    };
    let mut trace = Trace::default();
    let error = match channels.iter().find(|one| one.name() == endpoint.channel) {
        Some(channel) => channel.deliver(&outgoing, &mut trace).await.err(),
        None => None,
    };
    TestResult {
        endpoint,
        at: now,
        steps: trace.into_steps(),
        error,
    }
}

fn body(config: &Config, endpoint: &Endpoint, now: UnixMillis) -> Body {
    Body {
        event: "test".to_owned(),
        title: format!(
            "Test message by {} to tier {}",
            endpoint.channel, endpoint.tier
        ),
        tier: Some(endpoint.tier),
        at_ms: now.0,
        url: config.web.public_url.trim_end_matches('/').to_owned(),
        notes: vec!["If you can read it, pages reach you this way.".to_owned()],
        ..Body::default()
    }
}
