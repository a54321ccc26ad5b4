//! What hosts are asked for, from a fleet file to the agent and back: a site's policy reaches the agent
//! of a running collector, and leaves it again.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;
use watchkeep_shared::{HostId, wire::policy::ServiceCheck};
use watchkeep_tests::{
    both_stores,
    harness::{
        Agent, Collector, DatabaseKind, Settings,
        collector::{CLIENT, CONTRACT, SITE},
        process::Process,
        wait_for,
    },
};

/// For anything that follows from something by itself.
const SOON: Duration = Duration::from_mins(1);

both_stores!(a_policy_of_a_site_reaches_its_hosts_and_leaves_them);

async fn a_policy_of_a_site_reaches_its_hosts_and_leaves_them(kind: DatabaseKind) -> Result<()> {
    let work = tempfile::tempdir()?;
    let mut sleep = Command::new("sleep");
    sleep.arg("3600");
    let asleep = Process::start("sleep", sleep, &work.path().join("log"))?;
    let settings = Settings {
        services: vec![ServiceCheck::process("watchkeep-agent")],
        ..Settings::default()
    };
    let mut collector = Collector::create(kind, &settings).await?;
    collector.start().await?;
    let mut agent = Agent::enroll(&collector.token(1).await?).await?;
    agent.start()?;
    let store = collector.store().await?;
    agent.heartbeats(&store, 2).await;

    let wrong = fleet("services = [{ type = \"process\", nmae = \"sleep\" }]");
    let error = apply(&collector, &wrong, false)
        .await
        .expect_err("a wrong key");
    let error = format!("{error:#}");
    ensure!(error.contains("did you mean `name`?"), "{error}");

    let with = fleet(
        "interval_ms = 700\n\
         services = [{ type = \"process\", name = \"sleep\" }, { type = \"tcp\", address = \"192.0.2.1:9\" }]\n\
         logs = [{ path = \"/nowhere/*\", rules = [{ name = \"e\", pattern = \"e\" }] }]\n\
         without = [\"process:watchkeep-agent\"]",
    );
    let plan = apply(&collector, &with, true).await?;
    let line = format!(
        "add policy of site {SITE}: interval inherited to 700 ms, + process:sleep, \
         + tcp:192.0.2.1:9, + log:e, + without process:watchkeep-agent"
    );
    ensure!(plan.contains(&line), "{plan}");
    let view = policy(&collector, agent.host()).await?;
    ensure!(keys(&view) == ["process:watchkeep-agent"], "{view}");

    // The collector runs all the while: nobody restarts it.
    let plan = apply(&collector, &with, false).await?;
    ensure!(plan.contains(&line), "{plan}");
    settled(&collector, agent.host(), |view| {
        view["interval_ms"]["item"] == 700
            && state(view, "process:sleep") == "watched"
            && state(view, "tcp:192.0.2.1:9") == "refused"
            && view["logs"][0]["state"] == "refused"
    })
    .await;
    let view = policy(&collector, agent.host()).await?;
    ensure!(
        keys(&view) == ["process:sleep", "tcp:192.0.2.1:9"],
        "{view}"
    );
    ensure!(view["services"][0]["from"] == "site", "{view}");
    ensure!(
        view["without"][0]["item"] == "process:watchkeep-agent",
        "{view}"
    );
    let words = host_policy(&collector, agent.host(), &[]).await?;
    ensure!(words.contains("Its agent runs this policy."), "{words}");
    let again = apply(&collector, &with, false).await?;
    ensure!(again.trim() == "Nothing to change.", "{again}");

    let plan = apply(&collector, &fleet(""), false).await?;
    ensure!(
        plan.contains(&format!("remove policy of site {SITE}:")),
        "{plan}"
    );
    settled(&collector, agent.host(), |view| {
        keys(view) == ["process:watchkeep-agent"]
            && state(view, "process:watchkeep-agent") == "watched"
            && view["version"] == view["running_version"]
    })
    .await;
    agent.stop().await?;
    asleep.kill()?;
    collector.stop().await
}

fn fleet(policy: &str) -> String {
    let section = if policy.is_empty() {
        String::new()
    } else {
        format!("[client.site.policy]\n{policy}\n")
    };
    format!(
        "[[client]]\nname = \"{CLIENT}\"\n[[client.contract]]\nname = \"{CONTRACT}\"\nzone = \"UTC\"\n\
         target_pct = 99.5\n[[client.site]]\nname = \"{SITE}\"\ncontract = \"{CONTRACT}\"\n{section}"
    )
}

async fn apply(collector: &Collector, text: &str, dry_run: bool) -> Result<String> {
    let path = collector.path("policy-fleet.toml");
    std::fs::write(&path, text)?;
    let path = path.to_str().context("the path is UTF-8")?;
    let mut arguments = vec!["apply", "-f", path];
    arguments.extend(dry_run.then_some("--dry-run"));
    collector.run(&arguments).await
}

async fn host_policy(collector: &Collector, host: HostId, more: &[&str]) -> Result<String> {
    let host = host.to_string();
    let mut arguments = vec!["host", "policy", host.as_str()];
    arguments.extend(more);
    collector.run(&arguments).await
}

async fn policy(collector: &Collector, host: HostId) -> Result<Json> {
    Ok(serde_json::from_str(
        &host_policy(collector, host, &["--json"]).await?,
    )?)
}

/// Waits until the host's policy and what its agent reported about it are as expected.
async fn settled(collector: &Collector, host: HostId, wanted: impl Fn(&Json) -> bool) {
    wait_for("the agent follows the policy", SOON, async || {
        let view = policy(collector, host).await?;
        ensure!(wanted(&view), "{view}");
        Ok(Some(()))
    })
    .await;
}

fn services(view: &Json) -> impl Iterator<Item = &Json> {
    view["services"].as_array().into_iter().flatten()
}

fn keys(view: &Json) -> Vec<&str> {
    services(view)
        .filter_map(|one| one["key"].as_str())
        .collect()
}

fn state<'a>(view: &'a Json, key: &str) -> &'a str {
    let found = services(view).find(|one| one["key"] == key);
    found
        .and_then(|one| one["state"].as_str())
        .unwrap_or_default()
}
