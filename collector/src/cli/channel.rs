//! Channels: whom messages reach, and a test of the way to them. Works from the settings alone, with
//! or without a running collector.

use clap::{Subcommand, ValueEnum};

use super::say;
use crate::{
    clock::Clock,
    config::Config,
    notify::{
        Channels, Selection, TestResult,
        endpoint::{self, MAIL, WEBHOOK},
        send_tests,
    },
};

/// What to do with channels.
#[derive(Debug, Subcommand)]
pub(super) enum ChannelCommand {
    /// List the recipients of all channels.
    List,
    /// Send a test message to each recipient and show each step of its delivery.
    Test {
        /// Only this channel.
        name: Option<Name>,
        /// Only recipients of this tier.
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
        tier: Option<u8>,
    },
}

/// A channel.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Name {
    /// Mail by SMTP.
    Mail,
    /// The webhook.
    Webhook,
}

impl Name {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Mail => MAIL,
            Self::Webhook => WEBHOOK,
        }
    }
}

/// Runs a command.
pub(super) async fn run(config: Config, command: ChannelCommand) -> anyhow::Result<()> {
    let all = endpoint::endpoints(&config);
    if all.is_empty() {
        anyhow::bail!(
            "no channel is configured: add [mail] or [webhook] to the configuration, or nobody is \
             alerted"
        );
    }
    match command {
        ChannelCommand::List => {
            for one in all {
                let (channel, tier, name) = (one.channel, one.tier, one.name());
                say(&format!("{channel:8} tier {tier}  {name}"))?;
            }
            if !endpoint::has_tier2(&config) {
                say("No tier 2 is configured: escalated messages go to tier 1 again.")?;
            }
            Ok(())
        }
        ChannelCommand::Test { name, tier } => {
            let selection = Selection {
                channel: name.map(Name::as_str),
                tier,
            };
            test(&config, selection).await
        }
    }
}

async fn test(config: &Config, selection: Selection<'_>) -> anyhow::Result<()> {
    let channels = Channels::new(config)?;
    let now = Clock::system().now();
    let results = send_tests(config, &channels, selection, now).await;
    if results.is_empty() {
        anyhow::bail!("no such recipient is configured: `channel list` shows all");
    }
    for result in &results {
        say(&text(result))?;
    }
    let failed = results.iter().filter(|one| one.error.is_some()).count();
    if failed > 0 {
        anyhow::bail!(
            "{failed} of {} test messages were not delivered",
            results.len()
        );
    }
    Ok(())
}

/// The steps of a test as text.
fn text(result: &TestResult) -> String {
    let endpoint = &result.endpoint;
    let mut lines = vec![format!(
        "{} to {} (tier {})",
        endpoint.channel,
        endpoint.name(),
        endpoint.tier
    )];
    for step in &result.steps {
        let outcome = if step.is_ok { "ok    " } else { "failed" };
        let (name, took, detail) = (step.name, step.took_ms, &step.detail);
        lines.push(format!("  {outcome}  {name:10} {took:>6} ms  {detail}"));
    }
    match &result.error {
        None => lines.push("  delivered".to_owned()),
        // A failure before the first step is in no step.
        Some(error) if result.steps.iter().all(|step| step.is_ok) => {
            lines.push(format!("  failed  {error}"));
        }
        Some(_) => {}
    }
    lines.join("\n")
}
