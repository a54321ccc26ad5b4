//! A collector here, and a machine that the agent's package was installed on and enrolled.

use std::{io::Write as _, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value as Json;
use watchkeep_shared::{HostId, wire::policy::ServiceCheck};
use watchkeep_tests::{
    harness::{
        Collector, DatabaseKind, Machine, Settings, agent::heartbeats, machine::package, wait_for,
    },
    store::Store,
    views::{self, Ticket},
};

/// For anything that follows by itself.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// Where the agent's package keeps its state.
pub(crate) const STATE: &str = "/var/lib/watchkeep-agent";

pub(crate) struct Site {
    // Before the collector: the agent's last words must have a listener.
    pub(crate) machine: Machine,
    pub(crate) collector: Collector,
    pub(crate) store: Store,
    pub(crate) host: HostId,
}

impl Site {
    /// Everything runs, and heartbeats arrive.
    pub(crate) async fn start(services: Vec<ServiceCheck>) -> Result<Self> {
        let settings = Settings {
            services,
            ..Settings::default()
        };
        Self::with(&settings).await
    }

    /// The same with a collector's settings.
    pub(crate) async fn with(settings: &Settings) -> Result<Self> {
        let mut collector = Collector::create(DatabaseKind::Sqlite, settings).await?;
        collector.start().await?;
        let mut machine = Machine::create().await?;
        machine.boot().await?;
        let deb = package("watchkeep-agent", ".deb")?;
        std::fs::copy(deb, machine.root().join("root/agent.deb"))?;
        machine.run("dpkg", &["-i", "/root/agent.deb"]).await?;
        let host = enrol(&machine, &collector).await?;
        let store = collector.store().await?;
        heartbeats(&store, host, 3).await;
        Ok(Self {
            machine,
            collector,
            store,
            host,
        })
    }

    /// Waits for `count` more heartbeats than there are.
    pub(crate) async fn more_heartbeats(&self, count: i64) {
        let now = heartbeats(&self.store, self.host, -1).await;
        heartbeats(&self.store, self.host, now + count).await;
    }

    /// How many tickets a check has had.
    pub(crate) async fn tickets(&self, check: &str) -> Result<usize> {
        Ok(views::tickets(&self.store, self.host, check).await?.len())
    }

    /// Waits until a check has no open ticket.
    pub(crate) async fn all_resolved(&self, check: &str) {
        wait_for(&format!("no open ticket for {check}"), SOON, async || {
            let tickets = views::tickets(&self.store, self.host, check).await?;
            let done = tickets.iter().all(|ticket| ticket.state == "resolved");
            Ok(done.then_some(()))
        })
        .await;
    }

    /// Waits for the newest ticket of a check to be open.
    pub(crate) async fn open_ticket(&self, check: &str, number: usize) -> Ticket {
        self.ticket(check, number, |state| {
            !matches!(state, "resolved" | "closed")
        })
        .await
    }

    /// Waits for it to be resolved.
    pub(crate) async fn resolved_ticket(&self, check: &str, number: usize) -> Ticket {
        self.ticket(check, number, |state| state == "resolved")
            .await
    }

    /// Waits until the check's alert `number`, from 1, is there and its ticket in a state.
    async fn ticket(&self, check: &str, number: usize, wanted: impl Fn(&str) -> bool) -> Ticket {
        wait_for(&format!("alert {number} for {check}"), SOON, async || {
            let tickets = views::tickets(&self.store, self.host, check).await?;
            assert!(tickets.len() <= number, "too many: {tickets:?}");
            let ticket = tickets
                .into_iter()
                .nth(number - 1)
                .context("it is not there")?;
            anyhow::ensure!(wanted(&ticket.state), "its ticket is {}", ticket.state);
            Ok(Some(ticket))
        })
        .await
    }

    /// How many alerts of a rule there were.
    pub(crate) async fn alerts(&self, rule: &str) -> Result<i64> {
        let host = self.store.id(self.host.uuid());
        let sql =
            format!("SELECT COUNT(*) FROM alert WHERE rule_id = '{rule}' AND host_id = {host}");
        self.store.int(&sql).await
    }

    /// Waits until a rule has raised an alert.
    pub(crate) async fn alert(&self, rule: &str) {
        wait_for(&format!("an alert of {rule}"), SOON, async || {
            Ok((self.alerts(rule).await? > 0).then_some(()))
        })
        .await;
    }

    /// The reasons that the agent gave when it went, in order.
    pub(crate) async fn goodbyes(&self) -> Result<Vec<String>> {
        let sql = format!(
            "SELECT detail FROM evidence WHERE kind = 'goodbye' AND host_id = {} \
             ORDER BY valid_from",
            self.store.id(self.host.uuid())
        );
        let rows = self.store.rows(&sql).await?;
        rows.iter()
            .map(|row| {
                let detail: Json = serde_json::from_str(row[0].text().context("evidence.detail")?)?;
                let reason = detail["reason"].as_str();
                Ok(reason.with_context(|| detail.to_string())?.to_owned())
            })
            .collect()
    }

    /// The host's part of this month's report.
    pub(crate) async fn report(&self) -> Result<Json> {
        views::host_report(&self.collector.report().await?, self.host)
    }

    /// Ends everything in order.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.machine.shut_down("poweroff").await?;
        self.collector.stop().await
    }
}

/// A figure, for people who read the test's output.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Enrols the agent as the documentation says and starts it; the host that it became.
pub(crate) async fn enrol(machine: &Machine, collector: &Collector) -> Result<HostId> {
    let token = collector.token(1).await?.to_string();
    let user = ["-u", "watchkeep-agent", "--"];
    let verb = ["watchkeep-agent", "enroll", &token];
    machine
        .run("runuser", &[&user[..], &verb[..]].concat())
        .await?;
    machine
        .run("systemctl", &["start", "watchkeep-agent"])
        .await?;
    host_of(machine)
}

/// The host that the machine's agent is.
pub(crate) fn host_of(machine: &Machine) -> Result<HostId> {
    let path = machine.root().join(&STATE[1..]).join("identity.json");
    let identity: Json = serde_json::from_slice(&std::fs::read(path)?)?;
    let host = identity["host"].as_str();
    Ok(host.context("identity.json names the host")?.parse()?)
}
