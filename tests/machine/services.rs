//! What happens to a unit of systemd is a ticket at once, and the ticket goes when the unit is back.

use anyhow::Result;
use watchkeep_shared::wire::policy::ServiceCheck;
use watchkeep_tests::{clock::wall_now, views::Ticket};

use crate::site::{Site, say};

/// From the death of a unit to its committed ticket, milliseconds: what the product promises.
const DEATH_TO_TICKET_MS: i64 = 1_000;

const UNIT: &str = "story.service";
const PROGRAM: &str = "story-daemon";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_is_a_ticket_at_once() -> Result<()> {
    let check = ServiceCheck::Process {
        name: PROGRAM.to_owned(),
        min: None,
        max: None,
    };
    let site = Site::start(vec![check]).await?;
    let check = format!("service:process:{PROGRAM}");
    let known = start_unit(&site, &check).await?;
    // Once: the third start within two minutes would be a restart loop.
    killed(&site, &check, known + 1).await?;
    let host = site.report().await?;
    assert_eq!(watchkeep_tests::views::outages(&host), [], "{host}");
    site.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_dies_or_loops_is_a_ticket_at_once() -> Result<()> {
    let check = ServiceCheck::Systemd {
        unit: UNIT.to_owned(),
    };
    let site = Site::start(vec![check]).await?;
    let check = format!("service:systemd:{UNIT}");
    let known = start_unit(&site, &check).await?;
    let died = wall_now().0;
    systemctl(&site, &["stop", UNIT]).await?;
    let ticket = site.open_ticket(&check, known + 1).await;
    at_once("systemctl stop", died, &ticket);
    systemctl(&site, &["start", UNIT]).await?;
    site.resolved_ticket(&check, known + 1).await;
    killed(&site, &check, known + 2).await?;

    // Restarted for ever: never failed for long enough to be called that.
    let known = site.tickets(&check).await?;
    install_unit(&site, "/bin/false", "Restart=always\nRestartSec=200ms").await?;
    let ticket = site.open_ticket(&check, known + 1).await;
    say(&format!("restart loop: {}", ticket.alert_evidence));
    assert!(ticket.alert_evidence.to_string().contains("restarts"));
    site.end().await
}

/// Starts the unit; how many tickets there were because it was not there before.
async fn start_unit(site: &Site, check: &str) -> Result<usize> {
    install_unit(site, &running(), "Restart=no").await?;
    site.all_resolved(check).await;
    site.more_heartbeats(2).await;
    site.tickets(check).await
}

/// The unit's main process is killed, which is ticket `number`, and comes back.
async fn killed(site: &Site, check: &str, number: usize) -> Result<()> {
    let died = wall_now().0;
    kill_main_process(site).await?;
    let ticket = site.open_ticket(check, number).await;
    at_once("kill -9", died, &ticket);
    systemctl(site, &["start", UNIT]).await?;
    site.resolved_ticket(check, number).await;
    Ok(())
}

fn running() -> String {
    format!("/usr/local/bin/{PROGRAM} 3600")
}

/// Says how long it took, and fails if that is longer than promised.
fn at_once(what: &str, died: i64, ticket: &Ticket) {
    let known = ticket
        .opened_at
        .max(ticket.recorded_at)
        .max(ticket.raised_at);
    let took_ms = known - died;
    say(&format!("{what}: a committed ticket after {took_ms} ms"));
    assert!(
        (0..=DEATH_TO_TICKET_MS).contains(&took_ms),
        "{what}: {took_ms} ms: {ticket:?}"
    );
}

/// Makes the unit, or changes it, and starts it again.
async fn install_unit(site: &Site, program: &str, settings: &str) -> Result<()> {
    let unit =
        format!("[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={program}\n{settings}\n");
    let path = site.machine.root().join("etc/systemd/system").join(UNIT);
    std::fs::write(path, unit)?;
    let script = format!(
        "test -e /usr/local/bin/{PROGRAM} || cp /bin/sleep /usr/local/bin/{PROGRAM}
        systemctl daemon-reload
        systemctl restart --no-block {UNIT}"
    );
    site.machine.shell(&script).await?;
    Ok(())
}

async fn systemctl(site: &Site, arguments: &[&str]) -> Result<()> {
    site.machine.run("systemctl", arguments).await?;
    Ok(())
}

async fn kill_main_process(site: &Site) -> Result<()> {
    let script = format!("kill -KILL $(systemctl show --property=MainPID --value {UNIT})");
    site.machine.shell(&script).await?;
    Ok(())
}
