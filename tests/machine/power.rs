//! A machine that goes down and comes back: the record says for how long and whether anybody
//! announced it, and people are notified only of what was not planned.

use anyhow::Result;
use watchkeep_tests::{
    clock::wall_now,
    harness::{agent::heartbeats, wait_for},
    views,
};

use crate::site::{SOON, Site, say};

/// How long a machine that was shut down stays off, milliseconds.
const OFF_MS: i64 = 4_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_reboot_is_down_time_and_no_surprise() -> Result<()> {
    let mut site = Site::start(Vec::new()).await?;
    let began = wall_now().0;
    site.machine.shut_down("reboot").await?;
    let off = wall_now().0;
    let on = wait_for("a while without power", SOON, async || {
        let now = wall_now().0;
        Ok((now >= off + OFF_MS).then_some(now))
    })
    .await;
    site.machine.boot().await?;
    site.more_heartbeats(4).await;

    assert_eq!(site.goodbyes().await?, ["shutdown"]);
    assert_eq!(site.alerts("unexpected-reboot").await?, 0);
    down(&site, true, (on - off, wall_now().0 - began)).await?;
    site.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_is_down_time_and_a_surprise() -> Result<()> {
    let mut site = Site::start(Vec::new()).await?;
    let before = heartbeats(&site.store, site.host, 0).await;
    let began = wall_now().0;
    site.machine.cut_power().await?;
    let off = wall_now().0;
    site.alert("host-silent").await;
    let on = wall_now().0;
    site.machine.boot().await?;
    site.alert("unexpected-reboot").await;
    heartbeats(&site.store, site.host, before + 4).await;

    assert_eq!(site.goodbyes().await?, [""; 0]);
    // Silence and the reboot are one ticket: both are about the host.
    let tickets = views::tickets(&site.store, site.host, "host").await?;
    let opened = tickets[0].opened_at;
    assert!(
        tickets.iter().all(|ticket| ticket.opened_at == opened),
        "{tickets:?}"
    );
    down(&site, false, (on - off, wall_now().0 - began)).await?;
    site.end().await
}

/// The report has one outage: the machine was down, for about the time between the bounds, ms.
async fn down(site: &Site, clean: bool, (least, most): (i64, i64)) -> Result<()> {
    /// Half a second between heartbeats: so much of either end may be anybody's.
    const STEP_MS: i64 = 1_000;
    let host = site.report().await?;
    let evidence = views::evidence(&site.store, &host).await?;
    assert_eq!(
        views::outages(&host),
        [("down_reboot", "boot_changed")],
        "{host}\n{evidence}"
    );
    let cause = host["outages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|outage| &outage["cause"])
        .find(|cause| cause["kind"] == "boot_changed");
    assert_eq!(
        cause.map(|cause| cause["clean"] == true),
        Some(clean),
        "{host}"
    );
    let ms = views::state_ms(&host, "down_reboot");
    say(&format!(
        "down for {ms} ms; it was off for {least} of {most} ms"
    ));
    assert!(
        (least - STEP_MS..=most + STEP_MS).contains(&ms),
        "{ms} ms, not {least} to {most}: {host}\n{evidence}"
    );
    Ok(())
}
