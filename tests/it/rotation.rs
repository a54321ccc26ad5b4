//! The certificate authority is replaced under a running collector and running agents: there, back,
//! and past agents that sleep through whole phases.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value as Json;
use watchkeep_shared::HostId;
use watchkeep_tests::{
    both_stores,
    harness::{Agent, Collector, DatabaseKind, Settings, wait_for},
    store::Store,
};

const SOON: Duration = Duration::from_mins(2);

both_stores!(
    the_authority_is_replaced_in_phases_each_with_a_way_back,
    an_agent_that_slept_past_the_end_says_what_to_do,
);

/// A collector, its store and agents.
struct World {
    collector: Collector,
    store: Store,
}

impl World {
    async fn new(kind: DatabaseKind) -> Result<Self> {
        let mut collector = Collector::create(kind, &Settings::default()).await?;
        collector.start().await?;
        let store = collector.store().await?;
        Ok(Self { collector, store })
    }

    async fn agent(&self) -> Result<Agent> {
        let mut agent = Agent::enroll(&self.collector.token(1).await?).await?;
        agent.start()?;
        agent.heartbeats(&self.store, 0).await;
        Ok(agent)
    }

    async fn rotate(&self, step: &[&str]) -> Result<String> {
        self.collector
            .run(&[&["ca", "rotate"], step].concat())
            .await
    }

    /// Takes a step that must be refused; returns why it was.
    async fn refused(&self, step: &str) -> Result<String> {
        match self.rotate(&[step]).await {
            Ok(_) => bail!("`ca rotate {step}` was not refused"),
            Err(error) => Ok(error.to_string()),
        }
    }

