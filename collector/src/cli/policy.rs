//! `host policy`: what one host's agent is asked to monitor, where each item comes from, and its state
//! as the agent last reported it.

use watchkeep_core::{
    host::HostState,
    policy::{ReportedPolicy, Sourced},
};
use watchkeep_shared::HostId;

use super::say;
use crate::{
    boot,
    config::Config,
    policies::view::{Chosen, ItemState, PolicyView, ReportedState},
    store::{heartbeats, policy as rows},
};

pub(super) async fn run(config: Config, host: &str, json: bool) -> anyhow::Result<()> {
    let app = boot::open(config).await?.app;
    let row = super::host::find(&app, host).await?;
    let host = HostId(row.id);
    app.policies.refresh(&app.store).await?;
    let policy = app.policies.of(host, (&row).into());
    let chosen = rows::watched_on(&app.store, host).await?;
    let state = stored_state(&app, host).await?;
    let is_not_here = |key: &str| {
        let service = state.services.iter().find(|one| one.key == key);
        service.is_some_and(|one| state.is_not_here(one, policy.is_own(key)))
    };
    let seen = state.last.map(|_| ReportedState {
        reported: ReportedPolicy {
            version: state.policy_version,
            services: &state.services,
            refused: &state.refused,
        },
        is_not_here: &is_not_here,
    });
    let view = PolicyView::new(&policy, &chosen, seen);
    if json {
        return say(&serde_json::to_string_pretty(&view)?);
    }
    say(&format!(
        "{} at {}, {}",
        row.name, row.site_name, row.client_name
    ))?;
    print(&view)
}

async fn stored_state(app: &crate::app::App, host: HostId) -> anyhow::Result<HostState> {
    let Some(row) = heartbeats::state_of(&app.store, host).await? else {
        return Ok(HostState::default());
    };
    let value: serde_json::Value = serde_json::from_str(&row.state)?;
    let state = value.get("host").cloned().unwrap_or_default();
    Ok(serde_json::from_value(state)?)
}

fn print(view: &PolicyView) -> anyhow::Result<()> {
    say(match view.running_version {
        None => "Its agent has not reported yet.",
        Some(version) if version == view.version => "Its agent runs this policy.",
        Some(_) => "Its agent runs another policy; this one takes effect with the next heartbeat.",
    })?;
    let Sourced { item, from } = &view.interval_ms;
    let refused = view.interval_refused.as_deref().unwrap_or_default();
    say(&format!(
        "  {:<44} {from:<9} {refused}",
        format!("every {item} ms")
    ))?;
    for one in &view.services {
        let who = one.chosen.as_ref().map(by).unwrap_or_default();
        let state = state(&one.state);
        say(&format!(
            "  {:<44} {:<9} {state}{who}",
            one.key,
            one.from.as_str()
        ))?;
    }
    for one in &view.logs {
        let what = format!("{} in {}", one.key, one.check.path);
        let state = state(&one.state);
        say(&format!("  {what:<44} {:<9} {state}", one.from.as_str()))?;
    }
    for one in &view.without {
        let what = format!("without {}", one.item);
        say(&format!("  {what:<44} {}", one.from))?;
    }
    Ok(())
}

fn by(chosen: &Chosen) -> String {
    format!(", chosen by {}", chosen.by)
}

fn state(state: &ItemState) -> String {
    match state {
        ItemState::Pending => "pending".to_owned(),
        ItemState::Watched => "watched".to_owned(),
        ItemState::NotHere => "not installed here".to_owned(),
        ItemState::Refused { reason } => format!("refused by the customer: {reason}"),
    }
}
