//! The main job, whole: a machine breaks, a ticket opens by itself with its evidence, the machine
//! recovers, the ticket resolves by itself; and not one line of a watched log is lost or counted
//! twice.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use watchkeep_shared::{
    HostId,
    ids::random_uuid,
    wire::policy::{LogCheck, LogRule, ServiceCheck},
};
use watchkeep_tests::{
    both_stores,
    clock::wall_now,
    harness::{
        Agent, Collector, DatabaseKind, Settings,
        burn::{self, Burn},
        process::Process,
        wait_for,
    },
    store::Store,
};

use crate::views::{self, Ticket};

/// For anything that follows from something by itself.
const SOON: Duration = Duration::from_mins(1);
/// From the death of a watched process to its ticket, milliseconds.
const DEATH_TO_TICKET_MS: i64 = 2_000;

both_stores!(
    breaches_open_tickets_that_resolve_by_themselves,
    every_log_line_counts_once
);

async fn breaches_open_tickets_that_resolve_by_themselves(kind: DatabaseKind) -> Result<()> {
    let work = tempfile::tempdir()?;
    let service = Watched::new(work.path())?;
    let settings = Settings {
        services: vec![ServiceCheck::process(service.name())],
        ..Settings::default()
    };
    let mut collector = Collector::create(kind, &settings).await?;
    collector.start().await?;
    let mut running = service.start()?;
    let mut agent = Agent::enroll(&collector.token(1).await?).await?;
    agent.start()?;
    let store = collector.store().await?;
    agent.heartbeats(&store, 3).await;

    cpu_story(&store, agent.host(), work.path()).await?;
    running = service_story(&store, agent.host(), &service, running).await?;

    let report = collector.report().await?;
    let host = views::host_report(&report, agent.host())?;
    assert_eq!(views::outages(&host), [], "{host}");
    assert!(views::state_ms(&host, "up_live") > 1_000, "{host}");
    agent.stop().await?;
    running.kill()?;
    collector.stop().await
}

async fn cpu_story(store: &Store, host: HostId, work: &Path) -> Result<()> {
    const CHECK: &str = "cpu.nice_pct";
    let burn = Burn::start(work)?;
    let ticket = open_ticket(store, host, CHECK).await;
    let threshold = ticket.alert_evidence["threshold"]
        .as_f64()
        .context("a threshold")?;
    let value = ticket.alert_evidence["value"].as_f64().context("a value")?;
    assert!(value > threshold, "{ticket:?}");
    wait_for(
        "the hour before the breach is with the ticket",
        SOON,
        async || {
            let tickets = views::tickets(store, host, CHECK).await?;
            Ok(tickets
                .iter()
                .any(|ticket| !ticket.history.is_null())
                .then_some(()))
        },
    )
    .await;
    // The ticket's page shows the first list that came after it was opened.
    wait_for("the busiest processes are with it", SOON, async || {
        let lists = views::busiest_processes(store, host, ticket.opened_at).await?;
        let first = lists.first().context("the agent sent none")?;
        let busy = first["by_cpu"].as_array().context("by_cpu")?;
        let burner = busy.iter().find(|one| one["name"] == burn::NAME);
        let burner = burner.with_context(|| format!("the burner is not among {first}"))?;
        let share = burner["cpu_pct"].as_f64().context("cpu_pct")?;
        anyhow::ensure!(share > 1.0, "{first}");
        Ok(Some(()))
    })
    .await;
    drop(burn);
    let ticket = resolved_ticket(store, host, CHECK).await;
    assert!(!ticket.touched_by_human);
    assert!(ticket.cleared_at.is_some());
    Ok(())
}

async fn service_story(
    store: &Store,
    host: HostId,
    service: &Watched,
    running: Process,
) -> Result<Process> {
    let check = format!("service:process:{}", service.name());
    assert!(views::tickets(store, host, &check).await?.is_empty());
    let died = wall_now().0;
    running.kill()?;
    let ticket = open_ticket(store, host, &check).await;
    let known = ticket
        .opened_at
        .max(ticket.recorded_at)
        .max(ticket.raised_at);
    let took_ms = known - died;
    assert!(
        (0..=DEATH_TO_TICKET_MS).contains(&took_ms),
        "{took_ms} ms: {ticket:?}"
    );
    let running = service.start()?;
    resolved_ticket(store, host, &check).await;
    Ok(running)
}

