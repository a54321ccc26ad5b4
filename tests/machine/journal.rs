//! The systemd journal, read by the packaged agent under its hardened unit: each entry counts once,
//! over restarts of the agent and of the machine.

use anyhow::Result;
use watchkeep_shared::wire::policy::{JournalFilter, LogCheck, LogRule};
use watchkeep_tests::{
    harness::{Settings, wait_for},
    views,
};

use crate::site::{SOON, Site};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_entry_counts_once_over_restarts_and_boots() -> Result<()> {
    let settings = Settings {
        logs: vec![LogCheck {
            path: "journal".to_owned(),
            rules: vec![LogRule {
                name: "story".to_owned(),
                pattern: "^story [0-9]+ broke$".to_owned(),
                lines_per_minute: None,
            }],
            record_start: None,
            journal: Some(JournalFilter {
                identifiers: vec!["story".to_owned()],
                ..JournalFilter::default()
            }),
            event_log: None,
        }],
        ..Settings::default()
    };
    let mut site = Site::with(&settings).await?;
    // The policy comes with the answer to the first heartbeat.
    site.more_heartbeats(3).await;
    write(&site, 5).await?;
    counted(&site, 5).await;
    site.open_ticket("log:story", 1).await;

    // What was written while the agent was away is read afterwards.
    site.machine
        .run("systemctl", &["stop", "watchkeep-agent"])
        .await?;
    write(&site, 3).await?;
    site.machine
        .run("systemctl", &["start", "watchkeep-agent"])
        .await?;
    counted(&site, 8).await;

    // The same over a reboot: the end of the boot before is read in the next one.
    site.machine
        .run("systemctl", &["stop", "watchkeep-agent"])
        .await?;
    write(&site, 4).await?;
    site.machine.shut_down("reboot").await?;
    site.machine.boot().await?;
    write(&site, 2).await?;
    counted(&site, 14).await;
    site.more_heartbeats(3).await;
    assert_eq!(views::log_matches(&site.store, site.host).await?, 14);
    site.end().await
}

/// Writes so many entries that match, and one after each that does not.
async fn write(site: &Site, count: usize) -> Result<()> {
    let script = format!(
        "for n in $(seq {count}); do
            echo \"story $n broke\" | systemd-cat -t story
            echo \"story $n broke\" | systemd-cat -t another
        done
        journalctl --sync"
    );
    site.machine.shell(&script).await?;
    Ok(())
}

async fn counted(site: &Site, count: u64) {
    wait_for(&format!("{count} entries"), SOON, async || {
        let found = views::log_matches(&site.store, site.host).await?;
        assert!(found <= count, "{found} of {count}");
        Ok((found == count).then_some(()))
    })
    .await;
}