    async fn status(&self) -> Result<Json> {
        let text = self.collector.run(&["ca", "status", "--json"]).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until these hosts and no others are left in a phase.
    async fn only_left(&self, phase: &str, agents: &[&Agent]) {
        let mut wanted: Vec<HostId> = agents.iter().map(|agent| agent.host()).collect();
        wanted.sort_unstable();
        let what = format!("in phase {phase} {} hosts are left", wanted.len());
        wait_for(&what, SOON, async || {
            let status = self.status().await?;
            assert_eq!(status["phase"], phase);
            let mut left: Vec<HostId> = Vec::new();
            for host in status["hosts_left"].as_array().into_iter().flatten() {
                left.push(host["id"].as_str().unwrap_or_default().parse()?);
            }
            left.sort_unstable();
            anyhow::ensure!(left == wanted, "{status}");
            Ok(Some(()))
        })
        .await;
    }

    /// Waits for more heartbeats of an agent.
    async fn goes_on(&self, agent: &Agent) {
        let count = agent.heartbeats(&self.store, 0).await;
        agent.heartbeats(&self.store, count + 2).await;
    }
}

/// How many authorities an agent trusts, by what is on its disk.
fn trusted_on_disk(agent: &Agent) -> Result<usize> {
    let pem = std::fs::read_to_string(agent.state().join("ca.pem"))?;
    Ok(pem.matches("BEGIN CERTIFICATE").count())
}

/// Waits until an agent trusts one authority: it heard so from the running collector, which has
/// followed the command line then.
async fn trusts_one(agent: &Agent) {
    wait_for("the agent trusts one authority", SOON, async || {
        Ok((trusted_on_disk(agent)? == 1).then_some(()))
    })
    .await;
}

async fn the_authority_is_replaced_in_phases_each_with_a_way_back(
    kind: DatabaseKind,
) -> Result<()> {
    let mut world = World::new(kind).await?;
    let old_token = world.collector.token(2).await?;
    let mut awake = world.agent().await?;
    let mut sleeper = world.agent().await?;
    world.only_left("steady", &[]).await;
    sleeper.stop().await?;

    // Trust both, and back.
    world.rotate(&["begin"]).await?;
    world.only_left("trust_both", &[&sleeper]).await;
    assert_eq!(trusted_on_disk(&awake)?, 2);
    world.rotate(&["back"]).await?;
    trusts_one(&awake).await;
    world.only_left("steady", &[]).await;

    // Again, and on: an agent that is killed in the middle of it follows all the same.
    world.rotate(&["begin"]).await?;
    awake.kill()?;
    awake.start()?;
    world.only_left("trust_both", &[&sleeper]).await;
    world.rotate(&["reissue"]).await?;
    awake.kill()?;
    awake.start()?;
    world.only_left("reissue", &[&sleeper]).await;
    let refused = world.refused("finish").await?;
    assert!(refused.contains(&sleeper.host().to_string()), "{refused}");

    // A token from before still takes a machine in, and a new one does.
    let mut late = Agent::enroll(&old_token).await?;
    late.start()?;
    let mut later = world.agent().await?;
    // The one that slept through a whole phase follows at once.
    sleeper.start()?;
    world.only_left("reissue", &[]).await;

    // Back, and forward again: everybody renews twice.
    world.rotate(&["back"]).await?;
    world.only_left("trust_both", &[]).await;
    world.rotate(&["reissue"]).await?;
    world.only_left("reissue", &[]).await;
    world.rotate(&["finish"]).await?;
    world.only_left("dropped", &[]).await;
    for agent in [&awake, &sleeper, &late, &later] {
        world.goes_on(agent).await;
        trusts_one(agent).await;
    }
    // The old token names a CA that is gone, and the agent says so.
    let Err(refused) = Agent::enroll(&old_token).await else {
        bail!("a token of the dropped authority was taken");
    };
    let refused = refused.to_string();
    assert!(
        refused.contains("replaced its certificate authority"),
        "{refused}"
    );

    // Back from the end, and after a restart of everything.
    world.collector.stop().await?;
    awake.kill()?;
    world.collector.start().await?;
    awake.start()?;
    world.goes_on(&awake).await;
    world.rotate(&["back"]).await?;
    world.only_left("reissue", &[]).await;
    world.goes_on(&awake).await;
    for agent in [&mut awake, &mut sleeper, &mut late, &mut later] {
        agent.stop().await?;
    }
    world.collector.stop().await
}

async fn an_agent_that_slept_past_the_end_says_what_to_do(kind: DatabaseKind) -> Result<()> {
    let mut world = World::new(kind).await?;
    let mut awake = world.agent().await?;
    let mut sleeper = world.agent().await?;
    sleeper.stop().await?;
    world.rotate(&["begin"]).await?;
    world.only_left("trust_both", &[&sleeper]).await;
    world.rotate(&["reissue"]).await?;
    world.only_left("reissue", &[&sleeper]).await;
    world.refused("finish").await?;
    world.rotate(&["finish", "--force"]).await?;
    world.only_left("dropped", &[&sleeper]).await;
    trusts_one(&awake).await;
    world.goes_on(&awake).await;

    sleeper.start()?;
    cut_off(&sleeper).await;
    // The next rotation would end its way back, and is refused for that.
    let refused = world.refused("begin").await?;
    assert!(refused.contains(&sleeper.host().to_string()), "{refused}");
    // The way back lets it follow, and then nobody is left.
    world.rotate(&["back"]).await?;
    world.only_left("reissue", &[]).await;
    world.goes_on(&sleeper).await;
    world.rotate(&["finish"]).await?;
    world.only_left("dropped", &[]).await;

    // A second rotation, past another sleeper that gets a new key instead.
    sleeper.stop().await?;
    world.rotate(&["begin"]).await?;
    world.only_left("trust_both", &[&sleeper]).await;
    world.rotate(&["reissue"]).await?;
    world.only_left("reissue", &[&sleeper]).await;
    world.rotate(&["finish", "--force"]).await?;
    trusts_one(&awake).await;
    sleeper.start()?;
    cut_off(&sleeper).await;
    let token = world.collector.rekey(sleeper.host()).await?;
    sleeper.stop().await?;
    sleeper.enroll_again(&token).await?;
    sleeper.start()?;
    world.goes_on(&sleeper).await;
    world.only_left("dropped", &[]).await;
    awake.stop().await?;
    sleeper.stop().await?;
    world.collector.stop().await
}

/// Waits until an agent says that it is cut off, and what to do.
async fn cut_off(agent: &Agent) {
    wait_for("the agent says what to do", SOON, async || {
        let status = agent.status().await?;
        let error = status["last_error"].as_str().unwrap_or_default();
        let says_why = error.contains("replaced its certificate authority")
            && error.contains("watchkeep-agent enroll --force");
        Ok((status["connection"] == "wrong_server" && says_why).then_some(()))
    })
    .await;
}