async fn every_log_line_counts_once(kind: DatabaseKind) -> Result<()> {
    let dir = Agent::directory()?;
    let path = dir.path().join("logs/app.log");
    let mut log = File::create(&path)?;
    let settings = Settings {
        logs: vec![LogCheck {
            path: path.to_str().context("the path is UTF-8")?.to_owned(),
            rules: vec![LogRule {
                name: "errors".to_owned(),
                pattern: "ERROR [0-9]+".to_owned(),
                lines_per_minute: None,
            }],
            record_start: None,
            journal: None,
            event_log: None,
        }],
        ..Settings::default()
    };
    let mut collector = Collector::create(kind, &settings).await?;
    collector.start().await?;
    let mut agent = Agent::enroll_in(dir, &collector.token(1).await?).await?;
    agent.start()?;
    let store = collector.store().await?;
    // The policy comes with the answer to the first heartbeat.
    agent.heartbeats(&store, 3).await;

    write_lines(&mut log, 0..5)?;
    counted(&store, agent.host(), 5).await;
    open_ticket(&store, agent.host(), "log:errors").await;

    // Lines just before and just after a rotation, and one that is written in two halves.
    write_lines(&mut log, 5..12)?;
    std::fs::rename(&path, path.with_extension("log.1"))?;
    let mut log = File::create(&path)?;
    write_lines(&mut log, 12..20)?;
    write!(log, "ERROR 2")?;
    log.flush()?;
    counted(&store, agent.host(), 20).await;
    writeln!(log, "0 in two halves")?;
    counted(&store, agent.host(), 21).await;

    // A restart neither forgets lines nor reads them again.
    agent.kill()?;
    write_lines(&mut log, 21..25)?;
    agent.start()?;
    counted(&store, agent.host(), 25).await;
    let more = agent.heartbeats(&store, 0).await;
    agent.heartbeats(&store, more + 4).await;
    assert_eq!(views::log_matches(&store, agent.host()).await?, 25);
    agent.stop().await?;
    collector.stop().await
}

/// Each number gives a line that matches and one that does not.
fn write_lines(log: &mut File, numbers: std::ops::Range<u32>) -> Result<()> {
    for n in numbers {
        writeln!(log, "ERROR {n} it broke\ninfo {n} it works")?;
    }
    Ok(log.flush()?)
}

async fn counted(store: &Store, host: HostId, lines: u64) {
    wait_for(
        &format!("{lines} log lines are counted"),
        SOON,
        async || {
            let count = views::log_matches(store, host).await?;
            assert!(
                count <= lines,
                "{count} matches are counted, {lines} lines were written"
            );
            anyhow::ensure!(count == lines, "{count} are");
            Ok(Some(()))
        },
    )
    .await;
}

async fn open_ticket(store: &Store, host: HostId, check: &str) -> Ticket {
    only_ticket(store, host, check, |state| {
        !matches!(state, "resolved" | "closed")
    })
    .await
}

async fn resolved_ticket(store: &Store, host: HostId, check: &str) -> Ticket {
    only_ticket(store, host, check, |state| state == "resolved").await
}

/// Waits until the check's one ticket is in a state; a second one fails the test.
async fn only_ticket(
    store: &Store,
    host: HostId,
    check: &str,
    wanted: impl Fn(&str) -> bool,
) -> Ticket {
    wait_for(&format!("the ticket for {check}"), SOON, async || {
        let tickets = views::tickets(store, host, check).await?;
        assert!(tickets.len() <= 1, "more than one ticket: {tickets:?}");
        let ticket = tickets.into_iter().next().context("there is no ticket")?;
        anyhow::ensure!(wanted(&ticket.state), "it is {}", ticket.state);
        Ok(Some(ticket))
    })
    .await
}

/// A program under a name that no other process of the machine has.
struct Watched {
    program: PathBuf,
    log: PathBuf,
}

impl Watched {
    fn new(dir: &Path) -> Result<Self> {
        let unique = random_uuid().simple().to_string();
        // A process's name is cut after 15 bytes.
        let program = dir.join(format!("wk-{}", &unique[..12]));
        std::fs::copy("/bin/sleep", &program).context("/bin/sleep is needed")?;
        Ok(Self {
            program,
            log: dir.join("watched.log"),
        })
    }

    fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn start(&self) -> Result<Process> {
        let mut command = Command::new(&self.program);
        command.arg("3600");
        Process::start("the watched process", command, &self.log)
    }
}
